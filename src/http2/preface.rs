//! Tells HTTP/2 from HTTP/1.1 by the first bytes of a connection without TLS (RFC 9113 §3.3).

use std::future::poll_fn;
use std::rc::Rc;
use std::task::Poll;

use tokio::time::Instant;

use crate::client::Client;
use crate::server::connection;
use crate::shared::Local;
use crate::tunnel::Tunnel;

/// What a client sends that knows that it speaks HTTP/2, RFC 9113 §3.4.
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// Serves a client in the version of HTTP in which it begins, or tells it so that `refused` was reached.
pub async fn serve_either(
    local: Rc<Local>,
    mut client: Box<Client>,
    refused: Option<&'static str>,
) -> Option<Box<Tunnel>> {
    match look(&local, &mut client).await? {
        Spoken::Http2 => {
            super::serve(local, client, refused).await;
            None
        }
        Spoken::Http1 => connection::serve_unless(local, client, refused).await,
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Spoken {
    Http1,
    Http2,
}

/// What the first bytes say, if there are enough of them.
fn spoken(bytes: &[u8]) -> Option<Spoken> {
    let count = bytes.len().min(PREFACE.len());
    match bytes[..count] == PREFACE[..count] {
        false => Some(Spoken::Http1),
        true if count == PREFACE.len() => Some(Spoken::Http2),
        true => None,
    }
}

/// Reads as much as it takes to know; `None` if it did not come, within the time for a head.
async fn look(local: &Local, client: &mut Client) -> Option<Spoken> {
    let timeout = local.limits_of(&client.info, &client.accepted_under)?.header_timeout;
    let deadline = Instant::now() + timeout;
    poll_fn(|cx| {
        let mut buffers = local.buffers.borrow_mut();
        loop {
            if let Some(spoken) = spoken(&client.peer.ahead) {
                return Poll::Ready(Some(spoken));
            }
            match client.peer.stream.poll_read(cx, &mut buffers.input) {
                Poll::Pending => break,
                Poll::Ready(Ok(0) | Err(_)) => return Poll::Ready(None),
                Poll::Ready(Ok(count)) => client.peer.ahead.extend_from_slice(&buffers.input[..count]),
            }
        }
        client.poll_first(cx, deadline).map(|()| None)
    })
    .await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_preface_is_known_by_its_last_byte_and_everything_else_by_the_first_that_differs() {
        for count in 0..PREFACE.len() {
            assert_eq!(spoken(&PREFACE[..count]), None);
            let other = [&PREFACE[..count], b"x"].concat();
            assert_eq!(spoken(&other), Some(Spoken::Http1));
        }
        assert_eq!(spoken(&[PREFACE, b"\0\0"].concat()), Some(Spoken::Http2));
        assert_eq!(spoken(b"GET / HTTP/1.1\r\n"), Some(Spoken::Http1));
    }
}
