//! A message head as it came over the wire, and a whole response.

/// A request or response head: its first line, its fields in order, and the bytes themselves.
#[derive(Debug, Clone)]
pub struct Head {
    pub start: String,
    pub fields: Vec<(String, String)>,
    pub raw: Vec<u8>,
}

/// A response with its body taken out of its framing.
#[derive(Debug)]
pub struct Response {
    pub status: u16,
    pub head: Head,
    pub body: Vec<u8>,
    pub trailers: Vec<(String, String)>,
}

impl Head {
    /// Splits the bytes of a head, its empty line included. Panics on what no proxy may ever send.
    #[track_caller]
    pub fn parse(raw: Vec<u8>) -> Self {
        let text = String::from_utf8_lossy(&raw).into_owned();
        let mut lines = text.trim_end_matches("\r\n").split("\r\n");
        let start = lines.next().unwrap_or_default().to_owned();
        let fields = lines.map(field_of).collect();
        Self { start, fields, raw }
    }

    /// The value of the only field of this name.
    #[track_caller]
    pub fn field(&self, name: &str) -> Option<&str> {
        let all = self.all(name);
        assert!(all.len() < 2, "field {name} came {} times in\n{self}", all.len());
        all.first().copied()
    }

    /// The values of all fields of this name, in order.
    pub fn all(&self, name: &str) -> Vec<&str> {
        let same = |(field, _): &&(String, String)| field.eq_ignore_ascii_case(name);
        self.fields.iter().filter(same).map(|(_, value)| value.as_str()).collect()
    }

    /// Whether the list-valued field has this member, over all its lines, in any case.
    pub fn has_member(&self, name: &str, member: &str) -> bool {
        self.all(name)
            .iter()
            .flat_map(|value| value.split(','))
            .any(|m| m.trim().eq_ignore_ascii_case(member))
    }

    /// Asserts that each `name: value` is there; names in any case, values to the byte.
    #[track_caller]
    pub fn expect(&self, fields: &[&str]) -> &Self {
        for field in fields {
            let (name, value) = field_of(field);
            assert!(self.all(&name).contains(&value.as_str()), "expected: {field}\n     got:\n{self}");
        }
        self
    }

    /// Asserts that no field of these names is there.
    #[track_caller]
    pub fn expect_none_of(&self, names: &[&str]) -> &Self {
        for name in names {
            assert!(self.all(name).is_empty(), "expected: no {name}\n     got:\n{self}");
        }
        self
    }

    /// The status code of a response.
    #[track_caller]
    pub fn status(&self) -> u16 {
        let code = self.start.strip_prefix("HTTP/1.").and_then(|rest| rest.get(2..5));
        code.and_then(|code| code.parse().ok())
            .unwrap_or_else(|| panic!("not a status line: {:?}", self.start))
    }
}

impl std::fmt::Display for Head {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&String::from_utf8_lossy(&self.raw))
    }
}

impl Response {
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }
}

/// Splits `name: value` as RFC 9112 §5 does, and refuses what §5.1 forbids.
#[track_caller]
pub fn field_of(line: &str) -> (String, String) {
    let (name, value) =
        line.split_once(':').unwrap_or_else(|| panic!("a field line without a colon: {line:?}"));
    assert!(!name.is_empty() && !name.contains([' ', '\t', '\n', '\r']), "a bad field name: {line:?}");
    assert!(!value.contains(['\r', '\n', '\0']), "a bad field value: {line:?}");
    (name.to_owned(), value.trim_matches([' ', '\t']).to_owned())
}
