//! What can be, but will surprise: everything that a file says without being wrong, and that does something else
//! than it seems to, or nothing.

mod balancers;
mod expressions;
mod groups;
mod lists;
pub(super) mod paths;
mod shadows;
mod slashes;
mod strays;
mod timeouts;
mod tls;
mod unreachable;
mod unused;
mod upstream_tls;

use std::collections::HashSet;

use serde_spanned::Spanned;

use crate::config::error::Mistake;
use crate::config::file::{self, ForLocations, RewriteStep, Script, Tables, TextOr, Top, Value};
use crate::config::{Config, Location, Server};

/// Looks through a file in which there is no mistake. `unused` are the operator's variables that nobody asks for.
pub(super) fn find(file: &Top, text: &str, config: &Config, unused: &HashSet<String>) -> Vec<Mistake> {
    let mut found = Vec::new();
    for (index, (written, server)) in tables(&file.server).iter().zip(&config.servers).enumerate() {
        let site = Site::of(written, server);
        unreachable::find(&site, text, &mut found);
        shadows::find(&site, &mut found);
        slashes::find(&site, &mut found);
        paths::find(&site, &mut found);
        balancers::find(&site, index, &file.for_locations, config, &mut found);
        let own = &written.get_ref().for_locations;
        lists::replaced(own, [&file.for_locations].into_iter(), &mut found);
        for place in &site.places {
            let outer = site.outside_of(place).chain([own, &file.for_locations]);
            lists::replaced(&place.written.get_ref().for_locations, outer, &mut found);
        }
        let inner = site.places.iter().map(|place| &place.written.get_ref().for_locations);
        for level in inner.chain([own]) {
            strays::find(level, &mut found);
            timeouts::find(level, &mut found);
            upstream_tls::find(level, &mut found);
            lists::find(level, &mut found);
        }
    }
    balancers::at_the_top(file, config, &mut found);
    strays::find(&file.for_locations, &mut found);
    timeouts::find(&file.for_locations, &mut found);
    upstream_tls::find(&file.for_locations, &mut found);
    lists::find(&file.for_locations, &mut found);
    expressions::find(file, &mut found);
    groups::find(file, config, &mut found);
    tls::find(file, config, &mut found);
    unused::find(file, config, unused, &mut found);
    found
}

/// A server as written and as understood.
struct Site<'a> {
    written: &'a Spanned<file::Server>,
    server: &'a Server,
    /// Its locations in the order of [`Server::locations`], without the server's own.
    places: Vec<Place<'a>>,
}

/// A location as written and as understood.
struct Place<'a> {
    written: &'a Spanned<file::Location>,
    location: &'a Location,
    /// The location that it is nested in, as a place in the same list.
    parent: Option<usize>,
}

impl<'a> Site<'a> {
    fn of(written: &'a Spanned<file::Server>, server: &'a Server) -> Self {
        let mut site = Self { written, server, places: Vec::new() };
        site.add(tables(&written.get_ref().location), None, server);
        site
    }

    fn add(&mut self, written: &'a [Spanned<file::Location>], parent: Option<usize>, server: &'a Server) {
        for written in written {
            let own = self.places.len();
            let Some(location) = server.locations.get(own) else { return };
            self.places.push(Place { written, location, parent });
            self.add(tables(&written.get_ref().location), Some(own), server);
        }
    }

    /// What is said by the locations that one is nested in, from the inside to the outside.
    fn outside_of(&self, place: &Place<'_>) -> impl Iterator<Item = &'a ForLocations> {
        let parent = |place: Option<usize>| place.and_then(|place| self.places.get(place));
        std::iter::successors(parent(place.parent), move |place| parent(place.parent))
            .map(|place| &place.written.get_ref().for_locations)
    }

    /// Whether others are nested in this one.
    fn has_nested(&self, place: usize) -> bool {
        self.places.iter().any(|other| other.parent == Some(place))
    }
}

impl Place<'_> {
    /// Where its path is written.
    fn path(&self) -> std::ops::Range<usize> {
        self.written.get_ref().path.given().map_or(self.written.span(), Spanned::span)
    }
}

/// The tables of an array, if it is there.
fn tables<T>(written: &Value<Tables<T>>) -> &[Spanned<T>] {
    written.given().map(|tables| tables.get_ref().0.as_slice()).unwrap_or_default()
}

/// Every script of a file, those of steps within steps included.
fn scripts<'a>(file: &'a Top, mut each: impl FnMut(&'a Script)) {
    fn within<'a>(script: &'a Script, each: &mut dyn FnMut(&'a Script)) {
        each(script);
        for step in steps(script) {
            if let TextOr::Table(RewriteStep { script, .. }) = step.get_ref() {
                within(script, each);
            }
        }
    }
    fn in_locations<'a>(locations: &'a [Spanned<file::Location>], each: &mut dyn FnMut(&'a Script)) {
        for location in locations {
            within(&location.get_ref().script, each);
            in_locations(tables(&location.get_ref().location), each);
        }
    }
    for server in tables(&file.server) {
        within(&server.get_ref().script, &mut each);
        in_locations(tables(&server.get_ref().location), &mut each);
    }
}

/// The steps of `rewrite`.
fn steps(script: &Script) -> &[Spanned<TextOr<RewriteStep>>] {
    script.rewrite.given().map(|steps| steps.get_ref().0.as_slice()).unwrap_or_default()
}
