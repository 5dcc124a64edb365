//! Members of a list-valued field over all its lines, RFC 9110 §5.6.1.

/// The members of a comma-separated list over any number of lines: blanks around them taken off,
/// empty members left out.
pub fn members<'a>(lines: impl Iterator<Item = &'a [u8]> + Clone) -> impl Iterator<Item = &'a [u8]> + Clone {
    lines.flat_map(|line| line.split(|byte| *byte == b',')).map(<[u8]>::trim_ascii).filter(|m| !m.is_empty())
}

/// Whether `wanted` is one of the members, as a whole and in any case.
pub fn contains<'a>(lines: impl Iterator<Item = &'a [u8]> + Clone, wanted: &str) -> bool {
    members(lines).any(|member| member.eq_ignore_ascii_case(wanted.as_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_is_the_members_of_all_its_lines() {
        let lines: [&[u8]; 4] = [b"keep-alive, Upgrade", b"", b" ,, a\t,", b"b"];
        let found: Vec<_> = members(lines.into_iter()).collect();
        assert_eq!(found, [b"keep-alive".as_slice(), b"Upgrade", b"a", b"b"]);
    }

    #[test]
    fn a_member_is_compared_as_a_whole_and_in_any_case() {
        for (line, expected) in [
            ("upgrade", true),
            ("keep-alive, UPGRADE", true),
            ("upgrades", false),
            ("x-upgrade", false),
            ("upgrade;q=1", false),
            ("", false),
        ] {
            assert_eq!(contains([line.as_bytes()].into_iter(), "upgrade"), expected, "{line}");
        }
    }
}
