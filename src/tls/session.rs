//! What a handshake with a client came to.

use std::sync::Arc;

use rustls::pki_types::CertificateDer;
use rustls::{CipherSuite, CommonState, HandshakeKind, NamedGroup, ProtocolVersion};

use super::clients::{ClientRules, Verdict};
use crate::error::ProxyError;

/// What a handshake with a client came to: for the variables, and for who may ask whom.
#[derive(Debug)]
pub struct TlsSession {
    /// `$ssl_protocol`.
    pub version: &'static str,
    /// `$ssl_cipher`, as OpenSSL names it.
    pub cipher: &'static str,
    /// `$ssl_curve`, as OpenSSL names it; empty if there was none, in a resumed session of TLS 1.2.
    pub curve: &'static str,
    /// `$ssl_server_name`: the name that the client has asked for.
    pub server_name: Option<Box<str>>,
    /// `$ssl_alpn_protocol`.
    pub alpn: Option<&'static str>,
    /// `$ssl_session_reused`.
    pub is_resumed: bool,
    /// The certificate that the client has shown.
    pub certificate: Option<CertificateDer<'static>>,
    /// What is thought of it.
    pub verdict: Verdict,
    /// The rules that it was asked for by.
    rules: Arc<ClientRules>,
}

/// What can be agreed upon.
pub const PROTOCOLS: [&str; 3] = ["h2", "http/1.1", "http/1.0"];

impl TlsSession {
    /// Of a handshake that is done.
    pub fn new(agreed: &CommonState, server_name: Option<String>, rules: &Arc<ClientRules>) -> Self {
        let shown = agreed.peer_certificates();
        let alpn = agreed.alpn_protocol();
        Self {
            version: version(agreed.protocol_version()),
            cipher: agreed.negotiated_cipher_suite().map_or("", |suite| cipher(suite.suite())),
            curve: agreed.negotiated_key_exchange_group().map_or("", |group| curve(group.name())),
            server_name: server_name.map(Into::into),
            alpn: PROTOCOLS.into_iter().find(|known| alpn == Some(known.as_bytes())),
            is_resumed: agreed.handshake_kind() == Some(HandshakeKind::Resumed),
            certificate: shown.and_then(<[_]>::first).cloned(),
            verdict: rules.judge(shown),
            rules: Arc::clone(rules),
        }
    }

    /// Of one that has not taken place, as most of them come out: for those who explain what would become of it.
    pub fn supposed(
        server_name: Option<String>,
        alpn: Option<&'static str>,
        rules: &Arc<ClientRules>,
        verdict: Verdict,
    ) -> Self {
        Self {
            version: "TLSv1.3",
            cipher: cipher(CipherSuite::TLS13_AES_256_GCM_SHA384),
            curve: curve(NamedGroup::X25519),
            server_name: server_name.map(Into::into),
            alpn,
            is_resumed: false,
            certificate: None,
            verdict,
            rules: Arc::clone(rules),
        }
    }

    /// Whether requests may go to a server with these rules about client certificates, because the client was asked
    /// by the same ones (R32, RFC 9110 §15.5.20); `None`: it speaks no TLS.
    pub fn is_for(&self, rules: Option<&Arc<ClientRules>>) -> bool {
        rules.is_none_or(|rules| Arc::ptr_eq(rules, &self.rules) || *rules == self.rules)
    }

    /// Whether the client has given what the rules want, by which it was asked.
    ///
    /// # Errors
    /// It has not.
    pub fn admit(&self) -> Result<(), ProxyError> {
        self.rules.admit(&self.verdict)
    }
}

fn version(version: Option<ProtocolVersion>) -> &'static str {
    match version {
        Some(ProtocolVersion::TLSv1_2) => "TLSv1.2",
        Some(ProtocolVersion::TLSv1_3) => "TLSv1.3",
        _ => "",
    }
}

fn cipher(suite: CipherSuite) -> &'static str {
    match suite {
        CipherSuite::TLS13_AES_128_GCM_SHA256 => "TLS_AES_128_GCM_SHA256",
        CipherSuite::TLS13_AES_256_GCM_SHA384 => "TLS_AES_256_GCM_SHA384",
        CipherSuite::TLS13_CHACHA20_POLY1305_SHA256 => "TLS_CHACHA20_POLY1305_SHA256",
        CipherSuite::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256 => "ECDHE-ECDSA-AES128-GCM-SHA256",
        CipherSuite::TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384 => "ECDHE-ECDSA-AES256-GCM-SHA384",
        CipherSuite::TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256 => "ECDHE-ECDSA-CHACHA20-POLY1305",
        CipherSuite::TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256 => "ECDHE-RSA-AES128-GCM-SHA256",
        CipherSuite::TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384 => "ECDHE-RSA-AES256-GCM-SHA384",
        CipherSuite::TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256 => "ECDHE-RSA-CHACHA20-POLY1305",
        _ => "",
    }
}

fn curve(group: NamedGroup) -> &'static str {
    match group {
        NamedGroup::X25519 => "X25519",
        NamedGroup::secp256r1 => "prime256v1",
        NamedGroup::secp384r1 => "secp384r1",
        NamedGroup::secp521r1 => "secp521r1",
        NamedGroup::X25519MLKEM768 => "X25519MLKEM768",
        NamedGroup::secp256r1MLKEM768 => "SecP256r1MLKEM768",
        _ => "",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everything_that_can_be_agreed_upon_has_a_name() {
        for suite in &super::super::provider().cipher_suites {
            assert_ne!(cipher(suite.suite()), "", "{suite:?}");
        }
        for group in &super::super::provider().kx_groups {
            assert_ne!(curve(group.name()), "", "{group:?}");
        }
    }
}
