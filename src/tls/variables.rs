//! The variables of TLS: nginx's names and meanings.

use std::time::{SystemTime, UNIX_EPOCH};

use super::certificate;
use super::session::TlsSession;
use crate::routing::escape;

/// A variable of a client's TLS connection; all of them are empty without one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)] // `NAMES` below says it all: each variant is the variable of that name
pub enum TlsVariable {
    AlpnProtocol,
    Cipher,
    ClientCert,
    ClientEscapedCert,
    ClientFingerprint,
    ClientIDn,
    ClientRawCert,
    ClientSDn,
    ClientSerial,
    ClientVEnd,
    ClientVRemain,
    ClientVStart,
    ClientVerify,
    Curve,
    EarlyData,
    Protocol,
    ServerName,
    SessionReused,
}

/// Their names.
pub const NAMES: [(&str, TlsVariable); 18] = [
    ("ssl_alpn_protocol", TlsVariable::AlpnProtocol),
    ("ssl_cipher", TlsVariable::Cipher),
    ("ssl_client_cert", TlsVariable::ClientCert),
    ("ssl_client_escaped_cert", TlsVariable::ClientEscapedCert),
    ("ssl_client_fingerprint", TlsVariable::ClientFingerprint),
    ("ssl_client_i_dn", TlsVariable::ClientIDn),
    ("ssl_client_raw_cert", TlsVariable::ClientRawCert),
    ("ssl_client_s_dn", TlsVariable::ClientSDn),
    ("ssl_client_serial", TlsVariable::ClientSerial),
    ("ssl_client_v_end", TlsVariable::ClientVEnd),
    ("ssl_client_v_remain", TlsVariable::ClientVRemain),
    ("ssl_client_v_start", TlsVariable::ClientVStart),
    ("ssl_client_verify", TlsVariable::ClientVerify),
    ("ssl_curve", TlsVariable::Curve),
    ("ssl_early_data", TlsVariable::EarlyData),
    ("ssl_protocol", TlsVariable::Protocol),
    ("ssl_server_name", TlsVariable::ServerName),
    ("ssl_session_reused", TlsVariable::SessionReused),
];

impl TlsSession {
    /// Adds the value of a variable to `out`.
    pub fn write(&self, variable: TlsVariable, out: &mut Vec<u8>) {
        match variable {
            TlsVariable::AlpnProtocol => out.extend_from_slice(self.alpn.unwrap_or_default().as_bytes()),
            TlsVariable::Cipher => out.extend_from_slice(self.cipher.as_bytes()),
            TlsVariable::Curve => out.extend_from_slice(self.curve.as_bytes()),
            // It is not taken: what is in it can be sent again by others (RFC 8470).
            TlsVariable::EarlyData => {}
            TlsVariable::Protocol => out.extend_from_slice(self.version.as_bytes()),
            TlsVariable::ServerName => {
                out.extend_from_slice(self.server_name.as_deref().unwrap_or_default().as_bytes());
            }
            TlsVariable::SessionReused => out.push(if self.is_resumed { b'r' } else { b'.' }),
            TlsVariable::ClientVerify => out.extend_from_slice(self.verdict.to_string().as_bytes()),
            _ => self.write_of_certificate(variable, out),
        }
    }

    fn write_of_certificate(&self, variable: TlsVariable, out: &mut Vec<u8>) {
        let Some(shown) = &self.certificate else { return };
        match variable {
            TlsVariable::ClientFingerprint => out.extend(certificate::fingerprint(shown).bytes()),
            TlsVariable::ClientCert => out.extend(certificate::pem(shown, "\t").bytes()),
            // With the newline at its end.
            TlsVariable::ClientRawCert => out.extend(format!("{}\n", certificate::pem(shown, "")).bytes()),
            TlsVariable::ClientEscapedCert => {
                escape::component(out, format!("{}\n", certificate::pem(shown, "")).as_bytes());
            }
            _ => certificate::of(shown, |parsed| {
                let text = match variable {
                    TlsVariable::ClientSDn => certificate::name(parsed.subject()),
                    TlsVariable::ClientIDn => certificate::name(parsed.issuer()),
                    TlsVariable::ClientSerial => certificate::serial(parsed),
                    TlsVariable::ClientVStart => certificate::time(parsed.validity.not_before),
                    TlsVariable::ClientVEnd => certificate::time(parsed.validity.not_after),
                    TlsVariable::ClientVRemain => {
                        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
                        let now = i64::try_from(now.as_secs()).unwrap_or(i64::MAX);
                        certificate::days(now, parsed.validity.not_after.timestamp()).to_string()
                    }
                    _ => String::new(),
                };
                out.extend_from_slice(text.as_bytes());
            }),
        }
    }
}
