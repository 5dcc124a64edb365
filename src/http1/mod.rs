//! HTTP/1.1 on the wire, RFC 9112, strictly: heads, body framing, and the pump that moves a body.
//!
//! hyper is not used here because it hides what a strict proxy must see: it drops `Content-Length`
//! beside `Transfer-Encoding`, takes bare LF, follows any 101, cannot send 103 or 408, and groups the
//! fields of a head by name.

pub mod body;
pub mod gzip;
pub mod head;
pub mod pump;
