//! Which server and which location answer a request: pure decisions over finished values.

pub mod aim;
pub mod course;
pub mod escape;
pub mod host;
pub mod location;
pub mod map;
pub mod outcome;
pub mod path;
pub mod regex;
pub mod route;
pub mod script;
pub mod values;
pub mod variables;
