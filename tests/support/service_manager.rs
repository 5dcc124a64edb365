//! Stands in for systemd: reads what a service tells it, sd_notify(3).

use std::io::ErrorKind;
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::time::Duration;

use super::{DEADLINE, Dir};

/// A socket for `NOTIFY_SOCKET`.
pub struct ServiceManager {
    socket: UnixDatagram,
    name: String,
    _dir: Option<Dir>,
}

impl ServiceManager {
    /// On a path.
    pub fn listen() -> Self {
        let dir = Dir::new();
        let name = dir.path("notify");
        let socket = UnixDatagram::bind(&name).expect("a socket in a directory of its own");
        Self { socket, name, _dir: Some(dir) }
    }

    /// Under a name in the abstract namespace.
    pub fn listen_abstract() -> Self {
        let name = Dir::new().path("notify");
        let address = SocketAddr::from_abstract_name(&name).expect("a short name");
        let socket = UnixDatagram::bind_addr(&address).expect("a name that is nobody else's");
        Self { socket, name: format!("@{name}"), _dir: None }
    }

    /// What stands in `NOTIFY_SOCKET`.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The next message that has this line in it, all of its lines.
    #[track_caller]
    pub fn expect(&self, line: &str) -> Vec<String> {
        let mut others = Vec::new();
        loop {
            match self.next_within(DEADLINE) {
                Some(message) if message.iter().any(|one| one == line) => return message,
                Some(message) => others.push(message),
                None => panic!("no message with {line:?}, but {others:?}"),
            }
        }
    }

    /// The next message; `None` if none comes in this time.
    pub fn next_within(&self, time: Duration) -> Option<Vec<String>> {
        self.socket.set_read_timeout(Some(time)).expect("a timeout that is not zero");
        let mut buffer = [0; 4096];
        match self.socket.recv(&mut buffer) {
            Ok(length) => {
                let message = std::str::from_utf8(&buffer[..length]).expect("a message is text");
                Some(message.lines().map(str::to_owned).collect())
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => None,
            Err(error) => panic!("the socket of the service manager: {error}"),
        }
    }
}
