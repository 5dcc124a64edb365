//! The TOML exactly as the operator writes it: one struct for each table, no behaviour.
//!
//! The name of a field is the key. From these structs come the lists of keys that unknown ones are
//! compared with, and that the reference in `docs/configuration.md` is tested against.

use std::time::Duration;

use serde_spanned::Spanned;

use super::read::section;

/// What stands behind a key.
#[derive(Clone, Debug, Default)]
pub enum Value<T> {
    /// The key is not there.
    #[default]
    Absent,
    /// Something that is no `T`; it has been reported.
    Wrong,
    /// A value with its place.
    Given(Spanned<T>),
}

impl<T> Value<T> {
    /// The value, if there is one and it can be read.
    pub fn given(&self) -> Option<&Spanned<T>> {
        match self {
            Self::Given(value) => Some(value),
            Self::Absent | Self::Wrong => None,
        }
    }

    /// Whether the key is missing, not merely wrong.
    pub fn is_absent(&self) -> bool {
        matches!(self, Self::Absent)
    }
}

/// A value, or several in an array.
#[derive(Clone, Debug)]
pub struct OneOrMany<T>(pub Vec<Spanned<T>>);

/// `[[name]]`, any number of times.
#[derive(Clone, Debug)]
pub struct Tables<T>(pub Vec<Spanned<T>>);

/// `[name]`, once.
#[derive(Clone, Debug)]
pub struct Only<T>(pub T);

/// A table whose keys are the operator's.
#[derive(Clone, Debug)]
pub struct Named<T>(pub Vec<(Spanned<String>, Spanned<T>)>);

/// `"off"`, or a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OffOr<T> {
    /// `"off"`, where it is a number also `0`.
    Off,
    /// A value.
    Value(T),
}

/// `"auto"`, or a number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AutoOr {
    /// `"auto"`.
    Auto,
    /// A number.
    Count(u64),
}

/// `true` or `false`, or a text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FlagOr {
    /// `true` or `false`.
    Flag(bool),
    /// A text.
    Text(String),
}

/// A size in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Size(pub u64);

/// The short form of something as a text, or a table.
#[derive(Clone, Debug)]
pub enum TextOr<T> {
    /// As nginx writes it in one line.
    Text(String),
    /// With a key for each part.
    Table(T),
}

section! {
    /// The whole file.
    Top at Top {
        workers: AutoOr,
        shutdown_timeout: Duration,
        shutdown_delay: Duration,
        max_connections: u64,
        max_connections_per_ip: u64,
        error_log: TextOr<ErrorLog>,
        log_format: Named<TextOr<LogFormat>>,
        map: Tables<Map>,
        upstream: Named<Upstream>,
        limit_req_zone: Named<LimitReqZone>,
        limit_conn_zone: Named<LimitConnZone>,
        acme: Only<Acme>,
        health: Only<Health>,
        server: Tables<Server>,
    }
    for_servers: ForServers,
    for_locations: ForLocations,
}

section! {
    /// `[[server]]`
    Server at Server {
        listen: OneOrMany<TextOr<Listen>>,
        server_name: OneOrMany<String>,
        try_files: OneOrMany<String>,
        location: Tables<Location>,
    }
    script: Script,
    for_servers: ForServers,
    for_locations: ForLocations,
}

section! {
    /// `[[server.location]]`
    Location at Location {
        path: String,
        internal: bool,
        proxy_pass: String,
        alias: String,
        try_files: OneOrMany<String>,
        location: Tables<Location>,
    }
    script: Script,
    for_locations: ForLocations,
}

section! {
    /// The steps of a server or of a location, or of one of these steps.
    Script {
        set: Named<String>,
        rewrite: OneOrMany<TextOr<RewriteStep>>,
        r#return: TextOr<Return>,
    }
}

section! {
    /// `{ if = "...", return = "403" }` in `rewrite`
    RewriteStep at RewriteStep {
        r#if: String,
        r#break: bool,
        goto: String,
    }
    script: Script,
}

section! {
    /// `{ status = 200, text = "..." }`
    Return at Return {
        status: u64,
        text: String,
    }
}

section! {
    /// `[[map]]`
    Map at Map {
        source: String,
        variable: String,
        default: String,
        hostnames: bool,
        volatile: bool,
        entries: Named<String>,
    }
}

section! {
    /// `[acme]`
    Acme at Acme {
        agree_to_terms: bool,
        contact: OneOrMany<String>,
        directory: String,
        directory_ca: String,
        store: String,
    }
}

section! {
    /// `[health]`
    Health at Health {
        listen: OneOrMany<String>,
    }
}

section! {
    /// `[upstream.NAME]`
    Upstream at Upstream {
        server: OneOrMany<TextOr<UpstreamServer>>,
        least_conn: bool,
        ip_hash: bool,
        hash: String,
        random: FlagOr,
        keepalive: u64,
        keepalive_timeout: Duration,
        keepalive_requests: u64,
        keepalive_time: Duration,
    }
}

section! {
    /// What a server has, or inherits from the top of the file.
    ForServers {
        client_header_timeout: Duration,
        keepalive_timeout: Duration,
        keepalive_requests: OffOr<u64>,
        client_max_head_size: Size,
        max_headers: u64,
        underscores_in_headers: bool,
        encoded_slashes: String,
        http2: bool,
        http2_max_concurrent_streams: u64,
        tls: String,
        ssl_certificate: OneOrMany<String>,
        ssl_certificate_key: OneOrMany<String>,
        ssl_protocols: OneOrMany<String>,
        ssl_client_certificate: String,
        ssl_verify_client: String,
        ssl_crl: String,
        ssl_stapling_file: String,
        ssl_session_tickets: bool,
        ssl_session_timeout: Duration,
        ssl_reject_handshake: bool,
    }
}

section! {
    /// What a location has, or inherits from its server, or that from the top of the file.
    ForLocations {
        proxy_connect_timeout: Duration,
        proxy_read_timeout: Duration,
        proxy_send_timeout: Duration,
        client_body_timeout: Duration,
        send_timeout: Duration,
        client_max_body_size: OffOr<Size>,
        proxy_set_header: Named<String>,
        proxy_http_version: String,
        proxy_protocol: FlagOr,
        proxy_pass_trailers: bool,
        websocket: bool,
        upgrade: OneOrMany<String>,
        tunnel_handshake_timeout: Duration,
        tunnel_idle_timeout: OffOr<Duration>,
        tunnel_linger: Duration,
        tunnel_max_age: OffOr<Duration>,
        access_log: OneOrMany<TextOr<AccessLog>>,
        error_page: OneOrMany<String>,
        proxy_intercept_errors: bool,
        recursive_error_pages: bool,
        absolute_redirect: bool,
        port_in_redirect: bool,
        server_name_in_redirect: bool,
        forwarded_headers: String,
    }
    for_upstreams: ForUpstreams,
    for_upstream_tls: ForUpstreamTls,
    for_access: ForAccess,
    for_files: ForFiles,
    for_responses: ForResponses,
}

section! {
    /// When a location tries another server of its upstream; inherited as the rest.
    ForUpstreams {
        proxy_next_upstream: OneOrMany<String>,
        proxy_next_upstream_tries: u64,
        proxy_next_upstream_timeout: Duration,
    }
}

section! {
    /// How TLS is spoken with upstream servers: a part of [`ForLocations`].
    ForUpstreamTls {
        proxy_ssl_verify: bool,
        proxy_ssl_trusted_certificate: String,
        proxy_ssl_crl: String,
        proxy_ssl_server_name: bool,
        proxy_ssl_name: String,
        proxy_ssl_certificate: String,
        proxy_ssl_certificate_key: String,
        proxy_ssl_session_reuse: bool,
        proxy_ssl_protocols: OneOrMany<String>,
    }
}

section! {
    /// Who may come, and how often: a part of [`ForLocations`].
    ForAccess {
        trusted_proxies: OneOrMany<String>,
        real_ip_header: String,
        real_ip_recursive: bool,
        access: OneOrMany<String>,
        satisfy: String,
        auth_basic: String,
        auth_basic_user_file: String,
        auth_request: String,
        auth_request_set: Named<String>,
        limit_req: OneOrMany<TextOr<LimitReq>>,
        limit_req_status: u64,
        limit_req_dry_run: bool,
        limit_conn: OneOrMany<String>,
        limit_conn_status: u64,
        limit_conn_dry_run: bool,
    }
}

section! {
    /// `[limit_req_zone.NAME]`
    LimitReqZone at LimitReqZone {
        key: String,
        rate: String,
        size: Size,
    }
}

section! {
    /// `[limit_conn_zone.NAME]`
    LimitConnZone at LimitConnZone {
        key: String,
    }
}

section! {
    /// `{ zone = "...", burst = 5, nodelay = true }` in `limit_req`
    LimitReq at LimitReq {
        zone: String,
        burst: u64,
        nodelay: bool,
        delay: u64,
    }
}

section! {
    /// Static files: inherited as [`ForLocations`] is.
    ForFiles {
        root: String,
        index: OneOrMany<String>,
        default_type: String,
        types: Named<OneOrMany<String>>,
        disable_symlinks: String,
        etag: bool,
        if_modified_since: String,
        max_ranges: u64,
    }
}

section! {
    /// What becomes of answers, and of requests upstream: a part of [`ForLocations`].
    ForResponses {
        proxy_hide_header: OneOrMany<String>,
        proxy_pass_header: OneOrMany<String>,
        proxy_ignore_headers: OneOrMany<String>,
        add_header: Named<OneOrMany<TextOr<AddHeader>>>,
        expires: String,
        charset: String,
        charset_types: OneOrMany<String>,
        proxy_redirect: OneOrMany<String>,
        proxy_cookie_path: OneOrMany<String>,
        proxy_cookie_domain: OneOrMany<String>,
        proxy_cookie_flags: OneOrMany<String>,
        gzip: bool,
        gzip_types: OneOrMany<String>,
        gzip_comp_level: u64,
        gzip_min_length: Size,
        gzip_proxied: OneOrMany<String>,
        gzip_vary: bool,
        gzip_http_version: String,
        proxy_method: String,
        proxy_pass_request_headers: bool,
        proxy_pass_request_body: bool,
    }
}

section! {
    /// `{ value = "...", always = true }` in `add_header`
    AddHeader at AddHeader {
        value: String,
        always: bool,
    }
}

section! {
    /// `{ address = "...", default_server = true }` in `listen`
    Listen at Listen {
        address: String,
        default_server: bool,
        tls: bool,
        http2: bool,
        proxy_protocol: bool,
    }
}

section! {
    /// `{ address = "...", weight = 2 }` in `server` of an `[upstream.NAME]`
    UpstreamServer at UpstreamServer {
        address: String,
        weight: u64,
        max_fails: u64,
        fail_timeout: Duration,
        max_conns: u64,
        backup: bool,
        down: bool,
    }
}

section! {
    /// `{ path = "...", level = "..." }`
    ErrorLog at ErrorLog {
        path: String,
        level: String,
    }
}

section! {
    /// `{ path = "...", format = "...", if = "$..." }`
    AccessLog at AccessLog {
        path: String,
        format: String,
        r#if: String,
    }
}

section! {
    /// `{ format = "...", escape = "..." }`
    LogFormat at LogFormat {
        format: String,
        escape: String,
    }
}

/// The kinds of tables with keys of ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Level {
    /// Outside of every table.
    Top,
    /// `[[server]]`
    Server,
    /// `[[server.location]]`
    Location,
    /// A step of `rewrite`.
    RewriteStep,
    /// `return`
    Return,
    /// `[[map]]`
    Map,
    /// `[upstream.NAME]`
    Upstream,
    /// `[acme]`
    Acme,
    /// `[health]`
    Health,
    /// An entry of `listen`.
    Listen,
    /// An entry of `server` of an upstream.
    UpstreamServer,
    /// `error_log`
    ErrorLog,
    /// `access_log`
    AccessLog,
    /// An entry of `[log_format]`.
    LogFormat,
    /// `[limit_req_zone.NAME]`
    LimitReqZone,
    /// `[limit_conn_zone.NAME]`
    LimitConnZone,
    /// An entry of `limit_req`.
    LimitReq,
    /// An entry of `add_header`.
    AddHeader,
}

impl Level {
    /// All of them, those first where a key is most likely meant to stand.
    pub const ALL: [Self; 18] = [
        Self::Location,
        Self::Server,
        Self::Top,
        Self::Upstream,
        Self::Acme,
        Self::Health,
        Self::Map,
        Self::RewriteStep,
        Self::Return,
        Self::Listen,
        Self::UpstreamServer,
        Self::ErrorLog,
        Self::AccessLog,
        Self::LogFormat,
        Self::LimitReqZone,
        Self::LimitConnZone,
        Self::LimitReq,
        Self::AddHeader,
    ];

    /// Every key that may stand in such a table.
    pub fn keys(self) -> Vec<&'static str> {
        use super::read::Section;
        match self {
            Self::Top => Top::keys(),
            Self::Server => Server::keys(),
            Self::Location => Location::keys(),
            Self::RewriteStep => RewriteStep::keys(),
            Self::Return => Return::keys(),
            Self::Map => Map::keys(),
            Self::Upstream => Upstream::keys(),
            Self::Acme => Acme::keys(),
            Self::Health => Health::keys(),
            Self::Listen => Listen::keys(),
            Self::UpstreamServer => UpstreamServer::keys(),
            Self::ErrorLog => ErrorLog::keys(),
            Self::AccessLog => AccessLog::keys(),
            Self::LogFormat => LogFormat::keys(),
            Self::LimitReqZone => LimitReqZone::keys(),
            Self::LimitConnZone => LimitConnZone::keys(),
            Self::LimitReq => LimitReq::keys(),
            Self::AddHeader => AddHeader::keys(),
        }
    }

    /// How such a table is called in a message: "it belongs …".
    pub fn place(self) -> &'static str {
        match self {
            Self::Top => "at the top of the file, before the first `[table]`",
            Self::Server => "in a `[[server]]`",
            Self::Location => "in a `[[server.location]]`",
            Self::RewriteStep => "in a step of `rewrite`: `{ if = \"$http_x = y\", return = \"403\" }`",
            Self::Return => "in `return = { status = 200, text = \"ok\" }`",
            Self::Map => "in a `[[map]]`",
            Self::Upstream => "in an `[upstream.NAME]`",
            Self::Acme => "in `[acme]`",
            Self::Health => "in `[health]`",
            Self::Listen => "in an entry of `listen`: `{ address = \"8080\", default_server = true }`",
            Self::UpstreamServer => {
                "in a server of an upstream: `{ address = \"10.0.0.1:3000\", weight = 2 }`"
            }
            Self::ErrorLog => "in `error_log = { path = \"stderr\", level = \"info\" }`",
            Self::AccessLog => "in `access_log = { path = \"/var/log/access.log\", format = \"combined\" }`",
            Self::LogFormat => "in an entry of `[log_format]`: `{ format = \"$status\", escape = \"json\" }`",
            Self::LimitReqZone => "in a `[limit_req_zone.NAME]`",
            Self::LimitConnZone => "in a `[limit_conn_zone.NAME]`",
            Self::LimitReq => "in an entry of `limit_req`: `{ zone = \"NAME\", burst = 5 }`",
            Self::AddHeader => {
                "in an entry of `add_header`: `{ X-Frame-Options = { value = \"DENY\", always = true } }`"
            }
        }
    }
}
