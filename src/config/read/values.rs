//! What can stand behind a key, and how it is read.

use std::time::Duration;

use serde_spanned::Spanned;
use toml::de::{DeArray, DeInteger, DeTable, DeValue};

use super::Reader;
use super::section::{FromToml, Table};
use crate::config::error::Mistake;
use crate::config::file::{AutoOr, FlagOr, Named, OffOr, OneOrMany, Only, Size, Tables, TextOr};
use crate::config::units::{self, Wrong};

impl Reader {
    /// Reports a value of the wrong type.
    fn wrong_type<T: FromToml, R>(&mut self, key: &str, value: &Spanned<DeValue<'_>>) -> Option<R> {
        let message = format!("`{key}` must be {}, not {}", T::EXPECTED, kind(value.get_ref()));
        self.wrong(value, message, type_help::<T>(key, value.get_ref()))
    }

    fn wrong<R>(&mut self, value: &Spanned<DeValue<'_>>, message: String, help: Option<String>) -> Option<R> {
        self.mistakes.push(Mistake::new(value.span(), message).maybe_help(help));
        None
    }

    /// Reports a text that is not what it should be.
    fn unit<R>(&mut self, key: &str, value: &Spanned<DeValue<'_>>, read: Result<R, Wrong>) -> Option<R> {
        read.map_err(|wrong| self.wrong::<R>(value, format!("`{key}`: {}", wrong.message), wrong.help)).ok()
    }
}

fn kind(value: &DeValue<'_>) -> &'static str {
    match value {
        DeValue::String(_) => "a text",
        DeValue::Integer(_) => "a number",
        DeValue::Float(_) => "a number with a point",
        DeValue::Boolean(_) => "`true` or `false`",
        DeValue::Datetime(_) => "a date",
        DeValue::Array(_) => "an array",
        DeValue::Table(_) => "a table",
    }
}

/// What is probably meant by a value of the wrong type.
fn type_help<T: FromToml>(key: &str, value: &DeValue<'_>) -> Option<String> {
    let wants = |expected: &str| T::EXPECTED == expected;
    match value {
        DeValue::String(text) if wants(bool::EXPECTED) => match text.trim_end_matches(';') {
            "on" | "true" | "yes" | "1" => Some(format!("write `{key} = true`")),
            "off" | "false" | "no" | "0" => Some(format!("write `{key} = false`")),
            _ => None,
        },
        DeValue::String(text) if wants(u64::EXPECTED) || wants(AutoOr::EXPECTED) => {
            let number = text.trim_end_matches(';').parse::<u64>().ok()?;
            Some(format!("write it without quotes: `{key} = {number}`"))
        }
        DeValue::Integer(number) if wants(bool::EXPECTED) => match number.as_str() {
            "1" => Some(format!("write `{key} = true`")),
            "0" => Some(format!("write `{key} = false`")),
            _ => None,
        },
        DeValue::Boolean(false) if T::EXPECTED.contains("`\"off\"`") => {
            Some(format!("write `{key} = \"off\"`"))
        }
        DeValue::Integer(number) if key == "proxy_pass" => {
            Some(format!("write `{key} = \"http://127.0.0.1:{number}\"`"))
        }
        DeValue::Integer(number) if key == "path" => Some(format!("write `{key} = \"/{number}\"`")),
        DeValue::Float(number) if key.ends_with("http_version") => {
            Some(format!("write `{key} = \"{}\"`", number.as_str()))
        }
        DeValue::Integer(number) if T::EXPECTED.starts_with(String::EXPECTED) => {
            Some(format!("write `{key} = \"{number}\"`"))
        }
        DeValue::Array(array) if wants(String::EXPECTED) => {
            let only = array.iter().next().filter(|_| array.len() == 1)?.get_ref().as_str()?;
            Some(format!("write `{key} = \"{only}\"`"))
        }
        _ => None,
    }
}

fn number(integer: &DeInteger<'_>) -> Option<u64> {
    u64::from_str_radix(integer.as_str(), integer.radix()).ok()
}

impl FromToml for bool {
    const EXPECTED: &'static str = "`true` or `false`";

    fn from_toml(key: &str, value: &Spanned<DeValue<'_>>, reader: &mut Reader) -> Option<Self> {
        value.get_ref().as_bool().or_else(|| reader.wrong_type::<Self, _>(key, value))
    }
}

impl FromToml for String {
    const EXPECTED: &'static str = "a text in quotes";

    fn from_toml(key: &str, value: &Spanned<DeValue<'_>>, reader: &mut Reader) -> Option<Self> {
        match value.get_ref() {
            DeValue::String(text) => Some(text.clone().into_owned()),
            _ => reader.wrong_type::<Self, _>(key, value),
        }
    }
}

impl FromToml for u64 {
    const EXPECTED: &'static str = "a whole number";

    fn from_toml(key: &str, value: &Spanned<DeValue<'_>>, reader: &mut Reader) -> Option<Self> {
        let DeValue::Integer(integer) = value.get_ref() else {
            return reader.wrong_type::<Self, _>(key, value);
        };
        let message = || match integer.as_str().starts_with('-') {
            true => format!("`{key}` cannot be negative: {integer}"),
            false => format!("`{key}`: {integer} is too large a number"),
        };
        number(integer).or_else(|| reader.wrong(value, message(), None))
    }
}

impl FromToml for AutoOr {
    const EXPECTED: &'static str = "`\"auto\"` or a whole number";

    fn from_toml(key: &str, value: &Spanned<DeValue<'_>>, reader: &mut Reader) -> Option<Self> {
        match value.get_ref() {
            DeValue::String(text) if text == "auto" => Some(Self::Auto),
            DeValue::Integer(_) => u64::from_toml(key, value, reader).map(Self::Count),
            _ => reader.wrong_type::<Self, _>(key, value),
        }
    }
}

impl FromToml for FlagOr {
    const EXPECTED: &'static str = "`true` or a text in quotes";

    fn from_toml(key: &str, value: &Spanned<DeValue<'_>>, reader: &mut Reader) -> Option<Self> {
        match value.get_ref() {
            DeValue::Boolean(flag) => Some(Self::Flag(*flag)),
            DeValue::String(text) => Some(Self::Text(text.clone().into_owned())),
            // No number is right; what would be, depends on the key.
            DeValue::Integer(number) => Some(Self::Text(number.as_str().to_owned())),
            _ => reader.wrong_type::<Self, _>(key, value),
        }
    }
}

impl FromToml for Duration {
    const EXPECTED: &'static str = "a time (`\"60s\"`)";

    fn from_toml(key: &str, value: &Spanned<DeValue<'_>>, reader: &mut Reader) -> Option<Self> {
        match value.get_ref() {
            DeValue::String(text) => reader.unit(key, value, units::time(text)),
            DeValue::Integer(integer) => {
                let seconds =
                    number(integer).map_or_else(|| integer.to_string(), |number| number.to_string());
                reader.unit(key, value, units::time(&seconds))
            }
            _ => reader.wrong_type::<Self, _>(key, value),
        }
    }
}

impl FromToml for Size {
    const EXPECTED: &'static str = "a size (`\"16k\"`)";

    fn from_toml(key: &str, value: &Spanned<DeValue<'_>>, reader: &mut Reader) -> Option<Self> {
        match value.get_ref() {
            DeValue::String(text) => reader.unit(key, value, units::size(text)).map(Self),
            DeValue::Integer(integer) => {
                let bytes = number(integer).map_or_else(|| integer.to_string(), |number| number.to_string());
                reader.unit(key, value, units::size(&bytes)).map(Self)
            }
            _ => reader.wrong_type::<Self, _>(key, value),
        }
    }
}

/// `"off"`, or what else may stand there.
fn off_or<T: FromToml>(
    off: &'static str,
    key: &str,
    value: &Spanned<DeValue<'_>>,
    reader: &mut Reader,
) -> Option<OffOr<T>>
where
    OffOr<T>: FromToml,
{
    match value.get_ref() {
        DeValue::String(text) if text == "off" => Some(OffOr::Off),
        DeValue::String(text)
            if text.eq_ignore_ascii_case("off") || matches!(text.as_ref(), "none" | "unlimited") =>
        {
            let help = Some(format!("write `{key} = \"off\"`{off}"));
            reader.wrong(value, format!("`{key}`: `{text}` is not known"), help)
        }
        DeValue::String(_) | DeValue::Integer(_) => T::from_toml(key, value, reader).map(OffOr::Value),
        _ => reader.wrong_type::<OffOr<T>, _>(key, value),
    }
}

impl FromToml for OffOr<Duration> {
    const EXPECTED: &'static str = "a time (`\"1h\"`) or `\"off\"`";

    fn from_toml(key: &str, value: &Spanned<DeValue<'_>>, reader: &mut Reader) -> Option<Self> {
        off_or("", key, value, reader)
    }
}

impl FromToml for OffOr<Size> {
    const EXPECTED: &'static str = "a size (`\"16m\"`) or `\"off\"`";

    fn from_toml(key: &str, value: &Spanned<DeValue<'_>>, reader: &mut Reader) -> Option<Self> {
        off_or(" or `0` for no limit", key, value, reader)
            .map(|size| if size == Self::Value(Size(0)) { Self::Off } else { size })
    }
}

impl FromToml for OffOr<u64> {
    const EXPECTED: &'static str = "a whole number or `\"off\"`";

    fn from_toml(key: &str, value: &Spanned<DeValue<'_>>, reader: &mut Reader) -> Option<Self> {
        off_or(" or `0` for no limit", key, value, reader)
            .map(|count| if count == Self::Value(0) { Self::Off } else { count })
    }
}

impl<T: FromToml> FromToml for OneOrMany<T> {
    const EXPECTED: &'static str = T::EXPECTED;

    fn from_toml(key: &str, value: &Spanned<DeValue<'_>>, reader: &mut Reader) -> Option<Self> {
        let DeValue::Array(array) = value.get_ref() else {
            return T::from_toml(key, value, reader).map(|one| Self(vec![Spanned::new(value.span(), one)]));
        };
        let entries: Vec<_> = array
            .iter()
            .filter_map(|entry| Some(Spanned::new(entry.span(), T::from_toml(key, entry, reader)?)))
            .collect();
        (entries.len() == array.len()).then_some(Self(entries))
    }
}

impl<T: Table> FromToml for TextOr<T> {
    const EXPECTED: &'static str = "a text in quotes or a table";

    /// A plain number is a port, which only `listen` and the servers of an upstream have, or the status of
    /// a `return`: those who read the text find out.
    fn from_toml(key: &str, value: &Spanned<DeValue<'_>>, reader: &mut Reader) -> Option<Self> {
        match value.get_ref() {
            DeValue::String(text) => Some(Self::Text(text.clone().into_owned())),
            DeValue::Integer(integer) if matches!(key, "listen" | "server" | "return") => {
                Some(Self::Text(integer.to_string()))
            }
            DeValue::Table(table) => Some(Self::Table(reader.section(table))),
            DeValue::Boolean(false) if key == "access_log" => {
                let message = format!("`{key}` must be {}, not `false`", Self::EXPECTED);
                reader.wrong(value, message, Some("write `access_log = \"off\"`".into()))
            }
            _ => reader.wrong_type::<Self, _>(key, value),
        }
    }
}

impl<T: Table> FromToml for Tables<T> {
    const EXPECTED: &'static str = "written in double brackets";

    fn from_toml(key: &str, value: &Spanned<DeValue<'_>>, reader: &mut Reader) -> Option<Self> {
        let name = if key == "location" { "server.location" } else { key };
        let help = Some(format!("write `[[{name}]]`"));
        match value.get_ref() {
            DeValue::Array(array) if array.iter().all(|entry| entry.get_ref().is_table()) => {
                Some(Self(tables(array, reader)))
            }
            DeValue::Table(_) => reader.wrong(value, format!("`{key}` stands in double brackets"), help),
            other => reader.wrong(value, format!("`{key}` is a table of its own, not {}", kind(other)), help),
        }
    }
}

fn tables<T: Table>(array: &DeArray<'_>, reader: &mut Reader) -> Vec<Spanned<T>> {
    array
        .iter()
        .filter_map(|entry| Some(Spanned::new(entry.span(), reader.section(entry.get_ref().as_table()?))))
        .collect()
}

impl<T: Table> FromToml for Only<T> {
    const EXPECTED: &'static str = "a table of its own";

    fn from_toml(key: &str, value: &Spanned<DeValue<'_>>, reader: &mut Reader) -> Option<Self> {
        match value.get_ref() {
            DeValue::Table(table) => Some(Self(reader.section(table))),
            other => {
                let message = format!("`{key}` must be {}, not {}", Self::EXPECTED, kind(other));
                reader.wrong(
                    value,
                    message,
                    Some(format!("write `[{key}]` in a line of its own, and its keys below")),
                )
            }
        }
    }
}

impl FromToml for Named<String> {
    const EXPECTED: &'static str = "a table: `{ Host = \"$host\" }`";

    fn from_toml(key: &str, value: &Spanned<DeValue<'_>>, reader: &mut Reader) -> Option<Self> {
        match value.get_ref() {
            DeValue::Table(table) => Some(Self(named(key, table, reader))),
            _ => reader.no_table_of_fields::<Self, _>(key, value),
        }
    }
}

impl<T: Table> FromToml for Named<OneOrMany<TextOr<T>>> {
    const EXPECTED: &'static str = "a table: `{ X-Frame-Options = \"DENY\" }`";

    fn from_toml(key: &str, value: &Spanned<DeValue<'_>>, reader: &mut Reader) -> Option<Self> {
        match value.get_ref() {
            DeValue::Table(table) => Some(Self(named(key, table, reader))),
            _ => reader.no_table_of_fields::<Self, _>(key, value),
        }
    }
}

impl Reader {
    /// Reports something else than a table of fields; lines of nginx are shown as entries of one.
    fn no_table_of_fields<T: FromToml, R>(&mut self, key: &str, value: &Spanned<DeValue<'_>>) -> Option<R> {
        let lines: Vec<&str> = match value.get_ref() {
            DeValue::String(text) => vec![text],
            DeValue::Array(array) => array.iter().filter_map(|line| line.get_ref().as_str()).collect(),
            _ => Vec::new(),
        };
        let message = format!("`{key}` must be {}, not {}", T::EXPECTED, kind(value.get_ref()));
        // Nobody needs those two: they would only be refused in the next run.
        let needless = |name: &str| matches!(name.to_ascii_lowercase().as_str(), "upgrade" | "connection");
        let fields: Option<Vec<_>> = lines.iter().map(|line| line.split_once([' ', ':', '='])).collect();
        let kept = fields.unwrap_or_default().into_iter().filter(|(name, _)| !needless(name));
        let fields: Vec<_> = kept.map(field).collect();
        let help = (!fields.is_empty()).then(|| format!("write `{key} = {{ {} }}`", fields.join(", ")));
        self.wrong(value, message, help)
    }
}

impl FromToml for Named<OneOrMany<String>> {
    const EXPECTED: &'static str = "a table: `{ \"text/html\" = [\"html\", \"htm\"] }`";

    fn from_toml(key: &str, value: &Spanned<DeValue<'_>>, reader: &mut Reader) -> Option<Self> {
        let DeValue::Table(table) = value.get_ref() else { return reader.wrong_type::<Self, _>(key, value) };
        Some(Self(named(key, table, reader)))
    }
}

/// A line of nginx's `proxy_set_header` or `add_header` as an entry of the table.
fn field((name, value): (&str, &str)) -> String {
    let marks = [' ', ':', '=', ';', '"', '\''];
    let (name, value) = (name.trim(), value.trim_matches(marks));
    match value.strip_suffix(" always") {
        Some(value) => format!("{name} = {{ value = \"{}\", always = true }}", value.trim_matches(marks)),
        None => format!("{name} = \"{value}\""),
    }
}

impl<T: Table> FromToml for Named<T> {
    const EXPECTED: &'static str = "a table with a name: `[upstream.NAME]`";

    fn from_toml(key: &str, value: &Spanned<DeValue<'_>>, reader: &mut Reader) -> Option<Self> {
        let DeValue::Table(table) = value.get_ref() else {
            let message =
                format!("`{key}` must be a table with a name, `[{key}.NAME]`, not {}", kind(value.get_ref()));
            return reader.wrong(
                value,
                message,
                Some(format!("write `[{key}.{}]`", own_name(value.get_ref()))),
            );
        };
        Some(Self(named_tables(key, table, reader)))
    }
}

/// The name that somebody gave the only table of an array by a key: `name = "app"`.
fn own_name<'a>(value: &'a DeValue<'_>) -> &'a str {
    let tables = value.as_array().map(|array| array.iter().filter_map(|entry| entry.get_ref().as_table()));
    tables.into_iter().flatten().find_map(|table| table.get("name")?.get_ref().as_str()).unwrap_or("NAME")
}

fn named_tables<T: Table>(
    key: &str,
    table: &DeTable<'_>,
    reader: &mut Reader,
) -> Vec<(Spanned<String>, Spanned<T>)> {
    let mut entries = Vec::new();
    for (name, value) in table.iter() {
        let written = name.get_ref();
        match value.get_ref() {
            DeValue::Table(inner) => {
                let read = Spanned::new(value.span(), reader.section(inner));
                entries.push((Spanned::new(name.span(), written.clone().into_owned()), read));
            }
            // The name has been forgotten: `[upstream]` with keys in it.
            _ if T::LEVEL.keys().contains(&written.as_ref()) => {
                let message = format!("`{written}` stands in `[{key}]`, which has no name");
                let used = match key {
                    "limit_req_zone" => "`limit_req = \"NAME burst=5\"`",
                    "limit_conn_zone" => "`limit_conn = \"NAME 10\"`",
                    _ => "`proxy_pass = \"http://NAME\"`",
                };
                let help = format!("write `[{key}.NAME]`, and {used} where it is used");
                reader.mistakes.push(Mistake::new(name.span(), message).help(help));
            }
            other => {
                let message = format!("`{written}` must be a table `[{key}.{written}]`, not {}", kind(other));
                reader.mistakes.push(Mistake::new(value.span(), message));
            }
        }
    }
    entries
}

impl<T: Table> FromToml for Named<TextOr<T>> {
    const EXPECTED: &'static str = "a table: `[log_format]`, then `NAME = \"$remote_addr …\"`";

    fn from_toml(key: &str, value: &Spanned<DeValue<'_>>, reader: &mut Reader) -> Option<Self> {
        let DeValue::Table(table) = value.get_ref() else { return reader.wrong_type::<Self, _>(key, value) };
        Some(Self(named(key, table, reader)))
    }
}

fn named<T: FromToml>(
    key: &str,
    table: &DeTable<'_>,
    reader: &mut Reader,
) -> Vec<(Spanned<String>, Spanned<T>)> {
    let mut entries = Vec::new();
    for (name, value) in table.iter() {
        let path = format!("{key}.{}", name.get_ref());
        if let Some(read) = T::from_toml(&path, value, reader) {
            let name = Spanned::new(name.span(), name.get_ref().clone().into_owned());
            entries.push((name, Spanned::new(value.span(), read)));
        }
    }
    entries
}
