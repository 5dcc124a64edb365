//! Passwords as `htpasswd`, `openssl passwd` and `mkpasswd` write them, and whether one is right.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use md5::Md5;
use sha1::{Digest, Sha1};
use subtle::ConstantTimeEq;
use yescrypt::{PasswordVerifier, Yescrypt};

/// The longest password that crypt(3) takes. Hashes that are costly on purpose would be more so with each
/// byte of it.
const LONGEST: usize = 511;

/// Whether a look at this takes so long that a worker should not do it by itself: 0.3 ms for `apr1`, and
/// from 3 ms up for what is made today.
pub fn is_costly(stored: &[u8]) -> bool {
    ![&b"{PLAIN}"[..], b"{SHA}", b"{SSHA}"].iter().any(|scheme| stored.starts_with(scheme))
}

/// Whether a password is the one that is stored. What is stored in no form that is known here is the
/// password of nobody.
///
/// nginx: `{PLAIN}`, `{SHA}`, `{SSHA}` and `$apr1$` by itself, the others by crypt(3).
pub fn is_right(password: &[u8], stored: &[u8]) -> bool {
    // As for crypt(3), a password ends with the first NUL.
    let password = password.split(|byte| *byte == 0).next().unwrap_or_default();
    if let Some(plain) = stored.strip_prefix(b"{PLAIN}") {
        return plain.ct_eq(password).into();
    }
    if let Some(encoded) = stored.strip_prefix(b"{SHA}") {
        return STANDARD.decode(encoded).is_ok_and(|digest| digest.len() == 20 && sha(password, &digest));
    }
    if let Some(encoded) = stored.strip_prefix(b"{SSHA}") {
        return STANDARD.decode(encoded).is_ok_and(|digest| digest.len() >= 20 && sha(password, &digest));
    }
    let Ok(stored) = std::str::from_utf8(stored) else { return false };
    if password.len() > LONGEST {
        return false;
    }
    match stored {
        _ if stored.starts_with("$apr1$") => {
            apr1(password, stored).as_bytes().ct_eq(stored.as_bytes()).into()
        }
        _ if stored.starts_with("$y$") => Yescrypt::default().verify_password(password, stored).is_ok(),
        _ => pwhash::unix::verify(password, stored),
    }
}

/// The SHA-1 of the password and a salt, with that salt behind it.
fn sha(password: &[u8], digest_and_salt: &[u8]) -> bool {
    let (digest, salt) = digest_and_salt.split_at(20);
    Sha1::new().chain_update(password).chain_update(salt).finalize().as_slice().ct_eq(digest).into()
}

/// Apache's variant of FreeBSD's MD5 crypt, which differs from it in its name alone.
fn apr1(password: &[u8], stored: &str) -> String {
    let salt = stored["$apr1$".len()..].split('$').next().unwrap_or_default();
    let salt = &salt.as_bytes()[..salt.len().min(8)];
    let inner = Md5::new().chain_update(password).chain_update(salt).chain_update(password).finalize();
    let mut outer = Md5::new().chain_update(password).chain_update(b"$apr1$").chain_update(salt);
    for part in password.chunks(16) {
        outer.update(&inner[..part.len()]);
    }
    let mut bits = password.len();
    while bits > 0 {
        outer.update(if bits & 1 == 1 { &[0] } else { &password[..1] });
        bits >>= 1;
    }
    let mut digest = outer.finalize();
    for round in 0..1000 {
        let (first, last): (&[u8], &[u8]) =
            if round % 2 == 1 { (password, &digest) } else { (&digest, password) };
        let mut next = Md5::new().chain_update(first);
        if round % 3 != 0 {
            next.update(salt);
        }
        if round % 7 != 0 {
            next.update(password);
        }
        digest = next.chain_update(last).finalize();
    }
    format!("$apr1${}${}", String::from_utf8_lossy(salt), encode(&digest))
}

/// The digits of crypt(3): six bits each, the lowest first, of the bytes in an order of their own.
fn encode(digest: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"./0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
    const ORDER: [[usize; 3]; 5] = [[0, 6, 12], [1, 7, 13], [2, 8, 14], [3, 9, 15], [4, 10, 5]];
    let mut text = String::with_capacity(22);
    let mut push = |mut bits: u32, count: usize| {
        for _ in 0..count {
            text.push(char::from(DIGITS[(bits & 63) as usize]));
            bits >>= 6;
        }
    };
    for places in ORDER {
        push(places.iter().fold(0, |bits, place| bits << 8 | u32::from(digest[*place])), 4);
    }
    push(u32::from(digest[11]), 2);
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Made with openssl, and with the crypt(3) of Debian.
    const STORED: &[&str] = &[
        "{PLAIN}password",
        "{SHA}W6ph5Mm5Pz8GgiULbPgzG37mj9g=",
        "{SSHA}yI6cZwQadOA1e+/f+T+H3eCQQhRzYWx0",
        "$apr1$salt$Xxd1irWT9ycqoYxGFn4cb.",
        "sa3tHJ3/KuYvI",
        "$1$salt$qJH7.N4xYta3aEG/dfqo/0",
        "$5$salt$Gcm6FsVtF/Qa77ZKD.iwsJlCVPY0XSMgLJL0Hnww/c1",
        "$5$rounds=1000$salt$p.wiWs2zrZ7irikO2AL64QDIJo00A3KDq2xWHpLJGgB",
        "$6$salt$IxDD3jeSOb5eB1CX5LBsqZFVkJdido3OUILO5Ifz5iwMuTS4XMS130MTSuDDl3aCI6WouIL9AjRbLCelDCy.g.",
        "$2y$05$abcdefghijklmnopqrstuuWG29KuyeAicPCJODk1zjyGvyQUU2awu",
        "$y$j9T$abcdefgh$79JhsKZwfY/UU2qrk3QcffpHl7EyEEJK0pA5pD1wu73",
    ];

    #[test]
    fn every_form_of_a_password_is_known() {
        for stored in STORED {
            assert!(is_right(b"password", stored.as_bytes()), "{stored}");
            for wrong in ["Password", "passwor", "passwore", "", "123"] {
                assert!(!is_right(wrong.as_bytes(), stored.as_bytes()), "{stored} {wrong}");
            }
            let cut = &stored[..stored.len() - 1];
            assert!(!is_right(b"password", cut.as_bytes()), "{cut}");
        }
    }

    #[test]
    fn what_is_no_form_of_a_password_is_nobodys() {
        for stored in [
            "",
            "$1$",
            "$apr1$",
            "$",
            "$$",
            "*",
            "!",
            "x",
            "password",
            "{SHA}",
            "{SSHA}",
            "{SHA}Zm9vCg==",
            "{SSHA}Zm9vCg==",
            "{SHA}_____Mm5Pz8GgiULbPgzG37mj9g=",
            "{MD5}x",
            "$2y$",
            "$2y$99$",
            "$y$",
            "$6$rounds=",
            "$apr1$ü",
            "ü",
            "üü",
            "*0",
            "*1",
            "$7$",
            "_",
            "_J9..",
        ] {
            for password in ["password", "", "x"] {
                assert!(!is_right(password.as_bytes(), stored.as_bytes()), "{stored} {password}");
            }
        }
        assert!(!is_right(&[b'x'; 512], b"sa3tHJ3/KuYvI"));
        assert!(is_right(b"", b"{PLAIN}"));
    }

    #[test]
    fn passwords_of_every_length_have_the_digest_that_openssl_gives_them() {
        for (password, stored) in APR1 {
            assert!(is_right(password.as_bytes(), stored.as_bytes()), "{password}");
        }
    }

    const APR1: &[(&str, &str)] = &[
        ("", "$apr1$12345678$sHuPAw7VA9xjRbJz7zKV7/"),
        ("a", "$apr1$12345678$68ZQVfPkWX/wcXr/41VxQ."),
        ("0123456789abcdef", "$apr1$12345678$vc38ZupyU1KkWqFuFfTA/."),
        ("0123456789abcdefg", "$apr1$12345678$CKLG1hUVwDnnbEmR9eB5r."),
        ("pä ss", "$apr1$12345678$btqYqS9w9UUpVVMo3mmE60"),
    ];

    proptest! {
        #[test]
        fn nothing_that_is_stored_makes_it_panic(
            stored in prop_oneof!["\\PC{0,24}", "\\$(1|5|6|2y|y|apr1|sha1)\\$[ -~]{0,24}", "_[ -~]{0,24}"],
            password in "\\PC{0,8}",
        ) {
            is_right(password.as_bytes(), stored.as_bytes());
        }
    }
}
