//! The process that is to take over from this one.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, WaitId, WaitIdOptions, waitid};

use super::message::{Channel, Message, Silence, SocketName, VERSION};
use super::{Program, VARIABLE};

/// How long a new process may take to be ready: to read its configuration, and to bind what is new.
const READY_WITHIN: Duration = Duration::from_secs(30);

/// How long each message may wait to be taken.
const SENT_WITHIN: Duration = Duration::from_secs(5);

/// How long a process that has closed its end may take to be gone.
const GONE_WITHIN: Duration = Duration::from_secs(1);

/// A process that was started to take over. Killed when dropped, unless it was told to go.
#[derive(Debug)]
pub struct Successor {
    child: Option<Child>,
    channel: Channel,
}

/// What has become of it.
#[derive(Debug)]
pub enum Outcome {
    /// It serves on these sockets, and waits to be told to go.
    Ready(Vec<SocketName>),
    /// It does not take over, for the reason that it has given.
    Failed(String),
    /// It has ended without a word.
    Ended,
}

impl Successor {
    /// Starts a program with these sockets; `report` is called with what becomes of it, on a thread of its own.
    ///
    /// # Errors
    /// It cannot be started; the text names it.
    pub fn start(
        program: &Program,
        sockets: Vec<(SocketName, OwnedFd)>,
        report: impl FnOnce(Outcome) + Send + 'static,
    ) -> io::Result<Self> {
        let (channel, theirs) = Channel::pair()?;
        let mut command = Command::new(&program.path);
        command.args(&program.arguments).env(VARIABLE, "1").stdin(Stdio::from(theirs));
        if std::env::var("WATCHDOG_PID").is_ok_and(|pid| pid == std::process::id().to_string()) {
            // It is the one to be watched then.
            command.env_remove("WATCHDOG_PID");
        }
        let started = command.spawn().map_err(|error| {
            io::Error::new(error.kind(), format!("{} cannot be started: {error}", program.path.display()))
        });
        let this = Self { child: Some(started?), channel };
        // Closes this process's copy of the other end: without it the end of the new process would not be seen.
        drop(command);
        let channel = this.channel.try_clone()?;
        std::thread::Builder::new()
            .name("takeover".into())
            .spawn(move || report(hand_over(&channel, &sockets)))?;
        Ok(this)
    }

    /// Its process.
    pub fn pid(&self) -> u32 {
        self.child.as_ref().map_or(0, Child::id)
    }

    /// Lets it be the service from now on; `ended` is called if it ends before this process does. If it fails, whoever
    /// this process is a child of learns so by its end: it becomes the parent of what nobody has waited for.
    ///
    /// # Errors
    /// It is gone.
    pub fn go(mut self, ended: impl FnOnce(ExitStatus) + Send + 'static) -> io::Result<()> {
        self.channel.send(&Message::Go, &[], SENT_WITHIN)?;
        let Some(mut child) = self.child.take() else { return Ok(()) };
        let waiting = std::thread::Builder::new().name("takeover".into()).spawn(move || {
            let Ok(status) = wait_and_leave(&child) else { return };
            if status.success() {
                // Nobody misses it, and it would be a zombie until this process ends.
                let _ = child.wait();
            }
            ended(status);
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
        let _ = child.kill();
        child.wait().map_or_else(|error| error.to_string(), |status| status.to_string())
    }
}

impl Drop for Successor {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            // It may have ended by itself.
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// Waits for the end of a child, and leaves it to be waited for again.
fn wait_and_leave(child: &Child) -> io::Result<ExitStatus> {
    let ended = loop {
        match waitid(WaitId::Pid(Pid::from_child(child)), WaitIdOptions::EXITED | WaitIdOptions::NOWAIT) {
            Ok(Some(ended)) => break ended,
            Ok(None) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    };
    // As wait(2) has it.
    Ok(ExitStatus::from_raw(match ended.terminating_signal() {
        Some(signal) => signal,
        None => ended.exit_status().unwrap_or_default() << 8,
    }))
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
            Ok((Message::Ready(taken), _)) => Outcome::Ready(taken),
            Ok((Message::Failed(reason), _)) => Outcome::Failed(reason),
            Ok((Message::Unknown(_), _)) => continue,
            Ok((other, _)) => Outcome::Failed(format!("it said out of turn: {other:?}")),
            Err(Silence::Ended) => Outcome::Ended,
            Err(Silence::TimedOut) => Outcome::Failed(format!("it was not ready within {READY_WITHIN:?}")),
            Err(Silence::Broken(error)) => Outcome::Failed(format!("it cannot be understood: {error}")),
        };
    }
}
