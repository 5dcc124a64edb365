//! Turns a file as written into finished values, and says everything in it that cannot be.

mod access;
mod acme;
mod error_pages;
mod files;
mod gzip;
mod headers;
mod health;
mod limits;
mod listen;
mod location;
mod logs;
mod loops;
mod maps;
mod names;
mod next_upstream;
mod proxy_pass;
mod responses;
mod script;
mod server;
mod settings;
mod tls;
mod upstream;
mod upstream_server;
mod upstream_tls;
mod warnings;

use std::fmt::Display;
use std::ops::RangeInclusive;
use std::sync::Arc;
use std::time::Duration;

use serde_spanned::Spanned;

use super::error::{Mistake, MistakeKind};
use super::file::{AutoOr, Listen, Location, OneOrMany, Server, Tables, TextOr, Top, Value};
use super::{AccessLog, Config, ListenAddress, Warnings, Zones, units};
use logs::Formats;
use names::Names;
use tls::TlsFound;
use upstream::Upstreams;
use upstream_tls::TlsClients;

/// Checks a file that has been read, and its text. If `mistakes` gets longer by more than warnings, what is
/// returned is not whole.
pub fn config(file: &Top, text: &str, mistakes: &mut Vec<Mistake>) -> Config {
    Check::new(file, mistakes).config(file, text)
}

/// The configuration for a single upstream without a file; messages name the flags.
pub fn quick(listen: &[ListenAddress], url: &str, mistakes: &mut Vec<Mistake>) -> Config {
    let file = quick_file(listen, url);
    let mut check = Check::new(&file, mistakes);
    check.upstreams.accept_lone_names();
    let config = check.config(&file, "");
    for mistake in mistakes {
        let flag = if mistake.span.start == LISTEN { "--listen" } else { "--upstream" };
        mistake.help = mistake.help.take().map(|help| units::unquoted(&help));
        mistake.message = format!("{flag}: {}", mistake.message.trim_start_matches("`proxy_pass`: "));
    }
    config
}

/// The addresses for health checks alone, whatever else is in the file; adds the mistakes of their table.
pub fn health(file: &Top, mistakes: &mut Vec<Mistake>) -> Vec<ListenAddress> {
    Check::new(file, mistakes).health(file).into_iter().map(|(address, _)| address).collect()
}

pub use health::health_of_flags;

/// Where the texts of the flags stand in the file that is made from them.
const LISTEN: usize = 0;
const UPSTREAM: usize = 1;

/// The file that says the same as the flags.
fn quick_file(listen: &[ListenAddress], url: &str) -> Top {
    fn at<T>(place: usize, value: T) -> Spanned<T> {
        Spanned::new(place..place, value)
    }
    let addresses = listen.iter().map(|address| at(LISTEN, TextOr::<Listen>::Text(address.to_string())));
    let location = Location {
        path: Value::Given(at(UPSTREAM, "/".to_owned())),
        proxy_pass: Value::Given(at(UPSTREAM, url.to_owned())),
        ..Location::default()
    };
    let server = Server {
        listen: Value::Given(at(LISTEN, OneOrMany(addresses.collect()))),
        location: Value::Given(at(UPSTREAM, Tables(vec![at(UPSTREAM, location)]))),
        ..Server::default()
    };
    Top { server: Value::Given(at(LISTEN, Tables(vec![at(LISTEN, server)]))), ..Top::default() }
}

/// What is known while the values of a file are checked.
struct Check<'a> {
    mistakes: &'a mut Vec<Mistake>,
    formats: Formats,
    /// Those made so far: locations that log to the same place in the same way share one.
    access_logs: Vec<Arc<AccessLog>>,
    upstreams: Upstreams,
    tls_clients: TlsClients,
    zones: Zones,
    tls: TlsFound,
    names: Names,
    /// The named locations that the server at hand sends requests to.
    gotos: Vec<Spanned<String>>,
}

impl<'a> Check<'a> {
    fn new(file: &Top, mistakes: &'a mut Vec<Mistake>) -> Self {
        let mut names = Names::default();
        let formats = Formats::of(&file.log_format, &mut names, mistakes);
        let upstreams = Upstreams::of(&file.upstream, &mut names, mistakes);
        Self {
            mistakes,
            formats,
            access_logs: Vec::new(),
            upstreams,
            tls_clients: TlsClients::default(),
            zones: Zones::default(),
            tls: TlsFound::default(),
            names,
            gotos: Vec::new(),
        }
    }

    fn config(mut self, file: &Top, text: &str) -> Config {
        self.maps(&file.map);
        self.zones = self.zones(file);
        let outer = (self.server_settings(&file.for_servers), self.settings(&file.for_locations));
        let workers = self.workers(&file.workers);
        let max_connections = self.count(&file.max_connections, "max_connections", 1..=MANY);
        let max_connections_per_ip =
            self.count(&file.max_connections_per_ip, "max_connections_per_ip", 1..=MANY);
        let error_log = self.error_log(&file.error_log);
        let written = file.server.given().map(|servers| servers.get_ref().0.as_slice()).unwrap_or_default();
        if written.is_empty() && !matches!(file.server, Value::Wrong) {
            self.no_server();
        }
        let mut servers: Vec<_> =
            written.iter().map(|server| self.server(server.get_ref(), &outer)).collect();
        let (listeners, places) = self.listeners(written);
        self.tls_of_servers(&mut servers, written, &listeners);
        self.balancers(&servers, &listeners, &places);
        // One of several servers may well be the upstream of another, as people chain them in nginx.
        if let [server] = &*servers {
            self.refuse_loops(server, &listeners, &places);
        }
        let acme = self.acme(file, written, &servers, &listeners);
        let health = self.health(file);
        self.health_apart(&health, &listeners, &places);
        let health = health.into_iter().map(|(address, _)| address).collect();
        let unused = self.names.unused();
        let config = Config {
            workers,
            shutdown_timeout: plain(&file.shutdown_timeout).unwrap_or(Duration::from_secs(30)),
            shutdown_delay: plain(&file.shutdown_delay).unwrap_or_default(),
            max_connections,
            max_connections_per_ip,
            error_log,
            listeners,
            health,
            servers,
            variables: self.own_variables(),
            upstreams: self.upstreams.finish(),
            tls_clients: self.tls_clients.finish(),
            zones: self.zones,
            acme,
            warnings: Warnings::default(),
        };
        if self.mistakes.iter().all(|mistake| mistake.kind == MistakeKind::Surprising) {
            self.mistakes.extend(warnings::find(file, text, &config, &unused));
        }
        config
    }

    fn no_server(&mut self) {
        let help = "the smallest useful file is\n\
                    [[server]]\nlisten = \"127.0.0.1:8080\"\n\n\
                    [[server.location]]\npath = \"/\"\nproxy_pass = \"http://127.0.0.1:3000\"";
        let mistake = Mistake::new(0..0, "there is no `[[server]]`: nothing would be served").help(help);
        self.mistakes.push(mistake.kind(MistakeKind::Doubtful));
    }

    fn workers(&mut self, written: &Value<AutoOr>) -> Option<usize> {
        let workers = written.given()?;
        let AutoOr::Count(count) = *workers.get_ref() else { return None };
        self.in_range(count, workers, "workers", 1..=1024).map(|count| count as usize)
    }

    /// A number within a range.
    fn count(&mut self, written: &Value<u64>, key: &str, range: RangeInclusive<u64>) -> Option<usize> {
        let count = written.given()?;
        self.in_range(*count.get_ref(), count, key, range).map(|count| count as usize)
    }

    fn in_range<T>(
        &mut self,
        number: u64,
        at: &Spanned<T>,
        key: &str,
        range: RangeInclusive<u64>,
    ) -> Option<u64> {
        if range.contains(&number) {
            return Some(number);
        }
        let (first, last) = range.into_inner();
        self.mistakes.push(match last {
            MANY if number < first => Mistake::new(at.span(), format!("`{key}` must be at least {first}"))
                .help(format!("leave `{key}` out for no limit")),
            _ => Mistake::new(at.span(), format!("`{key}` must be from {first} to {last}, not {number}")),
        });
        None
    }

    /// A time that must not be zero.
    fn time(&mut self, written: &Value<Duration>, key: &str) -> Option<Duration> {
        let time = written.given()?;
        if time.get_ref().is_zero() {
            let mistake =
                Mistake::new(time.span(), format!("`{key}` cannot be 0: nothing would ever be in time"));
            self.mistakes
                .push(mistake.help(format!("write a time, `{key} = \"60s\"`, or leave the key out")));
            return None;
        }
        Some(*time.get_ref())
    }

    /// Something that must be there and is not.
    fn missing(&mut self, span: std::ops::Range<usize>, what: impl Display, help: impl Into<String>) {
        let mistake = Mistake::new(span, what.to_string()).label("in this one").help(help);
        self.mistakes.push(mistake.kind(MistakeKind::Doubtful));
    }
}

/// More than there can be of anything.
const MANY: u64 = u32::MAX as u64;

/// A value that needs no check.
fn plain<T: Clone>(written: &Value<T>) -> Option<T> {
    written.given().map(|value| value.get_ref().clone())
}
