use super::*;

/// A folder that goes away with the test.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("hopgate-acme-{name}-{}", std::process::id()));
        let _ = fs::remove_dir_all(&path);
        Self(path)
    }

    fn store(&self) -> Store {
        let directory = "https://ca.example:14000/a dir".to_owned();
        let acme = Acme {
            directory,
            directory_ca: None,
            contact: Vec::new(),
            store: self.0.clone(),
            certificates: Vec::new(),
        };
        Store::open(&acme).unwrap()
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn names(names: &[&str]) -> CertificateNames {
    CertificateNames::new(names.iter().map(|name| (*name).to_owned())).unwrap()
}

fn pem(names: &[&str]) -> String {
    let key = rcgen::KeyPair::generate().unwrap();
    let names: Vec<_> = names.iter().map(|name| (*name).to_owned()).collect();
    let certificate = rcgen::CertificateParams::new(names).unwrap().self_signed(&key).unwrap();
    format!("{}{}", key.serialize_pem(), certificate.pem())
}

#[test]
fn a_certificate_is_found_by_its_names_in_any_order() {
    let folder = Folder::new("names");
    let store = folder.store();
    let both = names(&["a.example", "www.a.example"]);
    assert!(store.certificate(&both).unwrap().is_none());
    store.set_certificate(&both, &pem(&["www.a.example", "a.example"])).unwrap();
    assert!(store.certificate(&names(&["www.a.example", "a.example"])).unwrap().is_some());
    assert!(store.certificate(&names(&["a.example"])).unwrap().is_none());
}

#[test]
fn what_is_not_a_certificate_for_the_names_is_none() {
    let folder = Folder::new("unusable");
    let store = folder.store();
    let name = names(&["a.example"]);
    let other_key = pem(&["a.example"]);
    let (_, chain) = pem(&["a.example"])
        .split_once("-----BEGIN CERTIFICATE")
        .map(|(a, b)| (a.to_owned(), b.to_owned()))
        .unwrap();
    let (key, _) = other_key.split_once("-----BEGIN CERTIFICATE").unwrap();
    let mixed = format!("{key}-----BEGIN CERTIFICATE{chain}");
    for broken in ["", "text", key, &mixed, &pem(&["b.example"]), &pem(&["a.example"])[..200]] {
        store.set_certificate(&name, broken).unwrap();
        assert!(store.certificate(&name).is_err(), "{broken}");
    }
    store.set_certificate(&name, &other_key).unwrap();
    assert!(store.certificate(&name).unwrap().is_some());
}

#[test]
fn what_others_could_read_is_closed_to_them_by_who_opens_the_store_and_by_nobody_else() {
    let folder = Folder::new("modes");
    let store = folder.store();
    let name = names(&["a.example"]);
    store.set_certificate(&name, &pem(&["a.example"])).unwrap();
    store.set_notes(&name, &Notes::default()).unwrap();
    let (key, notes) = (store.file(&name, "pem"), store.file(&name, "json"));
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    for path in [&key, &notes] {
        fs::set_permissions(path, Permissions::from_mode(0o644)).unwrap();
    }
    assert!(store.certificate(&name).unwrap().is_some());
    assert_eq!(mode(&key), 0o644);
    folder.store();
    assert_eq!((mode(&key), mode(&notes)), (0o600, 0o644));
}

#[test]
fn notes_come_back_as_they_were() {
    let folder = Folder::new("notes");
    let store = folder.store();
    let name = names(&["a.example"]);
    assert_eq!(store.notes(&name), Notes::default());
    let notes = Notes {
        challenge: Some(Kind::TlsAlpn01),
        failures: 3,
        not_before: Some(UNIX_EPOCH + Duration::from_secs(1_800_000_000)),
        retry_after: Some(UNIX_EPOCH + Duration::from_secs(1_800_000_001)),
    };
    store.set_notes(&name, &notes).unwrap();
    assert_eq!(store.notes(&name), notes);
    fs::write(store.file(&name, "json"), "{\"failures\": \"many\", \"not_before\": -1}").unwrap();
    assert_eq!(store.notes(&name), Notes::default());
}

#[test]
fn a_lock_is_held_by_one_at_a_time() {
    let folder = Folder::new("lock");
    let store = folder.store();
    let (a, b) = (names(&["a.example"]), names(&["b.example"]));
    let held = store.lock(&Lock::Certificate(&a)).unwrap();
    assert!(held.is_some());
    assert!(store.lock(&Lock::Certificate(&a)).unwrap().is_none());
    assert!(store.lock(&Lock::Certificate(&b)).unwrap().is_some());
    assert!(store.lock(&Lock::Account).unwrap().is_some());
    drop(held);
    assert!(store.lock(&Lock::Certificate(&a)).unwrap().is_some());
}

#[test]
fn a_folder_that_is_a_file_is_said_to_be_one() {
    let folder = Folder::new("file");
    fs::write(&folder.0, "").unwrap();
    let acme = Acme {
        directory: "https://ca.example/".into(),
        directory_ca: None,
        contact: Vec::new(),
        store: folder.0.clone(),
        certificates: Vec::new(),
    };
    let error = Store::open(&acme).unwrap_err().to_string();
    assert!(error.contains("hopgate-acme-file"), "{error}");
    fs::remove_file(&folder.0).unwrap();
}
