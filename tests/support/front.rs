//! Stands between hopgate and a CA, and says some things that the CA would not.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::thread;

use rustls::crypto::aws_lc_rs;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, ServerConfig, ServerConnection, StreamOwned};

use super::Ca;
use super::pebble::acme;

/// What answers a request: it is given the first line of the request, and can ask the CA.
pub trait Answer: Fn(&str, &dyn Fn() -> String) -> String + Send + Sync + 'static {}

impl<F: Fn(&str, &dyn Fn() -> String) -> String + Send + Sync + 'static> Answer for F {}

/// A CA as hopgate sees it through a [`Front`].
pub struct Front {
    addr: SocketAddr,
    own_ca: String,
}

impl Front {
    pub fn start(ca: &Ca, answer: impl Answer) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port to listen on");
        let addr = listener.local_addr().expect("a listener has an address");
        let own_ca = ca.own_ca();
        let sides = Arc::new(Sides::of(ca));
        let answer = Arc::new(answer);
        thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let (sides, answer) = (Arc::clone(&sides), Arc::clone(&answer));
                // Whoever fails here fails in the test as well.
                thread::spawn(move || sides.serve(stream, &*answer));
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

/// How it speaks TLS with both.
struct Sides {
    ca: SocketAddr,
    server: Arc<ServerConfig>,
    client: Arc<ClientConfig>,
}

impl Sides {
    fn of(ca: &Ca) -> Self {
        let provider = Arc::new(aws_lc_rs::default_provider());
        let chain = CertificateDer::pem_file_iter(ca.own_file("pebble.pem")).expect("a file");
        let chain = chain.collect::<Result<_, _>>().expect("a chain");
        let key = PrivateKeyDer::from_pem_file(ca.own_file("pebble.key")).expect("a key");
        let server = ServerConfig::builder_with_provider(provider.clone());
        let server = server.with_safe_default_protocol_versions().expect("versions").with_no_client_auth();
        let server = server.with_single_cert(chain, key).expect("a certificate");
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_file(ca.own_ca()).expect("a certificate")).expect("a root");
        let client = ClientConfig::builder_with_provider(provider);
        let client = client.with_safe_default_protocol_versions().expect("versions");
        let client = client.with_root_certificates(roots).with_no_client_auth();
        Self { ca: ca.addr(), server: Arc::new(server), client: Arc::new(client) }
    }

    /// One request, as hopgate sends them: with a length, and the last one on its connection.
    fn serve(&self, stream: TcpStream, answer: &impl Answer) -> Option<()> {
        let mut client = StreamOwned::new(ServerConnection::new(Arc::clone(&self.server)).ok()?, stream);
        let mut request = Vec::new();
        while !is_whole(&request) {
            let mut bytes = [0; 4096];
            let count = client.read(&mut bytes).ok().filter(|count| *count > 0)?;
            request.extend_from_slice(&bytes[..count]);
        }
        let text = String::from_utf8_lossy(&request).into_owned();
        let pass = || self.pass(&request).expect("the CA answers");
        let answer = answer(text.lines().next()?, &pass);
        client.write_all(answer.as_bytes()).ok()?;
        client.conn.send_close_notify();
        client.flush().ok()
    }

    fn pass(&self, request: &[u8]) -> std::io::Result<String> {
        let name = ServerName::from(self.ca.ip());
        let connection =
            ClientConnection::new(Arc::clone(&self.client), name).map_err(std::io::Error::other)?;
        let mut ca = StreamOwned::new(connection, TcpStream::connect(self.ca)?);
        ca.write_all(request)?;
        let mut answer = String::new();
        ca.read_to_string(&mut answer)?;
        Ok(answer)
    }
}

fn is_whole(request: &[u8]) -> bool {
    let text = String::from_utf8_lossy(request).to_ascii_lowercase();
    let Some((head, body)) = text.split_once("\r\n\r\n") else { return false };
    let length = head.lines().find_map(|line| line.strip_prefix("content-length:"));
    length.map_or(0, |length| length.trim().parse().expect("a length")) <= body.len()
}

/// An answer with these lines in its head.
pub fn answer_with(status: &str, lines: &str, body: &serde_json::Value) -> String {
    let body = body.to_string();
    let length = body.len();
    format!("HTTP/1.1 {status}\r\nContent-Length: {length}\r\nConnection: close\r\n{lines}\r\n{body}")
}
