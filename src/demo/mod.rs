//! The app behind `hopgate demo`: a page with a WebSocket to try, a clock of server-sent events, and an
//! echo of the request as it came through the proxy.

mod app;
#[cfg(test)]
mod tests;
mod websocket;

use std::time::Duration;

use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

/// Serves the demo app on `listener` until the future is dropped, and every connection with it. A
/// WebSocket that is open by then lives on until either side closes it or the runtime ends.
///
/// The app is meant for loopback, behind a proxy: it sets no timeouts and no limits of its own.
pub async fn serve(listener: TcpListener) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((client, _)) => drop(connections.spawn(serve_connection(client))),
                Err(error) => {
                    tracing::warn!(%error, "demo app: cannot accept a connection");
                    // Most likely out of file descriptors, and the listener stays ready: wait for some to be closed.
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            },
            Some(_) = connections.join_next() => {} // its result is of no interest, its memory is free again
        }
    }
}

async fn serve_connection(client: TcpStream) {
    // A frame of an echo is small and complete: it must not wait for the acknowledgement of the one before.
    let _ = client.set_nodelay(true);
    let connection = http1::Builder::new().serve_connection(TokioIo::new(client), service_fn(app::answer));
    if let Err(error) = connection.with_upgrades().await {
        tracing::debug!(%error, "demo app: connection ended");
    }
}
