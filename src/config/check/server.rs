//! Servers: their limits, and what they leave to their locations.

use std::collections::HashMap;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use serde_spanned::Spanned;

use super::settings::Settings;
use super::{Check, plain};
use crate::config::error::{Mistake, MistakeKind};
use crate::config::file::{self, ForServers, OffOr, Size, Value};
use crate::config::{ClientLimits, EncodedSlashes, Location, Server};
use crate::http1::head::MAX_FIELDS;
use crate::routing::location::{Candidate, Locations, PathMatcher};
use crate::routing::values::hostname;

/// The most streams that a connection of HTTP/2 may be allowed: each may hold a window of content.
const MAX_STREAMS: u64 = 10_000;

/// What is written at one level of the file; `None` is inherited.
#[derive(Clone, Default)]
pub(super) struct ServerSettings {
    header_timeout: Option<Duration>,
    keepalive_timeout: Option<Duration>,
    keepalive_requests: Option<OffOr<u64>>,
    head_size: Option<usize>,
    max_headers: Option<usize>,
    underscores_in_headers: Option<bool>,
    encoded_slashes: Option<EncodedSlashes>,
    http2: Option<bool>,
    http2_streams: Option<usize>,
}

impl ServerSettings {
    /// What is not written here is as it is further out.
    fn inside(self, outer: &Self) -> Self {
        Self {
            header_timeout: self.header_timeout.or(outer.header_timeout),
            keepalive_timeout: self.keepalive_timeout.or(outer.keepalive_timeout),
            keepalive_requests: self.keepalive_requests.or(outer.keepalive_requests),
            head_size: self.head_size.or(outer.head_size),
            max_headers: self.max_headers.or(outer.max_headers),
            underscores_in_headers: self.underscores_in_headers.or(outer.underscores_in_headers),
            encoded_slashes: self.encoded_slashes.or(outer.encoded_slashes),
            http2: self.http2.or(outer.http2),
            http2_streams: self.http2_streams.or(outer.http2_streams),
        }
    }

    /// With the defaults for what is written nowhere; `outer` is the server's outer location.
    fn limits(&self, outer: &Location) -> ClientLimits {
        ClientLimits {
            head_size: self.head_size.unwrap_or(64 << 10),
            max_headers: self.max_headers.unwrap_or(100),
            header_timeout: self.header_timeout.unwrap_or(Duration::from_secs(60)),
            keepalive_timeout: self.keepalive_timeout.unwrap_or(Duration::from_secs(75)),
            keepalive_requests: match self.keepalive_requests.unwrap_or(OffOr::Value(10_000)) {
                OffOr::Off => None,
                OffOr::Value(count) => Some(count),
            },
            underscores_in_headers: self.underscores_in_headers.unwrap_or(false),
            send_timeout: outer.timeouts.send,
            http2: self.http2.unwrap_or(true),
            http2_streams: self.http2_streams.and_then(|most| u32::try_from(most).ok()).unwrap_or(128),
        }
    }
}

/// The locations of a server, nested ones behind the one that they are nested in.
#[derive(Default)]
struct Found {
    locations: Vec<Location>,
    /// The place of the location that each one is nested in.
    parents: Vec<Option<usize>>,
}

fn named(locations: &[Location]) -> HashMap<String, usize> {
    let names = locations.iter().enumerate().filter_map(|(place, location)| match &location.matcher {
        PathMatcher::Named(name) => Some((name.clone(), place)),
        _ => None,
    });
    names.collect()
}

impl Check<'_> {
    pub(super) fn server_settings(&mut self, written: &ForServers) -> ServerSettings {
        ServerSettings {
            header_timeout: self.time(&written.client_header_timeout, "client_header_timeout"),
            keepalive_timeout: plain(&written.keepalive_timeout),
            keepalive_requests: plain(&written.keepalive_requests),
            head_size: self.head_size(&written.client_max_head_size),
            max_headers: self.count(&written.max_headers, "max_headers", 1..=MAX_FIELDS as u64),
            underscores_in_headers: plain(&written.underscores_in_headers),
            encoded_slashes: self.encoded_slashes(&written.encoded_slashes),
            http2: plain(&written.http2),
            http2_streams: self.count(
                &written.http2_max_concurrent_streams,
                "http2_max_concurrent_streams",
                1..=MAX_STREAMS,
            ),
        }
    }

    pub(super) fn server(&mut self, written: &file::Server, outer: &(ServerSettings, Settings)) -> Server {
        let own = self.server_settings(&written.for_servers).inside(&outer.0);
        let settings = self.settings(&written.for_locations).inside(&outer.1);
        let names = written.server_name.given().map(|names| names.get_ref().0.as_slice()).unwrap_or_default();
        let in_file =
            written.location.given().map(|tables| tables.get_ref().0.as_slice()).unwrap_or_default();
        let script = self.script(&written.script);
        let mut found = Found::default();
        self.locations(in_file, None, &settings, &mut found);
        let outer = self.outer_location(written, &settings);
        self.check_gotos(&found);
        let Found { mut locations, parents } = found;
        let candidate = |location: usize| Candidate {
            location,
            matcher: &locations[location].matcher,
            parent: parents[location],
            adds_slash: locations[location].proxy_pass().is_some(),
        };
        let paths = Locations::new(&(0..locations.len()).map(candidate).collect::<Vec<_>>());
        let named = named(&locations);
        let limits = own.limits(&outer);
        locations.push(outer);
        let real_ip = Arc::new(settings.access.real_ip());
        for access in locations.iter_mut().map(|location| &mut location.access) {
            if access.real_ip == real_ip {
                access.real_ip = Arc::clone(&real_ip);
            }
        }
        Server {
            name: names.first().map(|name| main_name(name.get_ref())).unwrap_or_default(),
            paths,
            named,
            locations,
            script,
            limits,
            real_ip,
            encoded_slashes: own.encoded_slashes.unwrap_or(EncodedSlashes::Reject),
        }
    }

    /// Checks the locations of one level, and those nested in them.
    fn locations(
        &mut self,
        written: &[Spanned<file::Location>],
        parent: Option<usize>,
        outer: &Settings,
        found: &mut Found,
    ) {
        let mut seen: Vec<(PathMatcher, Range<usize>)> = Vec::new();
        for location in written {
            let matcher = self.path(location, &mut seen);
            let file = location.get_ref();
            let mut settings = self.settings(&file.for_locations).inside(outer);
            self.location_alias(file, matcher.as_ref(), &mut settings.files);
            let checked = self.location(location, matcher, &settings);
            // What is nested in one that is not right is checked, too.
            let place = checked.is_some().then_some(found.locations.len());
            if let Some(location) = checked {
                found.locations.push(location);
                found.parents.push(parent);
            }
            let nested =
                file.location.given().map(|tables| tables.get_ref().0.as_slice()).unwrap_or_default();
            self.refuse_named(nested);
            self.locations(nested, place.or(parent), &settings, found);
        }
    }

    /// nginx: a named location stands directly in its server.
    fn refuse_named(&mut self, nested: &[Spanned<file::Location>]) {
        for path in nested.iter().filter_map(|location| location.get_ref().path.given()) {
            if path.get_ref().starts_with('@') {
                let message = format!("the named location `{}` stands in another one", path.get_ref());
                self.mistakes
                    .push(Mistake::new(path.span(), message).help("write it directly in its server"));
            }
        }
    }

    /// Reports every named location that requests are sent to and that is not there.
    fn check_gotos(&mut self, found: &Found) {
        let known: Vec<&str> = found.locations.iter().map(|location| location.matcher.path()).collect();
        for name in std::mem::take(&mut self.gotos) {
            let text = name.get_ref().as_str();
            if known.contains(&text) && text.starts_with('@') {
                continue;
            }
            let message = match crate::config::read::nearest(text, &known) {
                Some(near) => format!("there is no location `{text}` in this server, did you mean `{near}`?"),
                None => format!("there is no location `{text}` in this server"),
            };
            let help = format!("write a `[[server.location]]` with `path = \"{text}\"`");
            self.mistakes.push(Mistake::new(name.span(), message).help(help).kind(MistakeKind::Doubtful));
        }
    }

    fn head_size(&mut self, written: &Value<Size>) -> Option<usize> {
        let size = written.given()?;
        let Size(bytes) = *size.get_ref();
        if !(1 << 10..=16 << 20).contains(&bytes) {
            let mistake = Mistake::new(size.span(), "`client_max_head_size` must be from 1k to 16m");
            self.mistakes.push(mistake.help("write `client_max_head_size = \"64k\"`, or leave the key out"));
            return None;
        }
        Some(bytes as usize)
    }

    /// The path of a location, if it is right and the first of its kind in the server.
    fn path(
        &mut self,
        location: &Spanned<file::Location>,
        seen: &mut Vec<(PathMatcher, Range<usize>)>,
    ) -> Option<PathMatcher> {
        let written = &location.get_ref().path;
        if written.is_absent() {
            let help = "write `path = \"/\"` for every path, `path = \"= /\"` for this path alone";
            self.missing(location.span(), "a location needs a `path`", help);
        }
        let path = written.given()?;
        let text = path.get_ref();
        let matcher = if let Some(regex) = text.strip_prefix('~') {
            let (regex, is_caseless) = regex.strip_prefix('*').map_or((regex, false), |regex| (regex, true));
            PathMatcher::Regex(self.regex(regex.trim_start(), is_caseless, path.span())?)
        } else {
            match super::location::matcher(text) {
                Ok(matcher) => matcher,
                Err((message, help)) => {
                    self.mistakes.push(Mistake::new(path.span(), message).help(help));
                    return None;
                }
            }
        };
        if let Some((_, first)) = seen.iter().find(|(other, _)| other.collides(&matcher)) {
            let message = format!("there are two locations `{text}` in this server");
            let mistake = Mistake::new(path.span(), message).label("again").also(first.clone(), "first here");
            self.mistakes.push(mistake.help("delete one of them, or give it another path"));
        }
        seen.push((matcher.clone(), path.span()));
        Some(matcher)
    }

    fn encoded_slashes(&mut self, written: &Value<String>) -> Option<EncodedSlashes> {
        let value = written.given()?;
        match value.get_ref().as_str() {
            "reject" => Some(EncodedSlashes::Reject),
            "pass" => Some(EncodedSlashes::Pass),
            other => {
                let message = format!("`encoded_slashes` cannot be `{other}`");
                let help =
                    "write `\"reject\"` (answer 400, the default) or `\"pass\"` (send `%2F` on as it came)";
                self.mistakes.push(Mistake::new(value.span(), message).help(help));
                None
            }
        }
    }
}

/// `$server_name` for the first name of a server, as nginx has it.
fn main_name(name: &str) -> String {
    match name {
        "$hostname" => hostname().to_ascii_lowercase(),
        _ if name.starts_with('~') => name.to_owned(),
        _ => name.strip_prefix('.').unwrap_or(name).to_ascii_lowercase(),
    }
}
