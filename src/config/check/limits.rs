//! How often clients may come, and how many at a time: `limit_req` and `limit_conn` with their zones.

use std::sync::Arc;

use serde_spanned::Spanned;

use super::{Check, plain};
use crate::config::error::{Mistake, MistakeKind};
use crate::config::file::{self, ForAccess, Named, OneOrMany, Size, TextOr, Value};
use crate::config::{ConnZone, LimitConn, LimitReq, Limits, ReqZone, Zones};
use crate::routing::variables::Template;

/// What is written at one level of the file; `None` is inherited.
#[derive(Clone, Default)]
pub(super) struct LimitSettings {
    req: Option<Arc<[LimitReq]>>,
    req_status: Option<u16>,
    req_dry_run: Option<bool>,
    conn: Option<Arc<[LimitConn]>>,
    conn_status: Option<u16>,
    conn_dry_run: Option<bool>,
}

impl LimitSettings {
    /// What is not written here is as it is further out.
    pub(super) fn inside(self, outer: &Self) -> Self {
        Self {
            req: self.req.or_else(|| outer.req.clone()),
            req_status: self.req_status.or(outer.req_status),
            req_dry_run: self.req_dry_run.or(outer.req_dry_run),
            conn: self.conn.or_else(|| outer.conn.clone()),
            conn_status: self.conn_status.or(outer.conn_status),
            conn_dry_run: self.conn_dry_run.or(outer.conn_dry_run),
        }
    }

    /// With the defaults for what is written nowhere.
    pub(super) fn finish(self) -> (Limits<LimitReq>, Limits<LimitConn>) {
        fn limits<T>(list: Option<Arc<[T]>>, status: Option<u16>, dry_run: Option<bool>) -> Limits<T> {
            let default = Limits::default();
            Limits {
                list: list.unwrap_or(default.list),
                status: status.unwrap_or(default.status),
                dry_run: dry_run.unwrap_or(default.dry_run),
            }
        }
        let req = limits(self.req, self.req_status, self.req_dry_run);
        (req, limits(self.conn, self.conn_status, self.conn_dry_run))
    }
}

/// What one megabyte more would be used for is hardly ever asked: 80,000 clients fit.
const DEFAULT_SIZE: u64 = 10 << 20;

impl Check<'_> {
    pub(super) fn zones(&mut self, file: &file::Top) -> Zones {
        let req = given(&file.limit_req_zone).iter().map(|(name, zone)| self.req_zone(name, zone));
        let req = req.collect();
        let conn = given(&file.limit_conn_zone).iter().map(|(name, zone)| {
            let written = &zone.get_ref().key;
            let key = self.zone_key(zone, written, "limit_conn_zone");
            ConnZone { name: name.get_ref().clone(), key, written_key: plain(written).unwrap_or_default() }
        });
        Zones { conn: conn.collect(), req }
    }

    /// With mistakes or without: its name is known either way.
    fn req_zone(&mut self, name: &Spanned<String>, zone: &Spanned<file::LimitReqZone>) -> ReqZone {
        let written = zone.get_ref();
        if written.rate.is_absent() {
            let help = "write `rate = \"10r/s\"` or `rate = \"30r/m\"`";
            self.missing(zone.span(), "a `limit_req_zone` needs a `rate`", help);
        }
        let rate = written.rate.given().and_then(|text| match rate(text.get_ref()) {
            Ok(rate) => Some(rate),
            Err((message, help)) => {
                self.mistakes.push(Mistake::new(text.span(), message).help(help));
                None
            }
        });
        let size = written.size.given();
        if let Some(size) = size.filter(|size| size.get_ref().0 < 32 << 10) {
            let mistake = Mistake::new(size.span(), "`size` must be at least 32k");
            self.mistakes.push(mistake.help("leave it out for `\"10m\"`, room for 80,000 clients"));
        }
        ReqZone {
            name: name.get_ref().clone(),
            key: self.zone_key(zone, &written.key, "limit_req_zone"),
            written_key: plain(&written.key).unwrap_or_default(),
            rate: rate.unwrap_or(1),
            size: size.map_or(DEFAULT_SIZE, |size| {
                let Size(bytes) = *size.get_ref();
                bytes
            }),
        }
    }

    fn zone_key<T>(&mut self, zone: &Spanned<T>, key: &Value<String>, table: &str) -> Template {
        if key.is_absent() {
            let help = "write `key = \"$binary_remote_addr\"` for a limit for each client";
            self.missing(zone.span(), format!("a `{table}` needs a `key`"), help);
        }
        if let Some(text) = key.given().filter(|key| Template::parse(&format!("${}", key.get_ref())).is_ok())
        {
            let message = "a key without a `$` is the same for all requests";
            let help = format!("write `key = \"${}\"`", text.get_ref());
            self.mistakes.push(Mistake::new(text.span(), message).help(help));
        }
        key.given().and_then(|key| self.template(key)).unwrap_or_default()
    }

    pub(super) fn limit_settings(&mut self, written: &ForAccess) -> LimitSettings {
        LimitSettings {
            req: self.limit_req(&written.limit_req),
            req_status: self.limit_status(&written.limit_req_status, "limit_req_status"),
            req_dry_run: plain(&written.limit_req_dry_run),
            conn: self.limit_conn(&written.limit_conn),
            conn_status: self.limit_status(&written.limit_conn_status, "limit_conn_status"),
            conn_dry_run: plain(&written.limit_conn_dry_run),
        }
    }

    fn limit_status(&mut self, written: &Value<u64>, key: &str) -> Option<u16> {
        self.count(written, key, 400..=599).and_then(|status| u16::try_from(status).ok())
    }

    fn limit_req(&mut self, written: &Value<OneOrMany<TextOr<file::LimitReq>>>) -> Option<Arc<[LimitReq]>> {
        let mut limits: Vec<LimitReq> = Vec::new();
        for entry in &written.given()?.get_ref().0 {
            let read = match entry.get_ref() {
                TextOr::Text(text) => limit_req_line(text).map_err(|wrong| (entry.span(), wrong)),
                TextOr::Table(table) => {
                    if table.zone.is_absent() {
                        let help = "write `{ zone = \"NAME\", burst = 5 }`";
                        self.missing(entry.span(), "a `zone` is missing", help);
                    }
                    let Some(zone) = table.zone.given() else { continue };
                    let parts = Parts {
                        burst: plain(&table.burst).unwrap_or(0),
                        delay: plain(&table.delay),
                        nodelay: plain(&table.nodelay).unwrap_or(false),
                    };
                    parts.checked(zone.get_ref()).map_err(|wrong| (entry.span(), wrong))
                }
            };
            let (name, limit) = match read {
                Ok(read) => read,
                Err((span, (message, help))) => {
                    self.mistakes.push(Mistake::new(span, message).help(help));
                    continue;
                }
            };
            let names: Vec<&str> = self.zones.req.iter().map(|zone| zone.name.as_str()).collect();
            let place = names.iter().position(|known| *known == name);
            match place {
                Some(zone) if limits.iter().any(|other| other.zone == zone) => self.twice(entry, &name),
                Some(zone) => limits.push(LimitReq { zone, ..limit }),
                None => {
                    let mistake = no_zone(entry, &name, &names, "limit_req_zone", ", rate = \"10r/s\"");
                    self.mistakes.push(mistake);
                }
            }
        }
        Some(limits.into())
    }

    fn limit_conn(&mut self, written: &Value<OneOrMany<String>>) -> Option<Arc<[LimitConn]>> {
        let mut limits: Vec<LimitConn> = Vec::new();
        for entry in &written.given()?.get_ref().0 {
            let words: Vec<&str> = entry.get_ref().trim_end_matches(';').split_whitespace().collect();
            let number = words.get(1).and_then(|word| word.parse::<u32>().ok());
            let (&[name, _], Some(most @ 1..=65_535)) = (words.as_slice(), number) else {
                let message = format!("`{}` is not a zone with a number from 1 to 65535", entry.get_ref());
                let help = "write `limit_conn = \"NAME 10\"` for ten at a time, with a table `[limit_conn_zone.NAME]`";
                self.mistakes.push(Mistake::new(entry.span(), message).help(help));
                continue;
            };
            let names: Vec<&str> = self.zones.conn.iter().map(|zone| zone.name.as_str()).collect();
            let place = names.iter().position(|known| *known == name);
            match place {
                Some(zone) if limits.iter().any(|other| other.zone == zone) => self.twice(entry, name),
                Some(zone) => limits.push(LimitConn { zone, most }),
                None => self.mistakes.push(no_zone(entry, name, &names, "limit_conn_zone", "")),
            }
        }
        Some(limits.into())
    }

    fn twice<T>(&mut self, entry: &Spanned<T>, name: &str) {
        let mistake = Mistake::new(entry.span(), format!("the zone `{name}` is used twice"));
        self.mistakes.push(mistake.label("again").help("delete one of them"));
    }
}

fn given<T>(written: &Value<Named<T>>) -> &[(Spanned<String>, Spanned<T>)] {
    written.given().map(|tables| tables.get_ref().0.as_slice()).unwrap_or_default()
}

fn no_zone<T>(entry: &Spanned<T>, name: &str, known: &[&str], table: &str, more: &str) -> Mistake {
    let nearest = known
        .iter()
        .map(|known| (strsim::damerau_levenshtein(known, name), *known))
        .min()
        .filter(|(distance, known)| *distance <= 1 + known.len() / 4);
    let message = match nearest {
        Some((_, nearest)) => format!("there is no zone `{name}`, did you mean `{nearest}`?"),
        None => format!("there is no zone `{name}`"),
    };
    let more = more.replace(", ", "\n");
    let help = format!(
        "write it before the first `[[server]]`:\n[{table}.{name}]\nkey = \"$binary_remote_addr\"{more}"
    );
    Mistake::new(entry.span(), message).help(help).kind(MistakeKind::Doubtful)
}

/// What stands behind the zone in a `limit_req`.
#[derive(Default)]
struct Parts {
    burst: u64,
    delay: Option<u64>,
    nodelay: bool,
}

/// More requests than anybody lets wait.
const MOST: u64 = u32::MAX as u64;

impl Parts {
    /// With the name of the zone, whose place is not known yet.
    fn checked(self, zone: &str) -> Result<(String, LimitReq), (String, String)> {
        if self.nodelay && self.delay.is_some() {
            let message = "`nodelay` and `delay` exclude each other".to_owned();
            return Err((message, "keep `delay`: as many requests need not wait".to_owned()));
        }
        let thousandths = |count: u64| i64::try_from(count.min(MOST) * 1000).unwrap_or(i64::MAX);
        let delay = if self.nodelay { i64::MAX } else { thousandths(self.delay.unwrap_or(0)) };
        Ok((zone.to_owned(), LimitReq { zone: 0, burst: thousandths(self.burst), delay }))
    }
}

/// `NAME burst=5 nodelay`, or as nginx writes it with `zone=` before the name.
fn limit_req_line(text: &str) -> Result<(String, LimitReq), (String, String)> {
    let mut words = text.trim_end_matches(';').split_whitespace();
    let zone = words.next().map(|word| word.strip_prefix("zone=").unwrap_or(word)).unwrap_or_default();
    let example = || format!("write `\"{} burst=5 nodelay\"`", if zone.is_empty() { "NAME" } else { zone });
    if zone.is_empty() || zone.contains('=') {
        return Err((format!("`{text}` names no zone"), "write `\"NAME burst=5 nodelay\"`".to_owned()));
    }
    let mut parts = Parts::default();
    for word in words {
        let number =
            word.split_once('=').and_then(|(_, number)| number.parse::<u64>().ok()).filter(|n| *n > 0);
        match (word.split('=').next().unwrap_or_default(), number) {
            ("nodelay", _) if word == "nodelay" => parts.nodelay = true,
            ("burst", Some(count)) => parts.burst = count,
            ("delay", Some(count)) => parts.delay = Some(count),
            ("burst" | "delay", None) => {
                return Err((format!("`{word}` needs a number from 1 up"), example()));
            }
            _ => return Err((format!("`{word}` is not known behind the zone of a `limit_req`"), example())),
        }
    }
    parts.checked(zone)
}

/// In thousandths of a request for a second: `10r/s`, `30r/m`. As in nginx, what is left of a division is
/// not counted.
fn rate(text: &str) -> Result<u64, (String, String)> {
    let wrong = |help: &str| Err((format!("`rate`: `{text}` is not a rate"), help.to_owned()));
    let known = [("r/s", 1), ("r/m", 60)];
    let Some((number, seconds)) =
        known.iter().find_map(|(unit, seconds)| Some((text.strip_suffix(unit)?, *seconds)))
    else {
        return wrong("write requests for a second, `\"10r/s\"`, or for a minute, `\"30r/m\"`");
    };
    match number.parse::<u64>() {
        Ok(number @ 1..=1_000_000_000) => Ok(number * 1000 / seconds),
        _ => wrong("write a whole number from 1 up; for less than one for a second `\"30r/m\"`"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_are_thousandths_of_a_request_for_a_second() {
        for (text, expected) in
            [("1r/s", 1000), ("10r/s", 10_000), ("30r/m", 500), ("1r/m", 16), ("1000r/s", 1_000_000)]
        {
            assert_eq!(rate(text), Ok(expected), "{text}");
        }
        for text in ["", "10", "r/s", "0r/s", "-1r/s", "1.5r/s", "10r/h", "10 r/s", "10r/s;", "9999999999r/s"]
        {
            assert!(rate(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_limit_is_read_in_one_line() {
        for (text, burst, delay) in [
            ("one", 0, 0),
            ("zone=one", 0, 0),
            ("one burst=5", 5_000, 0),
            ("one burst=5 nodelay", 5_000, i64::MAX),
            ("zone=one delay=2 burst=5", 5_000, 2_000),
        ] {
            let limit = LimitReq { zone: 0, burst, delay };
            assert_eq!(limit_req_line(text), Ok(("one".to_owned(), limit)), "{text}");
        }
        for text in [
            "",
            "burst=5",
            "one burst",
            "one burst=0",
            "one burst=x",
            "one delay=0",
            "one nodelay=1",
            "one 5",
            "one nodelay delay=2",
        ] {
            assert!(limit_req_line(text).is_err(), "{text}");
        }
    }
}
