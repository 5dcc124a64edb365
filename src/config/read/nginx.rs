//! Words of nginx that are no keys here: what stands in their place, or why nothing needs to.

use std::ops::Range;

use toml::de::DeValue;

use crate::config::error::Mistake;

/// What a word of nginx is in hopgate.
pub(super) enum Word {
    /// Nothing: what it is for happens by itself.
    Needless(&'static str),
    /// The same value under another name, and where that one stands; if the value cannot be taken over,
    /// the one that is given here.
    Renamed(&'static str, &'static str, &'static str),
    /// Something else.
    Instead(&'static str),
    /// Not there, or not yet.
    NotYet(&'static str),
}

impl Word {
    /// The mistake of writing it as a key.
    pub(super) fn mistake(&self, span: Range<usize>, name: &str, value: &DeValue<'_>) -> Mistake {
        match self {
            Self::Needless(why) => Mistake::new(span, format!("`{name}` is needless in hopgate: {why}"))
                .label("needless")
                .help(match name {
                    "http" => "delete `[http]`, and `http.` before other names: `[[server]]`",
                    _ => "delete the line",
                }),
            Self::Renamed(key, example, place) => {
                let value = same_value(value).unwrap_or_else(|| (*example).to_owned());
                Mistake::new(span, format!("`{name}` has another name in hopgate"))
                    .label("unknown here")
                    .help(format!("write `{key} = {value}`{place}"))
            }
            Self::Instead(what) => Mistake::new(span, format!("`{name}` has another name in hopgate"))
                .label("unknown here")
                .help(*what),
            Self::NotYet(what) => Mistake::new(span, format!("`{name}` is not supported yet: {what}"))
                .label("not supported yet"),
        }
    }
}

/// As it is written, if nothing is to be changed about it.
fn same_value(value: &DeValue<'_>) -> Option<String> {
    match value {
        DeValue::Integer(number) => Some(number.to_string()),
        DeValue::String(text) if !text.contains(['"', '\\', ' ', ';']) => Some(format!("\"{text}\"")),
        _ => None,
    }
}

const AT_TOP: &str = " at the top of the file";

use Word::{Instead, Needless, NotYet, Renamed};

/// The directives that occur in real files, by how often.
const WORDS: &[(&str, Word)] = &[
    (
        "proxy_buffering",
        Needless("responses are passed on as they come, with back-pressure, and never buffered whole"),
    ),
    (
        "proxy_request_buffering",
        Needless("request bodies are passed on as they come, and never buffered whole"),
    ),
    ("proxy_cache_bypass", Needless("nothing is cached")),
    ("proxy_no_cache", Needless("nothing is cached")),
    ("proxy_buffers", Needless("responses are passed on as they come")),
    ("proxy_buffer_size", Needless("responses are passed on as they come")),
    ("proxy_busy_buffers_size", Needless("responses are passed on as they come")),
    ("proxy_max_temp_file_size", Needless("nothing is written to temporary files")),
    ("proxy_temp_file_write_size", Needless("nothing is written to temporary files")),
    ("proxy_headers_hash_max_size", Needless("there is no such table to be sized")),
    ("proxy_headers_hash_bucket_size", Needless("there is no such table to be sized")),
    ("proxy_ignore_client_abort", Needless("a request is given up when its client has gone")),
    ("proxy_socket_keepalive", Needless("dead peers are found by the timeouts")),
    ("proxy_ssl_verify_depth", Needless("a certificate is followed up to its CA, however far that is")),
    ("proxy_ssl_ciphers", Needless("only ciphers that nobody has broken are spoken")),
    (
        "proxy_ssl_password_file",
        Instead(
            "write the key of `proxy_ssl_certificate_key` without its password: `openssl pkey -in KEY -out NEW`",
        ),
    ),
    ("client_body_buffer_size", Needless("request bodies are passed on as they come")),
    ("server_names_hash_bucket_size", Needless("there is no such table to be sized")),
    ("server_tokens", Needless("the version is never told to clients")),
    ("sendfile", Needless("bytes are moved the cheapest way that there is")),
    ("tcp_nodelay", Needless("it is always on")),
    ("tcp_nopush", Needless("heads and bodies are written together anyway")),
    ("gzip_buffers", Needless("memory is taken as it is needed")),
    ("gzip_disable", Needless("a browser that cannot read gzip does not ask for it")),
    ("source_charset", NotYet("texts are not converted; `charset` says what they are in")),
    ("override_charset", NotYet("a charset that the upstream tells is left as it is")),
    ("charset_map", NotYet("texts are not converted; `charset` says what they are in")),
    ("chunked_transfer_encoding", Needless("chunks are used where the client knows them")),
    ("events", Needless("there is nothing to be tuned there; `max_connections` limits the clients")),
    ("http", Needless("keys for all servers stand at the top of the file")),
    ("user", Needless("hopgate runs as whoever starts it: set `User=` in its systemd unit")),
    ("pid", Needless("systemd knows the process")),
    ("daemon", Needless("hopgate stays in the foreground, as systemd and containers want it")),
    ("reset_timedout_connection", Needless("memory of a connection that is given up is free at once")),
    ("worker_processes", Renamed("workers", "\"auto\"", AT_TOP)),
    ("worker_connections", Renamed("max_connections", "10000", AT_TOP)),
    ("worker_shutdown_timeout", Renamed("shutdown_timeout", "\"30s\"", AT_TOP)),
    ("drain_timeout", Renamed("shutdown_timeout", "\"30s\"", AT_TOP)),
    ("grace_period", Renamed("shutdown_timeout", "\"30s\"", AT_TOP)),
    ("set_real_ip_from", Renamed("trusted_proxies", "[\"10.0.0.0/8\"]", "")),
    (
        "large_client_header_buffers",
        Instead("write `client_max_head_size = \"64k\"`: the size of a whole head"),
    ),
    (
        "client_header_buffer_size",
        Instead("write `client_max_head_size = \"64k\"`: the size of a whole head"),
    ),
    ("limit_req_log_level", Needless("what is refused is logged as `warn`, what waits as `info`")),
    ("limit_conn_log_level", Needless("what is refused is logged as `warn`")),
    ("allow", Instead("write `access = [\"allow 10.0.0.0/8\", \"deny all\"]`: all rules in their order")),
    ("deny", Instead("write `access = [\"allow 10.0.0.0/8\", \"deny all\"]`: all rules in their order")),
    ("port", Instead("write it in `listen = \"127.0.0.1:8080\"`")),
    ("host", Instead("write `server_name = \"example.com\"` in a `[[server]]`")),
    ("proxy_bind", NotYet("the system chooses the address that upstreams are connected from")),
    ("open_file_cache", Needless("files are opened when they are asked for, which costs little")),
    ("open_file_cache_valid", Needless("files are opened when they are asked for, which costs little")),
    ("open_file_cache_min_uses", Needless("files are opened when they are asked for, which costs little")),
    ("open_file_cache_errors", Needless("files are opened when they are asked for, which costs little")),
    ("sendfile_max_chunk", Needless("no connection sends for longer than the others can wait")),
    ("log_not_found", Needless("a file that is not there is told in the error log as any other 404")),
    ("aio", Needless("files are sent by the system itself, a piece at a time")),
    ("directio", Needless("files are sent by the system itself, a piece at a time")),
    ("types_hash_max_size", Needless("there is no such table to be sized")),
    ("types_hash_bucket_size", Needless("there is no such table to be sized")),
    ("autoindex", NotYet("a directory without an index is answered 403")),
    ("include", NotYet("a configuration is one file")),
    ("limit_rate", NotYet("requests and connections are limited, bytes are not: `limit_req`, `limit_conn`")),
    ("ssl", Instead("write it behind the address: `listen = \"443 ssl\"`")),
    ("ssl_ciphers", Needless(CIPHERS)),
    ("ssl_prefer_server_ciphers", Needless("all ciphers are strong: a client may choose")),
    ("ssl_ecdh_curve", Needless("there are none but strong ones")),
    ("ssl_dhparam", Needless("keys are exchanged over elliptic curves alone, which need no such file")),
    ("ssl_session_cache", Needless("sessions are resumed by themselves")),
    ("ssl_buffer_size", Needless("records are as large as what is there to be sent")),
    ("ssl_early_data", NotYet("early data are not accepted, as anybody can send them again")),
    (
        "ssl_stapling",
        Instead("write `ssl_stapling_file = \"/etc/hopgate/ocsp.der\"`: answers are not fetched"),
    ),
    ("ssl_stapling_verify", Needless("OCSP answers are not fetched")),
    (
        "ssl_trusted_certificate",
        Instead("the CAs of clients stand in `ssl_client_certificate = \"/etc/hopgate/ca.pem\"`"),
    ),
    ("ssl_verify_depth", Needless("a chain may be as long as any real one")),
    ("ssl_password_file", NotYet("write the key without a password: `openssl pkey -in KEY -out NEW`")),
    ("ssl_ocsp", NotYet("name a list of revoked certificates in `ssl_crl`")),
    ("http2_push", Needless("browsers have given server push up")),
    ("http2_push_preload", Needless("browsers have given server push up")),
    ("http3", NotYet("browsers use HTTP/2 or HTTP/1.1 on the same port over TCP")),
    (
        "grpc_pass",
        Instead("write `proxy_pass = \"http://127.0.0.1:50051\"` and `proxy_http_version = \"2\"`"),
    ),
    ("grpc_read_timeout", Renamed("proxy_read_timeout", "\"60s\"", "")),
    ("grpc_send_timeout", Renamed("proxy_send_timeout", "\"60s\"", "")),
    ("grpc_connect_timeout", Renamed("proxy_connect_timeout", "\"5s\"", "")),
    ("grpc_set_header", Renamed("proxy_set_header", "{ X-Real-IP = \"$remote_addr\" }", "")),
];

const CIPHERS: &str =
    "there are none but strong ones: those of TLS 1.3, and ECDHE with AES-GCM or ChaCha20-Poly1305";

/// Families of directives.
const PREFIXES: &[(&str, Word)] = &[
    ("ssl_", NotYet("TLS is spoken by rustls, which knows nothing of OpenSSL's settings")),
    ("proxy_ssl_", NotYet("TLS is spoken by rustls, which knows nothing of OpenSSL's settings")),
    ("http2_", Needless("what bounds requests bounds those over HTTP/2, too")),
    ("proxy_cache", NotYet("nothing is cached")),
    ("gzip_static", NotYet("files are compressed on their way, with `gzip = true`")),
    ("gunzip", NotYet("compressed bodies are passed on as the upstream sends them")),
    ("brotli", NotYet("bodies are compressed with `gzip = true`")),
    ("fastcgi_", NotYet("upstreams are spoken to in HTTP")),
    ("uwsgi_", NotYet("upstreams are spoken to in HTTP")),
    ("grpc_", Instead("gRPC has the keys that begin with `proxy_`, and `proxy_http_version = \"2\"`")),
    ("sub_filter", NotYet("bodies are passed on as the upstream sends them")),
    ("limit_", NotYet("requests and connections are limited: `limit_req`, `limit_conn`")),
    ("auth_", NotYet("a location of yours can decide: `auth_request`")),
];

/// What is known about a word that is no key.
pub(super) fn word(name: &str) -> Option<&'static Word> {
    let whole = WORDS.iter().find(|(known, _)| *known == name);
    let family = || PREFIXES.iter().find(|(prefix, _)| name.starts_with(prefix));
    whole.or_else(family).map(|(_, word)| word)
}

/// What is to be done about a line with this word, if nothing needs it.
pub(super) fn needless(name: &str) -> Option<String> {
    match word(name)? {
        Word::Needless(why) => Some(format!("delete the line: {why}")),
        Word::Renamed(..) | Word::Instead(_) | Word::NotYet(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::file::Level;

    #[test]
    fn no_word_of_the_table_is_a_key_or_stands_twice() {
        for (word, _) in WORDS {
            assert_eq!(WORDS.iter().filter(|(other, _)| other == word).count(), 1, "{word}");
            assert!(!Level::ALL.iter().any(|level| level.keys().contains(word)), "{word}");
        }
    }
}
