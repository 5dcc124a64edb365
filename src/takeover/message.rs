//! What two processes tell each other while one takes over from the other: JSON, a packet for each message, and the
//! descriptors that belong to it.

use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, SocketFlags, SocketType, recvmsg, sendmsg, socketpair,
};
use serde_json::{Value, json};
use socket2::SockRef;

/// Of the messages, and of what follows upon what.
pub const VERSION: u64 = 1;

/// Descriptors in one message; Linux takes 253 (`SCM_MAX_FD`).
const MOST_DESCRIPTORS: usize = 128;

/// More than any message has: a path of a Unix-domain socket is no longer than 107 bytes.
const MOST_BYTES: usize = 64 * 1024;

/// A message, without its descriptors.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Message {
    /// The first one, of the running process.
    Hello {
        /// [`VERSION`].
        version: u64,
        /// Its process.
        pid: u32,
        /// How many sockets will follow.
        sockets: usize,
    },
    /// Some of them, with a descriptor each.
    Sockets(Vec<SocketName>),
    /// The new process serves.
    Ready {
        /// Its process: whoever has started it may know another one only.
        pid: u32,
        /// On these.
        sockets: Vec<SocketName>,
    },
    /// The new process cannot serve, and ends.
    Failed(String),
    /// The running process accepts nothing more: the new one is the service.
    Go,
    /// Something was said that is not understood; it has not happened.
    Unknown(String),
}

/// What a socket is for, and which one of those it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SocketName {
    /// `listen`: for clients. `systemd`: passed by systemd, which has it, too.
    pub purpose: String,
    /// The address as configured; that of `systemd` is asked of the socket, and this is its `FileDescriptorName=`.
    pub name: String,
    /// Device and inode of the file of a Unix-domain socket that is hopgate's to remove.
    pub file: Option<(u64, u64)>,
}

/// One end of the way between two processes.
#[derive(Debug)]
pub struct Channel(OwnedFd);

/// Why there is no message.
#[derive(Debug)]
pub enum Silence {
    /// The other process has ended, or has closed its end.
    Ended,
    /// The time is over.
    TimedOut,
    /// What came is no message, or nothing can be received.
    Broken(io::Error),
}

impl Channel {
    /// Both ends.
    ///
    /// # Errors
    /// The system has no descriptors to give.
    pub fn pair() -> io::Result<(Self, OwnedFd)> {
        let (ours, theirs) =
            socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)?;
        Ok((Self(ours), theirs))
    }

    /// The end that was given to this process.
    ///
    /// # Errors
    /// It is something else.
    pub fn from_descriptor(end: OwnedFd) -> io::Result<Self> {
        let kind = SockRef::from(&end).r#type().map_err(|_| io::Error::other("it is no socket"))?;
        if kind != socket2::Type::SEQPACKET {
            return Err(io::Error::other("it is a socket of another kind"));
        }
        Ok(Self(end))
    }

    /// The same end again.
    ///
    /// # Errors
    /// The system has no descriptors to give.
    pub fn try_clone(&self) -> io::Result<Self> {
        self.0.try_clone().map(Self)
    }

    /// Says something; waits for as long as `within` for the other process to have room for it.
    ///
    /// # Errors
    /// Nobody is there to hear it, or it takes too long.
    pub fn send(
        &self,
        message: &Message,
        descriptors: &[BorrowedFd<'_>],
        within: Duration,
    ) -> io::Result<()> {
        let text = message.to_json().to_string();
        let mut space = vec![MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(descriptors.len()))];
        let mut ancillary = SendAncillaryBuffer::new(&mut space);
        if !descriptors.is_empty() && !ancillary.push(SendAncillaryMessage::ScmRights(descriptors)) {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        SockRef::from(&self.0).set_write_timeout(Some(within))?;
        // NOSIGNAL: std has SIGPIPE ignored, which is no reason to rely on it.
        sendmsg(&self.0, &[IoSlice::new(text.as_bytes())], &mut ancillary, SendFlags::NOSIGNAL)?;
        Ok(())
    }

    /// Says which sockets there are, and hands them over, so many at a time that the system takes them.
    ///
    /// # Errors
    /// As [`Channel::send`].
    pub fn send_sockets(&self, sockets: &[(SocketName, BorrowedFd<'_>)], within: Duration) -> io::Result<()> {
        for some in sockets.chunks(MOST_DESCRIPTORS) {
            let names = some.iter().map(|(name, _)| name.clone()).collect();
            let descriptors: Vec<_> = some.iter().map(|(_, descriptor)| *descriptor).collect();
            self.send(&Message::Sockets(names), &descriptors, within)?;
        }
        Ok(())
    }

    /// The next message that is understood, with its descriptors. What is not understood is answered so.
    ///
    /// # Errors
    /// There is none until `deadline`.
    pub fn receive(&self, deadline: Instant) -> Result<(Message, Vec<OwnedFd>), Silence> {
        loop {
            let (value, descriptors) = self.receive_value(deadline)?;
            match Message::from_json(&value) {
                Ok(Some(message)) => return Ok((message, descriptors)),
                Ok(None) => {
                    let unknown = Message::Unknown(value["type"].to_string());
                    self.send(&unknown, &[], Duration::from_secs(1)).map_err(Silence::Broken)?;
                }
                Err(what) => return Err(Silence::Broken(io::Error::other(what))),
            }
        }
    }

    fn receive_value(&self, deadline: Instant) -> Result<(Value, Vec<OwnedFd>), Silence> {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(Silence::TimedOut);
        }
        SockRef::from(&self.0).set_read_timeout(Some(left)).map_err(Silence::Broken)?;
        let mut buffer = vec![0; MOST_BYTES];
        let mut space = vec![MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MOST_DESCRIPTORS))];
        let mut ancillary = RecvAncillaryBuffer::new(&mut space);
        let flags = RecvFlags::CMSG_CLOEXEC;
        let received = loop {
            match recvmsg(&self.0, &mut [IoSliceMut::new(&mut buffer)], &mut ancillary, flags) {
                Ok(received) => break received,
                // Reset: the other process has ended without having read all; what it had said is still there.
                Err(rustix::io::Errno::INTR | rustix::io::Errno::CONNRESET) => {}
                Err(rustix::io::Errno::AGAIN) => return Err(Silence::TimedOut),
                Err(error) => return Err(Silence::Broken(error.into())),
            }
        };
        let mut descriptors = Vec::new();
        for message in ancillary.drain() {
            if let RecvAncillaryMessage::ScmRights(rights) = message {
                descriptors.extend(rights);
            }
        }
        if received.bytes == 0 {
            return Err(Silence::Ended);
        }
        // Descriptors are lost when this process may not have more of them.
        if received.flags.intersects(ReturnFlags::TRUNC | ReturnFlags::CTRUNC) {
            let why = "a message arrived in part; is the limit of open files (`ulimit -n`) too low?";
            return Err(Silence::Broken(io::Error::other(why)));
        }
        let value = serde_json::from_slice(&buffer[..received.bytes]);
        value.map(|value| (value, descriptors)).map_err(|error| Silence::Broken(error.into()))
    }
}

impl Message {
    fn to_json(&self) -> Value {
        let names = |sockets: &[SocketName]| sockets.iter().map(SocketName::to_json).collect::<Vec<_>>();
        match self {
            Self::Hello { version, pid, sockets } => {
                json!({ "type": "hello", "version": version, "pid": pid, "sockets": sockets })
            }
            Self::Sockets(sockets) => json!({ "type": "sockets", "sockets": names(sockets) }),
            Self::Ready { pid, sockets } => json!({ "type": "ready", "pid": pid, "sockets": names(sockets) }),
            Self::Failed(reason) => json!({ "type": "failed", "reason": reason }),
            Self::Go => json!({ "type": "go" }),
            Self::Unknown(what) => json!({ "type": "unknown", "what": what }),
        }
    }

    /// `None` for a type that is not known here: of a later version. Fields that are not known are left out.
    fn from_json(value: &Value) -> Result<Option<Self>, String> {
        let wrong = || format!("no message: {value}");
        let number = |name: &str| value[name].as_u64().ok_or_else(wrong);
        let pid = || u32::try_from(number("pid")?).map_err(|_| wrong());
        let text = |name: &str| value[name].as_str().map(str::to_owned).ok_or_else(wrong);
        let sockets = || -> Result<Vec<SocketName>, String> {
            let list = value["sockets"].as_array().ok_or_else(wrong)?;
            list.iter().map(|socket| SocketName::from_json(socket).ok_or_else(wrong)).collect()
        };
        Ok(Some(match text("type")?.as_str() {
            "hello" => Self::Hello {
                version: number("version")?,
                pid: pid()?,
                sockets: usize::try_from(number("sockets")?).map_err(|_| wrong())?,
            },
            "sockets" => Self::Sockets(sockets()?),
            "ready" => Self::Ready { pid: pid()?, sockets: sockets()? },
            "failed" => Self::Failed(text("reason")?),
            "go" => Self::Go,
            "unknown" => Self::Unknown(text("what")?),
            _ => return Ok(None),
        }))
    }
}

impl SocketName {
    fn to_json(&self) -> Value {
        json!({ "for": self.purpose, "name": self.name, "file": self.file.map(|(device, inode)| [device, inode]) })
    }

    fn from_json(value: &Value) -> Option<Self> {
        let (purpose, name) = (value["for"].as_str()?.to_owned(), value["name"].as_str()?.to_owned());
        let file = value["file"][0].as_u64().zip(value["file"][1].as_u64());
        Some(Self { purpose, name, file })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::{TcpListener, TcpStream};
    use std::os::fd::AsFd;

    const SOON: Duration = Duration::from_secs(5);

    fn pair() -> (Channel, Channel) {
        let (one, other) = Channel::pair().unwrap();
        (one, Channel::from_descriptor(other).unwrap())
    }

    fn deadline() -> Instant {
        Instant::now() + SOON
    }

    fn listen(name: &str) -> SocketName {
        SocketName { purpose: "listen".to_owned(), name: name.to_owned(), file: None }
    }

    #[test]
    fn what_is_said_is_what_is_heard() {
        let (one, other) = pair();
        let file = SocketName { file: Some((7, u64::MAX)), ..listen("unix:/run/a\n\"b\".sock") };
        for message in [
            Message::Hello { version: VERSION, pid: 1234, sockets: 3 },
            Message::Ready { pid: 1234, sockets: vec![listen("127.0.0.1:80"), file] },
            Message::Failed("why\nnot".to_owned()),
            Message::Go,
        ] {
            one.send(&message, &[], SOON).unwrap();
            let (heard, descriptors) = other.receive(deadline()).unwrap();
            assert_eq!((heard, descriptors.len()), (message, 0));
        }
    }

    #[test]
    fn sockets_arrive_with_their_names_however_many_there_are() {
        let (one, other) = pair();
        let listeners: Vec<_> =
            (0..MOST_DESCRIPTORS + 2).map(|_| TcpListener::bind("127.0.0.1:0").unwrap()).collect();
        let name = |listener: &TcpListener| listen(&listener.local_addr().unwrap().to_string());
        let named: Vec<_> = listeners.iter().map(|listener| (name(listener), listener.as_fd())).collect();
        one.send_sockets(&named, SOON).unwrap();
        let mut handed = Vec::new();
        while handed.len() < listeners.len() {
            let (Message::Sockets(names), descriptors) = other.receive(deadline()).unwrap() else { panic!() };
            assert_eq!(names.len(), descriptors.len());
            handed.extend(names.into_iter().zip(descriptors));
        }
        drop(listeners);
        for (name, descriptor) in handed {
            assert_eq!(TcpListener::from(descriptor).local_addr().unwrap().to_string(), name.name);
            TcpStream::connect(name.name).unwrap_err();
        }
    }

    #[test]
    fn a_message_of_a_later_version_is_refused_and_the_next_one_heard() {
        let (one, other) = pair();
        let later = [IoSlice::new(br#"{"type":"tunnel","client":[1,2]}"#)];
        sendmsg(&one.0, &later, &mut SendAncillaryBuffer::default(), SendFlags::empty()).unwrap();
        one.send(&Message::Go, &[], SOON).unwrap();
        assert_eq!(other.receive(deadline()).unwrap().0, Message::Go);
        assert_eq!(one.receive(deadline()).unwrap().0, Message::Unknown("\"tunnel\"".to_owned()));
    }

    #[test]
    fn silence_has_a_reason() {
        let (one, other) = pair();
        assert!(matches!(one.receive(Instant::now() + Duration::from_millis(20)), Err(Silence::TimedOut)));
        sendmsg(&other.0, &[IoSlice::new(b"hello")], &mut SendAncillaryBuffer::default(), SendFlags::empty())
            .unwrap();
        assert!(matches!(one.receive(deadline()), Err(Silence::Broken(_))));
        drop(other);
        assert!(matches!(one.receive(deadline()), Err(Silence::Ended)));
    }
}
