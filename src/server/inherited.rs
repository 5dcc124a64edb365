//! What a process finds at its start: the sockets that systemd passes, or those of the process that it takes over from.

use std::io;

use socket2::SockRef;

use crate::config::ListenAddress;
use crate::server::listener::check_apart;
use crate::systemd::Passed;
use crate::takeover::{Handed, Predecessor, SocketName};

/// The `purpose` of a socket for clients.
pub const LISTEN: &str = "listen";
/// The `purpose` of a socket for health checks.
pub const HEALTH: &str = "health";
/// The `purpose` of a socket that systemd passes.
pub const SYSTEMD: &str = "systemd";

/// What a process finds at its start.
#[derive(Debug, Default)]
pub struct Inherited {
    /// The sockets that systemd has opened.
    pub passed: Passed,
    /// Those that the predecessor has bound itself.
    pub bound: Vec<Handed>,
    /// It goes on for as long as this process is not ready.
    pub predecessor: Option<Predecessor>,
}

impl Inherited {
    /// As the environment says. To be called before there are threads.
    ///
    /// # Errors
    /// A socket that cannot be listened on, or a predecessor that is not understood.
    pub fn from_env() -> io::Result<Self> {
        let Some((predecessor, handed)) = Predecessor::from_env()? else {
            return Ok(Self { passed: Passed::from_env()?, ..Self::default() });
        };
        // What a later version may have for other purposes is closed here.
        let known = handed
            .into_iter()
            .filter(|handed| [LISTEN, HEALTH, SYSTEMD].contains(&handed.name.purpose.as_str()));
        let (bound, passed): (Vec<_>, Vec<_>) = known.partition(|handed| handed.name.purpose != SYSTEMD);
        let passed = passed.into_iter().map(|handed| (handed.name.name, handed.descriptor)).collect();
        match Passed::from_predecessor(passed) {
            Ok(passed) => Ok(Self { passed, bound, predecessor: Some(predecessor) }),
            Err(error) => Err(predecessor.failed(error)),
        }
    }

    /// Makes sure that an address to be bound collides with none that the predecessor listens on, which the system would
    /// call somebody's.
    ///
    /// # Errors
    /// It does; the text names both.
    pub fn check_apart(&self, address: &ListenAddress) -> io::Result<()> {
        self.bound.iter().try_for_each(|handed| {
            match SockRef::from(&handed.descriptor).local_addr()?.as_socket() {
                Some(local) => check_apart(address, &ListenAddress::Tcp(local)),
                None => Ok(()),
            }
        })
    }

    /// Takes the sockets out that the predecessor has bound to an address for this purpose.
    pub fn take(&mut self, purpose: &str, address: &ListenAddress) -> Vec<Handed> {
        let name = address.to_string();
        let is_it = |handed: &mut Handed| handed.name.purpose == purpose && handed.name.name == name;
        self.bound.extract_if(.., is_it).collect()
    }
}

/// By which a socket on an address is handed over.
pub fn name_of(purpose: &str, address: &ListenAddress, file: Option<(u64, u64)>) -> SocketName {
    SocketName { purpose: purpose.to_owned(), name: address.to_string(), file }
}
