//! Which server answers for a host: nginx's rules for `server_name`.

use rustc_hash::FxHashMap;

use super::regex::{Regex, Slots};

/// A name of a server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ServerName {
    /// `example.com`, or the empty name, for requests without a host.
    Exact(String),
    /// `*.example.com`, kept as `.example.com`: any name under it, at any depth.
    LeadingWildcard(String),
    /// `www.example.*`, kept as `www.example.`: any ending.
    TrailingWildcard(String),
    /// `~^(?<user>.+)\.example\.com$`: any name that matches.
    Regex(Regex),
}

impl ServerName {
    /// Reads a name as it stands in `server_name`, unless it is a regular expression; upper case is folded. `.example.com` is nginx's
    /// short form of `example.com` and `*.example.com` and gives both.
    ///
    /// # Errors
    /// A text that says what is wrong with the name.
    pub fn parse(text: &str) -> Result<Vec<Self>, &'static str> {
        let name = text.to_ascii_lowercase();
        if name.contains([':', '/', ' ', '$']) {
            return Err("a server name is a host name without scheme, port or path");
        }
        if let Some(rest) = name.strip_prefix("*.") {
            return plain(rest).map(|rest| vec![Self::LeadingWildcard(format!(".{rest}"))]);
        }
        if let Some(rest) = name.strip_prefix('.') {
            return plain(rest)
                .map(|rest| vec![Self::Exact(rest.to_owned()), Self::LeadingWildcard(format!(".{rest}"))]);
        }
        if let Some(rest) = name.strip_suffix(".*") {
            return plain(rest).map(|rest| vec![Self::TrailingWildcard(format!("{rest}."))]);
        }
        if name.contains('*') {
            return Err(
                "`*` may only stand for the first or the last part of a name: `*.example.com`, `example.*`",
            );
        }
        Ok(vec![Self::Exact(name)])
    }
}

fn plain(rest: &str) -> Result<&str, &'static str> {
    if rest.is_empty() || rest.contains('*') {
        return Err(
            "`*` may only stand for the first or the last part of a name: `*.example.com`, `example.*`",
        );
    }
    Ok(rest)
}

/// What a server has a host by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Claim<'a> {
    /// One of its names is the host.
    Exact,
    /// A name `*.example.com`, here `.example.com`.
    LeadingWildcard(&'a str),
    /// A name `www.example.*`, here `www.example.`.
    TrailingWildcard(&'a str),
    /// The first expression that matches.
    Regex(&'a Regex),
    /// Nobody has claimed the host, and this is the default server.
    Default,
}

/// The servers behind one listening address.
#[derive(Debug)]
pub struct ServerNames {
    default: usize,
    /// The server for clients that name no host.
    unnamed: usize,
    exact: FxHashMap<String, usize>,
    /// By length of the name, the longest first.
    leading: Vec<(String, usize)>,
    trailing: Vec<(String, usize)>,
    /// In the order of the file.
    regexes: Vec<(Regex, usize)>,
}

impl ServerNames {
    /// `default` is the server for a host that nobody has claimed; of two servers with the same
    /// name the first one has it.
    pub fn new(default: usize, names: impl IntoIterator<Item = (ServerName, usize)>) -> Self {
        let mut found = Self {
            default,
            unnamed: default,
            exact: FxHashMap::default(),
            leading: Vec::new(),
            trailing: Vec::new(),
            regexes: Vec::new(),
        };
        for (name, server) in names {
            match name {
                ServerName::Exact(name) => {
                    found.exact.entry(name).or_insert(server);
                }
                ServerName::LeadingWildcard(name) => found.leading.push((name, server)),
                ServerName::TrailingWildcard(name) => found.trailing.push((name, server)),
                ServerName::Regex(regex) => found.regexes.push((regex, server)),
            }
        }
        found.leading.sort_by_key(|(name, _)| std::cmp::Reverse(name.len()));
        found.trailing.sort_by_key(|(name, _)| std::cmp::Reverse(name.len()));
        found.unnamed = found.find("");
        found
    }

    /// The server for an empty host.
    pub fn unnamed_server(&self) -> usize {
        self.unnamed
    }

    /// The server for those who name no host, or one that nobody has claimed.
    pub fn default_server(&self) -> usize {
        self.default
    }

    /// The server for a host in lower case, without a port and without a dot at its end. nginx's
    /// order: the exact name, the longest `*.name`, the longest `name.*`, the first expression, the default.
    pub fn find(&self, host: &str) -> usize {
        self.claim(host).0
    }

    /// As [`ServerNames::find`], with what the server has claimed the host by.
    pub fn claim(&self, host: &str) -> (usize, Claim<'_>) {
        self.by_text(host)
            .or_else(|| self.by_regex(host).map(|(regex, server)| (*server, Claim::Regex(regex))))
            .unwrap_or((self.default, Claim::Default))
    }

    /// Leaves the groups of the expression that a host was found by in `slots`, if it was found by one.
    pub fn capture(&self, host: &str, slots: &Slots) {
        if !self.regexes.is_empty()
            && let (_, Claim::Regex(regex)) = self.claim(host)
        {
            slots.matches(regex, host.as_bytes());
        }
    }

    fn by_text(&self, host: &str) -> Option<(usize, Claim<'_>)> {
        if let Some(&server) = self.exact.get(host) {
            return Some((server, Claim::Exact));
        }
        let leading = self.leading.iter().find(|(name, _)| host.len() > name.len() && host.ends_with(name));
        if let Some((name, server)) = leading {
            return Some((*server, Claim::LeadingWildcard(name)));
        }
        let trailing =
            self.trailing.iter().find(|(name, _)| host.len() > name.len() && host.starts_with(name));
        trailing.map(|(name, server)| (*server, Claim::TrailingWildcard(name)))
    }

    fn by_regex(&self, host: &str) -> Option<&(Regex, usize)> {
        // nginx: a request without a host has no name to be matched.
        self.regexes.iter().filter(|_| !host.is_empty()).find(|(regex, _)| regex.is_match(host.as_bytes()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_order_is_exact_leading_trailing_default() {
        let names = [
            ("example.com", 1),
            ("*.example.com", 2),
            ("*.deep.example.com", 3),
            ("www.example.*", 4),
            (".both.org", 5),
            ("www.example.com", 6),
            ("example.com", 7),
        ];
        let servers = ServerNames::new(
            0,
            names.iter().flat_map(|(name, server)| {
                ServerName::parse(name).unwrap().into_iter().map(|name| (name, *server))
            }),
        );
        for (host, server) in [
            ("example.com", 1),
            ("a.example.com", 2),
            ("a.b.example.com", 2),
            ("a.deep.example.com", 3),
            ("www.example.com", 6),
            ("www.example.net", 4),
            ("www.example.", 0),
            ("both.org", 5),
            ("x.both.org", 5),
            (".example.com", 0),
            ("other", 0),
            ("", 0),
        ] {
            assert_eq!(servers.find(host), server, "{host}");
        }
    }

    #[test]
    fn names_that_are_none_are_refused() {
        for name in ["a.*.com", "*", "*.", "w*.example.com", "http://a", "a:80", "*.a.*"] {
            assert!(ServerName::parse(name).is_err(), "{name}");
        }
    }
}
