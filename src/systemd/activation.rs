//! The listening sockets that systemd has opened and passes on: sd_listen_fds(3).

use std::io;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;

use listenfd::ListenFd;
use socket2::Socket;

use crate::config::{ListenAddress, Listener};

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
    /// Whether it is one for both versions of IP, which an address in `listen` never means.
    takes_both: bool,
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
        let socket = |(name, socket): (String, OwnedFd)| PassedSocket::new(Socket::from(socket), &name);
        sockets.into_iter().map(socket).collect::<io::Result<_>>().map(Self)
    }

    /// All of them.
    pub fn sockets(&self) -> &[PassedSocket] {
        &self.0
    }

    /// The sockets for an address of a configuration: those with its name, or the one that is there; none if hopgate
    /// has to bind it. A socket that any of the listeners calls by its name is that listener's alone.
    ///
    /// # Errors
    /// There is none with that name, or the one that is there belongs to a name; the text says what to change.
    pub fn sockets_for(
        &self,
        address: &ListenAddress,
        listeners: &[Listener],
    ) -> io::Result<Vec<&PassedSocket>> {
        if let ListenAddress::Named(name) = address {
            let sockets: Vec<_> = self.0.iter().filter(|passed| *passed.name == **name).collect();
            return if sockets.is_empty() { Err(self.lacks(name)) } else { Ok(sockets) };
        }
        let found = self.0.iter().find(|passed| passed.address == *address);
        match found.filter(|passed| listeners.iter().any(|listener| passed.is_called(&listener.address))) {
            None => Ok(found.into_iter().collect()),
            Some(PassedSocket { name, .. }) => Err(unfit(format!(
                "the socket that systemd passes on {address} is that of `listen = \"fd:{name}\"`: take `{address}` out \
                 of `listen`, or name every socket by its address"
            ))),
        }
    }

    fn lacks(&self, name: &str) -> io::Error {
        let mut names: Vec<_> = self.0.iter().map(|passed| format!("`{}`", passed.name)).collect();
        names.dedup();
        let others = match names.as_slice() {
            [] => "nor any other:".to_owned(),
            names => format!("only {}:", names.join(", ")),
        };
        unfit(format!(
            "`listen = \"fd:{name}\"`: systemd passes no socket of that name, {others} write `FileDescriptorName={name}` \
             below `[Socket]` in a .socket unit of hopgate"
        ))
    }

    /// Makes sure that every socket is listened on: the connections of another would wait for nobody.
    ///
    /// # Errors
    /// One is neither among the addresses nor called by its name; the text says which.
    pub fn check_all_in<'a>(
        &self,
        addresses: impl Iterator<Item = &'a ListenAddress> + Clone,
    ) -> io::Result<()> {
        let is_meant = |passed: &PassedSocket| {
            let is_at = |address: &ListenAddress| *address == passed.address && !passed.takes_both;
            addresses.clone().any(|address| passed.is_called(address) || is_at(address))
        };
        let Some(PassedSocket { address, name, takes_both, .. }) =
            self.0.iter().find(|passed| !is_meant(passed))
        else {
            return Ok(());
        };
        Err(unfit(match (takes_both, address) {
            (true, ListenAddress::Tcp(tcp)) => format!(
                "systemd passes a socket on {address} (`{name}`) that takes IPv4 connections, too, which no address \
                 means: write `listen = \"fd:{name}\"`; or `BindIPv6Only=ipv6-only` in the .socket unit, and \
                 `ListenStream=0.0.0.0:{port}` beside `ListenStream={address}`",
                port = tcp.port()
            ),
            _ => format!(
                "systemd passes a socket on {address} (`{name}`), and no `listen` names that address: write \
                 `listen = \"{address}\"` or `\"fd:{name}\"`, or take its ListenStream= out of the .socket unit"
            ),
        }))
    }
}

impl PassedSocket {
    fn new(socket: Socket, name: &str) -> io::Result<Self> {
        let address = address(&socket, name)?;
        let is_ipv6 = matches!(address, ListenAddress::Tcp(address) if address.is_ipv6());
        let takes_both = is_ipv6 && !socket.only_v6()?;
        Ok(Self { address, socket, name: name.to_owned(), takes_both })
    }

    fn is_called(&self, address: &ListenAddress) -> bool {
        matches!(address, ListenAddress::Named(name) if **name == *self.name)
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
    PassedSocket::new(socket, name)
}

fn address(socket: &Socket, name: &str) -> io::Result<ListenAddress> {
    let local = socket.local_addr()?;
    if let Some(path) = local.as_pathname() {
        return Ok(ListenAddress::Unix(path.to_owned()));
    }
    // Without the scope of an IPv6 address, which `listen` does not know.
    let address = local.as_socket().map(|address| SocketAddr::new(address.ip(), address.port()));
    address.map(ListenAddress::Tcp).ok_or_else(|| {
        unfit(format!(
            "systemd passes a socket without a path (`{name}`): write a path that begins with `/` as ListenStream="
        ))
    })
}

fn unfit(text: String) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, text)
}
