//! The process from which this one takes over.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::time::{Duration, Instant};

use super::VARIABLE;
use super::message::{Channel, Message, Silence, SocketName, VERSION};

/// The other process is there, and has nothing else to do.
const PATIENCE: Duration = Duration::from_secs(10);

/// A running hopgate that has started this process.
#[derive(Debug)]
pub struct Predecessor {
    channel: Channel,
    /// Its process.
    pub pid: u32,
}

/// A socket that was handed over.
#[derive(Debug)]
pub struct Handed {
    /// What it is.
    pub name: SocketName,
    /// The socket.
    pub descriptor: OwnedFd,
}

impl Predecessor {
    /// The one at the other end of standard input, if the environment says that there is one, and its sockets.
    ///
    /// # Errors
    /// There is none, or it cannot be understood.
    pub fn from_env() -> io::Result<Option<(Self, Vec<Handed>)>> {
        if std::env::var_os(VARIABLE).is_none() {
            return Ok(None);
        }
        let unfit = |error| {
            let why = format!(
                "{VARIABLE} is set, and standard input is not the way to a running hopgate: {error}; \
                 that variable is hopgate's own, take it out of the environment"
            );
            io::Error::new(io::ErrorKind::InvalidInput, why)
        };
        let stdin = io::stdin().as_fd().try_clone_to_owned().map_err(unfit)?;
        let channel = Channel::from_descriptor(stdin).map_err(unfit)?;
        rustix::stdio::dup2_stdin(File::open("/dev/null")?)?;
        Self::meet(channel).map(Some)
    }

    fn meet(channel: Channel) -> io::Result<(Self, Vec<Handed>)> {
        let deadline = Instant::now() + PATIENCE;
        let (first, _) = channel.receive(deadline).map_err(told)?;
        let Message::Hello { version, pid, sockets } = first else { return Err(unexpected(&first)) };
        let this = Self { channel, pid };
        if version != VERSION {
            let why = format!(
                "process {pid} hands over by version {version} of the protocol, and this one knows version {VERSION}: \
                 this change of versions takes a restart"
            );
            return Err(this.failed(io::Error::other(why)));
        }
        let mut handed = Vec::new();
        while handed.len() < sockets {
            match this.channel.receive(deadline).map_err(told)? {
                (Message::Sockets(names), descriptors) if names.len() == descriptors.len() => {
                    let some = names.into_iter().zip(descriptors);
                    handed.extend(some.map(|(name, descriptor)| Handed { name, descriptor }));
                }
                (Message::Unknown(_), _) => {}
                (other, _) => return Err(unexpected(&other)),
            }
        }
        Ok((this, handed))
    }

    /// Tells it that this process cannot serve, and gives the reason back.
    pub fn failed<E: std::fmt::Display>(&self, reason: E) -> E {
        // It sees the end of this process in any case.
        let _ = self.channel.send(&Message::Failed(reason.to_string()), &[], PATIENCE);
        reason
    }

    /// Tells it that this process serves, on these of its sockets, and waits until it has stopped to accept.
    ///
    /// # Errors
    /// It does not answer: it may have been killed. The sockets are this process's alone, then.
    pub fn ready(self, taken: Vec<SocketName>) -> io::Result<()> {
        let ready = Message::Ready { pid: std::process::id(), sockets: taken };
        self.channel.send(&ready, &[], PATIENCE)?;
        let deadline = Instant::now() + PATIENCE;
        loop {
            match self.channel.receive(deadline).map_err(told)?.0 {
                Message::Go => return Ok(()),
                Message::Unknown(_) => {}
                other => return Err(unexpected(&other)),
            }
        }
    }
}

fn told(silence: Silence) -> io::Error {
    match silence {
        Silence::Ended => {
            io::Error::new(io::ErrorKind::UnexpectedEof, "the process to take over from has ended")
        }
        Silence::TimedOut => {
            io::Error::new(io::ErrorKind::TimedOut, "the process to take over from says nothing")
        }
        Silence::Broken(error) => error,
    }
}

fn unexpected(message: &Message) -> io::Error {
    io::Error::other(format!("the process to take over from said out of turn: {message:?}"))
}
