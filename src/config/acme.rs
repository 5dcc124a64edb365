//! From whom certificates are ordered, for which names, and where they are kept.

use std::fmt;
use std::path::PathBuf;

/// `[acme]`, if any server has `tls = "acme"`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Acme {
    /// The URL of the CA's directory.
    pub directory: String,
    /// A file with the CA certificates that the directory's own certificate is checked with; `None`: the system's.
    pub directory_ca: Option<PathBuf>,
    /// Who the CA writes to, as `mailto:` URLs.
    pub contact: Vec<String>,
    /// The folder of accounts, certificates and keys.
    pub store: PathBuf,
    /// The certificates that are wanted, each once.
    pub certificates: Vec<CertificateNames>,
}

/// The names that a certificate is for: at least one, each once, the shortest first.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct CertificateNames(Vec<String>);

impl CertificateNames {
    /// Of these names; `None` if there are none.
    pub fn new(names: impl IntoIterator<Item = String>) -> Option<Self> {
        let mut names: Vec<_> = names.into_iter().collect();
        names.sort_by(|a, b| (a.len(), a).cmp(&(b.len(), b)));
        names.dedup();
        (!names.is_empty()).then_some(Self(names))
    }

    /// The shortest of them, which the certificate is called by.
    pub fn first(&self) -> &str {
        &self.0[0]
    }

    /// All of them.
    pub fn all(&self) -> &[String] {
        &self.0
    }
}

/// As people say it: `a.example`, `a.example and www.a.example`, `a.example and 3 others`.
impl fmt::Display for CertificateNames {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.all() {
            [first, second] => write!(f, "{first} and {second}"),
            [first, _, others @ ..] => write!(f, "{first} and {} others", others.len() + 1),
            _ => f.write_str(self.first()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_order_in_the_file_makes_no_other_certificate() {
        let names = |names: &[&str]| CertificateNames::new(names.iter().map(|name| (*name).to_owned()));
        let both = names(&["www.a.example", "a.example", "www.a.example"]).unwrap();
        assert_eq!(Some(&both), names(&["a.example", "www.a.example"]).as_ref());
        assert_eq!((both.first(), both.to_string().as_str()), ("a.example", "a.example and www.a.example"));
        assert_eq!(names(&["a.b", "c.b", "d.b"]).unwrap().to_string(), "a.b and 2 others");
        assert_eq!(names(&[]), None);
    }
}
