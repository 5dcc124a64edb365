//! SIGUSR2: has a new process take over, and drains once it serves.

use std::io;
use std::os::fd::OwnedFd;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

use super::inherited::{HEALTH, LISTEN, SYSTEMD, name_of};
use super::listener::SocketFile;
use super::{Control, Running, warn_of_draining};
use crate::config::ListenAddress;
use crate::takeover::{Outcome, SocketName, Successor};

/// The process that has taken over: itself, and not whichever has its number once it has ended.
#[derive(Debug)]
pub(super) struct Heir(OwnedFd);

impl Heir {
    /// Of a process that has just said its number. `None` if the system knows no such descriptors, or has none to give.
    fn of(pid: u32) -> Option<Self> {
        let pid = i32::try_from(pid).ok().and_then(Pid::from_raw)?;
        pidfd_open(pid, PidfdFlags::empty()).ok().map(Self)
    }

    fn signal(&self, signal: Signal) -> bool {
        pidfd_send_signal(&self.0, signal).is_ok()
    }

    /// Whether it has ended, waited for or not: systemd tells the others before it does that.
    fn is_gone(&self) -> bool {
        let mut process = [PollFd::new(&self.0, PollFlags::IN)];
        poll(&mut process, Some(&Timespec::default())).is_ok_and(|ended| ended > 0)
    }
}

impl Running {
    /// Starts the program anew. What becomes of that comes back as an order.
    pub(super) fn replace(&mut self) {
        if self.successor.is_some() {
            tracing::warn!("a signal was not obeyed: another process is about to take over already");
            return;
        }
        match self.start_successor() {
            Ok(successor) => {
                tracing::info!("another process is started to take over");
                self.successor = Some(successor);
            }
            Err(error) => tracing::error!("no other process takes over, this one goes on: {error}"),
        }
    }

    fn start_successor(&self) -> io::Result<Successor> {
        if std::process::id() == 1 {
            return Err(io::Error::other(
                "hopgate is process 1 here, and a container ends with that; start a container with the new version \
                 instead",
            ));
        }
        let program = self.program.as_ref().map_err(|error| io::Error::other(error.to_string()))?;
        let control = self.control.clone();
        Successor::start(program, self.sockets()?, self.notifier.is_heard(), move |outcome| {
            // The server may have been stopped meanwhile.
            let _ = control.send(Control::Replaced(outcome));
        })
    }

    /// All that are listened on, each with its name.
    fn sockets(&self) -> io::Result<Vec<(SocketName, OwnedFd)>> {
        let mut sockets = Vec::new();
        for listening in &self.listening {
            let file = listening.file.as_ref().map(SocketFile::identity);
            let name = name_of(LISTEN, &listening.address, file);
            for copy in &listening.copies {
                sockets.push((name.clone(), copy.try_clone()?.into()));
            }
        }
        for (address, file, socket) in self.health.sockets() {
            let name = name_of(HEALTH, address, file.map(SocketFile::identity));
            sockets.push((name, socket.try_clone()?.into()));
        }
        for passed in self.passed.sockets() {
            let name = SocketName { purpose: SYSTEMD.to_owned(), name: passed.name.clone(), file: None };
            sockets.push((name, passed.socket.try_clone()?.into()));
        }
        Ok(sockets)
    }

    /// Lets a new process that is ready take over; otherwise goes on as before.
    pub(super) fn replaced(&mut self, outcome: Outcome) {
        // Otherwise it was given up meanwhile.
        let Some(successor) = self.successor.take() else { return };
        let has_reopened = std::mem::take(&mut self.has_reopened);
        let failed = match outcome {
            Outcome::Ready(pid, taken) => {
                self.hand_over(successor, pid, &taken, has_reopened).err().map(|error| error.to_string())
            }
            Outcome::Failed(reason) => {
                // Ends it, and with it whatever it has bound: the reload that waits may want the same.
                drop(successor);
                Some(reason)
            }
            Outcome::Ended => Some(format!("the new process has ended without a word, {}", successor.end())),
        };
        let Some(reason) = failed else { return };
        tracing::error!("no other process takes over, this one goes on: {reason}");
        if let Some(config) = self.waiting.take() {
            self.reload(*config);
        }
    }

    fn hand_over(
        &mut self,
        mut successor: Successor,
        pid: u32,
        taken: &[SocketName],
        has_reopened: bool,
    ) -> io::Result<()> {
        let heir = Heir::of(pid);
        successor.set_free();
        // Before it says so itself, which systemd would not take from anybody else.
        self.notifier.replaced_by(pid);
        let ended = move |status| tracing::warn!("process {pid}, which has taken over, has ended: {status}");
        if let Err(error) = successor.go(ended) {
            self.notifier.not_replaced();
            if let Some(heir) = &heir {
                // It may live and not listen.
                heir.signal(Signal::KILL);
            }
            return Err(io::Error::other(format!("the new process is gone: {error}")));
        }
        tracing::info!("process {pid} has taken over from process {}", std::process::id());
        self.heir = heir;
        // What these were about may have changed after the new process has read or opened it.
        if self.waiting.take().is_some() {
            self.pass_on(Signal::HUP);
        }
        if has_reopened {
            self.pass_on(Signal::USR1);
        }
        (self.is_stopping, self.is_replaced) = (true, true);
        self.health.leave(|address| is_taken(taken, HEALTH, address));
        let addresses = self.listening.iter().map(|listening| &listening.address);
        let left = addresses.filter(|address| is_taken(taken, LISTEN, address)).cloned().collect();
        self.drain(left);
        Ok(())
    }

    /// Sends a signal on to the process that has taken over: it was meant for the service, and whoever has sent it did
    /// not know yet which process that is.
    pub(super) fn pass_on(&self, signal: Signal) {
        if !self.heir.as_ref().is_some_and(|heir| heir.signal(signal)) {
            warn_of_draining();
        }
    }

    /// SIGTERM, while it drains for a process that has taken over: that is what it does already, and it is told for the
    /// first time. systemd tells every process of a service; but if it is because that other one has failed, this one has
    /// to end, so that a further one can be started. Returns whether it ends.
    pub(super) fn stops_too(&mut self) -> bool {
        if self.heir.as_ref().is_some_and(Heir::is_gone) {
            tracing::error!("the process that had taken over is gone: this one ends, too");
            return true;
        }
        self.is_replaced = false;
        tracing::info!("draining already; a further signal ends at once");
        false
    }
}

/// Whether a successor has what is listened on at an address for this purpose.
fn is_taken(taken: &[SocketName], purpose: &str, address: &ListenAddress) -> bool {
    let name = address.to_string();
    taken.iter().any(|taken| taken.purpose == purpose && taken.name == name)
}
