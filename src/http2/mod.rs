//! HTTP/2 (RFC 9113) and WebSocket over it (RFC 8441): each stream looks like a connection of HTTP/1.1 to
//! everything behind, so that a request goes one way whatever it came in.

mod body;
mod client_head;
mod client_stream;
mod connection;
mod flood;
mod head;
mod preface;
mod stream;
mod wire;

pub use client_head::shown;
pub use client_stream::{ClientStream, is_unprocessed};
pub use connection::serve;
pub use preface::serve_either;
pub use stream::Http2Stream;
