//! Why TLS with an upstream server has failed, in words that name the setting to change.

use std::error::Error;
use std::fmt;
use std::io;
use std::sync::Arc;

use rustls::pki_types::ServerName;
use rustls::{AlertDescription, CertificateError, InvalidMessage, OtherError, PeerIncompatible};

use super::Secured;
use super::verify::{Untrusted, date};

/// Why TLS with an upstream server has failed.
#[derive(Clone, Debug)]
pub struct TlsError {
    cause: Cause,
    /// The name that was checked.
    name: Arc<ServerName<'static>>,
    /// Whether there is a client certificate.
    has_identity: bool,
    is_http2: bool,
}

#[derive(Debug)]
enum Cause {
    Tls(rustls::Error),
    /// The connection ended during the handshake.
    Ended,
    /// It broke.
    Broken(io::Error),
}

impl Clone for Cause {
    fn clone(&self) -> Self {
        match self {
            Self::Tls(error) => Self::Tls(error.clone()),
            Self::Ended => Self::Ended,
            Self::Broken(error) => Self::Broken(io::Error::new(error.kind(), error.to_string())),
        }
    }
}

impl TlsError {
    /// For an error of rustls.
    pub fn of(error: rustls::Error, secured: &Secured) -> Self {
        Self::new(Cause::Tls(error), secured)
    }

    /// For an error of a connection during the handshake.
    pub(super) fn of_handshake(error: io::Error, secured: &Secured) -> Self {
        let cause = match rustls_error(&error) {
            Some(error) => Cause::Tls(error.clone()),
            None if error.kind() == io::ErrorKind::UnexpectedEof => Cause::Ended,
            None => Cause::Broken(error),
        };
        Self::new(cause, secured)
    }

    /// For an error of a connection after the handshake, if it is one of TLS: with TLS 1.3 it is only then that
    /// a server says that it wants another client certificate.
    pub fn within(error: &io::Error, secured: &Secured) -> Option<Self> {
        rustls_error(error).map(|error| Self::of(error.clone(), secured))
    }

    fn new(cause: Cause, secured: &Secured) -> Self {
        let has_identity = secured.client.rules().identity.is_some();
        let is_http2 = secured.client.rules().http2;
        Self { cause, name: Arc::clone(&secured.name), has_identity, is_http2 }
    }
}

fn rustls_error(error: &io::Error) -> Option<&rustls::Error> {
    error.get_ref()?.downcast_ref()
}

impl fmt::Display for TlsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        use rustls::Error as Tls;
        let name = self.name.to_str();
        f.write_str(&match &self.cause {
            Cause::Tls(Tls::InvalidCertificate(error)) => of_certificate(error, &name),
            Cause::Tls(Tls::InvalidCertRevocationList(error)) => {
                format!("a list of `proxy_ssl_crl` cannot be used: {error:?}")
            }
            Cause::Tls(Tls::AlertReceived(AlertDescription::NoApplicationProtocol)) if self.is_http2 => {
                "it does not speak HTTP/2, as `proxy_http_version` says (NoApplicationProtocol)".to_owned()
            }
            Cause::Tls(Tls::AlertReceived(alert)) => of_alert(*alert, &name, self.has_identity),
            Cause::Tls(Tls::InvalidMessage(InvalidMessage::InvalidContentType)) => {
                "it does not speak TLS there: write `http://` in `proxy_pass`, or its port for TLS".to_owned()
            }
            Cause::Tls(Tls::PeerIncompatible(
                PeerIncompatible::ServerTlsVersionIsDisabledByOurConfig
                | PeerIncompatible::ServerDoesNotSupportTls12Or13,
            )) => NO_VERSION.to_owned(),
            Cause::Tls(other) => other.to_string(),
            Cause::Ended => {
                "it closed the connection during the handshake; perhaps it does not speak TLS there"
                    .to_owned()
            }
            Cause::Broken(_) => "the connection broke during the handshake".to_owned(),
        })
    }
}

impl Error for TlsError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match &self.cause {
            Cause::Broken(error) => Some(error),
            // What there is to say of it is said.
            Cause::Tls(_) | Cause::Ended => None,
        }
    }
}

const NO_VERSION: &str = "it speaks none of the versions of `proxy_ssl_protocols`";

fn of_certificate(error: &CertificateError, name: &str) -> String {
    match error {
        CertificateError::Other(OtherError(other)) => match other.downcast_ref::<Untrusted>() {
            Some(Untrusted { is_self_signed: true, issuer }) => format!(
                "its certificate is self-signed ({issuer}), and not trusted: name a file with it in \
                 `proxy_ssl_trusted_certificate`"
            ),
            Some(Untrusted { issuer, .. }) => format!(
                "the issuer of its certificate is not trusted ({issuer}): name a file with that CA in \
                 `proxy_ssl_trusted_certificate`, or have the server send the certificates between"
            ),
            // webpki's word for it.
            None if other.to_string() == "UnsupportedCertVersion" => {
                "its certificate is of X.509 version 1, which has no names in it: have one made with a subjectAltName"
                    .to_owned()
            }
            None => format!("its certificate is not valid: {other}"),
        },
        CertificateError::ExpiredContext { not_after, .. } => {
            format!("its certificate, or one that it was issued by, has expired on {}", date(*not_after))
        }
        CertificateError::NotValidYetContext { not_before, .. } => {
            format!(
                "its certificate, or one that it was issued by, is not valid before {}",
                date(*not_before)
            )
        }
        CertificateError::NotValidForNameContext { presented, .. } if presented.is_empty() => format!(
            "its certificate is for no name (it has no subjectAltName, and a common name does not count), so not for \
             `{name}` either"
        ),
        CertificateError::NotValidForNameContext { presented, .. } => format!(
            "its certificate is not for `{name}`, but for {}: set `proxy_ssl_name` to a name that it has",
            presented.iter().map(|name| plain(name)).collect::<Vec<_>>().join(", ")
        ),
        CertificateError::Revoked => "its certificate, or one that it was issued by, is revoked".to_owned(),
        CertificateError::UnknownRevocationStatus => {
            "`proxy_ssl_crl` has no list of the issuer of its certificate, or of one between".to_owned()
        }
        CertificateError::ExpiredRevocationListContext { next_update, .. } => {
            format!("a list of `proxy_ssl_crl` has expired on {}", date(*next_update))
        }
        CertificateError::InvalidPurposeContext { .. } => {
            "its certificate is not for servers (extended key usage)".to_owned()
        }
        CertificateError::BadEncoding => "its certificate cannot be read".to_owned(),
        other => format!("its certificate is not valid: {other}"),
    }
}

/// `DnsName("a.b")`, as webpki writes it.
fn plain(name: &str) -> String {
    let inner = name.split_once('(').and_then(|(_, rest)| rest.strip_suffix(')'));
    format!("`{}`", inner.unwrap_or(name).trim_matches('"'))
}

fn of_alert(alert: AlertDescription, name: &str, has_identity: bool) -> String {
    let said = format!("{alert:?}");
    match alert {
        AlertDescription::CertificateRequired => wants_certificate(&said),
        AlertDescription::BadCertificate
        | AlertDescription::UnsupportedCertificate
        | AlertDescription::CertificateRevoked
        | AlertDescription::CertificateExpired
        | AlertDescription::CertificateUnknown
        | AlertDescription::UnknownCA
        | AlertDescription::AccessDenied => match has_identity {
            true => format!("it does not take the certificate of `proxy_ssl_certificate` ({said})"),
            false => wants_certificate(&said),
        },
        AlertDescription::HandshakeFailure if !has_identity => format!(
            "it refuses the handshake ({said}): it has no cipher in common, or wants a client certificate \
             (`proxy_ssl_certificate`)"
        ),
        AlertDescription::HandshakeFailure => {
            format!(
                "it refuses the handshake ({said}): it has no cipher in common, or does not take the client certificate"
            )
        }
        AlertDescription::ProtocolVersion => format!("{NO_VERSION} ({said})"),
        AlertDescription::UnrecognisedName => {
            format!("it knows no server `{name}` ({said}): set `proxy_ssl_name` to the name that it has")
        }
        AlertDescription::NoApplicationProtocol => format!("it does not speak HTTP/1.1 ({said})"),
        _ => format!("it has refused it with the alert {said}"),
    }
}

fn wants_certificate(said: &str) -> String {
    format!(
        "it wants a client certificate ({said}): write `proxy_ssl_certificate` and `proxy_ssl_certificate_key`"
    )
}
