//! Stands between hopgate and a CA, and says some things that the CA would not.

use std::net::SocketAddr;
use std::sync::Arc;
use std::thread;

use super::pebble::acme;
use super::{Ca, TlsClient, TlsPeer, TlsUpstream};

/// What answers a request: it is given the first line of the request, and can ask the CA.
pub trait Answer: Fn(&str, &dyn Fn() -> String) -> String + Send + Sync + 'static {}

impl<F: Fn(&str, &dyn Fn() -> String) -> String + Send + Sync + 'static> Answer for F {}

/// A CA as hopgate sees it through a [`Front`].
pub struct Front {
    addr: String,
    own_ca: String,
}

impl Front {
    pub fn start(ca: &Ca, answer: impl Answer) -> Self {
        let listener = TlsUpstream::with(&ca.own().issued);
        let (addr, own_ca) = (listener.addr(), ca.own_ca());
        let (client, ca) = (TlsClient::of(&ca.own().authority, "127.0.0.1"), ca.addr());
        let both = Arc::new((client, answer));
        thread::spawn(move || {
            loop {
                // Whoever fails here fails in the test as well.
                let Ok(hopgate) = listener.accept_for_ever() else { continue };
                let both = Arc::clone(&both);
                thread::spawn(move || serve(hopgate, &both.0, ca, &both.1));
            }
        });
        Self { addr, own_ca }
    }

    /// Where it is: the URLs that the CA gives begin so.
    pub fn url(&self, path: &str) -> String {
        format!("https://{}{path}", self.addr)
    }

    /// `[acme]` for it, with this folder as the store.
    pub fn acme(&self, store: &str) -> String {
        acme(&self.url("/dir"), &self.own_ca, store)
    }
}

/// One request, as hopgate sends them: the last one on its connection.
fn serve(mut hopgate: TlsPeer, client: &TlsClient, ca: SocketAddr, answer: &impl Answer) {
    let head = hopgate.head();
    let length = head.field("content-length").map_or(0, |length| length.parse().expect("a length"));
    let request = [head.raw.clone(), hopgate.read(length)].concat();
    let pass = || {
        let mut ca = client.open(ca);
        ca.send(&request);
        String::from_utf8(ca.read_to_end().0).expect("a text")
    };
    let text = head.to_string();
    hopgate.send(answer(text.lines().next().expect("a line"), &pass));
    hopgate.close();
}

/// An answer with these lines in its head.
pub fn answer_with(status: &str, lines: &str, body: &serde_json::Value) -> String {
    let body = body.to_string();
    let length = body.len();
    format!("HTTP/1.1 {status}\r\nContent-Length: {length}\r\nConnection: close\r\n{lines}\r\n{body}")
}
