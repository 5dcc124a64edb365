//! Which server and which location answer a request: pure decisions over finished values.

pub mod host;
pub mod location;
pub mod path;
pub mod values;
pub mod variables;
