//! "The floor": what it costs to copy bytes between two sockets when nobody looks at them.

use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::os::fd::OwnedFd;

use rustix::pipe::{PipeFlags, SpliceFlags, fcntl_setpipe_size, pipe_with, splice};

use crate::poller::{Poller, accept, connect, listen, reset, unless_blocked};

/// How much is moved at a time.
const BUFFER: usize = 64 * 1024;
/// The largest pipe that the system gives to anybody.
const PIPE: usize = 1024 * 1024;

/// Runs until it is killed. The listeners have the first numbers, the sockets those that follow.
pub fn run(to: &[SocketAddr], splices: bool) -> io::Result<()> {
    let mut relay =
        Relay { splices, poller: Poller::new()?, listeners: to.len(), pairs: Vec::new(), free: Vec::new() };
    let mut listeners = Vec::new();
    for (number, to) in to.iter().enumerate() {
        let listener = listen()?;
        relay.poller.add(&listener, number)?;
        listeners.push((listener, *to));
    }
    let (mut ready, mut buffer) = (Vec::new(), vec![0; BUFFER]);
    loop {
        relay.poller.wait(None, &mut ready)?;
        for event in &ready {
            match listeners.get(event.number) {
                Some((listener, to)) => relay.accept(listener, *to)?,
                None => relay.serve((event.number - listeners.len()) / 2, event.is_ending, &mut buffer),
            }
        }
    }
}

struct Relay {
    splices: bool,
    poller: Poller,
    listeners: usize,
    pairs: Vec<Option<Pair>>,
    free: Vec<usize>,
}

impl Relay {
    fn accept(&mut self, listener: &TcpListener, to: SocketAddr) -> io::Result<()> {
        while let Some(client) = accept(listener)? {
            let pair = Pair { ends: [client, connect(to)?], ways: [self.way()?, self.way()?] };
            let place = self.free.pop().unwrap_or_else(|| {
                self.pairs.push(None);
                self.pairs.len() - 1
            });
            for (side, end) in pair.ends.iter().enumerate() {
                self.poller.add(end, self.listeners + place * 2 + side)?;
            }
            self.pairs[place] = Some(pair);
        }
        Ok(())
    }

    fn way(&self) -> io::Result<Way> {
        let through = if self.splices {
            let (read, write) = pipe_with(PipeFlags::NONBLOCK | PipeFlags::CLOEXEC)?;
            fcntl_setpipe_size(&write, PIPE)?;
            Through::Pipe { read, write, holds: 0 }
        } else {
            Through::Buffer { rest: Vec::new(), sent: 0 }
        };
        Ok(Way { through, flow: Flow::Open })
    }

    /// Moves what can be moved, both ways: an event may mean room in one socket or bytes in the other.
    fn serve(&mut self, place: usize, is_ending: bool, buffer: &mut [u8]) {
        // An event of a pair that has ended, told together with that of its other side.
        let Some(pair) = &mut self.pairs[place] else { return };
        let [client, upstream] = &pair.ends;
        let [up, down] = &mut pair.ways;
        let moved = up
            .go(client, upstream, is_ending, buffer)
            .and_then(|()| down.go(upstream, client, is_ending, buffer));
        match moved {
            Ok(()) if !(up.flow == Flow::Ended && down.flow == Flow::Ended) => return,
            Ok(()) => {}
            Err(_) => pair.ends.iter().for_each(reset),
        }
        self.pairs[place] = None;
        self.free.push(place);
    }
}

struct Pair {
    ends: [TcpStream; 2],
    /// From the first end to the second, and back.
    ways: [Way; 2],
}

struct Way {
    through: Through,
    flow: Flow,
}

#[derive(PartialEq, Eq)]
enum Flow {
    Open,
    /// The source has ended; what is on its way goes out, then the FIN.
    Ending,
    Ended,
}

/// Where bytes wait that the sink has not taken.
enum Through {
    Buffer { rest: Vec<u8>, sent: usize },
    Pipe { read: OwnedFd, write: OwnedFd, holds: usize },
}

impl Way {
    fn go(&mut self, from: &TcpStream, to: &TcpStream, is_ending: bool, buffer: &mut [u8]) -> io::Result<()> {
        while self.through.flush(to)? {
            match self.flow {
                Flow::Open => {}
                Flow::Ending => {
                    to.shutdown(Shutdown::Write)?;
                    self.flow = Flow::Ended;
                    return Ok(());
                }
                Flow::Ended => return Ok(()),
            }
            match self.through.fill(from, to, buffer)? {
                Filled::Some => {}
                // A short read has emptied the socket (epoll(7)), unless its end stands behind what was read.
                Filled::Short if is_ending => {}
                Filled::Short | Filled::Nothing => return Ok(()),
                Filled::Ended => self.flow = Flow::Ending,
            }
        }
        Ok(())
    }
}

enum Filled {
    /// There may be more.
    Some,
    /// Less than there was room for, and all of it is sent.
    Short,
    /// There is nothing for now: the next event tells of it.
    Nothing,
    Ended,
}

impl Through {
    /// Sends what waits; whether nothing does any more.
    fn flush(&mut self, mut to: &TcpStream) -> io::Result<bool> {
        match self {
            Self::Buffer { rest, sent } => {
                while *sent < rest.len() {
                    match unless_blocked(to.write(&rest[*sent..]))? {
                        Some(count) => *sent += count,
                        None => return Ok(false),
                    }
                }
                rest.clear();
                *sent = 0;
            }
            Self::Pipe { read, holds, .. } => {
                while *holds > 0 {
                    let sent =
                        splice(&*read, None, to, None, *holds, SpliceFlags::NONBLOCK | SpliceFlags::MOVE);
                    match unless_blocked(sent.map_err(io::Error::from))? {
                        Some(count) => *holds -= count,
                        None => return Ok(false),
                    }
                }
            }
        }
        Ok(true)
    }

    /// Takes what the source has, after everything before was sent.
    fn fill(&mut self, mut from: &TcpStream, mut to: &TcpStream, buffer: &mut [u8]) -> io::Result<Filled> {
        match self {
            Self::Buffer { rest, .. } => {
                let Some(count) = unless_blocked(from.read(buffer))? else { return Ok(Filled::Nothing) };
                if count == 0 {
                    return Ok(Filled::Ended);
                }
                let sent = unless_blocked(to.write(&buffer[..count]))?.unwrap_or(0);
                rest.extend_from_slice(&buffer[sent..count]);
                Ok(if count < buffer.len() && sent == count { Filled::Short } else { Filled::Some })
            }
            Self::Pipe { write, holds, .. } => {
                let taken =
                    splice(from, None, &*write, None, PIPE, SpliceFlags::NONBLOCK | SpliceFlags::MOVE);
                match unless_blocked(taken.map_err(io::Error::from))? {
                    None => Ok(Filled::Nothing),
                    Some(0) => Ok(Filled::Ended),
                    Some(count) => {
                        *holds = count;
                        Ok(Filled::Some)
                    }
                }
            }
        }
    }
}
