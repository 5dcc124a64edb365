//! `[health]`: where health checks are answered.

use std::ops::Range;

use super::Check;
use crate::config::error::Mistake;
use crate::config::file::{Only, Top};
use crate::config::units::{self, Wrong};
use crate::config::{ListenAddress, Listener};

/// An address and where it is written.
type Place = (ListenAddress, Range<usize>);

impl Check<'_> {
    /// Every address of the table, once.
    pub(super) fn health(&mut self, file: &Top) -> Vec<Place> {
        let Some(table) = file.health.given() else { return Vec::new() };
        let Only(written) = table.get_ref();
        if written.listen.is_absent() {
            self.missing(
                table.span(),
                "`[health]` needs an address to `listen` on",
                "write `listen = \"127.0.0.1:9180\"`",
            );
        }
        let mut places: Vec<Place> = Vec::new();
        for entry in written.listen.given().map(|entries| entries.get_ref().0.as_slice()).unwrap_or_default()
        {
            match health_address(entry.get_ref()) {
                Ok(address) => match places.iter().find(|(first, _)| *first == address) {
                    None => places.push((address, entry.span())),
                    Some((_, first)) => {
                        let message = format!("health checks are answered on {address} twice");
                        let mistake = Mistake::new(entry.span(), message).label("again");
                        let mistake = mistake.also(first.clone(), "first here");
                        self.mistakes.push(mistake.help("delete one of them"));
                    }
                },
                Err(Wrong { message, help }) => {
                    let mistake = Mistake::new(entry.span(), format!("`listen`: {message}"));
                    self.mistakes.push(mistake.maybe_help(help));
                }
            }
        }
        places
    }

    /// No server may listen where health checks are answered; `places` is where the listeners stand.
    pub(super) fn health_apart(&mut self, health: &[Place], listeners: &[Listener], places: &[Range<usize>]) {
        for (address, span) in health {
            let taken =
                listeners.iter().zip(places).find(|(listener, _)| collide(address, &listener.address));
            if let Some((listener, place)) = taken {
                let mistake = Mistake::new(span.clone(), taken_message(address, &listener.address));
                let mistake = mistake.also(place.clone(), "the server's");
                self.mistakes.push(mistake.help("write another port, one that clients cannot reach"));
            }
        }
    }
}

/// Reads an address for health checks: those of `listen` without its parameters.
///
/// # Errors
/// It is no address.
fn health_address(text: &str) -> Result<ListenAddress, Wrong> {
    match text.split_once(' ') {
        Some((address, _)) if units::listen_address(address).is_ok() => Err(Wrong {
            message: format!("`{text}` is more than an address"),
            help: Some(format!("write `\"{address}\"`: health checks come in plain HTTP")),
        }),
        _ => match units::listen_address(text)? {
            ListenAddress::Named(_) => Err(Wrong {
                message: format!("`{text}` is for servers alone"),
                help: Some(OWN_ADDRESS.to_owned()),
            }),
            address => Ok(address),
        },
    }
}

/// A socket that systemd passes has clients in its queue that a process which ends does not answer any more.
const OWN_ADDRESS: &str = "write an address that hopgate binds itself, such as `\"127.0.0.1:9180\"`: health checks are \
                           answered to the end, by the process that they are about";

/// Those of the flag `--health`, each once; `listeners` are those of the servers.
pub fn health_of_flags(
    addresses: &[ListenAddress],
    listeners: &[Listener],
    mistakes: &mut Vec<Mistake>,
) -> Vec<ListenAddress> {
    let mut health = Vec::new();
    for address in addresses {
        if matches!(address, ListenAddress::Named(_)) {
            let message = format!("--health: `{address}` is for servers alone");
            mistakes.push(Mistake::new(0..0, message).help(OWN_ADDRESS));
        } else if let Some(listener) = listeners.iter().find(|listener| collide(address, &listener.address)) {
            let message = format!("--health: {}", taken_message(address, &listener.address));
            mistakes.push(Mistake::new(0..0, message).help("write another port"));
        } else if !health.contains(address) {
            health.push(address.clone());
        }
    }
    health
}

fn taken_message(address: &ListenAddress, server: &ListenAddress) -> String {
    match address == server {
        true => format!("a server listens on {address}, so health checks cannot come there"),
        false => format!("a server listens on {server}, so health checks cannot come to {address}"),
    }
}

/// Whether the system lets only one of the two be listened on. Port 0 is another one each time.
fn collide(one: &ListenAddress, other: &ListenAddress) -> bool {
    match (one, other) {
        (ListenAddress::Tcp(one), ListenAddress::Tcp(other)) => {
            let one_wide = one.ip().is_unspecified() || other.ip().is_unspecified();
            one.port() == other.port()
                && one.port() != 0
                && one.is_ipv4() == other.is_ipv4()
                && (one_wide || one.ip() == other.ip())
        }
        _ => one == other,
    }
}
