//! 8-bit header fields made 7-bit (RFC 2047, RFC 2231): for clients that write raw text into a header and never heard of
//! SMTPUTF8, so that any host can carry the message.
//!
//! Text becomes encoded-words, quoted parameters of MIME fields become extended parameters. Octets that are no UTF-8 are
//! labelled ISO 8859-1, which such clients mean. Promises: the result is US-ASCII, its lines are as short as its longest
//! ASCII word allows, and what was ASCII stays in place. Does not: touch an address, which no encoding can carry (RFC
//! 2047 §5): that is refused.

use mail_builder::encoders::Base64Encoder;

use super::header::Field;

/// Octets of text in one encoded-word: four base64 digits for three, and an encoded-word has at most 75 (RFC 2047 §2).
const WORD_TEXT_BYTES_MAX: usize = 39;

/// What separates the lines of one field.
const FOLD: &[u8] = b"\r\n ";

/// The value of a field without line breaks, as US-ASCII with folds of its own; `None` where an address holds the octets.
pub(super) fn encode(field: &Field<'_>) -> Option<Vec<u8>> {
    let value: Vec<u8> = field.after_colon().iter().copied().filter(|byte| !matches!(byte, b'\r' | b'\n')).collect();
    let value = trim(&value);
    let charset = if std::str::from_utf8(value).is_ok() { "utf-8" } else { "iso-8859-1" };
    let mut out = Vec::with_capacity(2 * value.len() + 32);
    match kind(field.name()) {
        Kind::Text => text(&mut out, value, charset),
        Kind::Addresses => structured(&mut out, value, charset, false)?,
        Kind::Mime => structured(&mut out, value, charset, true)?,
    }
    Some(out)
}

enum Kind {
    Text,
    Addresses,
    Mime,
}

fn kind(name: &[u8]) -> Kind {
    let name = name.to_ascii_lowercase();
    let name = name.strip_prefix(b"resent-").unwrap_or(&name);
    match name {
        b"from" | b"sender" | b"to" | b"cc" | b"reply-to" | b"disposition-notification-to" => Kind::Addresses,
        _ if name.starts_with(b"content-") && name != b"content-description" => Kind::Mime,
        _ => Kind::Text,
    }
}

/// Words with octets above 127, and the blanks between them, become encoded-words.
fn text(out: &mut Vec<u8>, value: &[u8], charset: &str) {
    let mut rest = value;
    while let Some(at) = rest.iter().position(|byte| !byte.is_ascii()) {
        let start = rest.iter().take(at).rposition(|byte| is_blank(*byte)).map_or(0, |blank| blank + 1);
        let last = rest.iter().rposition(|byte| !byte.is_ascii()).unwrap_or(at);
        // One run may hold ASCII words between two that are not: shorter than a break in each place.
        let end = rest.iter().skip(last).position(|byte| is_blank(*byte)).map_or(rest.len(), |blank| last + blank);
        let (head, tail) = rest.split_at_checked(end).unwrap_or((rest, &[]));
        let (before, run) = head.split_at_checked(start).unwrap_or((&[], head));
        out.extend_from_slice(before);
        words(out, run, charset);
        rest = tail;
    }
    out.extend_from_slice(rest);
}

/// Encoded-words for a run of text, each on a line of its own but the first.
fn words(out: &mut Vec<u8>, run: &[u8], charset: &str) {
    let mut rest = run;
    let mut first = true;
    while !rest.is_empty() {
        let mut length = rest.len().min(WORD_TEXT_BYTES_MAX);
        // Never within a character (RFC 2047 §5).
        while charset == "utf-8" && length > 1 && rest.get(length).is_some_and(|byte| byte & 0xc0 == 0x80) {
            length -= 1;
        }
        let (piece, tail) = rest.split_at_checked(length).unwrap_or((rest, &[]));
        if !std::mem::replace(&mut first, false) {
            out.extend_from_slice(FOLD);
        }
        let mut digits = Vec::new();
        Base64Encoder::new().encode_into(piece, &mut digits);
        out.extend_from_slice(format!("=?{charset}?B?").as_bytes());
        out.extend_from_slice(&digits);
        out.extend_from_slice(b"?=");
        rest = tail;
    }
}

/// Fields with syntax: only phrases, comments and quoted parameters may hold text.
fn structured(out: &mut Vec<u8>, value: &[u8], charset: &str, is_mime: bool) -> Option<()> {
    let mut rest = value;
    while let Some(first) = rest.first() {
        let length = match first {
            b'"' => quoted_length(rest),
            b'(' => rest.iter().position(|byte| *byte == b')').map_or(rest.len(), |end| end + 1),
            b'<' => rest.iter().position(|byte| *byte == b'>').map_or(rest.len(), |end| end + 1),
            byte if is_separator(*byte) => 1,
            _ => rest.iter().position(|byte| is_separator(*byte) || b"\"(<".contains(byte)).unwrap_or(rest.len()),
        };
        let (token, tail) = rest.split_at_checked(length.max(1)).unwrap_or((rest, &[]));
        match first {
            _ if token.is_ascii() => out.extend_from_slice(token),
            b'"' if is_mime => parameter(out, &unquoted(token), charset),
            b'"' => words(out, &unquoted(token), charset),
            b'(' => {
                out.push(b'(');
                words(out, token.get(1..token.len() - usize::from(token.ends_with(b")"))).unwrap_or_default(), charset);
                out.push(b')');
            }
            // Neither in angle brackets nor in a bare address is there a way to say it.
            b'<' => return None,
            _ if token.contains(&b'@') => return None,
            _ => words(out, token, charset),
        }
        rest = tail;
    }
    Some(())
}

/// `name="text"` becomes `name*=charset''text` (RFC 2231 §4).
fn parameter(out: &mut Vec<u8>, value: &[u8], charset: &str) {
    if out.ends_with(b"=") {
        out.pop();
        out.extend_from_slice(b"*=");
    }
    out.extend_from_slice(format!("{charset}''").as_bytes());
    for byte in value {
        if byte.is_ascii_alphanumeric() || b"-._".contains(byte) {
            out.push(*byte);
        } else {
            out.extend_from_slice(format!("%{byte:02X}").as_bytes());
        }
    }
}

/// Octets of the quoted-string at the start, both quotes included.
fn quoted_length(input: &[u8]) -> usize {
    let mut escaped = false;
    for (at, byte) in input.iter().enumerate().skip(1) {
        match byte {
            _ if escaped => escaped = false,
            b'\\' => escaped = true,
            b'"' => return at + 1,
            _ => {}
        }
    }
    input.len()
}

fn unquoted(token: &[u8]) -> Vec<u8> {
    let inner = token.strip_prefix(b"\"").unwrap_or(token);
    let inner = inner.strip_suffix(b"\"").unwrap_or(inner);
    let mut escaped = false;
    let keep = |byte: &u8| {
        escaped = !escaped && *byte == b'\\';
        !escaped
    };
    inner.iter().copied().filter(keep).collect()
}

fn is_separator(byte: u8) -> bool {
    is_blank(byte) || b",;:=".contains(&byte)
}

fn is_blank(byte: u8) -> bool {
    byte == b' ' || byte == b'\t'
}

fn trim(value: &[u8]) -> &[u8] {
    let start = value.iter().position(|byte| !is_blank(*byte)).unwrap_or(value.len());
    let end = value.iter().rposition(|byte| !is_blank(*byte)).map_or(start, |last| last + 1);
    value.get(start..end).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::header::Fields;
    use super::*;

    fn run(field: &[u8]) -> Option<String> {
        let block = [field, b"\r\n\r\n"].concat();
        let field = Fields::new(&block).next().unwrap();
        encode(&field).map(|value| String::from_utf8(value).unwrap())
    }

    /// What a reader makes of the field.
    fn read(field: &str, value: &str) -> String {
        let text = format!("{field}: {value}\r\n\r\n");
        let message = mail_parser::MessageParser::default().parse(text.as_bytes()).unwrap().into_owned();
        match field {
            "Subject" => message.subject().unwrap_or_default().to_owned(),
            "To" => {
                let to = message.to().and_then(|to| to.first().cloned()).unwrap();
                format!("{}|{}", to.name().unwrap_or_default(), to.address().unwrap_or_default())
            }
            _ => unreachable!(),
        }
    }

    #[test]
    fn text_is_read_as_it_was_written() {
        for subject in [
            "Grüße",
            "Hello Wörld and more",
            "日本語のとても長い件名です、何行にもわたって続きます、まだまだ続きます",
            "a ü b ö c",
        ] {
            let value = run(format!("Subject: {subject}").as_bytes()).unwrap();
            assert!(value.is_ascii() && value.split("\r\n").all(|line| line.len() <= 90), "{value}");
            assert_eq!(read("Subject", &value), subject);
        }
        assert_eq!(run(b"Subject: J\xfcrgen").as_deref(), Some("=?iso-8859-1?B?SvxyZ2Vu?="));
        assert_eq!(read("Subject", &run(b"Subject: J\xfcrgen").unwrap()), "Jürgen");
    }

    #[test]
    fn names_are_encoded_and_addresses_are_left_alone() {
        for (field, read_as) in [
            ("To: \"Jürgen, \\\"J\\\" Müller\" <j@x.test>", "Jürgen, \"J\" Müller|j@x.test"),
            ("To: Jürgen <j@x.test>, b@x.test", "Jürgen|j@x.test"),
        ] {
            assert_eq!(read("To", &run(field.as_bytes()).unwrap()), read_as);
        }
        assert_eq!(run("To: <jürgen@x.test>".as_bytes()), None);
        assert_eq!(run("To: jürgen@x.test".as_bytes()), None);
    }

    #[test]
    fn file_names_become_extended_parameters() {
        assert_eq!(
            run("Content-Disposition: attachment; filename=\"Ü b.pdf\"; size=3".as_bytes()).as_deref(),
            Some("attachment; filename*=utf-8''%C3%9C%20b.pdf; size=3")
        );
    }

    proptest! {
        #[test]
        fn any_value_becomes_ascii_without_bare_line_ends(
            name in "(Subject|To|Content-Type|X-Any)",
            value in proptest::collection::vec(any::<u8>().prop_filter("a field", |b| !matches!(b, b'\r' | b'\n' | 0)), 0..300),
        ) {
            let block = [name.as_bytes(), b": ", &value, b"\r\n\r\n"].concat();
            if let Some(encoded) = Fields::new(&block).next().and_then(|field| encode(&field)) {
                prop_assert!(encoded.is_ascii());
                let text = String::from_utf8(encoded).unwrap().replace("\r\n ", "");
                prop_assert!(!text.contains(['\r', '\n']));
            }
        }
    }
}
