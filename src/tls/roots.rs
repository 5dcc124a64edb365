//! The CAs that the system trusts.

use rustls::RootCertStore;

/// The roots of the system, as OpenSSL finds them: `SSL_CERT_FILE`, `SSL_CERT_DIR`, or where the distribution
/// has them. What the operator has added there counts, and what was withdrawn is gone with the next update
/// of the system; roots that are built into the binary would be as old as that. (rustls-platform-verifier does
/// the same on Linux, in more steps.)
///
/// # Errors
/// There are none; the text says what went wrong in looking for them, and is empty if nothing did.
pub fn of_system() -> Result<RootCertStore, String> {
    let found = rustls_native_certs::load_native_certs();
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(found.certs);
    if roots.is_empty() {
        let why: Vec<String> = found.errors.iter().map(ToString::to_string).collect();
        return Err(why.join("; "));
    }
    Ok(roots)
}
