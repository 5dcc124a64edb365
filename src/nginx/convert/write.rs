//! Writes a document: short things in a line, long ones below each other.

use std::ops::Range;

use super::toml::{Address, BLANK, Entry, Header, Item, Table, Value};

/// A written document.
#[derive(Debug)]
pub struct Written {
    /// The file.
    pub text: String,
    /// What stands where in it; outer parts come before what is in them.
    pub places: Vec<(Range<usize>, Address)>,
}

/// The longest line that is written on purpose.
const WIDTH: usize = 100;

impl Table {
    /// The whole document.
    pub fn write(&self) -> Written {
        let mut written = Written { text: String::new(), places: Vec::new() };
        written.table(self, &mut Vec::new());
        written
    }
}

impl Written {
    fn table(&mut self, table: &Table, way: &mut Vec<usize>) {
        let start = self.text.len();
        let place = self.places.len();
        self.places.push((start..start, Address { tables: way.clone(), inner: Vec::new() }));
        self.comments(&table.comments);
        let path = match &table.header {
            Header::Top => {
                self.text.push_str(if table.comments.is_empty() { "" } else { "\n" });
                &[][..]
            }
            Header::One(path) => {
                self.text.push_str(&format!("[{}]\n", dotted(path)));
                path
            }
            Header::Many(path) => {
                self.text.push_str(&format!("[[{}]]\n", dotted(path)));
                path
            }
        };
        let mut long = Vec::new();
        for (number, entry) in table.entries.iter().enumerate() {
            let address = Address { tables: way.clone(), inner: vec![number] };
            match &entry.item.value {
                Value::Pairs(pairs) if !entry.is_off && too_long(entry) && !pairs.is_empty() => {
                    long.push((entry, address));
                }
                _ => self.entry(entry, address),
            }
        }
        for (entry, address) in long {
            self.long_pairs(path, entry, address);
        }
        self.places[place].0.end = self.text.len();
        for (number, inner) in table.tables.iter().enumerate() {
            if !self.text.is_empty() {
                self.text.push('\n');
            }
            way.push(number);
            self.table(inner, way);
            way.pop();
        }
    }

    fn comments(&mut self, lines: &[String]) {
        for line in lines {
            if line == BLANK {
                self.text.push('\n');
                continue;
            }
            let line = line.trim_end();
            let blank =
                if line.is_empty() || line.starts_with(' ') || line.starts_with('#') { "" } else { " " };
            let clean: String =
                line.chars().map(|c| if c.is_control() && c != '\t' { ' ' } else { c }).collect();
            self.text.push_str(&format!("#{blank}{clean}\n"));
        }
    }

    fn entry(&mut self, entry: &Entry, address: Address) {
        self.comments(&entry.comments);
        let start = self.text.len();
        if entry.is_off {
            let item = one_line(&entry.item.value);
            self.text.push_str(&format!("#{} = {item}\n", key(&entry.key)));
            return;
        }
        self.text.push_str(&format!("{} = ", key(&entry.key)));
        let place = self.places.len();
        self.places.push((start..start, address.clone()));
        let column = self.text.len() - start;
        self.value(&entry.item.value, address, column);
        self.places[place].0.end = self.text.len();
        self.text.push('\n');
    }

    /// A list that does not fit into a line has a line for each value.
    fn value(&mut self, value: &Value, address: Address, column: usize) {
        match value {
            Value::List(items) if column + one_line(value).chars().count() > WIDTH && !items.is_empty() => {
                self.text.push_str("[\n");
                for (number, item) in items.iter().enumerate() {
                    self.text.push_str("    ");
                    self.inner(item, &address, number);
                    self.text.push_str(",\n");
                }
                self.text.push(']');
            }
            Value::List(items) => {
                self.text.push('[');
                for (number, item) in items.iter().enumerate() {
                    self.text.push_str(if number == 0 { "" } else { ", " });
                    self.inner(item, &address, number);
                }
                self.text.push(']');
            }
            Value::Pairs(pairs) if pairs.is_empty() => self.text.push_str("{}"),
            Value::Pairs(pairs) => {
                self.text.push('{');
                for (number, (name, item)) in pairs.iter().enumerate() {
                    self.text.push_str(if number == 0 { " " } else { ", " });
                    let start = self.text.len();
                    self.text.push_str(&format!("{} = ", key(name)));
                    self.inner_from(start, item, &address, number);
                }
                self.text.push_str(" }");
            }
            Value::Text(_) | Value::Bare(_) => self.text.push_str(&one_line(value)),
        }
    }

    fn inner(&mut self, item: &Item, outer: &Address, number: usize) {
        self.inner_from(self.text.len(), item, outer, number);
    }

    fn inner_from(&mut self, start: usize, item: &Item, outer: &Address, number: usize) {
        let mut address = outer.clone();
        address.inner.push(number);
        let place = self.places.len();
        self.places.push((start..start, address.clone()));
        // Inner lists stay on their line: those of a `rewrite` in an `if` are short.
        match &item.value {
            Value::List(_) | Value::Pairs(_) => self.value(&item.value, address, 0),
            Value::Text(_) | Value::Bare(_) => self.text.push_str(&one_line(&item.value)),
        }
        self.places[place].0.end = self.text.len();
    }

    /// Pairs with a table of their own.
    fn long_pairs(&mut self, path: &[String], entry: &Entry, address: Address) {
        self.text.push('\n');
        self.comments(&entry.comments);
        let mut path = path.to_vec();
        path.push(entry.key.clone());
        let start = self.text.len();
        let outer = self.places.len();
        self.places.push((start..start, address.clone()));
        self.text.push_str(&format!("[{}]\n", dotted(&path)));
        let Value::Pairs(pairs) = &entry.item.value else { return };
        for (number, (name, item)) in pairs.iter().enumerate() {
            let start = self.text.len();
            self.text.push_str(&format!("{} = ", key(name)));
            let mut inner = address.clone();
            inner.inner.push(number);
            let place = self.places.len();
            self.places.push((start..start, inner.clone()));
            let column = self.text.len() - start;
            self.value(&item.value, inner, column);
            self.places[place].0.end = self.text.len();
            self.text.push('\n');
        }
        self.places[outer].0.end = self.text.len();
    }

    /// The innermost parts around a byte, from the inside out.
    pub fn around(&self, at: usize) -> impl Iterator<Item = &Address> {
        let around = move |(range, _): &&(Range<usize>, Address)| {
            range.start <= at && at < range.end.max(range.start + 1)
        };
        self.places.iter().rev().filter(around).map(|(_, address)| address)
    }
}

fn too_long(entry: &Entry) -> bool {
    entry.key.chars().count() + 3 + one_line(&entry.item.value).chars().count() > WIDTH
}

fn one_line(value: &Value) -> String {
    match value {
        Value::Text(text) => quoted(text),
        Value::Bare(text) => text.clone(),
        Value::List(items) => {
            let items: Vec<_> = items.iter().map(|item| one_line(&item.value)).collect();
            format!("[{}]", items.join(", "))
        }
        Value::Pairs(pairs) if pairs.is_empty() => "{}".to_owned(),
        Value::Pairs(pairs) => {
            let pairs: Vec<_> = pairs
                .iter()
                .map(|(name, item)| format!("{} = {}", key(name), one_line(&item.value)))
                .collect();
            format!("{{ {} }}", pairs.join(", "))
        }
    }
}

fn dotted(path: &[String]) -> String {
    path.iter().map(|part| key(part)).collect::<Vec<_>>().join(".")
}

/// A key without quotes if it can be.
fn key(text: &str) -> String {
    let bare = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
    if !text.is_empty() && text.bytes().all(bare) { text.to_owned() } else { quoted(text) }
}

/// A text in `"…"`, or in `'…'` if that saves escapes.
fn quoted(text: &str) -> String {
    if text.contains(['"', '\\']) && !text.contains(|c: char| c == '\'' || c.is_control()) {
        return format!("'{text}'");
    }
    let mut quoted = String::with_capacity(text.len() + 2);
    quoted.push('"');
    for c in text.chars() {
        match c {
            '"' => quoted.push_str("\\\""),
            '\\' => quoted.push_str("\\\\"),
            '\n' => quoted.push_str("\\n"),
            '\r' => quoted.push_str("\\r"),
            '\t' => quoted.push_str("\\t"),
            c if c.is_control() => quoted.push_str(&format!("\\u{:04X}", u32::from(c))),
            c => quoted.push(c),
        }
    }
    quoted.push('"');
    quoted
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn text(text: &str) -> Item {
        Item::new(Value::text(text))
    }

    #[test]
    fn short_things_stand_in_a_line_and_long_ones_below_each_other() {
        let mut server = Table::new(Header::Many(vec!["server".to_owned()]));
        server.push("listen", text("80"));
        server.pair("proxy_set_header", "Host", text("$host"));
        let mut location = Table::new(Header::Many(vec!["server".to_owned(), "location".to_owned()]));
        location.comments.push("the app".to_owned());
        for number in 0..3 {
            location.pair("proxy_set_header", &format!("X-{number}"), text(&"v".repeat(30)));
            location.push("index", text(&"i".repeat(30)));
        }
        location.pair("types", "text/x", Item::new(Value::List(vec![text("a\"b")])));
        server.tables.push(location);
        let mut top = Table::new(Header::Top);
        top.tables.push(server);
        let (v, i) = ("v".repeat(30), "i".repeat(30));
        let expected = format!(
            "[[server]]\nlisten = [\"80\"]\nproxy_set_header = {{ Host = \"$host\" }}\n\n# the app\n[[server.location]]\n\
             index = [\n    \"{i}\",\n    \"{i}\",\n    \"{i}\",\n]\ntypes = {{ \"text/x\" = ['a\"b'] }}\n\n\
             [server.location.proxy_set_header]\nX-0 = \"{v}\"\nX-1 = \"{v}\"\nX-2 = \"{v}\"\n"
        );
        let written = top.write();
        assert_eq!(written.text, expected);
        let at = written.text.find("X-1").unwrap_or_default();
        let around: Vec<_> = written.around(at).map(|address| address.inner.clone()).collect();
        assert_eq!(around, [vec![0, 1], vec![0], vec![]]);
    }

    proptest! {
        #[test]
        fn every_text_is_read_back_as_it_was(name in "\\PC{1,8}|[a-z\n\"'\\\\\u{1}]{1,8}", value in "\\PC{0,12}|[a\n\r\t\"'\\\\\u{1f}]{0,12}") {
            let mut top = Table::new(Header::Top);
            top.pair("pairs", &name, text(&value));
            top.push("list", text(&value));
            let written = top.write().text;
            let read = toml::de::DeTable::parse(&written);
            prop_assert!(read.is_ok(), "{written}");
            let Ok(read) = read else { return Ok(()) };
            let back = read.get_ref()["pairs"].get_ref().get(name.as_str());
            prop_assert_eq!(back.and_then(|back| back.get_ref().as_str()), Some(value.as_str()));
        }
    }
}
