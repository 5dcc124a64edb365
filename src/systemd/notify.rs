//! Tells systemd how the service is doing: the messages of sd_notify(3).

use std::ffi::OsString;
use std::io;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};

/// A service manager that does not read must not hold up a reload.
const SENT_WITHIN: Duration = Duration::from_secs(1);

/// The way to the service manager; says nothing where there is none. Its copies are one.
#[derive(Clone, Debug, Default)]
pub struct Notifier(Option<Arc<Manager>>);

#[derive(Debug)]
struct Manager {
    socket: UnixDatagram,
    address: SocketAddr,
    /// How often `WATCHDOG=1` has to come, as systemd wants it.
    watchdog: Option<Duration>,
    said: Mutex<Said>,
}

#[derive(Debug)]
struct Said {
    doing: &'static str,
    /// The reloads that were begun and are not done yet.
    reloads: usize,
    /// The last `STATUS=`.
    status: String,
    is_stopping: bool,
    /// Another process is the service, and tells it all.
    is_replaced: bool,
}

/// What the status counts.
#[derive(Clone, Copy, Debug)]
pub struct Counts {
    /// The client connections.
    pub connections: usize,
    /// The tunnels.
    pub tunnels: usize,
}

impl Notifier {
    /// As the environment says: `NOTIFY_SOCKET`, and `WATCHDOG_USEC` if it is meant for this process.
    ///
    /// # Errors
    /// `NOTIFY_SOCKET` names no socket that can be written to.
    pub fn from_env() -> io::Result<Self> {
        let Some(name) = std::env::var_os("NOTIFY_SOCKET").filter(|name| !name.is_empty()) else {
            return Ok(Self::default());
        };
        let wrong = |error: io::Error| {
            let name = name.to_string_lossy();
            io::Error::new(error.kind(), format!("NOTIFY_SOCKET={name}: {error}; systemd is told nothing"))
        };
        let address = address(&name).map_err(wrong)?;
        let socket = UnixDatagram::unbound()?;
        socket.set_write_timeout(Some(SENT_WITHIN))?;
        let variable = |name| std::env::var(name).ok();
        let watchdog = watchdog(variable("WATCHDOG_USEC"), variable("WATCHDOG_PID"), std::process::id());
        let said = Said {
            doing: "serving",
            reloads: 0,
            status: String::new(),
            is_stopping: false,
            is_replaced: false,
        };
        Ok(Self(Some(Arc::new(Manager { socket, address, watchdog, said: Mutex::new(said) }))))
    }

    /// Whether anybody listens.
    pub fn is_heard(&self) -> bool {
        self.0.is_some()
    }

    /// How often systemd wants to hear that all is well; `None` if it does not ask.
    pub fn watchdog(&self) -> Option<Duration> {
        self.0.as_ref()?.watchdog
    }

    /// The addresses are bound and the workers run.
    pub fn ready(&self, counts: Counts) {
        // A SIGHUP may have come by now: then its end says so.
        self.tell(
            |said| {
                if said.reloads > 0 { String::new() } else { format!("READY=1\n{}", said.status(counts)) }
            },
        );
    }

    /// A reload begins, which [`Notifier::reloaded`] or [`Notifier::reload_refused`] ends.
    pub fn reloading(&self) {
        self.tell(|said| {
            said.reloads += 1;
            let now = clock_gettime(ClockId::Monotonic);
            let micros = now.tv_sec * 1_000_000 + now.tv_nsec / 1000;
            format!("RELOADING=1\nMONOTONIC_USEC={micros}\nSTATUS=reading the configuration")
        });
    }

    /// The new configuration is in use.
    pub fn reloaded(&self, counts: Counts) {
        self.end_reload("serving", counts);
    }

    /// The old configuration stays. For systemd a reload ends in any case; it knows of no other end.
    pub fn reload_refused(&self, counts: Counts) {
        self.end_reload("serving the old configuration, the new one was refused", counts);
    }

    fn end_reload(&self, doing: &'static str, counts: Counts) {
        self.tell(|said| {
            said.reloads = said.reloads.saturating_sub(1);
            if said.is_stopping {
                return format!("STOPPING=1\n{}", said.status(counts));
            }
            said.doing = doing;
            // READY=1 would end the reload that has begun since, too.
            if said.reloads > 0 { String::new() } else { format!("READY=1\n{}", said.status(counts)) }
        });
    }

    /// The service drains or ends.
    pub fn stopping(&self, counts: Counts) {
        self.tell(|said| {
            (said.doing, said.is_stopping) = ("draining", true);
            format!("STOPPING=1\n{}", said.status(counts))
        });
    }

    /// From now on that process is the service: it is what systemd hears, and this one says nothing more. As the
    /// message is still this process's, `NotifyAccess=main` is enough.
    pub fn replaced_by(&self, pid: u32) {
        self.tell(|_| format!("MAINPID={pid}"));
        if let Some(manager) = &self.0 {
            let mut said = manager.said();
            (said.is_stopping, said.is_replaced) = (true, true);
        }
    }

    /// That process is gone before it was the service: this one is, as before.
    pub fn not_replaced(&self) {
        if let Some(manager) = &self.0 {
            let mut said = manager.said();
            (said.is_stopping, said.is_replaced) = (false, false);
        }
        self.tell(|_| format!("MAINPID={}", std::process::id()));
    }

    /// Whether it has said so.
    pub fn is_stopping(&self) -> bool {
        self.0.as_ref().is_some_and(|manager| manager.said().is_stopping)
    }

    /// Tells the counts, if they have changed since.
    pub fn counted(&self, counts: Counts) {
        self.tell(|said| {
            let before = said.status.clone();
            // The reload will tell them.
            if said.reloads > 0 || said.status(counts) == before {
                String::new()
            } else {
                said.status.clone()
            }
        });
    }

    /// All workers are alive, if systemd asks for it.
    pub fn alive(&self) {
        if self.watchdog().is_some() {
            self.tell(|_| "WATCHDOG=1".to_owned());
        }
    }

    /// Sends what `message` makes, unless that is nothing. One at a time, so that they arrive in the order in which
    /// things are.
    fn tell(&self, message: impl FnOnce(&mut Said) -> String) {
        let Some(manager) = &self.0 else { return };
        let mut said = manager.said();
        let message = if said.is_replaced { String::new() } else { message(&mut said) };
        if !message.is_empty()
            && let Err(error) = manager.socket.send_to_addr(message.as_bytes(), &manager.address)
        {
            tracing::debug!(%error, "systemd was not told: {message}");
        }
    }
}

impl Manager {
    fn said(&self) -> MutexGuard<'_, Said> {
        self.said.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Said {
    fn status(&mut self, Counts { connections, tunnels }: Counts) -> &str {
        self.status = format!("STATUS={}; connections: {connections}, tunnels: {tunnels}", self.doing);
        &self.status
    }
}

/// A path, or a name in the abstract namespace behind an `@`. systemd also knows `vsock:`, for virtual machines
/// that tell their host.
fn address(name: &OsString) -> io::Result<SocketAddr> {
    match name.as_bytes() {
        [b'/', ..] => SocketAddr::from_pathname(name),
        [b'@', name @ ..] => SocketAddr::from_abstract_name(name),
        _ => Err(io::Error::new(
            io::ErrorKind::Unsupported,
            "neither a path nor an abstract name; it has to begin with `/` or `@`",
        )),
    }
}

/// `WATCHDOG_PID` may name another process of the service, which is the one to be watched then.
fn watchdog(usec: Option<String>, pid: Option<String>, own: u32) -> Option<Duration> {
    if pid.is_some_and(|pid| pid.parse() != Ok(own)) {
        return None;
    }
    let usec = usec?.parse().ok().filter(|&usec| usec > 0)?;
    Some(Duration::from_micros(usec))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_watchdog_is_for_the_process_that_it_names() {
        for (usec, pid, expected) in [
            (Some("30000000"), None, Some(Duration::from_secs(30))),
            (Some("30000000"), Some("7"), Some(Duration::from_secs(30))),
            (Some("30000000"), Some("8"), None),
            (Some("30000000"), Some("x"), None),
            (Some("0"), None, None),
            (Some("a while"), None, None),
            (None, Some("7"), None),
        ] {
            let (usec, pid) = (usec.map(str::to_owned), pid.map(str::to_owned));
            assert_eq!(watchdog(usec.clone(), pid.clone(), 7), expected, "{usec:?} {pid:?}");
        }
    }

    #[test]
    fn ready_at_the_start_does_not_end_a_reload_that_has_begun() {
        let name = format!("hopgate-notify-{}", std::process::id());
        let address = SocketAddr::from_abstract_name(&name).unwrap();
        let manager = UnixDatagram::bind_addr(&address).unwrap();
        let said = Mutex::new(Said {
            doing: "serving",
            reloads: 0,
            status: String::new(),
            is_stopping: false,
            is_replaced: false,
        });
        let socket = UnixDatagram::unbound().unwrap();
        let notifier = Notifier(Some(Arc::new(Manager { socket, address, watchdog: None, said })));
        let nobody = Counts { connections: 0, tunnels: 0 };
        notifier.reloading();
        notifier.ready(nobody);
        notifier.reload_refused(nobody);
        let heard = || {
            let mut message = [0; 256];
            let length = manager.recv(&mut message).unwrap();
            String::from_utf8_lossy(&message[..length]).into_owned()
        };
        assert!(heard().starts_with("RELOADING=1\n"));
        assert!(heard().contains("the new one was refused"));
    }

    #[test]
    fn a_socket_is_a_path_or_an_abstract_name() {
        assert!(address(&"/run/systemd/notify".into()).unwrap().as_pathname().is_some());
        assert_eq!(address(&"@a".into()).unwrap().as_abstract_name(), Some(&b"a"[..]));
        assert_eq!(address(&"vsock:2:1".into()).unwrap_err().kind(), io::ErrorKind::Unsupported);
    }
}
