//! The servers of an upstream: their addresses, and what stands behind them.

use std::num::NonZeroU32;
use std::ops::Range;

use serde_spanned::Spanned;

use super::MANY;
use crate::config::error::{Mistake, MistakeKind};
use crate::config::file::{self, TextOr, Value};
use crate::config::read::nearest;
use crate::config::units::{self, Wrong};
use crate::config::{UpstreamAddress, UpstreamServer};

/// What is wrong with a parameter, and what would be right.
type Refusal = (String, String);

/// The servers that can be used, each with its place.
pub(super) fn servers(
    entries: &[Spanned<TextOr<file::UpstreamServer>>],
    mistakes: &mut Vec<Mistake>,
) -> Vec<(UpstreamServer, Range<usize>)> {
    let read = |entry: &Spanned<_>| server(entry, mistakes).map(|server| (server, entry.span()));
    entries.iter().filter_map(read).collect()
}

fn server(
    entry: &Spanned<TextOr<file::UpstreamServer>>,
    mistakes: &mut Vec<Mistake>,
) -> Option<UpstreamServer> {
    match entry.get_ref() {
        TextOr::Text(text) => {
            let mut words = text.split_whitespace();
            let name = words.next().unwrap_or_default();
            let mut server = address(name, entry.span(), mistakes);
            refuse_srv_name(server.as_ref(), entry.span(), mistakes);
            for word in words {
                let word = word.trim_end_matches(';');
                let read = match word.strip_prefix("service=") {
                    Some(service) => of_service(server.as_mut(), service, name),
                    None => parameter(server.as_mut(), word, name),
                };
                if let Err((message, help)) = read {
                    mistakes.push(Mistake::new(entry.span(), message).help(help));
                }
            }
            server
        }
        TextOr::Table(table) => {
            if table.address.is_absent() {
                let mistake = Mistake::new(entry.span(), "an `address` is missing");
                let help = "write `{ address = \"10.0.0.1:3000\", weight = 2 }`";
                mistakes.push(mistake.help(help).kind(MistakeKind::Doubtful));
            }
            let written = table.address.given();
            let mut server = written.and_then(|text| address(text.get_ref(), text.span(), mistakes));
            refuse_srv_name(server.as_ref(), entry.span(), mistakes);
            if let (Some(service), Some(host)) = (table.service.given(), written) {
                let read = of_service(server.as_mut(), service.get_ref(), host.get_ref());
                if let Err((message, help)) = read {
                    mistakes.push(Mistake::new(service.span(), message).help(help));
                }
            }
            parameters(server, table, mistakes)
        }
    }
}

/// A server at this address, with the default of everything.
fn address(text: &str, span: Range<usize>, mistakes: &mut Vec<Mistake>) -> Option<UpstreamServer> {
    match units::upstream_address(text) {
        Ok(address) => Some(UpstreamServer::new(text.to_owned(), address)),
        Err(Wrong { message, help }) => {
            let clean = text.trim_end_matches(';');
            let right = clean != text && units::upstream_address(clean).is_ok();
            let help = if right { Some(format!("write `\"{clean}\"`")) } else { help };
            mistakes.push(Mistake::new(span, format!("`server`: {message}")).maybe_help(help));
            None
        }
    }
}

/// The name of SRV records in the place of a host.
fn refuse_srv_name(server: Option<&UpstreamServer>, span: Range<usize>, mistakes: &mut Vec<Mistake>) {
    let Some(UpstreamAddress::Name { host, .. }) = server.map(|server| &server.address) else { return };
    if let Some((service, name)) = units::srv_name(host) {
        let message = format!("`server`: `{host}` is the name of SRV records, not of a host");
        mistakes.push(Mistake::new(span, message).help(format!("write `{name} service={service}`")));
    }
}

/// Makes the name of a server that of SRV records, as nginx does it: `http` of `app.example` is
/// `_http._tcp.app.example`; a service with a dot in it is put before the name as it is.
fn of_service(server: Option<&mut UpstreamServer>, service: &str, host: &str) -> Result<(), Refusal> {
    let known = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    if let Some(name) = service.strip_prefix('_').filter(|name| !name.is_empty() && !name.contains('.')) {
        let help = format!("write `service={name}`, or all of it: `service={service}._tcp`");
        return Err((format!("`{service}` is half of a service"), help));
    }
    if service.is_empty() || !service.chars().all(known) || service.starts_with('.') || service.contains("..")
    {
        let help = "write its name, as in `service=http`, or all of it: `service=_http._tcp`".to_owned();
        let message = match service {
            "" => "`service` names none".to_owned(),
            _ => format!("`{service}` is not a service"),
        };
        return Err((message, help));
    }
    let Some(server) = server else { return Ok(()) };
    let UpstreamAddress::Name { host: name, .. } = &server.address else {
        let message =
            format!("`service` is for names, and `{host}` is an address: there are no SRV records of it");
        return Err((message, "leave `service` out".to_owned()));
    };
    if host.contains(':') {
        let help = format!("write `{name} service={service}`");
        return Err(("with `service` there is no port: the SRV records tell it".to_owned(), help));
    }
    let before = if service.contains('.') { service.to_owned() } else { format!("_{service}._tcp") };
    server.address =
        UpstreamAddress::Service(format!("{}.{name}", before.trim_end_matches('.').to_ascii_lowercase()));
    Ok(())
}

/// What stands beside an address in a table.
fn parameters(
    mut server: Option<UpstreamServer>,
    table: &file::UpstreamServer,
    mistakes: &mut Vec<Mistake>,
) -> Option<UpstreamServer> {
    let mut count = |key: &str, written: &Value<u64>| {
        let count = written.given()?;
        let range = range(key);
        if !range.contains(count.get_ref()) {
            mistakes.push(Mistake::new(count.span(), out_of_range(key, count.get_ref())));
        }
        Some(*count.get_ref())
    };
    let weight = count("weight", &table.weight);
    let max_fails = count("max_fails", &table.max_fails);
    let max_conns = count("max_conns", &table.max_conns);
    if let Some(server) = &mut server {
        set(server, "weight", weight);
        set(server, "max_fails", max_fails);
        set(server, "max_conns", max_conns);
        if let Some(time) = table.fail_timeout.given() {
            server.fail_timeout = *time.get_ref();
        }
        server.is_backup = table.backup.given().is_some_and(|flag| *flag.get_ref());
        server.is_down = table.down.given().is_some_and(|flag| *flag.get_ref());
    }
    server
}

/// The numbers that a parameter may have.
fn range(key: &str) -> std::ops::RangeInclusive<u64> {
    if key == "weight" { 1..=65_535 } else { 0..=MANY }
}

fn out_of_range(key: &str, number: impl std::fmt::Display) -> String {
    let range = range(key);
    format!("`{key}` must be from {} to {}, not {number}", range.start(), range.end())
}

fn set(server: &mut UpstreamServer, key: &str, number: Option<u64>) {
    let Some(number) = number.and_then(|number| u32::try_from(number).ok()) else { return };
    match key {
        "weight" => server.weight = number,
        "max_fails" => server.max_fails = NonZeroU32::new(number),
        // nginx: 0 is no limit.
        _ => server.max_conns = (number > 0).then_some(number as usize),
    }
}

/// A parameter of nginx's `server` in an upstream; of a server that is wrong itself it is checked all the same.
fn parameter(server: Option<&mut UpstreamServer>, word: &str, address: &str) -> Result<(), Refusal> {
    let (name, value) = word.split_once('=').unwrap_or((word, ""));
    let with_value = word.contains('=');
    match name {
        "weight" | "max_fails" | "max_conns" => {
            let number = value.parse().ok().filter(|number| range(name).contains(number));
            let number = number.ok_or_else(|| {
                (out_of_range(name, format!("`{value}`")), format!("write `\"{address} {name}=2\"`"))
            })?;
            if let Some(server) = server {
                set(server, name, Some(number));
            }
        }
        "fail_timeout" => {
            let time = units::time(value).map_err(|wrong| {
                let help = format!("write `\"{address} fail_timeout=10s\"`");
                (format!("`fail_timeout`: {}", wrong.message), help)
            })?;
            if let Some(server) = server {
                server.fail_timeout = time;
            }
        }
        "backup" | "down" if !with_value => {
            if let Some(server) = server {
                *(if name == "backup" { &mut server.is_backup } else { &mut server.is_down }) = true;
            }
        }
        "backup" | "down" => {
            return Err((format!("`{name}` has no value"), format!("write `\"{address} {name}\"`")));
        }
        "resolve" => {
            let help = "leave it out".to_owned();
            return Err(("`resolve` is needless: names are looked up when they are needed".to_owned(), help));
        }
        "slow_start" | "route" | "drain" | "state" | "sid" => {
            return Err((format!("`{name}` is not supported yet"), "leave it out".to_owned()));
        }
        _ => {
            let known = ["weight", "max_fails", "fail_timeout", "max_conns", "service", "backup", "down"];
            let help = match nearest(name, &known) {
                Some(meant) => format!("write `{}`", word.replacen(name, meant, 1)),
                None => format!(
                    "several servers are written as an array; a share is written `\"{address} weight=2\"`"
                ),
            };
            return Err((format!("`{word}` is not known behind the address of a server"), help));
        }
    }
    Ok(())
}
