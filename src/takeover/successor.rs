//! The process that is to take over from this one.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process_group};

use super::message::{Channel, Message, Silence, SocketName, VERSION};
use super::{Program, STARTER, VARIABLE};

/// How long a new process may take to be ready: to read its configuration, and to bind what is new.
const READY_WITHIN: Duration = Duration::from_secs(30);

/// How long each message may wait to be taken.
const SENT_WITHIN: Duration = Duration::from_secs(5);

/// How long a process that has closed its end may take to be gone.
const GONE_WITHIN: Duration = Duration::from_secs(1);

/// A process that was started to take over. Killed when dropped, unless it was told to go.
#[derive(Debug)]
pub struct Successor {
    /// Itself, or the one that has started it; none once that was told to leave it alone.
    child: Option<Child>,
    is_apart: bool,
    channel: Channel,
}

/// What has become of it.
#[derive(Debug)]
pub enum Outcome {
    /// It is this process, serves on these sockets, and waits to be told to go.
    Ready(u32, Vec<SocketName>),
    /// It does not take over, for the reason that it has given.
    Failed(String),
    /// It has ended without a word.
    Ended,
}

impl Successor {
    /// Starts a program with these sockets; `report` is called with what becomes of it, on a thread of its own. One that
    /// `is_apart` is started by a process in between, so that it becomes a child of whoever this process is one of.
    ///
    /// # Errors
    /// It cannot be started; the text names it.
    pub fn start(
        program: &Program,
        sockets: Vec<(SocketName, OwnedFd)>,
        is_apart: bool,
        report: impl FnOnce(Outcome) + Send + 'static,
    ) -> io::Result<Self> {
        let (channel, theirs) = Channel::pair()?;
        let mut command = Command::new(&program.path);
        command.args(&program.arguments).env(VARIABLE, "1").stdin(Stdio::from(theirs));
        if is_apart {
            // A group of its own: both can be ended together.
            command.env(VARIABLE, STARTER).process_group(0);
        }
        if std::env::var("WATCHDOG_PID").is_ok_and(|pid| pid == std::process::id().to_string()) {
            // It is the one to be watched then.
            command.env_remove("WATCHDOG_PID");
        }
        let started = command.spawn().map_err(|error| {
            io::Error::new(error.kind(), format!("{} cannot be started: {error}", program.path.display()))
        });
        let this = Self { child: Some(started?), is_apart, channel };
        // Closes this process's copy of the other end: without it the end of the new process would not be seen.
        drop(command);
        let channel = this.channel.try_clone()?;
        std::thread::Builder::new()
            .name("takeover".into())
            .spawn(move || report(hand_over(&channel, &sockets)))?;
        Ok(this)
    }

    /// Makes it a child of whoever this process is one of, if it was started apart.
    pub fn set_free(&mut self) {
        if self.is_apart
            && let Some(mut starter) = self.child.take()
        {
            let _ = starter.kill();
            let _ = starter.wait();
        }
    }

    /// Lets it be the service from now on; `ended` is called if it ends before this process does, and is still its child.
    ///
    /// # Errors
    /// It is gone.
    pub fn go(mut self, ended: impl FnOnce(ExitStatus) + Send + 'static) -> io::Result<()> {
        self.channel.send(&Message::Go, &[], SENT_WITHIN)?;
        let Some(mut child) = self.child.take() else { return Ok(()) };
        // Somebody has to wait for it, so that it is no zombie.
        let waiting = std::thread::Builder::new().name("takeover".into()).spawn(move || {
            if let Ok(status) = child.wait() {
                ended(status);
            }
        });
        if let Err(error) = waiting {
            tracing::debug!(%error, "nobody waits for the process that has taken over");
        }
        Ok(())
    }

    /// How it has ended, after [`Outcome::Ended`].
    pub fn end(mut self) -> String {
        let Some(mut child) = self.child.take() else { return String::new() };
        let deadline = Instant::now() + GONE_WITHIN;
        while Instant::now() < deadline && matches!(child.try_wait(), Ok(None)) {
            std::thread::sleep(Duration::from_millis(5));
        }
        // It may have closed its standard input and go on.
        kill(&mut child, self.is_apart);
        child.wait().map_or_else(|error| error.to_string(), |status| status.to_string())
    }
}

impl Drop for Successor {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            kill(&mut child, self.is_apart);
            let _ = child.wait();
        }
    }
}

/// Ends a child, with all that it has started if it is a starter. It may have ended by itself.
fn kill(child: &mut Child, is_apart: bool) {
    match is_apart {
        true => drop(kill_process_group(Pid::from_child(child), Signal::KILL)),
        false => drop(child.kill()),
    }
}

fn hand_over(channel: &Channel, sockets: &[(SocketName, OwnedFd)]) -> Outcome {
    let deadline = Instant::now() + READY_WITHIN;
    let (version, pid) = (VERSION, std::process::id());
    let named: Vec<_> = sockets.iter().map(|(name, socket)| (name.clone(), socket.as_fd())).collect();
    let sent = channel
        .send(&Message::Hello { version, pid, sockets: sockets.len() }, &[], SENT_WITHIN)
        .and_then(|()| channel.send_sockets(&named, SENT_WITHIN));
    if let Err(error) = sent
        && error.kind() == io::ErrorKind::WouldBlock
    {
        return Outcome::Failed(format!("it takes no sockets: {error}"));
    }
    // What it has said before it went is more telling than that nothing could be sent.
    loop {
        return match channel.receive(deadline) {
            Ok((Message::Ready { pid, sockets }, _)) => Outcome::Ready(pid, sockets),
            Ok((Message::Failed(reason), _)) => Outcome::Failed(reason),
            Ok((Message::Unknown(_), _)) => continue,
            Ok((other, _)) => Outcome::Failed(format!("it said out of turn: {other:?}")),
            Err(Silence::Ended) => Outcome::Ended,
            Err(Silence::TimedOut) => Outcome::Failed(format!("it was not ready within {READY_WITHIN:?}")),
            Err(Silence::Broken(error)) => Outcome::Failed(format!("it cannot be understood: {error}")),
        };
    }
}
