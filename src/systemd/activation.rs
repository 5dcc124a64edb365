//! The listening sockets that systemd has opened and passes on: sd_listen_fds(3).

use std::io;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;

use listenfd::ListenFd;
use socket2::Socket;

use crate::config::ListenAddress;

/// The sockets that were passed to this process.
#[derive(Debug, Default)]
pub struct Passed(Vec<PassedSocket>);

/// A listening socket that stays open when this process ends, and so do the connections that wait in it.
#[derive(Debug)]
pub struct PassedSocket {
    /// Where it listens.
    pub address: ListenAddress,
    /// The socket.
    pub socket: Socket,
    /// `FileDescriptorName=`; the name of the unit if it says none.
    pub name: String,
}

impl Passed {
    /// As `LISTEN_FDS`, `LISTEN_PID` and `LISTEN_FDNAMES` say. To be called before there are threads: the variables
    /// are taken out of the environment, so that no child takes the sockets for its own.
    ///
    /// # Errors
    /// A socket that cannot be listened on; the text says which, and what to change.
    pub fn from_env() -> io::Result<Self> {
        let names = std::env::var("LISTEN_FDNAMES").unwrap_or_default();
        let mut names = names.split(':');
        let mut descriptors = ListenFd::from_env();
        let sockets = (0..descriptors.len()).map(|place| {
            let name = names.next().filter(|name| !name.is_empty()).unwrap_or("unknown");
            take(&mut descriptors, place, name)
        });
        sockets.collect::<io::Result<_>>().map(Self)
    }

    /// As another process has handed them over, to which they were passed: names and sockets.
    ///
    /// # Errors
    /// As [`Passed::from_env`].
    pub fn from_predecessor(sockets: Vec<(String, OwnedFd)>) -> io::Result<Self> {
        let socket = |(name, socket): (String, OwnedFd)| {
            let socket = Socket::from(socket);
            Ok(PassedSocket { address: address(&socket, &name)?, socket, name })
        };
        sockets.into_iter().map(socket).collect::<io::Result<_>>().map(Self)
    }

    /// All of them.
    pub fn sockets(&self) -> &[PassedSocket] {
        &self.0
    }

    /// The socket on an address.
    pub fn find(&self, address: &ListenAddress) -> Option<&PassedSocket> {
        self.0.iter().find(|passed| passed.address == *address)
    }

    /// Makes sure that every socket is listened on: the connections of another would wait for nobody.
    ///
    /// # Errors
    /// One is not among the addresses; the text names it.
    pub fn check_all_in<'a>(
        &self,
        addresses: impl Iterator<Item = &'a ListenAddress> + Clone,
    ) -> io::Result<()> {
        let mut others = self.0.iter();
        match others.find(|passed| !addresses.clone().any(|address| *address == passed.address)) {
            None => Ok(()),
            Some(PassedSocket { address, name, .. }) => Err(unfit(format!(
                "systemd passes a socket on {address} (`{name}`), and no `listen` names that address: write \
                 `listen = \"{address}\"`, or take its ListenStream= out of the .socket unit"
            ))),
        }
    }
}

fn take(descriptors: &mut ListenFd, place: usize, name: &str) -> io::Result<PassedSocket> {
    let socket = match descriptors.take_tcp_listener(place) {
        Ok(socket) => socket.map(Socket::from),
        // Of another kind, then.
        Err(_) => descriptors.take_unix_listener(place).ok().flatten().map(Socket::from),
    };
    let Some(socket) = socket else {
        return Err(unfit(format!(
            "systemd passes something else than a stream socket (`{name}`): in a .socket unit for hopgate there may \
             only be ListenStream="
        )));
    };
    if !socket.is_listener()? {
        return Err(unfit(format!(
            "systemd passes a socket that does not listen (`{name}`): write `Accept=no` in its .socket unit"
        )));
    }
    socket.set_nonblocking(true)?;
    let address = address(&socket, name)?;
    Ok(PassedSocket { address, socket, name: name.to_owned() })
}

fn address(socket: &Socket, name: &str) -> io::Result<ListenAddress> {
    let local = socket.local_addr()?;
    if let Some(path) = local.as_pathname() {
        return Ok(ListenAddress::Unix(path.to_owned()));
    }
    match local.as_socket() {
        Some(address) if address.is_ipv6() && !socket.only_v6()? => {
            let port = address.port();
            Err(unfit(format!(
                "systemd passes a socket on {address} (`{name}`) that takes IPv4 connections, too, which no `listen` \
                 means: write `BindIPv6Only=ipv6-only` in the .socket unit, and `ListenStream=0.0.0.0:{port}` beside \
                 `ListenStream=[::]:{port}`"
            )))
        }
        // Without the scope of an IPv6 address, which `listen` does not know.
        Some(address) => Ok(ListenAddress::Tcp(SocketAddr::new(address.ip(), address.port()))),
        None => Err(unfit(format!(
            "systemd passes a socket without a path (`{name}`): write a path that begins with `/` as ListenStream="
        ))),
    }
}

fn unfit(text: String) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, text)
}
