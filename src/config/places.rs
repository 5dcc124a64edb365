//! Where in a file it was written what is in force: for those who explain it. Runtime values know nothing of
//! it.

use std::ops::Range;

use serde_spanned::Spanned;

use super::file::{Location, Server, Tables, Top, Value};
use super::read::Section;

/// A file that has been read, with the place of everything in it. Servers and locations are named by their
/// places in [`Config`](super::Config).
#[derive(Debug)]
pub struct Places {
    name: String,
    text: String,
    file: Top,
}

impl Places {
    pub(super) fn new(name: &str, text: &str, file: Top) -> Self {
        Self { name: name.to_owned(), text: text.to_owned(), file }
    }

    /// The name of the file.
    pub fn file(&self) -> &str {
        &self.name
    }

    /// The line of a `[[server]]`.
    pub fn server(&self, server: usize) -> Option<usize> {
        self.servers().get(server).map(|server| self.line(server.span()))
    }

    /// The line of a location's `path`; `None` for [`Server::outer`](super::Server::outer).
    pub fn location(&self, server: usize, location: usize) -> Option<usize> {
        let locations = self.locations(server);
        let (written, _) = locations.get(location)?;
        let path = written.get_ref().path.given().map(Spanned::span);
        Some(self.line(path.unwrap_or_else(|| written.span())))
    }

    /// The location that each one of a server is nested in, in the order of
    /// [`Server::locations`](super::Server::locations).
    pub fn parents(&self, server: usize) -> Vec<Option<usize>> {
        self.locations(server).iter().map(|(_, parent)| *parent).collect()
    }

    /// The line of the `[upstream.NAME]`.
    pub fn upstream(&self, name: &str) -> Option<usize> {
        let upstreams = &self.file.upstream.given()?.get_ref().0;
        let (written, _) = upstreams.iter().find(|(written, _)| written.get_ref() == name)?;
        Some(self.line(written.span()))
    }

    /// The line of a key in the `[upstream.NAME]`.
    pub fn in_upstream(&self, name: &str, key: &str) -> Option<usize> {
        let upstreams = &self.file.upstream.given()?.get_ref().0;
        let (_, table) = upstreams.iter().find(|(written, _)| written.get_ref() == name)?;
        table.get_ref().place(key).map(|span| self.line(span))
    }

    /// The line of a key that is inherited inwards, as it holds in a location: of the innermost one.
    pub fn inherited(&self, server: usize, location: usize, key: &str) -> Option<usize> {
        let locations = self.locations(server);
        let mut inner = Some(location);
        while let Some((written, outer)) = inner.and_then(|inner| locations.get(inner)) {
            if let Some(span) = written.get_ref().place(key) {
                return Some(self.line(span));
            }
            inner = *outer;
        }
        self.for_server(server, key)
    }

    /// The line of a key in a location itself.
    pub fn own(&self, server: usize, location: usize, key: &str) -> Option<usize> {
        let locations = self.locations(server);
        let span = locations.get(location)?.0.get_ref().place(key)?;
        Some(self.line(span))
    }

    /// The same for a key as it holds in a server.
    pub fn for_server(&self, server: usize, key: &str) -> Option<usize> {
        let own = self.servers().get(server).and_then(|server| server.get_ref().place(key));
        own.or_else(|| self.file.place(key)).map(|span| self.line(span))
    }

    fn servers(&self) -> &[Spanned<Server>] {
        tables(&self.file.server)
    }

    /// The locations of a server in their runtime order, each with the one that it is nested in.
    fn locations(&self, server: usize) -> Vec<(&Spanned<Location>, Option<usize>)> {
        let mut found = Vec::new();
        if let Some(server) = self.servers().get(server) {
            flatten(tables(&server.get_ref().location), None, &mut found);
        }
        found
    }

    /// Counts from 1.
    fn line(&self, span: Range<usize>) -> usize {
        let before = &self.text.as_bytes()[..span.start.min(self.text.len())];
        before.iter().filter(|byte| **byte == b'\n').count() + 1
    }
}

fn tables<T>(written: &Value<Tables<T>>) -> &[Spanned<T>] {
    written.given().map(|tables| tables.get_ref().0.as_slice()).unwrap_or_default()
}

/// Nested ones stand right behind the one that they are nested in, as in `check`.
fn flatten<'a>(
    tables_of: &'a [Spanned<Location>],
    parent: Option<usize>,
    found: &mut Vec<(&'a Spanned<Location>, Option<usize>)>,
) {
    for location in tables_of {
        let place = found.len();
        found.push((location, parent));
        flatten(tables(&location.get_ref().location), Some(place), found);
    }
}

#[cfg(test)]
mod tests {
    use crate::config::Config;

    const FILE: &str = "proxy_read_timeout = '1m'\n\
                        [[server]]\nlisten = 80\nkeepalive_timeout = 5\nproxy_send_timeout = '2m'\n\
                        [[server.location]]\npath = '/'\nproxy_pass = 'http://app'\n\
                        [[server.location]]\nproxy_read_timeout = '3m'\npath = '/a/'\nproxy_pass = 'http://app'\n\
                        [[server.location.location]]\npath = '/a/b/'\nproxy_pass = 'http://app'\n\
                        [[server.location]]\npath = '/c/'\nproxy_pass = 'http://app'\n\
                        [upstream.app]\nserver = '127.0.0.1:1'\n";

    #[test]
    fn the_innermost_line_that_wrote_a_key_is_found() {
        let (config, places) = Config::parse_with_places("a.toml", FILE).unwrap();
        assert_eq!(places.parents(0), [None, None, Some(1), None]);
        for (location, key, line) in [
            (0, "proxy_read_timeout", Some(1)),
            (1, "proxy_read_timeout", Some(10)),
            (2, "proxy_read_timeout", Some(10)),
            (3, "proxy_read_timeout", Some(1)),
            (config.servers[0].outer(), "proxy_read_timeout", Some(1)),
            (2, "proxy_send_timeout", Some(5)),
            (2, "keepalive_timeout", Some(4)),
            (2, "send_timeout", None),
        ] {
            assert_eq!(places.inherited(0, location, key), line, "{location} {key}");
        }
        assert_eq!((places.server(0), places.server(1)), (Some(2), None));
        assert_eq!(places.location(0, 2), Some(14));
        assert_eq!(places.upstream("app"), Some(19));
        assert_eq!(places.in_upstream("app", "server"), Some(20));
    }

    #[test]
    fn the_order_of_the_locations_is_that_of_the_configuration() {
        let (config, places) = Config::parse_with_places("a.toml", FILE).unwrap();
        let locations = &config.servers[0].locations;
        let lines: Vec<&str> = FILE.lines().collect();
        for (index, location) in locations.iter().enumerate().take(config.servers[0].outer()) {
            let line = places.location(0, index).unwrap();
            assert_eq!(lines[line - 1], format!("path = '{}'", location.matcher));
        }
    }
}
