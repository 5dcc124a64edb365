//! The handshake of TLS, and what is spoken behind it.

use std::future::poll_fn;
use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use rustls::ServerConfig;
use tokio::time::Instant;

use crate::client::Client;
use crate::http2;
use crate::io::{Peer, Stream};
use crate::server::connection;
use crate::shared::Local;
use crate::tls::hello::{First, Hello, UNRECOGNIZED_NAME, look};
use crate::tls::server::TlsServer;
use crate::tls::session::TlsSession;
use crate::tls::stream::TlsStream;
use crate::tunnel::Tunnel;

/// Serves a client on an address where TLS is spoken; one that came when `refused` was reached is told so.
pub async fn serve(
    local: Rc<Local>,
    mut client: Box<Client>,
    refused: Option<&'static str>,
) -> Option<Box<Tunnel>> {
    let limits = local.limits_of(&client.info, &client.accepted_under)?;
    let deadline = Instant::now() + limits.header_timeout;
    let timeout = limits.send_timeout;
    match first(&local, &mut client, deadline).await {
        Some(First::Hello(hello)) => {
            let client = shake_hands(&local, client, hello, deadline, timeout).await?;
            speak(local, client, refused).await
        }
        Some(First::Http) => {
            client.info.lacks_tls = true;
            speak(local, client, refused).await
        }
        Some(First::Other(answer)) => {
            leave(&local, client, &answer, timeout).await;
            None
        }
        Some(First::Partial) | None => None,
    }
}

/// Waits for as much of what the client says as it takes to know what it is; `None` if the connection is over.
async fn first(local: &Rc<Local>, client: &mut Client, deadline: Instant) -> Option<First> {
    poll_fn(|cx| {
        let mut buffers = local.buffers.borrow_mut();
        loop {
            // Something may have come behind the header of the PROXY protocol.
            match look(&client.peer.ahead) {
                First::Partial => {}
                first => return Poll::Ready(Some(first)),
            }
            match client.peer.stream.poll_read(cx, &mut buffers.input) {
                Poll::Pending => break,
                Poll::Ready(Ok(0) | Err(_)) => return Poll::Ready(None),
                Poll::Ready(Ok(count)) => client.peer.ahead.extend_from_slice(&buffers.input[..count]),
            }
        }
        drop(buffers);
        client.poll_first(cx, deadline).map(|()| None)
    })
    .await
}

/// Goes through the handshake with the server that the client asks for; `None` if it has failed.
async fn shake_hands(
    local: &Rc<Local>,
    client: Box<Client>,
    hello: Hello,
    deadline: Instant,
    timeout: Duration,
) -> Option<Box<Client>> {
    if hello.is_challenge
        && let Some(config) = local.shared.challenges.proof_for(hello.server_name.as_deref())
    {
        prove(local, client, config, deadline).await;
        return None;
    }
    let Some((server, config)) = chosen(local, &client, &hello) else {
        leave(local, client, &UNRECOGNIZED_NAME, timeout).await;
        return None;
    };
    let (mut client, done) = handshake(client, config, deadline).await?;
    let Stream::Tls(tls) = &client.peer.stream else { return None };
    if let Err(error) = done {
        tell(&client, &hello, &error);
        client.linger(&local.buffers).await;
        return None;
    }
    client.info.tls = Some(Arc::new(TlsSession::new(tls.agreed(), hello.server_name, &server.clients)));
    Some(client)
}

/// The handshake itself, and how it has ended; `None` if there was no waiting for it.
async fn handshake(
    mut client: Box<Client>,
    config: Arc<ServerConfig>,
    deadline: Instant,
) -> Option<(Box<Client>, io::Result<()>)> {
    let Peer { stream, ahead } = client.peer;
    let tls = TlsStream::accept(stream, config, ahead.into_bytes()).ok()?;
    client.peer = Peer::new(Stream::Tls(Box::new(tls)));
    let done = poll_fn(|cx| {
        let Stream::Tls(tls) = &mut client.peer.stream else { return Poll::Ready(None) };
        if let Poll::Ready(done) = tls.poll_handshake(cx) {
            return Poll::Ready(Some(done));
        }
        client.poll_first(cx, deadline).map(|()| None)
    })
    .await?;
    Some((client, done))
}

/// RFC 8737 §3: the handshake is all that the CA came for.
async fn prove(local: &Rc<Local>, client: Box<Client>, config: Arc<ServerConfig>, deadline: Instant) {
    if let Some((mut client, _)) = handshake(client, config, deadline).await {
        client.linger(&local.buffers).await;
    }
}

/// The server that a client asks for, or the default one, and how TLS is spoken for it; `None` if it refuses
/// every handshake.
fn chosen(local: &Local, client: &Client, hello: &Hello) -> Option<(Arc<TlsServer>, Arc<ServerConfig>)> {
    let state = local.state();
    let (listener, name) = (&client.info.listener, hello.server_name.as_deref());
    let find = |state: &crate::state::State| {
        let (place, server) = state.tls_server_for(listener, name)?;
        server.identity.as_ref()?;
        let config = server.config(state.config.servers[place].limits.http2);
        Some((Arc::clone(server), Arc::clone(config)))
    };
    // A reload may have taken the listener away.
    if state.speaks_tls(listener) { find(&state) } else { find(&client.accepted_under) }
}

/// Serves a client in the version of HTTP that was agreed upon.
async fn speak(local: Rc<Local>, client: Box<Client>, refused: Option<&'static str>) -> Option<Box<Tunnel>> {
    if client.info.tls.as_ref().is_some_and(|tls| tls.alpn == Some("h2")) {
        http2::serve(local, client, refused).await;
        return None;
    }
    connection::serve_unless(local, client, refused).await
}

/// Ends a connection on which there was no handshake with an alert.
async fn leave(local: &Local, mut client: Box<Client>, alert: &[u8], timeout: Duration) {
    if !alert.is_empty() && client.send(alert, timeout).await {
        client.linger(&local.buffers).await;
    }
}

/// Tells the log why a handshake failed.
fn tell(client: &Client, hello: &Hello, error: &io::Error) {
    let address = client.info.address.map_or_else(|| "unix:".to_owned(), |address| address.ip().to_string());
    let server_name = hello.server_name.as_deref().unwrap_or_default();
    match error.kind() {
        io::ErrorKind::InvalidData => {
            let why = match error.to_string() {
                // rustls's word for it.
                why if why.contains("no server certificate chain resolved") => {
                    "the client can use none of the certificates and ciphers".to_owned()
                }
                why => why,
            };
            tracing::info!(client = address, server_name, "the handshake of TLS has failed: {why}");
        }
        _ => {
            tracing::debug!(client = address, server_name, "the client left in the handshake of TLS: {error}")
        }
    }
}
