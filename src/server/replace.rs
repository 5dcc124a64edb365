//! SIGUSR2: has a new process take over, and drains once it serves.

use std::io;
use std::os::fd::OwnedFd;

use rustix::process::{Pid, Signal, kill_process};

use super::inherited::{HEALTH, LISTEN, SYSTEMD, name_of};
use super::listener::SocketFile;
use super::{Control, Running};
use crate::config::ListenAddress;
use crate::takeover::{Outcome, SocketName, Successor};

impl Running {
    /// Starts the program anew. What becomes of that comes back as an order.
    pub(super) fn replace(&mut self) {
        if let Some(successor) = &self.successor {
            tracing::warn!(
                "a signal was not obeyed: process {} is about to take over already",
                successor.pid()
            );
            return;
        }
        match self.start_successor() {
            Ok(successor) => {
                tracing::info!("process {} is started to take over", successor.pid());
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
        Successor::start(program, self.sockets()?, move |outcome| {
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
        let failed = match outcome {
            Outcome::Ready(taken) => self.hand_over(successor, &taken).err().map(|error| error.to_string()),
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

    fn hand_over(&mut self, successor: Successor, taken: &[SocketName]) -> io::Result<()> {
        let pid = successor.pid();
        // Before it says so itself, which systemd would not take from anybody else.
        self.notifier.replaced_by(pid);
        let ended = move |status| tracing::warn!("process {pid}, which has taken over, has ended: {status}");
        if let Err(error) = successor.go(ended) {
            self.notifier.not_replaced();
            return Err(io::Error::other(format!("the new process is gone: {error}")));
        }
        tracing::info!("process {pid} has taken over from process {}", std::process::id());
        if self.waiting.take().is_some()
            && let Some(new) = i32::try_from(pid).ok().and_then(Pid::from_raw)
        {
            // The file may have changed after the new process has read it.
            let _ = kill_process(new, Signal::HUP);
        }
        (self.is_stopping, self.is_replaced) = (true, true);
        self.health.leave(|address| is_taken(taken, HEALTH, address));
        let addresses = self.listening.iter().map(|listening| &listening.address);
        let left = addresses.filter(|address| is_taken(taken, LISTEN, address)).cloned().collect();
        self.drain(left);
        Ok(())
    }

    /// SIGTERM, while it drains for a process that has taken over: that is what it does already, and it is told for the
    /// first time. systemd tells every process of a service.
    pub(super) fn stop_too(&mut self) {
        self.is_replaced = false;
        tracing::info!("draining already; a further signal ends at once");
    }
}

/// Whether a successor has what is listened on at an address for this purpose.
fn is_taken(taken: &[SocketName], purpose: &str, address: &ListenAddress) -> bool {
    let name = address.to_string();
    taken.iter().any(|taken| taken.purpose == purpose && taken.name == name)
}
