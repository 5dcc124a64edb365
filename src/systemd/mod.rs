//! What the service manager and hopgate tell each other.

pub mod activation;
pub mod notify;

pub use activation::{Passed, PassedSocket};
pub use notify::{Counts, Notifier};
