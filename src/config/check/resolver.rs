//! `resolver` and `resolver_timeout`: who is asked for the addresses of names.

use std::net::Ipv6Addr;

use super::Check;
use crate::config::error::Mistake;
use crate::config::file::Top;
use crate::config::read::nearest;
use crate::config::units::{self, Wrong};
use crate::config::{ResolverRules, UpstreamAddress};
use crate::upstream::resolve::SHORTEST;

/// What may stand among the addresses.
const PARAMETERS: [&str; 3] = ["valid", "ipv4", "ipv6"];

/// The port of DNS, RFC 1035 §4.2.
const PORT: u16 = 53;

impl Check<'_> {
    pub(super) fn resolver(&mut self, file: &Top) -> ResolverRules {
        let default = ResolverRules::default();
        let timeout = self.time(&file.resolver_timeout, "resolver_timeout").unwrap_or(default.timeout);
        let mut rules = ResolverRules { timeout, ..default };
        let Some(written) = file.resolver.given() else { return rules };
        let (mut off, mut is_wrong) = (None, false);
        for entry in &written.get_ref().0 {
            for word in entry.get_ref().split_whitespace() {
                if let Err(Wrong { message, help }) = take(word, &mut rules) {
                    is_wrong = true;
                    self.mistakes.push(Mistake::new(entry.span(), message).maybe_help(help));
                }
                if !rules.ipv4 && !rules.ipv6 {
                    off.get_or_insert(entry.span());
                }
            }
        }
        if let Some(span) = off {
            let mistake = Mistake::new(span, "with `ipv4=off` and `ipv6=off` no address is left to ask for");
            self.mistakes.push(mistake.help("leave one of them out"));
        } else if rules.servers.is_empty() && !is_wrong {
            let mistake = Mistake::new(written.span(), "`resolver` names no DNS server");
            let help = "write its address, as in `resolver = \"10.0.0.2 valid=30s\"`, or leave `resolver` out: \
                        then those of /etc/resolv.conf are asked";
            self.mistakes.push(mistake.help(help));
        }
        rules
    }
}

/// Takes one word of `resolver`.
fn take(word: &str, rules: &mut ResolverRules) -> Result<(), Wrong> {
    let clean = word.trim_end_matches(';');
    if clean != word {
        return Err(Wrong::new("there is no `;` at the end of a value", format!("write `{clean}`")));
    }
    if word.starts_with('=') || word.ends_with('=') {
        let help = "write a parameter without blanks: `valid=30s`, `ipv6=off`";
        return Err(Wrong::new(format!("`resolver`: there is nothing to go with `{word}`"), help));
    }
    let Some((name, value)) = word.split_once('=') else {
        let server = server(word)
            .map_err(|wrong| Wrong { message: format!("`resolver`: {}", wrong.message), ..wrong })?;
        rules.servers.push(server);
        return Ok(());
    };
    match (name, value) {
        ("valid", time) => {
            let time = match units::time(time) {
                Ok(time) if time < SHORTEST => Err("answers are good for 1s at least".to_owned()),
                read => read.map_err(|wrong| wrong.message),
            };
            let wrong =
                |message| Wrong::new(format!("`valid`: {message}"), "write a time, as in `valid=30s`");
            rules.valid = Some(time.map_err(wrong)?);
        }
        ("ipv4" | "ipv6", "on") => {}
        ("ipv4", "off") => rules.ipv4 = false,
        ("ipv6", "off") => rules.ipv6 = false,
        ("ipv4" | "ipv6", _) => {
            let message = format!("`{name}` is `on` or `off`, not `{value}`");
            return Err(Wrong::new(message, format!("write `{name}=off`")));
        }
        _ => {
            let help = match nearest(name, &PARAMETERS) {
                Some(meant) => format!("did you mean `{meant}={value}`?"),
                None => "it has `valid=TIME`, `ipv4=off` and `ipv6=off`".to_owned(),
            };
            return Err(Wrong::new(format!("`{name}` is not a parameter of `resolver`"), help));
        }
    }
    Ok(())
}

/// A DNS server: an address or a name, with its port unless that is 53.
fn server(text: &str) -> Result<UpstreamAddress, Wrong> {
    if text.parse::<Ipv6Addr>().is_ok() {
        let message = format!("`{text}` is an IPv6 address without brackets");
        return Err(Wrong::new(message, format!("write `[{text}]`")));
    }
    if text.contains("://") || text.starts_with("unix:") {
        return Err(Wrong::new(
            format!("`{text}` is no address of a DNS server"),
            "write an address with a port, if it is not 53: `10.0.0.2:5353`",
        ));
    }
    let (host, port) = units::host_and_port(text, false)?;
    units::named_or_ip(host, port.unwrap_or(PORT))
}
