//! `resolver` and `resolver_timeout`: who is asked for the addresses of names.

use std::net::Ipv6Addr;
use std::ops::Range;
use std::time::Duration;

use super::Check;
use crate::config::error::Mistake;
use crate::config::file::Top;
use crate::config::read::nearest;
use crate::config::units::{self, Wrong};
use crate::config::{ResolverRules, UpstreamAddress};

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
                match self.word(word, entry.span(), &mut rules) {
                    Ok(true) => off = Some(entry.span()),
                    Ok(false) => {}
                    Err(mistake) => {
                        is_wrong = true;
                        self.mistakes.push(mistake);
                    }
                }
            }
        }
        if let Some(span) = off.filter(|_| !rules.ipv4 && !rules.ipv6) {
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

    /// Takes one word; whether it has switched a kind of addresses off.
    fn word(&mut self, word: &str, span: Range<usize>, rules: &mut ResolverRules) -> Result<bool, Mistake> {
        let clean = word.trim_end_matches(';');
        if clean != word {
            let mistake = Mistake::new(span, "there is no `;` at the end of a value");
            return Err(mistake.help(format!("write `{clean}`")));
        }
        let Some((name, value)) = word.split_once('=') else {
            rules.servers.push(server(word).map_err(|Wrong { message, help }| {
                Mistake::new(span, format!("`resolver`: {message}")).maybe_help(help)
            })?);
            return Ok(false);
        };
        match (name, value) {
            ("valid", time) => {
                let time = match units::time(time) {
                    Ok(time) if time < Duration::from_secs(1) => {
                        Err("answers are good for 1s at least".to_owned())
                    }
                    read => read.map_err(|wrong| wrong.message),
                };
                rules.valid = Some(time.map_err(|message| {
                    Mistake::new(span, format!("`valid`: {message}")).help("write a time, as in `valid=30s`")
                })?);
                Ok(false)
            }
            ("ipv4" | "ipv6", "on") => Ok(false),
            ("ipv4" | "ipv6", "off") => {
                *(if name == "ipv4" { &mut rules.ipv4 } else { &mut rules.ipv6 }) = false;
                Ok(true)
            }
            ("ipv4" | "ipv6", _) => {
                let mistake = Mistake::new(span, format!("`{name}` is `on` or `off`, not `{value}`"));
                Err(mistake.help(format!("write `{name}=off`")))
            }
            _ => {
                let mistake = Mistake::new(span, format!("`{name}` is not a parameter of `resolver`"));
                Err(match nearest(name, &PARAMETERS) {
                    Some(meant) => mistake.help(format!("did you mean `{meant}={value}`?")),
                    None => mistake.help("it has `valid=TIME`, `ipv4=off` and `ipv6=off`"),
                })
            }
        }
    }
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
