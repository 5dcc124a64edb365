//! What has become of a request: what the log and the variables are told of it.

use std::fmt;
use std::io::Write as _;
use std::net::IpAddr;
use std::time::Duration;

use crate::clock;
use crate::config::UpstreamAddress;
use crate::headers::fields::Fields;
use crate::http1::head::ResponseHead;
use crate::routing::aim::Aim;
use crate::routing::variables::Variable;

/// What became of a request.
#[derive(Debug, Default)]
pub struct Outcome {
    /// The status that the client was sent; 0 if none.
    pub status: u16,
    /// The status that an error page says its answer has.
    pub page_status: Option<u16>,
    /// Where a `proxy_pass` with variables has led.
    pub aim: Option<Box<Aim>>,
    /// The upstream's head.
    pub response: Option<ResponseHead>,
    /// The fields that the client was sent, if they were not the upstream's as they came.
    pub sent: Option<Fields>,
    /// The upstream servers that were asked, in their order.
    pub upstreams: Vec<UpstreamOutcome>,
    /// `$limit_req_status`; `None`: no limit was asked.
    pub limit_req: Option<&'static str>,
    /// `$limit_conn_status`, likewise.
    pub limit_conn: Option<&'static str>,
    /// What changes until the line is written.
    pub late: Late,
}

/// What became of a request at one upstream server.
#[derive(Debug)]
pub struct UpstreamOutcome {
    /// Whether the request had come to another location since the one before.
    pub is_elsewhere: bool,
    /// Who was asked. Put into words only where a line says it.
    pub asked: Asked,
    /// The status of its answer, or the one that its failure stands for; 0 if there was neither.
    pub status: u16,
    /// From the choice of the server to the connection.
    pub connect: Option<Duration>,
    /// To the head of its answer.
    pub header: Option<Duration>,
    /// To the end of its answer.
    pub response: Option<Duration>,
    /// Bytes of the answer's body.
    pub length: u64,
}

/// Who was asked for an answer.
#[derive(Clone, Debug)]
pub enum Asked {
    /// A server, as configured; of one with a name it is the address, once there is a connection to it.
    Server(UpstreamAddress),
    /// A group of this name, in which no server could be.
    Group(String),
}

impl fmt::Display for Asked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Server(address) => address.fmt(f),
            Self::Group(name) => name.fmt(f),
        }
    }
}

/// What is only known when a line is written. A tunnel's second line is written long after its first:
/// this is all that is kept for it beside the text.
#[derive(Clone, Debug, Default)]
pub struct Late {
    /// From the first byte of the request.
    pub duration: Duration,
    /// Bytes of the request's head.
    pub head_received: u64,
    /// Bytes from the client without the head.
    pub received: u64,
    /// Bytes to the client.
    pub sent: u64,
    /// Bytes to the client without the head.
    pub body_sent: u64,
    /// The tunnel, if the request became one.
    pub tunnel: Option<TunnelLine>,
}

/// What a log line says of a tunnel.
#[derive(Clone, Debug)]
pub struct TunnelLine {
    /// Shared by both lines of the tunnel.
    pub id: String,
    /// Why it ended; `None` in the line at its start.
    pub end: Option<&'static str>,
}

impl Outcome {
    /// nginx's form: the servers that were asked, with `, ` between them, and ` : ` where the request had come to
    /// another location.
    pub(crate) fn write_upstreams(&self, variable: &Variable, out: &mut Vec<u8>) {
        for (index, upstream) in self.upstreams.iter().enumerate() {
            if index > 0 {
                out.extend_from_slice(if upstream.is_elsewhere { b" : " } else { b", " });
            }
            let time = match variable {
                Variable::UpstreamAddr => {
                    display(out, &upstream.asked);
                    continue;
                }
                Variable::UpstreamStatus => {
                    match upstream.status {
                        0 => out.push(b'-'),
                        status => display(out, status),
                    }
                    continue;
                }
                Variable::UpstreamResponseLength => {
                    display(out, upstream.length);
                    continue;
                }
                Variable::UpstreamConnectTime => upstream.connect,
                Variable::UpstreamHeaderTime => upstream.header,
                _ => upstream.response,
            };
            match time {
                Some(time) => seconds(out, time),
                None => out.push(b'-'),
            }
        }
    }
}

impl UpstreamOutcome {
    /// For a server that is about to be asked.
    pub fn of(asked: Asked) -> Self {
        Self { is_elsewhere: false, asked, status: 0, connect: None, header: None, response: None, length: 0 }
    }
}

impl Late {
    /// Adds the value of a variable that is only known when a line is written; `false` for any other.
    pub fn write(&self, variable: &Variable, out: &mut Vec<u8>) -> bool {
        match variable {
            Variable::BodyBytesSent => display(out, self.body_sent),
            Variable::BytesReceived => display(out, self.received),
            Variable::RequestLength => display(out, self.head_received + self.received),
            Variable::BytesSent => display(out, self.sent),
            Variable::Msec => seconds(out, clock::now()),
            Variable::RequestTime => seconds(out, self.duration),
            Variable::TimeIso8601 => clock::with_iso8601(|time| out.extend_from_slice(time.as_bytes())),
            Variable::TimeLocal => clock::with_local(|time| out.extend_from_slice(time.as_bytes())),
            Variable::TunnelEnd => {
                out.extend_from_slice(
                    self.tunnel.as_ref().and_then(|tunnel| tunnel.end).unwrap_or("").as_bytes(),
                );
            }
            Variable::TunnelEvent => match &self.tunnel {
                Some(TunnelLine { end: None, .. }) => out.extend_from_slice(b"start"),
                Some(TunnelLine { end: Some(_), .. }) => out.extend_from_slice(b"end"),
                None => {}
            },
            Variable::TunnelId => {
                out.extend_from_slice(self.tunnel.as_ref().map_or("", |t| &t.id).as_bytes())
            }
            _ => return false,
        }
        true
    }
}

/// Writes a value as text.
pub(super) fn display(out: &mut Vec<u8>, value: impl std::fmt::Display) {
    // Writing to a Vec cannot fail.
    let _ = write!(out, "{value}");
}

/// Writes an address as text: every request takes the client's along, and the formatting machinery would cost more
/// than reading the head.
pub(super) fn write_ip(out: &mut Vec<u8>, ip: IpAddr) {
    let IpAddr::V4(ip) = ip else { return display(out, ip) };
    let (mut text, mut end) = ([0; 16], 0);
    let mut push = |byte| {
        text[end] = byte;
        end += 1;
    };
    for octet in ip.octets() {
        if octet >= 100 {
            push(b'0' + octet / 100);
        }
        if octet >= 10 {
            push(b'0' + octet / 10 % 10);
        }
        push(b'0' + octet % 10);
        push(b'.');
    }
    out.extend_from_slice(&text[..end - 1]);
}

/// Seconds with milliseconds, nginx's form of every duration.
fn seconds(out: &mut Vec<u8>, time: Duration) {
    display(out, format_args!("{}.{:03}", time.as_secs(), time.subsec_millis()));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_written_as_everybody_writes_them() {
        for octet in 0..=255 {
            for ip in [[octet, 0, 10, 255], [7, 99, 100, octet]].map(IpAddr::from) {
                let mut written = Vec::new();
                write_ip(&mut written, ip);
                assert_eq!(written, ip.to_string().as_bytes());
            }
        }
        let mut written = Vec::new();
        write_ip(&mut written, "2001:db8::1".parse().unwrap());
        assert_eq!(written, b"2001:db8::1");
    }
}
