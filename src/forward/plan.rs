//! How an answer goes to the client: its head, by the rules of the location, and the way of its body.

use crate::answer::Filling;
use crate::client::Client;
use crate::exchange::{Exchange, Way};
use crate::headers::fields::{Fields, Known};
use crate::headers::hop_by_hop;
use crate::headers::outgoing::{self, Connection, ResponseFraming};
use crate::headers::response::draft::{Draft, fields_of};
use crate::headers::response::gzip;
use crate::http1::body::BodyLength;
use crate::http1::head::{ResponseHead, Version};
use crate::http1::pump::Encoding;
use crate::reply::has_no_body;
use crate::routing::escape;

/// How an answer goes to the client.
#[derive(Debug)]
pub(super) struct Plan {
    /// The head as it goes out.
    pub(super) head: Vec<u8>,
    /// What is read of the upstream's body.
    pub(super) body: BodyLength,
    /// How it is framed on its way.
    pub(super) encoding: Encoding,
    /// The level at which it is compressed.
    pub(super) gzip: Option<u32>,
    /// Whether the client's connection goes on afterwards.
    pub(super) goes_on: bool,
    /// Whether nothing of the answer is left on the upstream's connection, once `body` was read.
    pub(super) is_read_whole: bool,
    /// The fields as they go out, if that is not as they came.
    pub(super) sent: Option<Fields>,
}

impl Plan {
    /// For the answer that the exchange has by now, with such a body, asked for with HEAD if `is_head`;
    /// `may_go_on` says whether the request allows that the client's connection goes on.
    pub(super) fn of(
        exchange: &Exchange,
        client: &Client,
        body: BodyLength,
        is_head: bool,
        may_go_on: bool,
    ) -> Self {
        let head = exchange.response();
        let request = exchange.request();
        let rules = &exchange.location().responses;
        let needs_changes = rules.touch(head) || exchange.has_kept_fields();
        let mut draft = needs_changes.then(|| draft(head, client, exchange));
        let gzip = rules.gzip.as_ref().zip(draft.as_mut()).and_then(|(rules, draft)| {
            let is_empty = body.is_empty() && !request.is_head();
            let length = if is_empty { Some(0) } else { told_length(head) };
            gzip::decide(rules, draft, &request.head, length, true).then_some(rules.level)
        });
        let status = exchange.status_of(head.status);
        let (framing, encoding) = framing(head, status, body, is_head, gzip.is_some(), exchange);
        let goes_on = may_go_on && framing != ResponseFraming::UntilClose;
        let mut bytes = Vec::with_capacity(1024);
        let connection = Connection::of(request.head.version, goes_on);
        outgoing::response(&mut bytes, status, head, draft.as_ref(), framing, connection);
        // The method was changed on its way, or an error page has a status without a body: the client waits for
        // none, whatever the upstream sends.
        let is_unwanted = request.is_head() && !is_head || has_no_body(status);
        Self {
            sent: draft.map(|_| fields_of(&bytes)),
            head: bytes,
            body: if is_unwanted { BodyLength::Length(0) } else { body },
            encoding,
            gzip: gzip.filter(|_| !request.is_head()),
            goes_on,
            is_read_whole: !is_unwanted || body.is_empty(),
        }
    }
}

/// The fields of an answer by the rules of the location.
fn draft<'a>(head: &'a ResponseHead, client: &Client, exchange: &Exchange) -> Draft<'a> {
    let rules = &exchange.location().responses;
    let fill = Filling { exchange, client: &client.info };
    let mut draft = rules.of_upstream(head, &fill);
    draft.status = exchange.status_of(head.status);
    exchange.add_kept_fields(&mut draft, false);
    rules.complete(&mut draft, &fill);
    draft
}

/// The length of the body that there is, or that there would be for a GET.
fn told_length(head: &ResponseHead) -> Option<u64> {
    let told = head.fields.values(Known::ContentLength).next()?;
    std::str::from_utf8(told).ok()?.parse().ok()
}

/// How the body goes to the client, who is told this `status`: as it came, if the client's version knows that.
fn framing(
    head: &ResponseHead,
    status: u16,
    body: BodyLength,
    is_head: bool,
    is_compressed: bool,
    exchange: &Exchange,
) -> (ResponseFraming, Encoding) {
    let request = exchange.request();
    let trailers = exchange.location().pass_trailers || hop_by_hop::accepts_trailers(&request.head.fields);
    match body {
        // RFC 9110 §8.6: a 204 has no length.
        _ if status == 204 => (ResponseFraming::None, Encoding::Identity),
        _ if request.is_head() || status == 304 => (ResponseFraming::AsTold, Encoding::Identity),
        // The method or the status was changed on its way: what is told is the length of a body that does not
        // come.
        _ if is_head || has_no_body(head.status) => (ResponseFraming::Empty, Encoding::Identity),
        BodyLength::Length(_) if !is_compressed => (ResponseFraming::AsTold, Encoding::Identity),
        _ if request.head.version == Version::Http2 => {
            (ResponseFraming::UntilClose, Encoding::Http2 { trailers })
        }
        _ if request.head.version == Version::Http11 => {
            (ResponseFraming::Chunked, Encoding::Chunked { trailers })
        }
        _ => (ResponseFraming::UntilClose, Encoding::Identity),
    }
}

/// Where an answer sends the request on to, if it does: nginx's `X-Accel-Redirect`. `Err` is a path that no
/// request may have.
pub(super) fn accel_redirect(head: &ResponseHead, exchange: &Exchange) -> Option<Result<Way, ()>> {
    if exchange.location().responses.ignores_accel_redirect {
        return None;
    }
    let to = head.fields.named("x-accel-redirect").next()?;
    if to.starts_with(b"@") {
        return Some(Ok(Way::Named(String::from_utf8_lossy(to).into_owned())));
    }
    let (path, query) = match memchr::memchr(b'?', to) {
        Some(at) => to.split_at(at),
        None => (to, &b""[..]),
    };
    let mut decoded = escape::decoded(path);
    let leads_up = decoded.split(|byte| *byte == b'/').any(|segment| segment == b"..");
    if !decoded.starts_with(b"/") || leads_up || decoded.contains(&0) {
        return Some(Err(()));
    }
    decoded.extend_from_slice(query);
    Some(Ok(Way::Path(decoded)))
}
