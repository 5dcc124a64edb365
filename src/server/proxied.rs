//! Waits for the header of the PROXY protocol, with which a balancer says who its client is.

use std::future::poll_fn;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::task::Poll;

use tokio::time::Instant;

use crate::client::{Client, Proxied};
use crate::proxy_protocol::{self, NoHeader, Progress, Said, Tlvs};
use crate::server::listener;
use crate::server::tasks::Phase;
use crate::shared::Local;

/// Serves a client whose connection begins with a header of the PROXY protocol; one that came when `refused` was
/// reached is told so.
pub async fn serve(local: Rc<Local>, mut client: Box<Client>, mut refused: Option<&'static str>) {
    let said = match header(&local, &mut client).await {
        Ok(said) => said,
        Err(end) => return tell(&client, end),
    };
    take_over(&mut client, said);
    let most = local.state().config.max_connections_per_ip;
    if let Err(setting) = client.permit.count_for(client.info.ip(), most) {
        let Some(permit) = local.shared.connections.refuse() else { return };
        client.permit = permit;
        refused = Some(setting);
    }
    listener::serve(local, client, refused);
}

/// Why there is no header.
enum End {
    /// The balancer has closed the connection, or the process ends.
    Left,
    /// It was not there in time.
    Late,
    /// It is none.
    Wrong(NoHeader),
}

/// Waits for the header, within the time for a head; what comes behind it is read ahead.
async fn header(local: &Local, client: &mut Client) -> Result<(Said, Tlvs), End> {
    let limits = local.limits_of(&client.info, &client.accepted_under).ok_or(End::Left)?;
    let deadline = Instant::now() + limits.header_timeout;
    poll_fn(|cx| {
        let mut buffers = local.buffers.borrow_mut();
        loop {
            match client.peer.stream.poll_read(cx, &mut buffers.input) {
                Poll::Pending => break,
                Poll::Ready(Ok(0) | Err(_)) => return Poll::Ready(Err(End::Left)),
                Poll::Ready(Ok(count)) => client.peer.ahead.extend_from_slice(&buffers.input[..count]),
            }
            match proxy_protocol::read(&client.peer.ahead) {
                Ok(Progress::Partial) => {}
                Ok(Progress::Whole(header)) => {
                    let tlvs = header.tlvs(&client.peer.ahead);
                    client.peer.consume(header.end);
                    return Poll::Ready(Ok((header.said, tlvs)));
                }
                Err(why) => return Poll::Ready(Err(End::Wrong(why))),
            }
        }
        client.poll_first(cx, deadline).map(|()| match client.task.current_phase() {
            Phase::Serving => Err(End::Late),
            Phase::Draining(_) | Phase::Killed => Err(End::Left),
        })
    })
    .await
}

/// The client is who the balancer says from here on. Without an address the ends of the connection itself stand for
/// it (§2.1, §2.2).
fn take_over(client: &mut Client, (said, tlvs): (Said, Tlvs)) {
    let info = &mut client.info;
    let addresses = match said {
        Said::Own => return,
        Said::Unknown => None,
        Said::Client(addresses) => Some(addresses),
    };
    info.proxied = Some(Arc::new(Proxied { balancer: info.address, addresses, tlvs }));
    if let Some(source) = addresses.map(|addresses| addresses.source) {
        info.address = Some(SocketAddr::new(source.ip().to_canonical(), source.port()));
    }
}

/// Tells the log why a connection is closed.
fn tell(client: &Client, end: End) {
    let listener = &client.info.listener;
    let balancer = client.info.address.map_or_else(|| "unix:".to_owned(), |address| address.ip().to_string());
    match end {
        End::Wrong(why) => {
            tracing::info!(
                client = balancer,
                "no header of the PROXY protocol: {why}; {listener} has `proxy_protocol` in `listen`, so whoever \
                 connects must send one"
            );
        }
        End::Late => {
            tracing::info!(
                client = balancer,
                "no header of the PROXY protocol came within `client_header_timeout`; {listener} has \
                 `proxy_protocol` in `listen`, so whoever connects must send one"
            );
        }
        // Balancers look whether a port is open, and say nothing.
        End::Left => tracing::debug!(client = balancer, "left before the header of the PROXY protocol"),
    }
}
