//! Tables with keys of ours: a struct whose fields are the keys.

use std::ops::Range;

use serde_spanned::Spanned;
use toml::de::{DeTable, DeValue};

use super::Reader;
use crate::config::file::{Level, Value};

/// Keys that stand together in a table.
pub trait Section: Default {
    /// The names of the keys.
    fn keys() -> Vec<&'static str>;

    /// Where the value of one of the keys stands, as bytes of the file; `None` if the key is not there.
    fn place(&self, key: &str) -> Option<Range<usize>>;

    /// Takes the value of one of the keys; `false` if it is none of them.
    fn take(&mut self, key: &str, value: &Spanned<DeValue<'_>>, reader: &mut Reader) -> bool;
}

/// A [`Section`] that is a whole table.
pub trait Table: Section {
    /// Which one.
    const LEVEL: Level;
}

/// What can stand behind a key.
pub trait FromToml: Sized {
    /// What is expected there: "a time: `\"60s\"`".
    const EXPECTED: &'static str;

    /// Reads the value. `None` means that it is wrong and has been reported.
    fn from_toml(key: &str, value: &Spanned<DeValue<'_>>, reader: &mut Reader) -> Option<Self>;
}

impl Reader {
    /// Reads a table key by key; one that is misspelt is reported and read as what it was meant to be.
    pub fn section<T: Table>(&mut self, table: &DeTable<'_>) -> T {
        let mut section = T::default();
        for (key, value) in table.iter() {
            if section.take(key.get_ref(), value, self) {
                continue;
            }
            if let Some(meant) = self.unknown_key(T::LEVEL, key, value)
                && !table.contains_key(meant)
            {
                section.take(meant, value, self);
            }
        }
        section
    }

    /// Reads the value of a key.
    pub fn value<T: FromToml>(&mut self, key: &str, value: &Spanned<DeValue<'_>>) -> Value<T> {
        match T::from_toml(key, value, self) {
            Some(read) => Value::Given(Spanned::new(value.span(), read)),
            None => Value::Wrong,
        }
    }
}

/// The key that a field stands for: `return` and `if` are words of Rust, too.
pub fn word(field: &'static str) -> &'static str {
    field.strip_prefix("r#").unwrap_or(field)
}

/// Defines a struct whose fields are the keys of a table: each field's type says how its value is
/// read. Groups of keys that stand in several tables are fields of their own behind the braces.
macro_rules! section {
    (
        $(#[$doc:meta])*
        $Name:ident $(at $level:ident)? { $($key:ident: $Type:ty,)* }
        $($group:ident: $Group:ty,)*
    ) => {
        $(#[$doc])*
        #[derive(Clone, Debug, Default)]
        #[allow(missing_docs)] // docs/configuration.md says what each key means, a test sees to it
        pub struct $Name {
            $(pub $key: Value<$Type>,)*
            $(pub $group: $Group,)*
        }

        impl $crate::config::read::Section for $Name {
            fn keys() -> Vec<&'static str> {
                let own = [$($crate::config::read::word(stringify!($key))),*];
                own.into_iter()$(.chain(<$Group>::keys()))*.collect()
            }

            fn place(&self, key: &str) -> Option<std::ops::Range<usize>> {
                $(if key == $crate::config::read::word(stringify!($key)) {
                    return self.$key.given().map(|value| value.span());
                })*
                None $(.or_else(|| self.$group.place(key)))*
            }

            fn take(
                &mut self,
                key: &str,
                value: &Spanned<toml::de::DeValue<'_>>,
                reader: &mut $crate::config::read::Reader,
            ) -> bool {
                $(if key == $crate::config::read::word(stringify!($key)) {
                    self.$key = reader.value(key, value);
                    return true;
                })*
                false $(|| self.$group.take(key, value, reader))*
            }
        }

        $(impl $crate::config::read::Table for $Name {
            const LEVEL: Level = Level::$level;
        })?
    };
}
pub(in crate::config) use section;
