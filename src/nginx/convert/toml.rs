//! TOML as a person writes it: a document that knows where each of its values came from.

use std::ops::Range;

use crate::nginx::parse::Place;

/// A directive of the nginx file that something was made from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Origin {
    /// Where it stands.
    pub place: Place,
    /// Its name.
    pub directive: String,
}

/// A value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Value {
    /// A text, to be quoted.
    Text(String),
    /// A number, `true` or `false`.
    Bare(String),
    /// Values in brackets.
    List(Vec<Item>),
    /// Pairs in braces, or in a table of their own if there are many.
    Pairs(Vec<(String, Item)>),
}

/// A value with the directive that it is from, if a single one is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Item {
    /// What is written.
    pub value: Value,
    /// Where it is from.
    pub origin: Option<Origin>,
}

/// `key = value`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Lines above it.
    pub comments: Vec<String>,
    /// The key.
    pub key: String,
    /// The value.
    pub item: Item,
    /// Whether it is only a comment: what would stand there.
    pub is_off: bool,
}

/// How a table begins.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Header {
    /// The top of the file.
    Top,
    /// `[a.b]`
    One(Vec<String>),
    /// `[[a.b]]`
    Many(Vec<String>),
}

/// A table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Table {
    /// How it begins.
    pub header: Header,
    /// Lines above it.
    pub comments: Vec<String>,
    /// Its keys in their order.
    pub entries: Vec<Entry>,
    /// The tables behind it.
    pub tables: Vec<Table>,
    /// Where it is from.
    pub origin: Option<Origin>,
}

/// The way to a part of a document: `tables` to go down, then perhaps an entry and the values in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Address {
    /// Through [`Table::tables`], from the top.
    pub tables: Vec<usize>,
    /// A place in [`Table::entries`], then in lists and pairs.
    pub inner: Vec<usize>,
}

/// A written document.
#[derive(Debug)]
pub struct Written {
    /// The file.
    pub text: String,
    /// What stands where in it; outer parts come before what is in them.
    pub places: Vec<(Range<usize>, Address)>,
}

/// As a comment: a line with nothing in it.
pub const BLANK: &str = "\n";

/// Keys whose only value stands without brackets.
const SHORT: &[&str] = &["listen", "server_name", "error_page"];

/// The longest line that is written on purpose.
const WIDTH: usize = 100;

impl Value {
    /// A text.
    pub fn text(text: impl Into<String>) -> Self {
        Self::Text(text.into())
    }

    /// The values in it, one level down.
    pub fn inner_mut(&mut self, place: usize) -> Option<&mut Item> {
        match self {
            Self::List(items) => items.get_mut(place),
            Self::Pairs(pairs) => pairs.get_mut(place).map(|(_, item)| item),
            Self::Text(_) | Self::Bare(_) => None,
        }
    }

    /// Takes one of the values in it out.
    pub fn remove(&mut self, place: usize) {
        match self {
            Self::List(items) if place < items.len() => drop(items.remove(place)),
            Self::Pairs(pairs) if place < pairs.len() => drop(pairs.remove(place)),
            _ => {}
        }
    }

    /// Whether it is a list or a table without anything in it.
    pub fn is_empty(&self) -> bool {
        match self {
            Self::List(items) => items.is_empty(),
            Self::Pairs(pairs) => pairs.is_empty(),
            Self::Text(_) | Self::Bare(_) => false,
        }
    }
}

impl Item {
    /// A value that no single directive made.
    pub fn new(value: Value) -> Self {
        Self { value, origin: None }
    }

    /// A value with its directive.
    pub fn from(value: Value, origin: Origin) -> Self {
        Self { value, origin: Some(origin) }
    }
}

impl Entry {
    /// `key = value`
    pub fn new(key: &str, item: Item) -> Self {
        Self { comments: Vec::new(), key: key.to_owned(), item, is_off: false }
    }

    /// With a line above it.
    pub fn comment(mut self, line: impl Into<String>) -> Self {
        self.comments.push(line.into());
        self
    }
}

impl Table {
    /// A table without anything in it.
    pub fn new(header: Header) -> Self {
        Self { header, comments: Vec::new(), entries: Vec::new(), tables: Vec::new(), origin: None }
    }

    /// The entry with a key.
    pub fn find(&self, key: &str) -> Option<&Entry> {
        self.entries.iter().find(|entry| entry.key == key && !entry.is_off)
    }

    /// Whether there is a value for a key.
    pub fn has(&self, key: &str) -> bool {
        self.find(key).is_some()
    }

    /// The entry with a key, made with an empty value if it is not there.
    pub fn entry(&mut self, key: &str, empty: Value) -> &mut Entry {
        let place = match self.entries.iter().position(|entry| entry.key == key && !entry.is_off) {
            Some(place) => place,
            None => {
                self.entries.push(Entry::new(key, Item::new(empty)));
                self.entries.len() - 1
            }
        };
        &mut self.entries[place]
    }

    /// Adds to the list behind a key.
    pub fn push(&mut self, key: &str, item: Item) {
        let entry = self.entry(key, Value::List(Vec::new()));
        if let Value::List(items) = &mut entry.item.value {
            items.push(item);
        }
    }

    /// Adds to the pairs behind a key; `false` if the name is there already.
    pub fn pair(&mut self, key: &str, name: &str, item: Item) -> bool {
        let entry = self.entry(key, Value::Pairs(Vec::new()));
        let Value::Pairs(pairs) = &mut entry.item.value else { return false };
        let is_new = !pairs.iter().any(|(other, _)| other == name);
        if is_new {
            pairs.push((name.to_owned(), item));
        }
        is_new
    }

    /// Takes every entry with one of the keys out.
    pub fn without(&mut self, keys: &[&str]) {
        self.entries.retain(|entry| entry.is_off || !keys.contains(&entry.key.as_str()));
    }

    /// A list of one text is that text, for keys that take both.
    pub fn shorten(&mut self) {
        for entry in self.entries.iter_mut().filter(|entry| SHORT.contains(&entry.key.as_str())) {
            if let Value::List(items) = &mut entry.item.value
                && matches!(items.as_slice(), [Item { value: Value::Text(_), .. }])
                && let Some(only) = items.pop()
            {
                entry.item = only;
            }
        }
        self.tables.iter_mut().for_each(Self::shorten);
    }

    /// The table at the end of a way, from this one.
    pub fn at_mut(&mut self, way: &[usize]) -> Option<&mut Table> {
        way.iter().try_fold(self, |table, place| table.tables.get_mut(*place))
    }

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
