//! Takes off the fields that are meant for one hop only: the one place where it is done.

use super::fields::{Field, Fields, Known};
use super::list;

/// The fields of a message without the hop-by-hop ones. Only [`strip`] makes one, and both peers are
/// sent nothing else, upgrades and 101 responses included. It is a view: variables and the log still
/// see what arrived.
#[derive(Debug)]
pub struct EndToEnd<'a> {
    fields: &'a Fields,
    /// The fields that `Connection` names.
    named: Vec<&'a [u8]>,
}

/// Takes the hop-by-hop fields off, RFC 9110 §7.6.1 (R12): the fixed ones, and every field that is named
/// in any line of `Connection`. What the proxy itself says is added afterwards, so that a client's
/// `Connection: X-Forwarded-For` cannot remove it (R13).
pub fn strip(fields: &Fields) -> EndToEnd<'_> {
    let named =
        list::members(fields.values(Known::Connection)).filter(|option| names_a_field(option)).collect();
    EndToEnd { fields, named }
}

impl<'a> EndToEnd<'a> {
    /// The fields in their order.
    pub fn iter(&self) -> impl Iterator<Item = Field<'a>> {
        self.fields.iter().filter(|field| {
            !is_hop_by_hop(field.known)
                && (self.named.is_empty() || is_indispensable(field.known) || !self.names(field.name))
        })
    }

    fn names(&self, name: &[u8]) -> bool {
        self.named.iter().any(|option| option.eq_ignore_ascii_case(name))
    }
}

/// Whether the sender of a message accepts trailers in the answer: the one member of `TE` that has a
/// meaning behind the proxy (R12).
pub fn accepts_trailers(fields: &Fields) -> bool {
    list::members(fields.values(Known::Te)).any(|member| {
        let coding = member.split(|byte| *byte == b';').next().unwrap_or_default();
        coding.trim_ascii().eq_ignore_ascii_case(b"trailers")
    })
}

fn is_hop_by_hop(known: Known) -> bool {
    match known {
        Known::Connection
        | Known::KeepAlive
        | Known::ProxyConnection
        | Known::Te
        | Known::Trailer
        | Known::TransferEncoding
        | Known::Upgrade
        | Known::Http2Settings => true,
        // Checked, and left out by the writers where the proxy's own framing takes its place.
        Known::ContentLength
        | Known::Other
        | Known::Host
        | Known::Date
        | Known::Expect
        | Known::XForwardedFor
        | Known::XForwardedProto
        | Known::XForwardedHost
        | Known::XRealIp
        | Known::ForwardedOther
        | Known::SecWebSocketKey
        | Known::SecWebSocketVersion
        | Known::SecWebSocketProtocol
        | Known::SecWebSocketExtensions
        | Known::SecWebSocketAccept => false,
    }
}

/// Without these the upstream would read another message: `Connection` cannot take them away.
fn is_indispensable(known: Known) -> bool {
    matches!(known, Known::Host | Known::ContentLength)
}

/// The usual options are no fields; leaving them out keeps the common case free of comparisons.
fn names_a_field(option: &[u8]) -> bool {
    !["close", "keep-alive", "upgrade"].iter().any(|usual| option.eq_ignore_ascii_case(usual.as_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stripped(lines: &[&str]) -> Vec<String> {
        let text = lines.join("\n");
        let mut fields = Fields::over(text.clone().into_bytes(), lines.len());
        let mut start = 0;
        for line in lines {
            let colon = line.find(": ").unwrap();
            fields.push(start..start + colon, start + colon + 2..start + line.len());
            start += line.len() + 1;
        }
        strip(&fields)
            .iter()
            .map(|f| format!("{}: {}", String::from_utf8_lossy(f.name), String::from_utf8_lossy(f.value)))
            .collect()
    }

    #[test]
    fn the_fixed_list_goes_and_the_rest_keeps_its_order_and_spelling() {
        assert_eq!(
            stripped(&[
                "HOST: a",
                "cOOkie: 1",
                "Connection: keep-alive, Upgrade",
                "Upgrade: websocket",
                "Keep-Alive: timeout=5",
                "Proxy-Connection: close",
                "TE: gzip",
                "Trailer: x",
                "Transfer-Encoding: chunked",
                "Content-Length: 1",
                "HTTP2-Settings: AAA",
                "Cookie: 2",
                "X-Same: 1",
            ]),
            ["HOST: a", "cOOkie: 1", "Content-Length: 1", "Cookie: 2", "X-Same: 1"]
        );
    }

    #[test]
    fn fields_named_in_any_connection_line_go() {
        assert_eq!(
            stripped(&[
                "X-One: 1",
                "Connection: close , x-one,,",
                "X-Two: 2",
                "connection: X-TWO, Host, Content-Length, Cooki",
                "Content-Length: 3",
                "Host: a",
                "Cookie: c",
            ]),
            ["Content-Length: 3", "Host: a", "Cookie: c"]
        );
    }
}
