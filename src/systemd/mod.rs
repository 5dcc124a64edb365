//! What the service manager and hopgate tell each other.

pub mod notify;

pub use notify::{Counts, Notifier};
