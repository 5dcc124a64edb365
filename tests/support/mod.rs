//! The vocabulary of the black-box tests: a real hopgate, scripted clients and scripted upstreams.
//!
//! Everything blocks, on real sockets, and every wait ends at [`DEADLINE`] at the latest; so a test reads as the
//! transcript of who said what to whom.
#![allow(dead_code)] // each test file uses its part of the vocabulary
#![allow(unused_imports)] // as above

mod app;
mod authority;
mod balancer;
mod bytes;
mod dns;
mod echo;
mod explain;
mod files;
mod front;
mod head;
mod hopgate;
mod http2;
mod http2_upstream;
mod image;
mod import;
mod lines;
mod machine;
mod nginx;
mod node;
mod openssl;
mod pair;
mod pebble;
mod peer;
mod service_manager;
mod site;
mod stopper;
mod tls_client;
mod tls_upstream;
mod upstream;
mod websocket;

use std::thread;
use std::time::{Duration, Instant};

pub use app::App;
pub use authority::{Authority, Issued, certificate, for_clients};
pub use balancer::{Balancer, Haproxy, Introduced, proxy_v2};
pub use bytes::{Noise, assert_same_bytes};
pub use dns::Dns;
pub use echo::Echo;
pub use explain::{expect_as_written_down, explain_in};
pub use files::{Dir, free_addr};
pub use front::{Front, answer_with};
pub use head::{Head, Response};
pub use hopgate::Hopgate;
pub use http2::{Http2, Http2Head, Http2Response, Http2Stream};
pub use http2_upstream::{Answering, Asked, Http2Connection, Http2Settings, Http2Upstream};
pub use image::Image;
pub use import::{Import, with_certificates};
pub use lines::Lines;
pub use machine::Machine;
pub use nginx::Nginx;
pub use node::{NodeApp, run_node_script, run_node_script_trusting, run_python_script};
pub use openssl::OpenSslPeer;
pub use pair::{Pair, Teller, ask};
pub use pebble::{Ca, Pebble};
pub use peer::{Ending, Peer};
pub use service_manager::ServiceManager;
pub use site::{Site, get_over_tls};
pub use stopper::Stopper;
pub use tls_client::{Agreed, TlsClient, TlsConnection, TlsEnding, run_client};
pub use tls_upstream::{TlsPeer, TlsUpstream};
pub use upstream::{Upstream, silent_addr};
pub use websocket::{ACCEPT, KEY, handshake, open_tunnel, read_text, switching, text_frame};

/// No single expectation of a test waits longer than this.
pub const DEADLINE: Duration = Duration::from_secs(10);

/// Waits for something that has no event of its own (a socket count in /proc, a line in a file) by looking again.
#[track_caller]
pub fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + DEADLINE;
    while !holds() {
        assert!(Instant::now() < deadline, "never became true: {what}");
        thread::sleep(Duration::from_millis(5));
    }
}

/// Does something when dropped: ends what threads do also if the test fails.
pub struct OnDrop<F: FnMut()>(pub F);

impl<F: FnMut()> Drop for OnDrop<F> {
    fn drop(&mut self) {
        (self.0)();
    }
}
