//! Certificate authorities that tests make for themselves, and what they issue.

use std::fs;
use std::process::Command;

use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, CertifiedIssuer, DnType,
    ExtendedKeyUsagePurpose, IsCa, KeyIdMethod, KeyPair, KeyUsagePurpose, RevokedCertParams, SerialNumber,
    date_time_ymd,
};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use rustls::sign::{CertifiedKey, SingleCertAndKey};

use super::Dir;

/// A certificate authority.
pub struct Authority {
    issuer: CertifiedIssuer<'static, KeyPair>,
}

/// A certificate with its key.
pub struct Issued {
    /// The certificate, and behind it those that it was issued by, but for the root.
    pub chain: Vec<CertificateDer<'static>>,
    key: KeyPair,
    pem: String,
    serial: SerialNumber,
}

/// A certificate with this common name and these subject alternative names.
pub fn certificate(common_name: &str, names: &[&str]) -> CertificateParams {
    let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
    let mut params = CertificateParams::new(names).expect("names that a certificate can have");
    params.distinguished_name.push(DnType::CommonName, common_name);
    params.serial_number = Some(SerialNumber::from(fastrand::u64(1..)));
    params
}

impl Authority {
    /// A root of this name.
    pub fn new(name: &str) -> Self {
        let key = KeyPair::generate().expect("a key");
        let issuer = CertifiedIssuer::self_signed(of_ca(name), key).expect("a root");
        Self { issuer }
    }

    /// The certificate of the root.
    pub fn pem(&self) -> String {
        self.issuer.pem()
    }

    /// The same as DER.
    pub fn der(&self) -> &CertificateDer<'static> {
        self.issuer.der()
    }

    /// A certificate for these names.
    pub fn issue(&self, names: &[&str]) -> Issued {
        self.sign(certificate("a server", names))
    }

    /// A certificate as it is described.
    pub fn sign(&self, params: CertificateParams) -> Issued {
        self.sign_with(params, KeyPair::generate().expect("a key"))
    }

    /// A certificate for this key.
    pub fn sign_with(&self, params: CertificateParams, key: KeyPair) -> Issued {
        let certificate = params.signed_by(&key, &self.issuer).expect("a certificate");
        Issued {
            chain: vec![certificate.der().clone()],
            key,
            pem: certificate.pem(),
            serial: params.serial_number.expect("a serial number"),
        }
    }

    /// A certificate of X.509 version 1, as `openssl x509 -req` makes it.
    pub fn sign_version_1(&self, common_name: &str) -> Issued {
        let dir = Dir::new();
        let key = KeyPair::generate().expect("a key");
        let serial = SerialNumber::from(fastrand::u64(1..1 << 62));
        fs::write(dir.join("ca.pem"), self.pem()).expect("a file can be written");
        fs::write(dir.join("ca.key"), self.issuer.key().serialize_pem()).expect("a file can be written");
        fs::write(dir.join("own.key"), key.serialize_pem()).expect("a file can be written");
        let openssl = |arguments: &str| {
            let mut command = Command::new("openssl");
            let done = command.args(arguments.split(' ')).current_dir(&dir).output().expect("openssl runs");
            assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
        };
        openssl(&format!("req -new -key own.key -subj /CN={common_name} -out own.csr"));
        openssl(&format!(
            "x509 -req -in own.csr -CA ca.pem -CAkey ca.key -set_serial 0x{} -days 90 -out own.pem",
            serial.to_string().replace(':', "")
        ));
        let pem = fs::read_to_string(dir.join("own.pem")).expect("a file can be read");
        let chain = vec![CertificateDer::from_pem_slice(pem.as_bytes()).expect("a certificate")];
        Issued { chain, key, pem, serial }
    }

    /// The list of what it has revoked.
    pub fn revocations(&self, revoked: &[&Issued]) -> String {
        let revoked = revoked.iter().map(|issued| RevokedCertParams {
            serial_number: issued.serial.clone(),
            revocation_time: date_time_ymd(2024, 1, 1),
            reason_code: None,
            invalidity_date: None,
        });
        let list = CertificateRevocationListParams {
            this_update: date_time_ymd(2024, 1, 1),
            next_update: date_time_ymd(2060, 1, 1),
            crl_number: SerialNumber::from(1),
            issuing_distribution_point: None,
            revoked_certs: revoked.collect(),
            key_identifier_method: KeyIdMethod::Sha256,
        };
        list.signed_by(&self.issuer).expect("a list").pem().expect("a list as PEM")
    }
}

fn of_ca(name: &str) -> CertificateParams {
    let mut params = CertificateParams::new(Vec::new()).expect("a CA has no names");
    params.distinguished_name.push(DnType::CommonName, name);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params
}

impl Issued {
    /// A self-signed one that says of itself that it may issue others, as those of `openssl req -x509` do.
    pub fn by_itself(names: &[&str]) -> Self {
        let mut params = certificate("by itself", names);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().expect("a key");
        let certificate = params.self_signed(&key).expect("a certificate");
        Self {
            chain: vec![certificate.der().clone()],
            key,
            pem: certificate.pem(),
            serial: params.serial_number.expect("a serial number"),
        }
    }

    /// As PEM.
    pub fn pem(&self) -> &str {
        &self.pem
    }

    /// The key as PEM.
    pub fn key_pem(&self) -> String {
        self.key.serialize_pem()
    }

    /// The key.
    pub fn key(&self) -> PrivateKeyDer<'static> {
        PrivatePkcs8KeyDer::from(self.key.serialize_der()).into()
    }

    /// With its key, for rustls, which of itself takes no certificate of version 1.
    pub fn pair(&self) -> SingleCertAndKey {
        let key = rustls::crypto::aws_lc_rs::default_provider().key_provider.load_private_key(self.key());
        CertifiedKey::new(self.chain.clone(), key.expect("a key")).into()
    }

    /// Writes `NAME.pem` and `NAME.key` into a directory.
    pub fn write(&self, dir: &Dir, name: &str) {
        fs::write(dir.join(&format!("{name}.pem")), self.pem()).expect("a file can be written");
        fs::write(dir.join(&format!("{name}.key")), self.key_pem()).expect("a file can be written");
    }
}

/// With the purpose of a client's alone.
pub fn for_clients(common_name: &str) -> CertificateParams {
    let mut params = certificate(common_name, &[]);
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    params
}
