//! The fields of one message as they arrived: their order, duplicates, spelling and bytes kept.

use std::ops::Range;

/// The fields of a head, over the bytes in which they arrived. `http::HeaderMap` is not used because
/// it folds case and groups duplicates, and because filling it costs an allocation for each field.
#[derive(Debug, Default)]
pub struct Fields {
    /// The whole head, start line included.
    bytes: Vec<u8>,
    entries: Vec<Entry>,
}

/// A field's place in the bytes of its head.
#[derive(Clone, Debug)]
pub struct Entry {
    /// What the name means to the proxy.
    pub known: Known,
    name: Range<u32>,
    value: Range<u32>,
}

/// A field of a message.
#[derive(Clone, Copy, Debug)]
pub struct Field<'a> {
    /// What the name means to the proxy.
    pub known: Known,
    /// As it arrived.
    pub name: &'a [u8],
    /// As it arrived, without the blanks around it.
    pub value: &'a [u8],
    /// The head from the name on, at most so far as the line reaches that is usual.
    line: &'a [u8],
}

/// By what they say, however their lines were written.
impl PartialEq for Field<'_> {
    fn eq(&self, other: &Self) -> bool {
        (self.known, self.name, self.value) == (other.known, other.name, other.value)
    }
}

impl Field<'_> {
    /// Writes the field as a line: all at once where that is how it came.
    pub fn write(&self, out: &mut Vec<u8>) {
        let (colon, end) = (self.name.len(), self.name.len() + 2 + self.value.len());
        match self.line.get(colon..colon + 2) == Some(b": ") && self.line.get(end..) == Some(b"\r\n") {
            true => out.extend_from_slice(self.line),
            false => write_line(out, self.name, self.value),
        }
    }
}

/// Writes a field as a line.
pub fn write_line(out: &mut Vec<u8>, name: &[u8], value: &[u8]) {
    out.reserve(name.len() + value.len() + 4);
    for part in [name, b": ", value, b"\r\n"] {
        out.extend_from_slice(part);
    }
}

/// The fields that the proxy itself has something to do with. Found once, when a head is read, so
/// that everything later compares a byte instead of a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Known {
    /// End-to-end, of no concern to the proxy.
    Other,
    /// `Connection`: options for this hop, and names of fields for this hop.
    Connection,
    /// `Keep-Alive`, hop-by-hop (RFC 9110 §7.6.1).
    KeepAlive,
    /// `Proxy-Connection`, hop-by-hop (RFC 9110 §7.6.1).
    ProxyConnection,
    /// `TE`, hop-by-hop; only its `trailers` member has a meaning behind the proxy.
    Te,
    /// `Trailer`, which announces trailers that the proxy may drop.
    Trailer,
    /// `Transfer-Encoding`: framing.
    TransferEncoding,
    /// `Content-Length`: framing.
    ContentLength,
    /// `Upgrade`, hop-by-hop.
    Upgrade,
    /// `HTTP2-Settings`, of the `h2c` upgrade that never passes (R6).
    Http2Settings,
    /// `Host`.
    Host,
    /// `Date`.
    Date,
    /// `Expect`.
    Expect,
    /// `X-Forwarded-For`.
    XForwardedFor,
    /// `X-Forwarded-Proto`.
    XForwardedProto,
    /// `X-Forwarded-Host`.
    XForwardedHost,
    /// `X-Real-IP`.
    XRealIp,
    /// `Forwarded` (RFC 7239) and further fields by which a proxy speaks of the client (R14).
    ForwardedOther,
    /// `Sec-WebSocket-Key`.
    SecWebSocketKey,
    /// `Sec-WebSocket-Version`.
    SecWebSocketVersion,
    /// `Sec-WebSocket-Protocol`.
    SecWebSocketProtocol,
    /// `Sec-WebSocket-Extensions`.
    SecWebSocketExtensions,
    /// `Sec-WebSocket-Accept`.
    SecWebSocketAccept,
}

/// In the spelling of the RFC that defines them: it is what `Sec-WebSocket-*` goes upstream as.
const KNOWN: [(&str, Known); 34] = [
    ("Connection", Known::Connection),
    ("Keep-Alive", Known::KeepAlive),
    ("Proxy-Connection", Known::ProxyConnection),
    ("TE", Known::Te),
    ("Trailer", Known::Trailer),
    ("Transfer-Encoding", Known::TransferEncoding),
    ("Content-Length", Known::ContentLength),
    ("Upgrade", Known::Upgrade),
    ("HTTP2-Settings", Known::Http2Settings),
    ("Host", Known::Host),
    ("Date", Known::Date),
    ("Expect", Known::Expect),
    ("X-Forwarded-For", Known::XForwardedFor),
    ("X-Forwarded-Proto", Known::XForwardedProto),
    ("X-Forwarded-Host", Known::XForwardedHost),
    ("X-Real-IP", Known::XRealIp),
    ("Forwarded", Known::ForwardedOther),
    ("X-Forwarded-Port", Known::ForwardedOther),
    ("X-Forwarded-Server", Known::ForwardedOther),
    ("X-Forwarded-Scheme", Known::ForwardedOther),
    ("X-Forwarded-Ssl", Known::ForwardedOther),
    ("X-Forwarded-Prefix", Known::ForwardedOther),
    ("X-Forwarded-By", Known::ForwardedOther),
    ("X-Forwarded", Known::ForwardedOther),
    ("Forwarded-For", Known::ForwardedOther),
    ("X-Scheme", Known::ForwardedOther),
    ("X-Client-IP", Known::ForwardedOther),
    ("X-Cluster-Client-IP", Known::ForwardedOther),
    ("True-Client-IP", Known::ForwardedOther),
    ("Sec-WebSocket-Key", Known::SecWebSocketKey),
    ("Sec-WebSocket-Version", Known::SecWebSocketVersion),
    ("Sec-WebSocket-Protocol", Known::SecWebSocketProtocol),
    ("Sec-WebSocket-Extensions", Known::SecWebSocketExtensions),
    ("Sec-WebSocket-Accept", Known::SecWebSocketAccept),
];

impl Known {
    /// What the proxy knows of a name; case does not count, and in the forwarded family `_` is `-`:
    /// an app that reads `HTTP_X_FORWARDED_FOR` from a CGI-like environment cannot tell them apart.
    pub fn of(name: &[u8]) -> Self {
        // This is asked for every field of every head: most names are told apart by their first letter or
        // their length alone.
        let Some(first) = name.first() else { return Self::Other };
        if name.len() > LONGEST || !b"cdktuhepfsx".contains(&first.to_ascii_lowercase()) {
            return Self::Other;
        }
        let (known, begins) = &BY_LENGTH;
        known[begins[name.len()]..begins[name.len() + 1]]
            .iter()
            .find(|(known, meaning)| {
                if !known.as_bytes()[0].eq_ignore_ascii_case(first) {
                    false
                } else if meaning.speaks_of_the_client() {
                    same_but_for_dashes(known.as_bytes(), name)
                } else {
                    known.as_bytes().eq_ignore_ascii_case(name)
                }
            })
            .map_or(Self::Other, |(_, meaning)| *meaning)
    }

    /// Whether the field says who or where the client is, as only a trusted proxy may (R14).
    pub fn speaks_of_the_client(self) -> bool {
        matches!(
            self,
            Self::XForwardedFor
                | Self::XForwardedProto
                | Self::XForwardedHost
                | Self::XRealIp
                | Self::ForwardedOther
        )
    }

    /// The RFC 6455 spelling of a `Sec-WebSocket-*` field; some servers insist on it.
    pub fn websocket_spelling(self) -> Option<&'static str> {
        let (spelling, _) = KNOWN.iter().find(|(_, known)| *known == self)?;
        spelling.starts_with("Sec-WebSocket-").then_some(spelling)
    }
}

/// The length of the longest name in [`KNOWN`].
const LONGEST: usize = 24;

/// [`KNOWN`] with the shortest names first, and where those of each length begin.
static BY_LENGTH: ([(&str, Known); KNOWN.len()], [usize; LONGEST + 2]) = by_length();

const fn by_length() -> ([(&'static str, Known); KNOWN.len()], [usize; LONGEST + 2]) {
    let (mut sorted, mut begins) = (KNOWN, [0; LONGEST + 2]);
    let (mut length, mut count) = (0, 0);
    while length <= LONGEST {
        begins[length] = count;
        let mut place = 0;
        while place < KNOWN.len() {
            if KNOWN[place].0.len() == length {
                sorted[count] = KNOWN[place];
                count += 1;
            }
            place += 1;
        }
        length += 1;
    }
    begins[length] = count;
    assert!(count == KNOWN.len(), "a name is longer than LONGEST");
    (sorted, begins)
}

fn same_but_for_dashes(known: &[u8], name: &[u8]) -> bool {
    known.iter().zip(name).all(|(a, b)| a.eq_ignore_ascii_case(b) || (*a == b'-' && *b == b'_'))
}

impl Fields {
    /// Over the bytes of a head; fields are added with [`Fields::push`].
    pub fn over(bytes: Vec<u8>, expected: usize) -> Self {
        Self { bytes, entries: Vec::with_capacity(expected) }
    }

    /// Adds the field at these places of the bytes.
    pub fn push(&mut self, name: Range<usize>, value: Range<usize>) {
        let known = Known::of(&self.bytes[name.clone()]);
        self.entries.push(Entry {
            known,
            name: name.start as u32..name.end as u32,
            value: value.start as u32..value.end as u32,
        });
    }

    /// Begins the text of a head with these parts of its first line, to be written on by [`Fields::append`].
    pub fn begin(line: &[&[u8]], expected: usize) -> Self {
        let mut bytes = Vec::with_capacity(512);
        line.iter().for_each(|part| bytes.extend_from_slice(part));
        Self::over(bytes, expected)
    }

    /// Writes a field behind the text and adds it.
    pub fn append(&mut self, name: &[u8], value: &[u8]) {
        let start = self.bytes.len();
        write_line(&mut self.bytes, name, value);
        let colon = start + name.len();
        self.push(start..colon, colon + 2..colon + 2 + value.len());
    }

    /// Writes the end of the head behind the fields that were written.
    pub fn finish(&mut self) {
        self.bytes.extend_from_slice(b"\r\n");
    }

    /// How many fields there are.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// The bytes of the head.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// All fields in their order.
    pub fn iter(&self) -> impl Iterator<Item = Field<'_>> + Clone {
        self.entries.iter().map(|entry| self.field(entry))
    }

    /// The values of all fields of one meaning, in their order.
    pub fn values(&self, known: Known) -> impl DoubleEndedIterator<Item = &[u8]> + Clone {
        self.entries.iter().filter(move |entry| entry.known == known).map(|entry| self.field(entry).value)
    }

    /// The value of the only field of this meaning: `Ok(None)` if there is none.
    ///
    /// # Errors
    /// There is more than one.
    pub fn single(&self, known: Known) -> Result<Option<&[u8]>, Repeated> {
        let mut values = self.values(known);
        let first = values.next();
        if values.next().is_some() { Err(Repeated) } else { Ok(first) }
    }

    /// The values of all fields with this name, `_` and `-` being alike as in nginx's `$http_NAME`.
    pub fn named<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a [u8]> + Clone {
        self.iter()
            .filter(move |field| {
                field.name.len() == name.len() && same_but_for_dashes(name.as_bytes(), field.name)
            })
            .map(|field| field.value)
    }

    /// Keeps the fields for which `keep` says yes.
    pub fn retain(&mut self, mut keep: impl FnMut(Field<'_>) -> bool) {
        let bytes = &self.bytes;
        self.entries.retain(|entry| keep(entry.field(bytes)));
    }

    fn field<'a>(&'a self, entry: &Entry) -> Field<'a> {
        entry.field(&self.bytes)
    }
}

impl Entry {
    fn field<'a>(&self, bytes: &'a [u8]) -> Field<'a> {
        let name = &bytes[self.name.start as usize..self.name.end as usize];
        let value = &bytes[self.value.start as usize..self.value.end as usize];
        let from_name = &bytes[self.name.start as usize..];
        let line = &from_name[..from_name.len().min(name.len() + value.len() + 4)];
        Field { known: self.known, name, value, line }
    }
}

/// A field that may stand once stands more often.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Repeated;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_known_in_any_case_and_forwarded_ones_with_underscores_too() {
        for (name, known) in [
            ("connection", Known::Connection),
            ("CONNECTION", Known::Connection),
            ("sec-websocket-key", Known::SecWebSocketKey),
            ("X_FORWARDED_FOR", Known::XForwardedFor),
            ("x-forwarded_Proto", Known::XForwardedProto),
            ("True_Client_IP", Known::ForwardedOther),
            ("Content_Length", Known::Other),
            ("Connection-", Known::Other),
            ("Connectio", Known::Other),
            ("", Known::Other),
        ] {
            assert_eq!(Known::of(name.as_bytes()), known, "{name}");
        }
        for (name, known) in KNOWN {
            assert_eq!(Known::of(name.as_bytes()), known, "{name}");
        }
    }

    #[test]
    fn only_websocket_fields_have_a_websocket_spelling() {
        assert_eq!(Known::SecWebSocketKey.websocket_spelling(), Some("Sec-WebSocket-Key"));
        assert_eq!(Known::Host.websocket_spelling(), None);
        assert_eq!(Known::Other.websocket_spelling(), None);
    }
}
