//! TOML as a person writes it: a document that knows where each of its values came from.

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

/// As a comment: a line with nothing in it.
pub const BLANK: &str = "\n";

/// Keys whose only value stands without brackets.
const SHORT: &[&str] = &["listen", "server_name", "error_page", "ssl_certificate", "ssl_certificate_key"];

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
}
