//! The WebSocket of the demo app: greets, then sends back whatever it is sent.

use futures_util::{SinkExt, StreamExt};
use hyper::upgrade::{OnUpgrade, Upgraded};
use hyper_util::rt::TokioIo;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Error;
use tokio_tungstenite::tungstenite::protocol::Role;

/// Waits until the 101 is sent, then speaks WebSocket until either side closes.
pub(super) async fn echo(upgrade: OnUpgrade, path: String) {
    match upgrade.await {
        Ok(upgraded) => {
            if let Err(error) = converse(upgraded, &path).await {
                tracing::debug!(%error, path, "demo app: WebSocket ended");
            }
        }
        Err(error) => tracing::debug!(%error, path, "demo app: client left before the 101"),
    }
}

async fn converse(upgraded: Upgraded, path: &str) -> Result<(), Error> {
    let mut socket = WebSocketStream::from_raw_socket(TokioIo::new(upgraded), Role::Server, None).await;
    socket.send(format!("Hello from the demo app. You are connected on {path}").into()).await?;
    while let Some(message) = socket.next().await {
        // Reading answers Ping and Close by itself, RFC 6455 §5.5.
        let message = message?;
        if message.is_text() || message.is_binary() {
            socket.send(message).await?;
        }
    }
    Ok(())
}
