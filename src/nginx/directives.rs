//! Every directive of nginx that is known: carried over, needless in hopgate, or reported.
//!
//! The table drives the conversion, and the one in `docs/nginx.md` is checked against it.

use super::convert::{
    Carry, access, files, grpc, http, logs, proxy, responses, script, settings, tls, upstream,
};

/// What becomes of a directive.
#[derive(Clone, Copy, Debug)]
pub enum State {
    /// It is said in hopgate's words.
    Carried {
        /// Where nginx allows it: `M` main, `E` events, `H` http, `S` server, `L` location, `I` if in location,
        /// `X` limit_except, `U` upstream.
        places: &'static str,
        /// The key; empty if it is the name of the directive.
        key: &'static str,
        /// What writes it.
        by: Carry,
    },
    /// A block, or what belongs to one: the conversion knows it by its name.
    Structure {
        /// Where nginx allows it, as above.
        places: &'static str,
        /// What it becomes.
        key: &'static str,
    },
    /// What it is for happens by itself; why.
    Needless(&'static str),
    /// Not carried over: why, and what to do.
    Reported(&'static str, &'static str),
    /// It guards access and is not carried over, so that what it guards answers 403: why, and what to do.
    Guard(&'static str, &'static str),
    /// It answers requests in a way that hopgate does not have, so that they are answered 501: why, and
    /// what to do.
    Handler(&'static str, &'static str),
}

/// Directives with the same fate.
#[derive(Clone, Copy, Debug)]
pub struct Row {
    /// Their names, with blanks between them; `*` at the end of one stands for all that begin with it.
    pub names: &'static str,
    /// What becomes of them.
    pub state: State,
}

const fn carried(names: &'static str, places: &'static str, key: &'static str, by: Carry) -> Row {
    Row { names, state: State::Carried { places, key, by } }
}

const fn block(names: &'static str, places: &'static str, key: &'static str) -> Row {
    Row { names, state: State::Structure { places, key } }
}

const fn needless(names: &'static str, why: &'static str) -> Row {
    Row { names, state: State::Needless(why) }
}

const fn reported(names: &'static str, why: &'static str, instead: &'static str) -> Row {
    Row { names, state: State::Reported(why, instead) }
}

const fn guard(names: &'static str, why: &'static str, instead: &'static str) -> Row {
    Row { names, state: State::Guard(why, instead) }
}

const fn handler(names: &'static str, why: &'static str, instead: &'static str) -> Row {
    Row { names, state: State::Handler(why, instead) }
}

/// The state of a directive; `None` if it is not known.
pub fn find(name: &str) -> Option<&'static State> {
    let rows =
        || TABLE.iter().flat_map(|row| row.names.split_whitespace().map(move |known| (known, &row.state)));
    let whole = rows().find(|(known, _)| *known == name);
    let family =
        || rows().find(|(known, _)| known.strip_suffix('*').is_some_and(|start| name.starts_with(start)));
    whole.or_else(family).map(|(_, state)| state)
}

/// The known name that is nearest to a text.
pub fn nearest(name: &str) -> Option<&'static str> {
    let names =
        TABLE.iter().flat_map(|row| row.names.split_whitespace()).filter(|known| !known.ends_with('*'));
    let distance = |known: &'static str| (strsim::damerau_levenshtein(known, name), known);
    let (distance, known) = names.map(distance).min()?;
    (distance <= known.len() / 4).then_some(known)
}

/// What is in the names of directives that guard access.
const GUARDS: &[&str] = &[
    "auth", "shib", "secur", "secrule", "deny", "denied", "allow", "block", "waf", "captcha", "token", "jwt",
    "oidc", "saml", "naxsi", "firewall", "guard", "access",
];

/// The keys of hopgate that guard access.
pub const GUARD_KEYS: &[&str] = &[
    "internal",
    "access",
    "satisfy",
    "auth_basic",
    "auth_basic_user_file",
    "auth_request",
    "ssl_verify_client",
    "ssl_client_certificate",
    "ssl_crl",
];

/// Whether a directive guards access, as far as its name tells.
pub fn sounds_like_a_guard(name: &str) -> bool {
    let lower = name.to_ascii_lowercase();
    match find(name) {
        Some(State::Guard(..)) => true,
        Some(State::Carried { key, .. }) => GUARD_KEYS.contains(if key.is_empty() { &name } else { key }),
        Some(_) => false,
        None => GUARDS.iter().any(|word| lower.contains(word)),
    }
}

/// The table of `docs/nginx.md`.
pub fn manual() -> String {
    let mut lines = vec!["| Directive | What becomes of it |".to_owned(), "|---|---|".to_owned()];
    for row in TABLE {
        let names: Vec<String> = row.names.split_whitespace().map(|name| format!("`{name}`")).collect();
        let fate = match row.state {
            State::Carried { key: "", .. } => "carried over".to_owned(),
            State::Carried { key, .. } if key.contains(' ') => key.to_owned(),
            State::Carried { key, .. } => format!("carried over: `{key}`"),
            State::Structure { key, .. } => format!("carried over: {key}"),
            State::Needless(why) => format!("needless: {why}"),
            State::Reported(why, instead) => format!("reported: {why}; {instead}"),
            State::Guard(why, instead) => {
                format!("reported, and what it guards is answered 403: {why}; {instead}")
            }
            State::Handler(why, instead) => format!("reported, and answered 501: {why}; {instead}"),
        };
        lines.push(format!("| {} | {fate} |", names.join(", ")));
    }
    lines.join("\n")
}

const NOT_OPENSSL: &str = "TLS is spoken by rustls, not by OpenSSL";
const CIPHERS: &str = "there are none but strong ones, in TLS 1.3 and in TLS 1.2: ECDHE with AES-GCM or ChaCha20-Poly1305; \
                       a peer that knows only others cannot be spoken with";
const TICKETS: &str = "sessions are resumed by tickets, for which nothing has to be kept, and whose keys change every six hours";
const NO_HTTP3: &str = settings::NO_HTTP3;
const NO_CACHE: &str = "hopgate has no cache: every request goes to the upstream";
const CACHE: &str = "put a cache in front of the upstream if it needs one";
const STREAMED: &str = "bodies are passed on as they come, with back-pressure, and never buffered whole";
const NO_TABLE: &str = "there is no such table to be sized";
const KERNEL: &str = "bytes are moved the cheapest way that there is";
const NO_TEMP: &str = "nothing is written to temporary files";
const NO_BODY_FILTER: &str = "bodies are passed on as the upstream sends them";
const IN_APP: &str = "let the app do it";
const PROCESS: &str = "the process is systemd's or the container's to look after";
const NOT_HTTP: &str = "upstreams are spoken to in HTTP";
const HTTP_SERVER: &str = "put an HTTP server before the app, and proxy_pass to it";
const LUA: &str = "there is no Lua in hopgate";
const NO_MODULE: &str = "hopgate has nothing like this module of nginx";

/// All of them, in the order of nginx's manual: the process, servers, locations, access, responses, the
/// upstream.
pub const TABLE: &[Row] = &[
    // The process.
    carried("worker_processes", "M", "workers", settings::worker_processes),
    carried("worker_shutdown_timeout", "M", "shutdown_timeout", settings::time),
    carried("error_log", "MHSL", "", logs::error_log),
    block("http", "M", "the top of the file"),
    needless("events", "there is nothing to be tuned there"),
    needless(
        "worker_connections",
        "connections are limited by the open files that the system allows, or by max_connections",
    ),
    needless(
        "use multi_accept accept_mutex accept_mutex_delay",
        "connections are accepted the best way that there is",
    ),
    needless("user", "hopgate runs as whoever starts it: set User= in its systemd unit"),
    needless("pid lock_file", PROCESS),
    needless("daemon master_process", "hopgate stays in the foreground, as systemd and containers want it"),
    needless("worker_rlimit_nofile", "hopgate takes as many open files as the system allows"),
    needless(
        "worker_rlimit_core worker_priority worker_cpu_affinity working_directory env debug_points timer_resolution",
        PROCESS,
    ),
    needless("pcre_jit", "regular expressions are always compiled"),
    needless("thread_pool aio aio_write directio directio_alignment read_ahead", KERNEL),
    needless("load_module", "what its directives say is carried over or reported by itself"),
    reported("ssl_engine", NOT_OPENSSL, "leave it out"),
    reported(
        "debug_connection",
        "what is logged does not depend on the client",
        "set the level in error_log",
    ),
    reported("stream mail", "hopgate is a proxy for HTTP", "leave it to nginx or HAProxy"),
    // Servers.
    block("server", "HU", "`[[server]]`; in an upstream `server`"),
    carried("listen", "S", "", settings::listen),
    carried("server_name", "S", "", settings::server_name),
    carried("client_header_timeout", "HS", "", settings::time),
    carried("keepalive_timeout", "HSLU", "", settings::keepalive_timeout),
    carried("keepalive_requests", "HSLU", "", settings::keepalive_requests),
    carried("large_client_header_buffers", "HS", "client_max_head_size", settings::header_buffers),
    carried("max_headers", "HS", "", settings::number),
    carried("underscores_in_headers", "HS", "", settings::flag),
    carried("set_real_ip_from", "HSL", "trusted_proxies", access::real_ip_from),
    carried("real_ip_header", "HSL", "", access::real_ip),
    carried("real_ip_recursive", "HSL", "", access::real_ip),
    needless(
        "client_header_buffer_size connection_pool_size request_pool_size",
        "memory is taken as it is needed",
    ),
    needless("server_names_hash_max_size server_names_hash_bucket_size variables_hash_max_size", NO_TABLE),
    needless("variables_hash_bucket_size types_hash_max_size types_hash_bucket_size", NO_TABLE),
    needless(
        "map_hash_max_size map_hash_bucket_size referer_hash_max_size referer_hash_bucket_size",
        NO_TABLE,
    ),
    needless("proxy_headers_hash_max_size proxy_headers_hash_bucket_size", NO_TABLE),
    carried("resolver", "HSLU", "needless: the system's is asked, whenever a name is needed", http::resolver),
    needless("resolver_timeout", "names are looked up as the system does it"),
    carried("merge_slashes ignore_invalid_headers", "HS", "reported if it is off", settings::must_be_on),
    carried("http2", "HS", "", tls::http2),
    carried("http2_max_concurrent_streams", "HS", "", settings::number),
    needless("http2_push http2_push_preload", "browsers have given server push up"),
    needless(
        "http2_idle_timeout http2_recv_timeout http2_max_requests http2_max_field_size http2_max_header_size",
        "keepalive_timeout, client_header_timeout, keepalive_requests and client_max_head_size hold for HTTP/2, too",
    ),
    needless("http2_*", "memory is taken as it is needed"),
    needless("http3 http3_* quic_*", NO_HTTP3),
    needless(
        "keepalive_disable keepalive_min_timeout msie_padding msie_refresh",
        "the browsers that needed it are gone",
    ),
    // TLS of clients.
    carried("ssl", "HS", "carried over: `ssl` in `listen`", tls::ssl),
    carried("ssl_certificate ssl_certificate_key", "HS", "", tls::certificate),
    carried("ssl_protocols", "HS", "", tls::protocols),
    carried("ssl_session_tickets", "HS", "", tls::tickets),
    carried("ssl_reject_handshake", "HS", "", settings::flag),
    carried("ssl_session_timeout", "HS", "", settings::time),
    carried("ssl_verify_client", "HS", "", settings::text),
    carried("ssl_client_certificate ssl_crl", "HS", "", tls::guard_file),
    carried(
        "ssl_trusted_certificate",
        "HS",
        "carried over: `ssl_client_certificate`, if clients are asked for certificates and it is not there",
        tls::trusted,
    ),
    carried("ssl_stapling_file", "HS", "", tls::file),
    needless(
        "ssl_stapling ssl_stapling_verify ssl_stapling_responder",
        "OCSP answers are not fetched: Let's Encrypt has given OCSP up in 2025, and browsers do not wait for it; \
         ssl_stapling_file has one that something else fetches",
    ),
    needless("ssl_ciphers", CIPHERS),
    needless(
        "ssl_prefer_server_ciphers",
        "all ciphers are strong, so that a client may choose the one that is fastest for it",
    ),
    needless("ssl_ecdh_curve", "there are none but strong ones: X25519MLKEM768, X25519, P-256 and P-384"),
    needless("ssl_dhparam", "keys are exchanged over elliptic curves alone, which need no such file"),
    needless("ssl_session_cache", TICKETS),
    needless(
        "ssl_early_data",
        "early data are not accepted, as anybody can send them again: clients do the whole handshake",
    ),
    needless("ssl_buffer_size ssl_dyn_rec_*", "records are as large as what is there to be sent"),
    needless(
        "ssl_certificate_cache ssl_object_cache_inheritable ssl_certificate_compression",
        "files are read once, and again when they change",
    ),
    needless(
        "ssl_verify_depth",
        "a chain may have as many intermediate certificates as any real one; each has to be signed by the next, up to \
         a CA of ssl_client_certificate",
    ),
    reported(
        "ssl_password_file",
        "keys with a password are not read",
        "write the key without one: openssl pkey -in KEY -out NEW",
    ),
    reported(
        "ssl_session_ticket_key",
        "hopgate makes the keys of tickets itself and changes them, and shares them with nobody",
        "leave it out: a client that comes to another machine does the whole handshake",
    ),
    guard("ssl_ocsp", "nobody is asked whether a client certificate was revoked", "name a list in ssl_crl"),
    reported(
        "ssl_ocsp_*",
        "nobody is asked whether a client certificate was revoked",
        "name a list in ssl_crl",
    ),
    reported("ssl_conf_command", NOT_OPENSSL, "leave it out"),
    reported("ssl_key_log", "the keys of connections are told to nobody", "leave it out"),
    reported("ssl_*", NOT_OPENSSL, "see what it is for"),
    // Locations and what answers in them.
    block("location", "SL", "`[[server.location]]`"),
    block("if", "SLI", "a step of `rewrite`; with more in it than steps, a named location"),
    block("limit_except", "L", "a step of `rewrite`"),
    block("types", "HSL", "`types`"),
    block("include", "MEHSLIXU", "the lines of the file; `mime.types` is needless"),
    carried("set", "SLI", "", script::set),
    carried("rewrite", "SLI", "", script::rewrite),
    carried("return", "SLI", "", script::r#return),
    carried("break", "SLI", "rewrite", script::r#break),
    needless("rewrite_log uninitialized_variable_warn", "`hopgate explain` shows rewrites step by step"),
    carried("internal", "L", "", settings::internal),
    carried("root", "HSLI", "", files::root),
    carried("alias", "L", "", files::alias),
    carried("index", "HSL", "", settings::words),
    carried("try_files", "SL", "", files::try_files),
    carried("default_type", "HSL", "", settings::text),
    carried("disable_symlinks", "HSL", "", files::disable_symlinks),
    carried("etag", "HSL", "", settings::flag),
    carried("if_modified_since", "HSL", "", settings::text),
    carried("max_ranges", "HSL", "", settings::number),
    carried("error_page", "HSLI", "", settings::error_page),
    carried("recursive_error_pages", "HSL", "", settings::flag),
    carried("absolute_redirect port_in_redirect server_name_in_redirect", "HSL", "", settings::flag),
    carried("client_max_body_size", "HSL", "", settings::size),
    carried("client_body_timeout send_timeout", "HSL", "", settings::time),
    needless("client_body_buffer_size client_body_in_single_buffer client_body_early_read", STREAMED),
    needless(
        "client_body_temp_path proxy_temp_path proxy_max_temp_file_size proxy_temp_file_write_size",
        NO_TEMP,
    ),
    reported("client_body_in_file_only", "nothing is written to temporary files", IN_APP),
    needless(
        "sendfile sendfile_max_chunk tcp_nopush tcp_nodelay postpone_output output_buffers send_lowat",
        KERNEL,
    ),
    needless("chunked_transfer_encoding", "chunks are used where the client knows them"),
    needless(
        "lingering_close lingering_time lingering_timeout",
        "connections are always closed in good order",
    ),
    needless("reset_timedout_connection", "the memory of a connection that is given up is free at once"),
    needless("server_tokens", "the version is never told to clients"),
    needless("log_not_found log_subrequest", "a missing file is no error"),
    needless("open_file_cache open_file_cache_*", "files are opened when they are asked for"),
    needless("open_log_file_cache", "log files stay open"),
    needless("subrequest_output_buffer_size", STREAMED),
    reported(
        "limit_rate limit_rate_after",
        "transfers have no speed limit",
        "limit them with the kernel, or not at all",
    ),
    reported("early_hints", "103 responses of the upstream are passed on", "let the app send them"),
    reported("post_action", "nothing happens behind a request", IN_APP),
    carried("autoindex", "HSL", "reported if it is on", files::autoindex),
    reported("autoindex_* random_index", "folders are not listed", "write an index file"),
    handler("stub_status", "hopgate has no status page yet", "read the logs"),
    handler("empty_gif", NO_MODULE, "serve a file with alias"),
    handler("fastcgi_pass", NOT_HTTP, HTTP_SERVER),
    handler("uwsgi_pass scgi_pass memcached_pass tunnel_pass", NOT_HTTP, HTTP_SERVER),
    carried("grpc_pass", "LI", "carried over: `proxy_pass` and `proxy_http_version = \"2\"`", grpc::pass),
    handler("perl js_content content_by_lua content_by_lua_file content_by_lua_block", LUA, IN_APP),
    handler("mp4 flv hls f4f slice", NO_MODULE, "serve the files as they are"),
    handler("dav_methods", "files are only read", IN_APP),
    reported("dav_* create_full_put_path min_delete_depth", "files are only read", IN_APP),
    reported("fastcgi_*", NOT_HTTP, HTTP_SERVER),
    reported("uwsgi_* scgi_* memcached_* tunnel_*", NOT_HTTP, HTTP_SERVER),
    carried("grpc_*", "HSL", "as those with `proxy_`, in locations with `grpc_pass` alone", grpc::carry),
    reported("image_filter image_filter_* xslt_* xml_*", NO_MODULE, IN_APP),
    reported("mp4_* perl_modules perl_require", NO_MODULE, IN_APP),
    // Access.
    carried("allow deny", "HSLX", "access", access::rule),
    carried("satisfy", "HSL", "", access::satisfy),
    carried("auth_basic", "HSLX", "", access::auth_basic),
    carried("auth_basic_user_file", "HSLX", "", access::user_file),
    carried("auth_request", "HSL", "", access::auth_request),
    carried("auth_request_set", "HSL", "", access::auth_request_set),
    carried("limit_req_zone limit_conn_zone", "H", "", access::zone),
    carried("limit_req limit_conn", "HSL", "", access::limit),
    carried("limit_req_status limit_conn_status", "HSL", "", settings::number),
    carried("limit_req_dry_run limit_conn_dry_run", "HSL", "", settings::flag),
    needless("limit_req_log_level limit_conn_log_level", "a refused request is one line of the log"),
    reported("auth_delay", "a refusal is not delayed", "limit_req slows guesses down"),
    guard("secure_link secure_link_md5 secure_link_secret", "links are not checked", IN_APP),
    guard("valid_referers", "referers are not checked", IN_APP),
    guard("auth_* satisfy_any testcookie*", NO_MODULE, "use auth_request"),
    guard("access_by_lua* js_access", LUA, "use auth_request"),
    guard(
        "rewrite_by_lua rewrite_by_lua_file rewrite_by_lua_block",
        LUA,
        "say it with rewrite, return and map",
    ),
    guard(
        "server_rewrite_by_lua_block server_rewrite_by_lua_file",
        LUA,
        "say it with rewrite, return and map",
    ),
    guard(
        "modsecurity modsecurity_* naxsi_* SecRulesEnabled",
        NO_MODULE,
        "put a web application firewall in front",
    ),
    // Responses.
    carried("add_header", "HSLI", "", responses::add_header),
    carried("expires", "HSLI", "", settings::joined),
    carried("charset", "HSLI", "", settings::text),
    carried("gzip gzip_vary", "HSLI", "", settings::flag),
    carried("gzip_static", "HSL", "reported if it is on", files::gzip_static),
    carried("gzip_types gzip_proxied", "HSL", "", settings::words),
    carried("gzip_comp_level", "HSL", "", settings::number),
    carried("gzip_min_length", "HSL", "", settings::size),
    carried("gzip_http_version", "HSL", "", settings::text),
    needless(
        "gzip_buffers gzip_window gzip_hash gzip_no_buffer postpone_gzipping",
        "memory is taken as it is needed",
    ),
    needless("gzip_disable", "the browsers that needed it are gone"),
    reported("gunzip gunzip_buffers", NO_BODY_FILTER, IN_APP),
    reported("brotli* zstd*", "responses are compressed with gzip alone", "leave it to the app, or set gzip"),
    carried("charset_types", "HSL", "", settings::words),
    reported("charset_map source_charset override_charset", "nothing is converted", IN_APP),
    reported("add_trailer add_trailer_inherit add_header_inherit", NO_MODULE, IN_APP),
    reported("more_set_headers more_set_input_headers", NO_MODULE, "write add_header or proxy_set_header"),
    reported("more_clear_headers more_clear_input_headers", NO_MODULE, "write proxy_hide_header"),
    reported("sub_filter sub_filter_* subs_filter*", NO_BODY_FILTER, "let the app send the right URLs"),
    reported("ssi ssi_* addition_types add_before_body add_after_body", NO_BODY_FILTER, IN_APP),
    reported("mirror mirror_request_body", "requests go to one upstream", "leave it out"),
    reported("userid userid_*", NO_MODULE, IN_APP),
    reported(
        "header_filter_by_lua* body_filter_by_lua* log_by_lua* init_by_lua* init_worker_by_lua* lua_*",
        LUA,
        IN_APP,
    ),
    reported("ssl_certificate_by_lua* balancer_by_lua* set_by_lua*", LUA, IN_APP),
    // Variables.
    block("map", "H", "`[[map]]`; that of `$connection_upgrade` is needless"),
    reported("geo", "there are no tables of addresses", "say it with access, or let the app do it"),
    reported("split_clients", "requests are not split by chance", "use hash in an upstream"),
    reported("geoip_* geoip2 geoip2_*", NO_MODULE, IN_APP),
    reported("perl_set js_set js_var js_import js_path js_*", LUA, "say it with map"),
    reported(
        "modern_browser* ancient_browser*",
        "browsers are not told apart",
        "say it with map and $http_user_agent",
    ),
    // Logs.
    carried("access_log", "HSLIX", "", logs::access_log),
    carried("log_format", "H", "", logs::log_format),
    // The upstream.
    block("upstream", "H", "`[upstream.NAME]`"),
    carried("proxy_pass", "LIX", "", proxy::pass),
    carried("proxy_set_header", "HSL", "", proxy::set_header),
    carried("proxy_connect_timeout proxy_read_timeout proxy_send_timeout", "HSL", "", settings::time),
    carried("proxy_method", "HSL", "", settings::text),
    carried(
        "proxy_pass_request_headers proxy_pass_request_body proxy_pass_trailers",
        "HSL",
        "",
        settings::flag,
    ),
    carried("proxy_intercept_errors", "HSL", "", settings::flag),
    carried("proxy_next_upstream", "HSL", "", proxy::next_upstream),
    carried("proxy_next_upstream_tries", "HSL", "", settings::number),
    carried("proxy_next_upstream_timeout", "HSL", "", settings::time),
    carried("proxy_hide_header proxy_pass_header proxy_ignore_headers", "HSL", "", settings::gathered),
    carried("proxy_redirect", "HSL", "", responses::proxy_redirect),
    carried("proxy_cookie_path proxy_cookie_domain proxy_cookie_flags", "HSL", "", responses::cookie),
    carried("proxy_ignore_client_abort", "HSL", "reported if it is on", settings::must_be_off),
    carried(
        "proxy_http_version",
        "HSL",
        "carried over if it is 2; 1.0 and 1.1 are needless",
        proxy::http_version,
    ),
    needless("proxy_buffering proxy_request_buffering", STREAMED),
    needless("proxy_buffers proxy_buffer_size proxy_busy_buffers_size", STREAMED),
    needless("proxy_cache_bypass proxy_no_cache", "nothing is cached"),
    needless(
        "proxy_socket_keepalive proxy_socket_rcvbuf proxy_socket_sndbuf proxy_send_lowat",
        "dead peers are found by the timeouts",
    ),
    needless("proxy_force_ranges", "ranges are the upstream's to answer"),
    reported("proxy_cache proxy_cache_* proxy_store proxy_store_access", NO_CACHE, CACHE),
    reported(
        "proxy_bind",
        "the system chooses the address that upstreams are connected from",
        "set it with a route",
    ),
    reported("proxy_set_body", "bodies are passed on as the client sends them", IN_APP),
    reported(
        "proxy_limit_rate",
        "transfers have no speed limit",
        "limit them with the kernel, or not at all",
    ),
    carried("proxy_ssl_verify proxy_ssl_server_name proxy_ssl_session_reuse", "HSL", "", settings::flag),
    carried("proxy_ssl_name", "HSL", "", settings::text),
    carried("proxy_ssl_trusted_certificate proxy_ssl_crl", "HSL", "", tls::file),
    carried("proxy_ssl_certificate proxy_ssl_certificate_key", "HSL", "", tls::file),
    carried("proxy_ssl_protocols", "HSL", "", tls::protocols),
    needless("proxy_ssl_ciphers", CIPHERS),
    needless(
        "proxy_ssl_verify_depth",
        "a chain may have as many intermediate certificates as any real one; each has to be signed by the next, up to \
         a CA that is trusted",
    ),
    needless("proxy_ssl_certificate_cache", "files are read once, and again when they change"),
    reported(
        "proxy_ssl_password_file",
        "keys with a password are not read",
        "write the key without one: openssl pkey -in KEY -out NEW",
    ),
    reported("proxy_ssl_*", NOT_OPENSSL, "leave it out"),
    carried("ip_hash least_conn", "U", "", upstream::choice),
    carried("hash random", "U", "", upstream::choice),
    carried("keepalive", "U", "", settings::number),
    carried("keepalive_time", "HSLU", "", settings::keepalive_time),
    needless("zone", "what the workers share of a group needs no name and no size"),
    reported(
        "least_time sticky sticky_cookie_insert queue ntlm state",
        NO_MODULE,
        "use ip_hash, hash or least_conn",
    ),
    reported(
        "health_check match check check_*",
        "upstreams are not asked by themselves",
        "a failed request marks them",
    ),
];
