//! What is told of a certificate, in the forms that nginx and OpenSSL have given it.

use std::net::{Ipv4Addr, Ipv6Addr};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use jiff::Timestamp;
use jiff::tz::TimeZone;
use rustls::pki_types::CertificateDer;
use sha1::{Digest as _, Sha1};
use x509_parser::asn1_rs::{Any, Tag, ToDer as _};
use x509_parser::prelude::{FromDer as _, GeneralName, X509Certificate, X509Name};
use x509_parser::time::ASN1Time;
use x509_parser::x509::AttributeTypeAndValue;

/// Has `write` look at a certificate; nothing is written if it cannot be read.
pub fn of(certificate: &CertificateDer<'_>, write: impl FnOnce(&X509Certificate<'_>)) {
    if let Ok((_, parsed)) = X509Certificate::from_der(certificate) {
        write(&parsed);
    }
}

/// The names and the addresses that it is for. What else its subject says counts for nobody any more.
pub fn names(certificate: &X509Certificate<'_>) -> Vec<String> {
    let name = |name: &GeneralName<'_>| match name {
        GeneralName::DNSName(name) => Some((*name).to_owned()),
        GeneralName::IPAddress(bytes) => match **bytes {
            [a, b, c, d] => Some(Ipv4Addr::from([a, b, c, d]).to_string()),
            _ => <[u8; 16]>::try_from(*bytes).ok().map(|bytes| Ipv6Addr::from(bytes).to_string()),
        },
        _ => None,
    };
    let names = certificate.subject_alternative_name().ok().flatten();
    names.map_or_else(Vec::new, |names| names.value.general_names.iter().filter_map(name).collect())
}

/// Whether a certificate for these names is one for this host, too (RFC 9525 §6.3).
pub fn is_for(names: &[String], host: &str) -> bool {
    names.iter().any(|name| match name.strip_prefix("*.") {
        Some(rest) => host.split_once('.').is_some_and(|(_, domain)| domain.eq_ignore_ascii_case(rest)),
        None => name.eq_ignore_ascii_case(host),
    })
}

/// A name as RFC 2253 §2 writes it: the last part first.
pub fn name(name: &X509Name<'_>) -> String {
    let parts: Vec<_> = name.iter_rdn().collect();
    let one = |attributes: &mut dyn Iterator<Item = &AttributeTypeAndValue<'_>>| {
        attributes.map(attribute).collect::<Vec<_>>().join("+")
    };
    parts.iter().rev().map(|part| one(&mut part.iter())).collect::<Vec<_>>().join(",")
}

/// The attributes that OpenSSL has a short name for.
const ATTRIBUTES: [(&str, &str); 17] = [
    ("2.5.4.3", "CN"),
    ("2.5.4.4", "SN"),
    ("2.5.4.5", "serialNumber"),
    ("2.5.4.6", "C"),
    ("2.5.4.7", "L"),
    ("2.5.4.8", "ST"),
    ("2.5.4.9", "street"),
    ("2.5.4.10", "O"),
    ("2.5.4.11", "OU"),
    ("2.5.4.12", "title"),
    ("2.5.4.13", "description"),
    ("2.5.4.17", "postalCode"),
    ("2.5.4.42", "GN"),
    ("2.5.4.43", "initials"),
    ("0.9.2342.19200300.100.1.1", "UID"),
    ("0.9.2342.19200300.100.1.25", "DC"),
    ("1.2.840.113549.1.9.1", "emailAddress"),
];

fn attribute(attribute: &AttributeTypeAndValue<'_>) -> String {
    let id = attribute.attr_type().to_id_string();
    match (ATTRIBUTES.iter().find(|(known, _)| *known == id), text(attribute.attr_value())) {
        (Some((_, name)), Some(value)) => format!("{name}={}", escaped(&value)),
        (Some((_, name)), None) => format!("{name}={}", hexadecimal(attribute.attr_value())),
        (None, _) => format!("{id}={}", hexadecimal(attribute.attr_value())),
    }
}

/// What a string says, in whatever set of characters it is; `None` if it is no string.
fn text(value: &Any<'_>) -> Option<String> {
    let units = || value.data.chunks_exact(2).map(|pair| u16::from_be_bytes([pair[0], pair[1]]));
    match value.tag() {
        Tag::Utf8String | Tag::PrintableString | Tag::Ia5String | Tag::NumericString | Tag::VisibleString => {
            str::from_utf8(value.data).ok().map(str::to_owned)
        }
        // OpenSSL takes it for Latin-1, as everybody does.
        Tag::T61String => Some(value.data.iter().copied().map(char::from).collect()),
        Tag::BmpString => char::decode_utf16(units()).collect::<Result<_, _>>().ok(),
        _ => None,
    }
}

/// The whole value with its tag.
fn hexadecimal(value: &Any<'_>) -> String {
    format!("#{}", hex(&value.to_der_vec().unwrap_or_default(), true))
}

/// RFC 2253 §2.4; everything outside of printable ASCII as its bytes, as OpenSSL does.
fn escaped(value: &str) -> String {
    let last = value.len().saturating_sub(1);
    let mut out = String::with_capacity(value.len());
    for (at, byte) in value.bytes().enumerate() {
        let is_at_edge = (byte == b' ' && (at == 0 || at == last)) || (byte == b'#' && at == 0);
        match byte {
            b',' | b'+' | b'"' | b'\\' | b'<' | b'>' | b';' => out.extend(['\\', char::from(byte)]),
            _ if is_at_edge => out.extend(['\\', char::from(byte)]),
            0x20..0x7f => out.push(char::from(byte)),
            _ => out.push_str(&format!("\\{byte:02X}")),
        }
    }
    out
}

/// The number of a certificate, in hexadecimal.
pub fn serial(certificate: &X509Certificate<'_>) -> String {
    let raw = certificate.raw_serial();
    // DER puts a zero before what would look negative.
    let digits = if raw.len() > 1 && raw[0] == 0 { &raw[1..] } else { raw };
    hex(digits, true)
}

/// The SHA-1 of a certificate, in hexadecimal.
pub fn fingerprint(certificate: &CertificateDer<'_>) -> String {
    hex(&Sha1::digest(certificate), false)
}

fn hex(bytes: &[u8], is_upper: bool) -> String {
    let digits = if is_upper { b"0123456789ABCDEF" } else { b"0123456789abcdef" };
    bytes
        .iter()
        .flat_map(|byte| [byte >> 4, byte & 15])
        .map(|digit| char::from(digits[usize::from(digit)]))
        .collect()
}

/// A certificate as PEM, without the newline at its end; each line but the first begins with `indent`.
pub fn pem(certificate: &CertificateDer<'_>, indent: &str) -> String {
    let mut out = "-----BEGIN CERTIFICATE-----".to_owned();
    let encoded = STANDARD.encode(certificate);
    let mut rest = encoded.as_str();
    while !rest.is_empty() {
        let (line, after) = rest.split_at(rest.len().min(64));
        out.extend(["\n", indent, line]);
        rest = after;
    }
    out.extend(["\n", indent, "-----END CERTIFICATE-----"]);
    out
}

/// A time as `Nov 21 11:43:31 2026 GMT`.
pub fn time(time: ASN1Time) -> String {
    let Ok(time) = Timestamp::from_second(time.timestamp()) else { return String::new() };
    time.to_zoned(TimeZone::UTC).strftime("%b %e %H:%M:%S %Y GMT").to_string()
}

/// The whole days from one time to another; 0 if that is over.
pub fn days(from: i64, until: i64) -> i64 {
    (until - from).max(0) / (24 * 3600)
}

#[cfg(test)]
mod tests {
    use super::*;
    use rcgen::{CertificateParams, DnType, KeyPair, SerialNumber};

    #[test]
    fn a_certificate_is_told_as_openssl_does() {
        let mut parameters = CertificateParams::new(["a".to_owned()]).unwrap();
        let names = [
            (DnType::CountryName, "DE"),
            (DnType::OrganizationName, "Müller, Söhne + Co"),
            (DnType::CustomDnType(vec![1, 2, 3, 4]), "x"),
            (DnType::CommonName, "#1 <a> "),
        ];
        parameters.distinguished_name = rcgen::DistinguishedName::new();
        for (kind, value) in names {
            parameters.distinguished_name.push(kind, value);
        }
        parameters.serial_number = Some(SerialNumber::from(vec![0x0a, 0xff]));
        parameters.not_before = rcgen::date_time_ymd(2026, 1, 2);
        parameters.not_after = rcgen::date_time_ymd(2027, 12, 30);
        let made = parameters.self_signed(&KeyPair::generate().unwrap()).unwrap();
        of(made.der(), |parsed| {
            assert_eq!(
                name(parsed.subject()),
                "CN=\\#1 \\<a\\>\\ ,1.2.3.4=#0C0178,O=M\\C3\\BCller\\, S\\C3\\B6hne \\+ Co,C=DE"
            );
            assert_eq!(serial(parsed), "0AFF");
            assert_eq!(time(parsed.validity.not_before), "Jan  2 00:00:00 2026 GMT");
            assert_eq!(time(parsed.validity.not_after), "Dec 30 00:00:00 2027 GMT");
            assert_eq!(
                days(parsed.validity.not_before.timestamp(), parsed.validity.not_after.timestamp()),
                727
            );
        });
        let text = pem(made.der(), "\t");
        assert_eq!(text.lines().next(), Some("-----BEGIN CERTIFICATE-----"));
        assert!(text.lines().skip(1).all(|line| line.starts_with('\t') && line.len() <= 65), "{text}");
        assert!(text.ends_with("\n\t-----END CERTIFICATE-----"), "{text}");
        assert_eq!(days(10, 5), 0);
    }

    #[test]
    fn a_certificate_is_for_its_names_and_for_one_label_below_its_wildcards() {
        let names = ["a.test", "*.b.test"].map(str::to_owned);
        for (host, expected) in [
            ("a.test", true),
            ("A.test", true),
            ("x.a.test", false),
            ("x.b.test", true),
            ("b.test", false),
            ("x.y.b.test", false),
            ("test", false),
        ] {
            assert_eq!(is_for(&names, host), expected, "{host}");
        }
    }
}
