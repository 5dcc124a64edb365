//! The fields of an answer while rules are applied to them.

use std::borrow::Cow;

use crate::headers::FieldName;
use crate::headers::fields::Fields;
use crate::headers::hop_by_hop;
use crate::http1::head::ResponseHead;

/// An answer while it is put together: its status, and its fields in their order. What frames the body and
/// what is said of the connection is no part of it.
#[derive(Clone, Debug, Default)]
pub struct Draft<'a> {
    /// The status.
    pub status: u16,
    lines: Vec<Line<'a>>,
}

/// A field of a [`Draft`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Line<'a> {
    /// Its name.
    pub name: Cow<'a, [u8]>,
    /// Its value.
    pub value: Cow<'a, [u8]>,
}

impl<'a> Draft<'a> {
    /// Without a field.
    pub fn new(status: u16) -> Self {
        Self { status, lines: Vec::new() }
    }

    /// The end-to-end fields of an upstream's answer for which `keep` says yes.
    pub fn of(head: &'a ResponseHead, keep: impl Fn(&[u8]) -> bool) -> Self {
        let fields = hop_by_hop::strip(&head.fields);
        let lines = fields
            .iter()
            .filter(|field| keep(field.name))
            .map(|field| Line { name: Cow::Borrowed(field.name), value: Cow::Borrowed(field.value) });
        Self { status: head.status, lines: lines.collect() }
    }

    /// The fields in their order.
    pub fn lines(&self) -> &[Line<'a>] {
        &self.lines
    }

    /// Gives the field at a place of [`Draft::lines`] another value.
    pub fn replace(&mut self, index: usize, value: Vec<u8>) {
        if let Some(line) = self.lines.get_mut(index) {
            line.value = Cow::Owned(value);
        }
    }

    /// The value of the first field of a name.
    pub fn get(&self, name: &str) -> Option<&[u8]> {
        self.lines.iter().find(|line| line.is(name)).map(|line| &*line.value)
    }

    /// The values of all fields of a name.
    pub fn values<'b>(&'b self, name: &'b str) -> impl Iterator<Item = &'b [u8]> + Clone {
        self.lines.iter().filter(move |line| line.is(name)).map(|line| &*line.value)
    }

    /// Adds a field behind the others.
    pub fn push(&mut self, name: impl Into<Cow<'a, [u8]>>, value: impl Into<Cow<'a, [u8]>>) {
        self.lines.push(Line { name: name.into(), value: value.into() });
    }

    /// Gives the first field of a name another value and takes the further ones away; adds one if there is
    /// none.
    pub fn set(&mut self, name: &'static str, value: Vec<u8>) {
        let Some(first) = self.lines.iter().position(|line| line.is(name)) else {
            return self.push(name.as_bytes(), value);
        };
        self.lines[first].value = Cow::Owned(value);
        let mut index = 0;
        self.lines.retain(|line| {
            index += 1;
            index <= first + 1 || !line.is(name)
        });
    }

    /// Writes the fields; `Content-Length` only `with_length`.
    pub fn write(&self, out: &mut Vec<u8>, with_length: bool) {
        for line in self.lines.iter().filter(|line| with_length || !line.is("Content-Length")) {
            out.extend_from_slice(&line.name);
            out.extend_from_slice(b": ");
            out.extend_from_slice(&line.value);
            out.extend_from_slice(b"\r\n");
        }
    }

    /// Takes all fields of a name away.
    pub fn remove(&mut self, name: &str) {
        self.lines.retain(|line| !line.is(name));
    }

    /// Takes a value of a rule, unless it is empty or has a byte that may not stand in a field: a decoded
    /// path can hold any (R17).
    pub fn add(&mut self, name: &FieldName, value: Vec<u8>) {
        if !value.is_empty() && is_clean(&value) {
            self.push(name.as_str().as_bytes().to_vec(), value);
        }
    }
}

impl Line<'_> {
    /// Whether this is its name, in any case.
    pub fn is(&self, name: &str) -> bool {
        self.name.eq_ignore_ascii_case(name.as_bytes())
    }
}

/// Whether a value may stand in a field, RFC 9110 §5.5.
pub fn is_clean(value: &[u8]) -> bool {
    value.iter().all(|byte| *byte == b'\t' || (*byte >= b' ' && *byte != 0x7f))
}

/// The fields of a head that was written, from the end of its first line on.
pub fn fields_of(head: &[u8]) -> Fields {
    let mut places = Vec::with_capacity(16);
    let mut start = memchr::memchr(b'\n', head).map_or(head.len(), |end| end + 1);
    while let Some(end) = memchr::memchr(b'\n', &head[start..]).map(|end| start + end) {
        let line = &head[start..end];
        let Some(colon) = memchr::memchr(b':', line) else { break };
        // `Name: value` and CRLF, as they are written here.
        places.push((start..start + colon, (start + colon + 2).min(end - 1)..end - 1));
        start = end + 1;
    }
    let mut fields = Fields::over(head.to_vec(), places.len());
    for (name, value) in places {
        fields.push(name, value);
    }
    fields
}

#[cfg(test)]
mod tests {
    use super::*;

    fn draft(lines: &[(&'static str, &'static str)]) -> Draft<'static> {
        let mut draft = Draft::new(200);
        for (name, value) in lines {
            draft.push(name.as_bytes(), value.as_bytes());
        }
        draft
    }

    fn shown(draft: &Draft<'_>) -> Vec<String> {
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        draft.lines().iter().map(|line| format!("{}: {}", text(&line.name), text(&line.value))).collect()
    }

    #[test]
    fn a_field_that_is_set_keeps_its_place_and_stands_once() {
        let mut fields = draft(&[("a", "1"), ("Cache-control", "2"), ("b", "3"), ("cache-control", "4")]);
        fields.set("Cache-Control", b"x".to_vec());
        fields.set("Expires", b"y".to_vec());
        assert_eq!(shown(&fields), ["a: 1", "Cache-control: x", "b: 3", "Expires: y"]);
        fields.remove("B");
        assert_eq!(fields.get("b"), None);
    }

    #[test]
    fn a_value_that_would_break_the_head_is_not_taken() {
        let name = FieldName::new("X-A").unwrap();
        let mut fields = Draft::new(200);
        for value in [&b""[..], b"a\r\nb", b"a\x00", b"ok \t\xc3"] {
            fields.add(&name, value.to_vec());
        }
        assert_eq!(fields.lines().len(), 1);
    }

    #[test]
    fn the_fields_of_a_written_head_are_found() {
        let fields = fields_of(b"HTTP/1.1 200 OK\r\nA: 1\r\nEmpty: \r\nB: x: y\r\n\r\n");
        let found: Vec<_> = fields.iter().map(|field| (field.name, field.value)).collect();
        assert_eq!(found, [(&b"A"[..], &b"1"[..]), (b"Empty", b""), (b"B", b"x: y")]);
    }
}
