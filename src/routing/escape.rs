//! Percent-encoding as nginx does it where a decoded path becomes a target again.

/// Writes a decoded path so that it can stand in a target: what RFC 3986 does not allow there is encoded.
pub fn path(out: &mut Vec<u8>, text: &[u8]) {
    encode(out, text, |byte| matches!(byte, b'#' | b'%' | b'?'));
}

/// Writes a text so that it can stand in the query as one value.
pub fn argument(out: &mut Vec<u8>, text: &[u8]) {
    encode(out, text, |byte| matches!(byte, b'#' | b'%' | b'?' | b'&' | b'+' | b';'));
}

/// Writes a query that was put together from parts: those may have been decoded, so what would end the target
/// or the line is encoded. What is encoded already stays as it is.
pub fn query(out: &mut Vec<u8>, text: &[u8]) {
    for &byte in text {
        match byte {
            ..=b' ' | 0x7f | b'#' => push_encoded(out, byte),
            _ => out.push(byte),
        }
    }
}

/// Writes a text so that it can stand anywhere in a URL: all but the unreserved characters of RFC 3986 §2.3.
pub fn component(out: &mut Vec<u8>, text: &[u8]) {
    for &byte in text {
        match byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            true => out.push(byte),
            false => push_encoded(out, byte),
        }
    }
}

fn encode(out: &mut Vec<u8>, text: &[u8], is_special: impl Fn(u8) -> bool) {
    for &byte in text {
        let is_forbidden = byte <= b' ' || byte >= 0x7f || b"\"<>\\^`{|}".contains(&byte);
        if is_forbidden || is_special(byte) {
            push_encoded(out, byte);
        } else {
            out.push(byte);
        }
    }
}

fn push_encoded(out: &mut Vec<u8>, byte: u8) {
    const HEX: &[u8; 16] = b"0123456789ABCDEF";
    out.extend_from_slice(&[b'%', HEX[usize::from(byte >> 4)], HEX[usize::from(byte & 15)]]);
}

/// Decodes a path; what is no escape stays as it is.
pub fn decoded(text: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some((&byte, behind)) = rest.split_first() {
        let digit = |at: usize| behind.get(at).and_then(|byte| (*byte as char).to_digit(16));
        match (byte, digit(0).zip(digit(1))) {
            (b'%', Some((high, low))) => {
                out.push((high * 16 + low) as u8);
                rest = &behind[2..];
            }
            _ => {
                out.push(byte);
                rest = behind;
            }
        }
    }
    out
}

/// Decodes what needs no encoding in the target of a redirect, up to its query. As in nginx a `%3F` begins one.
pub fn tidy_redirect(text: &[u8]) -> Vec<u8> {
    let end = memchr::memchr(b'?', text).unwrap_or(text.len());
    let mut tidy = Vec::with_capacity(text.len());
    let mut rest = &text[..end];
    while let Some((&byte, behind)) = rest.split_first() {
        let digit = |at: usize| behind.get(at).and_then(|byte| (*byte as char).to_digit(16));
        match (byte, digit(0).zip(digit(1))) {
            (b'%', Some((high, low))) => {
                let decoded = (high * 16 + low) as u8;
                rest = &behind[2..];
                match decoded {
                    b'?' => {
                        tidy.push(decoded);
                        tidy.extend_from_slice(rest);
                        rest = b"";
                    }
                    b'&'..0x7f => tidy.push(decoded),
                    _ => tidy.extend_from_slice(&[byte, behind[0], behind[1]]),
                }
            }
            _ => {
                tidy.push(byte);
                rest = behind;
            }
        }
    }
    tidy.extend_from_slice(&text[end..]);
    tidy
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_may_not_stand_in_a_target_is_encoded() {
        let mut out = Vec::new();
        path(&mut out, b"/a b?c%\xc3\xbc\"+&;");
        assert_eq!(out, b"/a%20b%3Fc%25%C3%BC%22+&;");
        out.clear();
        argument(&mut out, b"a b+c&d");
        assert_eq!(out, b"a%20b%2Bc%26d");
        out.clear();
        query(&mut out, b"a=b c%20d&e=\r\nX: y#+?\xff");
        assert_eq!(out, b"a=b%20c%20d&e=%0D%0AX:%20y%23+?\xff");
    }

    #[test]
    fn a_path_is_decoded_as_far_as_it_can_be() {
        assert_eq!(decoded(b"/a%20b/%2e%2E/%zz%4"), b"/a b/../%zz%4");
    }

    #[test]
    fn a_redirect_keeps_only_the_encoding_that_it_needs() {
        assert_eq!(tidy_redirect(b"/%41%20%2F%25?%41"), b"/A%20/%25?%41");
        assert_eq!(tidy_redirect(b"/%41%3f%41?%41"), b"/A?%41?%41");
        assert_eq!(tidy_redirect(b"/100%"), b"/100%");
    }
}
