//! A new process takes over the listening sockets of a running one, which then drains: no connection is refused.
//!
//! The running process starts the [`Program`] anew, with one end of a Unix-domain socket as its standard input; what
//! both tell each other on it is a [`Message`]:
//!
//! ```text
//! running                                        new
//!    │ ── hello: version, pid, count ────────────▶ │
//!    │ ── sockets: what for, with descriptors ───▶ │   reads its configuration, binds what is new, starts its workers
//!    │ ◀─────────── ready: which ones it serves ── │   or: failed, why
//!    │ ── go ────────────────────────────────────▶ │   is the service from here on, orders certificates
//!  drains
//! ```
//!
//! Both have the very same sockets, and so the same queues: what waits in one when the running process stops to
//! accept is accepted by the new one. Until `go` nothing has changed for the running process; whatever happens
//! to the new one before, it goes on.
//!
//! Under systemd the new process is started by one in between, which is ended right before `go`.
//!
//! A socket is told with what it is for, and what a new process has no use for it closes. Connections could follow the
//! listening sockets as messages of a further type, behind `go`: a process that does not know a type says so (`unknown`),
//! and whoever has sent it keeps what it is about. What changes the meaning of the messages here takes another
//! [`VERSION`].

mod message;
mod predecessor;
mod program;
mod starter;
mod successor;

pub use message::{Message, SocketName, VERSION};
pub use predecessor::{Handed, Predecessor};
pub use program::Program;
pub use starter::start_if_told;
pub use successor::{Outcome, Successor};

/// Set for a process that is to take over, whose standard input is the way to its predecessor.
pub const VARIABLE: &str = "HOPGATE_TAKEOVER";

/// Its value for the process in between, that starts such a one.
const STARTER: &str = "start";
