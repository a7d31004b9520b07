//! DNS records as a zone file has them (RFC 1035 §5.1), one a line: what an administrator pastes.

use std::net::IpAddr;

use crate::net::dns::reverse_name;
use crate::types::Domain;

/// Octets of one string of a TXT record (RFC 1035 §3.3.14). A longer text is split; readers join it again.
const STRING_BYTES_MAX: usize = 255;

/// A TXT record: in as many strings as it needs.
pub(super) fn txt(owner: &str, text: &str) -> String {
    let strings: Vec<String> = strings(text).iter().map(|string| quoted(string)).collect();
    format!("{owner}. IN TXT {}", strings.join(" "))
}

/// A or AAAA.
pub(super) fn address(owner: &Domain, address: IpAddr) -> String {
    let kind = if address.is_ipv4() { "A" } else { "AAAA" };
    format!("{owner}. IN {kind} {address}")
}

/// MX of preference 10.
pub(super) fn mx(owner: &Domain, host: &Domain) -> String {
    format!("{owner}. IN MX 10 {host}.")
}

/// PTR of an address.
pub(super) fn ptr(address: IpAddr, name: &Domain) -> String {
    format!("{}. IN PTR {name}.", reverse_name(address))
}

fn strings(text: &str) -> Vec<&[u8]> {
    let chunks: Vec<&[u8]> = text.as_bytes().chunks(STRING_BYTES_MAX).collect();
    if chunks.is_empty() { vec![b""] } else { chunks }
}

/// What is no printable ASCII becomes `\DDD`.
fn quoted(string: &[u8]) -> String {
    let mut out = String::from("\"");
    for octet in string {
        match octet {
            b'"' | b'\\' => out.extend(['\\', char::from(*octet)]),
            b' '..=b'~' => out.push(char::from(*octet)),
            _ => out.push_str(&format!("\\{octet:03}")),
        }
    }
    out.push('"');
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_text_is_split_into_strings_of_255_octets() {
        let text = "p".repeat(600);
        let line = txt("ph1._domainkey.example.com", &text);
        let strings: Vec<&str> = line.split('"').skip(1).step_by(2).collect();
        assert_eq!(strings.iter().map(|string| string.len()).collect::<Vec<_>>(), [255, 255, 90]);
        assert_eq!(strings.concat(), text);
        assert!(line.starts_with("ph1._domainkey.example.com. IN TXT \"ppp"), "{line}");
    }

    #[test]
    fn what_a_zone_file_would_misread_is_escaped() {
        assert_eq!(txt("a.test", "a \"b\" \\ \u{1b}\u{e9}"), "a.test. IN TXT \"a \\\"b\\\" \\\\ \\027\\195\\169\"");
    }

    #[test]
    fn other_records_are_written_as_zone_files_have_them() {
        let (name, host) = (Domain::parse("b.test").unwrap(), Domain::parse("mail.test").unwrap());
        assert_eq!(address(&name, "192.0.2.1".parse().unwrap()), "b.test. IN A 192.0.2.1");
        assert_eq!(address(&name, "2001:db8::1".parse().unwrap()), "b.test. IN AAAA 2001:db8::1");
        assert_eq!(mx(&name, &host), "b.test. IN MX 10 mail.test.");
        assert_eq!(ptr("192.0.2.1".parse().unwrap(), &host), "1.2.0.192.in-addr.arpa. IN PTR mail.test.");
    }
}
