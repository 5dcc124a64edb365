//! TLS towards upstreams that protects from nobody.

use crate::config::error::Mistake;
use crate::config::file::ForLocations;

/// Looks at what is said at one level of the file.
pub(super) fn find(written: &ForLocations, found: &mut Vec<Mistake>) {
    let written = &written.for_upstream_tls;
    let Some(verify) = written.proxy_ssl_verify.given().filter(|verify| !*verify.get_ref()) else { return };
    let message = "`proxy_ssl_verify = false`: whoever is on the way to the upstream can answer in its name, and read \
                   what it is sent";
    let help = "name the file with its CA, or with its own certificate: `proxy_ssl_trusted_certificate = \
                \"/etc/hopgate/ca.pem\"`, and with `proxy_ssl_name` the name that it is for, if it is another one";
    let mut mistake = Mistake::warning(verify.span(), message).help(help);
    let idle = [
        ("proxy_ssl_trusted_certificate", &written.proxy_ssl_trusted_certificate),
        ("proxy_ssl_crl", &written.proxy_ssl_crl),
    ];
    if let Some((key, file)) = idle.into_iter().find_map(|(key, file)| Some((key, file.given()?))) {
        mistake = mistake.also(file.span(), format!("so `{key}` does nothing"));
    }
    found.push(mistake);
}
