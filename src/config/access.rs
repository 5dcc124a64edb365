//! Who may come, and how often: runtime values of `access`, `auth_basic`, `limit_req` and their like.

use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;

use crate::access::rules::Rules;
use crate::headers::{FieldName, forwarded};
use crate::routing::script::Assigned;
use crate::routing::variables::Template;

/// What a request has to pass before a location deals with it.
#[derive(Clone, Debug, Default)]
pub struct AccessRules {
    /// Whose word is taken for who the client is, if the server's rules have not found that out; those of the
    /// server itself, if the location has none of its own.
    pub real_ip: Arc<RealIp>,
    /// Which addresses may come. nginx: `allow`, `deny`.
    pub addresses: Arc<Rules>,
    /// Whether one of the addresses, the password and the subrequest is enough. nginx: `satisfy any`.
    pub any_is_enough: bool,
    /// Who has to give a password; `None`: nobody.
    pub basic: Option<Arc<AuthBasic>>,
    /// The path that is asked first; `None`: none. nginx: `auth_request`.
    pub auth_request: Option<Arc<str>>,
    /// The variables that are set from its answer. nginx: `auth_request_set`.
    pub auth_request_set: Arc<[(Assigned, Template)]>,
    /// How often requests may come.
    pub limit_req: Limits<LimitReq>,
    /// How many there may be at a time.
    pub limit_conn: Limits<LimitConn>,
}

impl AccessRules {
    /// Whether everybody may come.
    pub fn is_open(&self) -> bool {
        self.addresses.is_empty() && self.basic.is_none() && self.auth_request.is_none()
    }
}

/// `auth_basic` with its file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AuthBasic {
    /// What the client is told that the password is for; a value of `off` turns it off.
    pub realm: Template,
    /// Where the users stand. nginx: `auth_basic_user_file`.
    pub user_file: Template,
}

/// The limits of one kind.
#[derive(Clone, Debug)]
pub struct Limits<T> {
    /// All of them hold.
    pub list: Arc<[T]>,
    /// What a request beyond one of them is answered, 503 by default. nginx: `limit_…_status`.
    pub status: u16,
    /// Whether the log alone is told of it. nginx: `limit_…_dry_run`.
    pub dry_run: bool,
}

/// One limit of `limit_req`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LimitReq {
    /// A place in [`Zones::req`].
    pub zone: usize,
    /// How many requests may come earlier than the rate allows, in thousandths.
    pub burst: i64,
    /// How many of them need not wait, in thousandths.
    pub delay: i64,
}

/// One limit of `limit_conn`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LimitConn {
    /// A place in [`Zones::conn`].
    pub zone: usize,
    /// How many there may be with the same key.
    pub most: u32,
}

/// What limits are counted in.
#[derive(Clone, Debug, Default)]
pub struct Zones {
    /// `[limit_req_zone.NAME]` in the order of the file.
    pub req: Vec<ReqZone>,
    /// `[limit_conn_zone.NAME]` in the order of the file.
    pub conn: Vec<ConnZone>,
}

/// A zone of `limit_req`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReqZone {
    /// Its name.
    pub name: String,
    /// What requests are told apart by; those with an empty value are not limited.
    pub key: Template,
    /// The key as it is written: by it a reload knows whether the zone is still the same.
    pub written_key: String,
    /// Thousandths of a request in a second, at least 1.
    pub rate: u64,
    /// The bytes of all states, each of which is counted as 128 bytes or more, as in nginx.
    pub size: u64,
}

/// A zone of `limit_conn`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConnZone {
    /// Its name.
    pub name: String,
    /// What requests are told apart by; those with an empty value are not limited.
    pub key: Template,
    /// The key as it is written: by it a reload knows whether the zone is still the same.
    pub written_key: String,
}

/// Whose word is taken for who the client is, and where it stands. nginx: the `realip` module.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RealIp {
    /// Peers whose forwarded fields are believed. nginx: `set_real_ip_from`.
    pub trusted: Vec<IpNet>,
    /// Whether those of peers on Unix-domain sockets are, too: `unix:` in `trusted_proxies`.
    pub trusts_unix_peers: bool,
    /// Where the client's address stands. nginx: `real_ip_header`.
    pub header: RealIpHeader,
    /// Whether only the last address there is taken, even if it is that of a trusted proxy. nginx:
    /// `real_ip_recursive off`.
    pub takes_last: bool,
}

/// The field with the client's address.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum RealIpHeader {
    /// `X-Forwarded-For`: all its lines are one list.
    #[default]
    XForwardedFor,
    /// None: it is who the PROXY protocol says.
    ProxyProtocol,
    /// `Forwarded`, RFC 7239: the `for` of its members.
    Forwarded,
    /// The first line of any other field.
    Field(FieldName),
}

impl RealIp {
    /// Whether a peer is one of those; `None` is one on a Unix-domain socket.
    pub fn trusts(&self, peer: Option<IpAddr>) -> bool {
        peer.map_or(self.trusts_unix_peers, |ip| forwarded::is_trusted(ip, &self.trusted))
    }

    /// Whether there are any.
    pub fn trusts_anybody(&self) -> bool {
        self.trusts_unix_peers || !self.trusted.is_empty()
    }
}

impl<T> Default for Limits<T> {
    fn default() -> Self {
        Self { list: Arc::from([]), status: 503, dry_run: false }
    }
}
