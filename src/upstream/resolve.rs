//! Looks host names up when they are needed, and remembers the answers for a while.

use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use crate::config::UpstreamAddress;

/// How long an answer of the system's resolver, which tells no TTL, is taken to be good: a container
/// that comes back under another address is found within this time.
const GOOD_FOR: Duration = Duration::from_secs(10);

/// The answers for the names in use, shared by all workers. It holds as many as the configuration has
/// names.
#[derive(Debug, Default)]
pub struct Resolver {
    answers: Mutex<HashMap<(String, u16), Answer>>,
}

#[derive(Debug, Clone)]
struct Answer {
    addresses: Vec<SocketAddr>,
    until: Instant,
}

impl Resolver {
    /// The addresses of a host, at least one. When the name does not resolve any more, the last answer
    /// goes on being used.
    ///
    /// # Errors
    /// The name does not resolve and never did.
    pub async fn lookup(&self, host: &str, port: u16) -> io::Result<Vec<SocketAddr>> {
        let known = self.answers().get(&(host.to_owned(), port)).cloned();
        if let Some(answer) = known.as_ref().filter(|answer| answer.until > Instant::now()) {
            return Ok(answer.addresses.clone());
        }
        match tokio::net::lookup_host((host, port)).await.map(Iterator::collect::<Vec<_>>) {
            Ok(addresses) if !addresses.is_empty() => {
                let answer = Answer { addresses: addresses.clone(), until: Instant::now() + GOOD_FOR };
                self.answers().insert((host.to_owned(), port), answer);
                Ok(addresses)
            }
            failed => match known {
                Some(answer) => Ok(answer.addresses),
                None => Err(failed.err().unwrap_or_else(|| io::ErrorKind::NotFound.into())),
            },
        }
    }

    /// Called after a failed connect: the next lookup of the name, if it is one, asks the system again.
    pub fn doubt(&self, address: &UpstreamAddress) {
        if let UpstreamAddress::Name { host, port } = address
            && let Some(answer) = self.answers().get_mut(&(host.clone(), *port))
        {
            answer.until = Instant::now();
        }
    }

    fn answers(&self) -> std::sync::MutexGuard<'_, HashMap<(String, u16), Answer>> {
        self.answers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
