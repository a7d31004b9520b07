//! The `Received` field that this server adds (RFC 5321 §4.4), and the cleaning of words that a client chose.

use std::net::IpAddr;

use super::stamp::Context;

/// Octets of a HELO name that are shown; the rest is cut.
const HELO_BYTES_MAX: usize = 255;
/// Octets of a keyword or of the TLS text that are shown; both are ours, so this is only a guard for the line length.
const WORD_BYTES_MAX: usize = 200;

/// Appends a folded `Received` field, with its line end.
pub(super) fn write(out: &mut Vec<u8>, context: &Context<'_>, id: &str, date: &str) {
    out.extend_from_slice(b"Received: ");
    if let Some(client) = &context.client {
        out.extend_from_slice(b"from ");
        write_helo(out, client.helo, client.address);
        out.extend_from_slice(b" (");
        write_address_literal(out, client.address);
        out.extend_from_slice(b")\r\n\t");
    }
    out.extend_from_slice(b"by ");
    write_clean(out, context.hostname, HELO_BYTES_MAX, is_host_byte);
    out.extend_from_slice(b" with ");
    write_clean(out, context.protocol, WORD_BYTES_MAX, |byte| byte.is_ascii_alphanumeric());
    if let Some(tls) = context.tls {
        out.extend_from_slice(b" (");
        write_clean(out, tls, WORD_BYTES_MAX, is_comment_byte);
        out.push(b')');
    }
    out.extend_from_slice(b"\r\n\tid ");
    out.extend_from_slice(id.as_bytes());
    // RFC 5321 §7.6: the other recipients of a message are not told.
    if let [only] = context.envelope.recipients.as_slice() {
        out.extend_from_slice(b"\r\n\tfor <");
        out.extend_from_slice(only.address.to_ascii_domain().as_bytes());
        out.push(b'>');
    }
    out.extend_from_slice(b";\r\n\t");
    out.extend_from_slice(date.as_bytes());
    out.extend_from_slice(b"\r\n");
}

/// A HELO name is whatever the client said: an address literal stays where it is one, every octet that no host name
/// has becomes `_`, and nothing at all becomes the client's address.
fn write_helo(out: &mut Vec<u8>, helo: &str, address: IpAddr) {
    if helo.is_empty() {
        write_address_literal(out, address);
    } else if let Some(literal) = parse_literal(helo) {
        write_address_literal(out, literal);
    } else {
        write_clean(out, helo, HELO_BYTES_MAX, is_host_byte);
    }
}

fn parse_literal(helo: &str) -> Option<IpAddr> {
    let inner = helo.strip_prefix('[')?.strip_suffix(']')?;
    match inner.get(..5) {
        Some(tag) if tag.eq_ignore_ascii_case("IPv6:") => inner.get(5..)?.parse().ok().map(IpAddr::V6),
        _ => inner.parse().ok().map(IpAddr::V4),
    }
}

/// `[192.0.2.1]` or `[IPv6:2001:db8::1]` (RFC 5321 §4.1.3).
fn write_address_literal(out: &mut Vec<u8>, address: IpAddr) {
    let text = match address {
        IpAddr::V4(v4) => format!("[{v4}]"),
        IpAddr::V6(v6) => format!("[IPv6:{v6}]"),
    };
    out.extend_from_slice(text.as_bytes());
}

fn write_clean(out: &mut Vec<u8>, text: &str, bytes_max: usize, allowed: impl Fn(u8) -> bool) {
    out.extend(text.bytes().take(bytes_max).map(|byte| if allowed(byte) { byte } else { b'_' }));
}

fn is_host_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_')
}

/// Printable, and nothing that would end or nest a comment (RFC 5322 §3.2.2 `ctext`).
fn is_comment_byte(byte: u8) -> bool {
    matches!(byte, b' '..=b'~') && !matches!(byte, b'(' | b')' | b'\\')
}
