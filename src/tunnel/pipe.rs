//! Pipes, by which the system moves bytes from socket to socket without this process: splice(2).

use std::cell::Cell;
use std::io;
use std::os::fd::OwnedFd;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use rustix::pipe::{PipeFlags, SpliceFlags, fcntl_setpipe_size, pipe_with, splice};
use tokio::io::Interest;

use crate::io::Stream;

/// How much is moved at a time.
pub(super) const MOST: usize = 256 * 1024;

/// How many pipes a worker has in use at most: one whose sink takes nothing keeps what it holds, and with it two
/// descriptors and pages of the kernel, of which a user has 64 MiB (pipe(7)).
const IN_USE: usize = 64;

/// How many a worker keeps for the next use: one for each direction that is at work in the same turn, which is one, and
/// for those that a slow sink has kept for a moment.
const KEPT: usize = 4;

const FLAGS: SpliceFlags = SpliceFlags::NONBLOCK.union(SpliceFlags::MOVE);

/// The pipes of a worker.
#[derive(Debug, Default)]
pub struct Pipes {
    free: Vec<Pipe>,
    /// How many there are, the free ones too.
    count: Rc<Cell<usize>>,
}

/// A pipe, and how many bytes are in it.
#[derive(Debug)]
pub(super) struct Pipe {
    read: OwnedFd,
    write: OwnedFd,
    holds: usize,
    count: Rc<Cell<usize>>,
}

impl Pipes {
    /// An empty pipe; `None` if there are too many, or the system gives none.
    pub(super) fn take(&mut self) -> Option<Pipe> {
        if let Some(pipe) = self.free.pop() {
            return Some(pipe);
        }
        if self.count.get() >= IN_USE {
            return None;
        }
        let (read, write) = pipe_with(PipeFlags::NONBLOCK | PipeFlags::CLOEXEC).ok()?;
        // It has room for 16 pieces otherwise, however small they are. Who has too many pipes is refused more.
        let _ = fcntl_setpipe_size(&write, MOST);
        self.count.set(self.count.get() + 1);
        Some(Pipe { read, write, holds: 0, count: Rc::clone(&self.count) })
    }

    /// Takes a pipe back. One that is not empty is closed: its bytes were for nobody.
    pub(super) fn give_back(&mut self, pipe: Pipe) {
        if pipe.holds == 0 && self.free.len() < KEPT {
            self.free.push(pipe);
        }
    }
}

impl Pipe {
    /// How many bytes are in it.
    pub(super) fn holds(&self) -> usize {
        self.holds
    }

    /// Takes what a socket has into the pipe, which is empty: 0 is the end of what the peer sends.
    pub(super) fn poll_fill(&mut self, cx: &mut Context<'_>, from: &Stream) -> Poll<io::Result<usize>> {
        let taken = ready!(from.poll_call(cx, Interest::READABLE, |socket| {
            Ok(splice(socket, None, &self.write, None, MOST, FLAGS)?)
        }))?;
        self.holds += taken;
        Poll::Ready(Ok(taken))
    }

    /// Sends what is in the pipe: `Ready` means all of it.
    pub(super) fn poll_drain(&mut self, cx: &mut Context<'_>, to: &Stream) -> Poll<io::Result<()>> {
        while self.holds > 0 {
            let sent = ready!(to.poll_call(cx, Interest::WRITABLE, |socket| {
                Ok(splice(&self.read, None, socket, None, self.holds, FLAGS)?)
            }))?;
            if sent == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.holds -= sent;
        }
        Poll::Ready(Ok(()))
    }
}

impl Drop for Pipe {
    fn drop(&mut self) {
        self.count.set(self.count.get() - 1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_is_a_bounded_number_of_pipes_and_only_empty_ones_are_used_again() {
        let mut pipes = Pipes::default();
        let mut taken: Vec<_> = std::iter::from_fn(|| pipes.take()).collect();
        assert_eq!(taken.len(), IN_USE);
        taken.iter_mut().take(10).for_each(|pipe| pipe.holds = 1);
        taken.into_iter().for_each(|pipe| pipes.give_back(pipe));
        assert_eq!((pipes.free.len(), pipes.count.get()), (KEPT, KEPT));
        assert!(pipes.free.iter().all(|pipe| pipe.holds == 0));
    }
}
