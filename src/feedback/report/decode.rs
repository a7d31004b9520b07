//! Octets into text: transfer encodings (RFC 2045 §6), charsets, encoded words (RFC 2047), xtext (RFC 3461 §4, RFC 6533 §3), HTML.
//!
//! Promises: any octets give a text; one pass each; what is broken is left out or shown as it stands. Does not: judge.

use std::borrow::Cow;

use mail_parser::decoders::charsets::map::charset_decoder;

/// Octets of one encoded word; RFC 2047 §2 allows 75. Above: it is left as it stands.
const WORD_BYTES_MAX: usize = 1_000;

/// Base64 as mail holds it: line ends, blanks and strange octets are skipped, padding may be missing.
pub(super) fn base64(input: &[u8]) -> Vec<u8> {
    let mut output = Vec::with_capacity(input.len() / 4 * 3 + 3);
    let (mut bits, mut count) = (0_u32, 0_u32);
    for byte in input {
        let digit = match byte {
            b'A'..=b'Z' => byte - b'A',
            b'a'..=b'z' => byte - b'a' + 26,
            b'0'..=b'9' => byte - b'0' + 52,
            b'+' | b'-' => 62,
            b'/' | b'_' => 63,
            // Another text may follow one that ended.
            b'=' => {
                (bits, count) = (0, 0);
                continue;
            }
            _ => continue,
        };
        bits = (bits << 6 | u32::from(digit)) & 0x00ff_ffff;
        count += 6;
        if count >= 8 {
            count -= 8;
            output.extend(u8::try_from(bits >> count & 0xff));
        }
    }
    output
}

/// Quoted-printable; with `underscore`, that of encoded words (RFC 2047 §4.2).
pub(super) fn quoted_printable(input: &[u8], underscore: bool) -> Vec<u8> {
    let mut output = Vec::with_capacity(input.len());
    let mut rest = input;
    while let Some((byte, tail)) = rest.split_first() {
        rest = tail;
        match (byte, tail) {
            (b'=', [b'\r', b'\n', tail @ ..] | [b'\n', tail @ ..]) => rest = tail,
            (b'=', [high, low, tail @ ..]) => match (hex(*high), hex(*low)) {
                (Some(high), Some(low)) => {
                    output.push(high << 4 | low);
                    rest = tail;
                }
                _ => output.push(b'='),
            },
            (b'_', _) if underscore => output.push(b' '),
            _ => output.push(*byte),
        }
    }
    output
}

fn hex(byte: u8) -> Option<u8> {
    char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok())
}

/// Text in a charset by name. Without one, or with one that does not fit, UTF-8 if it is that, else windows-1252.
pub(super) fn text(charset: Option<&str>, bytes: &[u8]) -> String {
    let is_plain = |name: &str| matches!(name, "utf-8" | "utf8" | "us-ascii" | "ascii" | "unknown-8bit" | "x-unknown");
    // Programs label UTF-8 as something else; hardly any other text is UTF-8 by chance.
    let is_western = |name: &str| matches!(name, "iso-8859-1" | "iso-8859-15" | "windows-1252" | "latin1");
    let name = charset.map(str::to_ascii_lowercase).filter(|name| !is_plain(name));
    let name = name.filter(|name| !(is_western(name) && std::str::from_utf8(bytes).is_ok()));
    if let Some(decode) = name.and_then(|name| charset_decoder(name.as_bytes())) {
        return decode(bytes);
    }
    match std::str::from_utf8(bytes) {
        Ok(text) => text.to_owned(),
        Err(_) => match charset_decoder(b"windows-1252") {
            Some(decode) => decode(bytes),
            None => String::from_utf8_lossy(bytes).into_owned(),
        },
    }
}

/// The value of a field with its encoded words decoded; control characters become spaces.
pub(super) fn words(value: &str) -> Cow<'_, str> {
    if !value.contains("=?") {
        return Cow::Borrowed(value);
    }
    let mut output = String::with_capacity(value.len());
    let mut rest = value;
    let mut after_word = false;
    while let Some(at) = rest.find("=?") {
        let (before, from) = rest.split_at_checked(at).unwrap_or((rest, ""));
        // White space between two encoded words is none (RFC 2047 §6.2).
        if !(after_word && before.trim().is_empty()) {
            output.push_str(before);
        }
        match word(from) {
            Some((decoded, tail)) => {
                output.extend(decoded.chars().map(|c| if c.is_control() { ' ' } else { c }));
                rest = tail;
                after_word = true;
            }
            None => {
                output.push_str("=?");
                rest = from.get(2..).unwrap_or_default();
                after_word = false;
            }
        }
    }
    output.push_str(rest);
    Cow::Owned(output)
}

/// `=?charset?encoding?text?=` at the front, and what follows.
fn word(from: &str) -> Option<(String, &str)> {
    let head = from.get(..from.floor_char_boundary(WORD_BYTES_MAX.min(from.len())))?.get(2..)?;
    let (charset, head) = head.split_once('?')?;
    let (encoding, head) = head.split_once('?')?;
    let end = head.find("?=")?;
    let content = head.get(..end)?;
    let used = 2 + charset.len() + 1 + encoding.len() + 1 + end + 2;
    let charset = charset.split('*').next()?;
    let bytes = match encoding {
        "b" | "B" => base64(content.as_bytes()),
        "q" | "Q" => quoted_printable(content.as_bytes(), true),
        _ => return None,
    };
    Some((text(Some(charset), &bytes), from.get(used..)?))
}

/// Undoes `+2B` (RFC 3461 §4) where every `+` of the text is such a one; else `None`.
pub(super) fn xtext(value: &str) -> Option<String> {
    if !value.contains('+') {
        return None;
    }
    let mut pieces = value.split('+');
    let mut output = pieces.next()?.as_bytes().to_vec();
    for piece in pieces {
        let (digits, tail) = piece.as_bytes().split_first_chunk::<2>()?;
        let [high, low] = digits.map(|digit| if digit.is_ascii_lowercase() { None } else { hex(digit) });
        output.push(high? << 4 | low?);
        output.extend_from_slice(tail);
    }
    String::from_utf8(output).ok()
}

/// Undoes `\x{20AC}` (RFC 6533 §3, `utf-8-addr-xtext` and `utf-8-addr-unitext`).
pub(super) fn unitext(value: &str) -> Cow<'_, str> {
    if !value.contains("\\x{") {
        return Cow::Borrowed(value);
    }
    let mut pieces = value.split("\\x{");
    let mut output = pieces.next().unwrap_or_default().to_owned();
    for piece in pieces {
        let decoded = piece.split_once('}').and_then(|(digits, tail)| {
            let code = (digits.len() <= 6).then(|| u32::from_str_radix(digits, 16).ok())??;
            Some((char::from_u32(code)?, tail))
        });
        match decoded {
            Some((character, tail)) => {
                output.push(character);
                output.push_str(tail);
            }
            None => output.push_str(piece),
        }
    }
    Cow::Owned(output)
}

/// Elements whose text is not shown.
const HIDDEN: [&str; 4] = ["style", "script", "head", "title"];
/// Elements that end a line.
const BREAKS: [&str; 14] =
    ["br", "p", "div", "tr", "li", "ul", "table", "h1", "h2", "h3", "h4", "pre", "blockquote", "hr"];

/// The text that a reader of HTML sees, roughly, with line breaks where blocks end.
pub(super) fn html(source: &str) -> String {
    let mut output = String::with_capacity(source.len() / 2);
    let mut rest = source;
    let mut hidden: Option<&'static str> = None;
    while let Some(at) = rest.find('<') {
        let (before, from) = rest.split_at_checked(at).unwrap_or((rest, ""));
        if hidden.is_none() {
            entities(before, &mut output);
        }
        // An address in brackets that nobody escaped is text.
        let end = from.find('>').map_or(from.len(), |end| end + 1);
        let (tag, tail) = from.split_at_checked(end).unwrap_or((from, ""));
        rest = tail;
        let inner = tag.trim_matches(['<', '>']);
        let closes = inner.starts_with('/');
        let name = inner.trim_start_matches('/').split([' ', '\t', '\r', '\n', '/']).next().unwrap_or_default();
        let known = |list: &[&'static str]| list.iter().copied().find(|item| item.eq_ignore_ascii_case(name));
        match (hidden, known(&HIDDEN)) {
            (Some(open), Some(name)) if closes && open == name => hidden = None,
            (None, Some(name)) if !closes => hidden = Some(name),
            (None, _) if known(&BREAKS).is_some() => output.push('\n'),
            (None, _) if matches!(name.to_ascii_lowercase().as_str(), "td" | "th") => output.push(' '),
            (None, _) if inner.contains('@') && !inner.contains('=') => output.push_str(tag),
            _ => {}
        }
    }
    if hidden.is_none() {
        entities(rest, &mut output);
    }
    output
}

fn entities(text: &str, output: &mut String) {
    let mut pieces = text.split('&');
    output.extend(pieces.next());
    for piece in pieces {
        let end = piece.bytes().take(10).position(|byte| byte == b';');
        let named = end.and_then(|end| Some((piece.get(..end)?, piece.get(end + 1..)?)));
        let decoded = named.and_then(|(name, tail)| Some((entity(name)?, tail)));
        match decoded {
            Some((character, tail)) => {
                output.push(character);
                output.push_str(tail);
            }
            None => {
                output.push('&');
                output.push_str(piece);
            }
        }
    }
}

fn entity(name: &str) -> Option<char> {
    match name {
        "lt" => Some('<'),
        "gt" => Some('>'),
        "amp" => Some('&'),
        "quot" => Some('"'),
        "nbsp" => Some(' '),
        "apos" => Some('\''),
        _ => {
            let number = name.strip_prefix('#')?;
            let code = match number.strip_prefix(['x', 'X']) {
                Some(digits) => u32::from_str_radix(digits, 16).ok()?,
                None => number.parse().ok()?,
            };
            char::from_u32(code)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn encodings_are_undone_however_they_are_broken() {
        assert_eq!(base64(b"SGVs\r\nbG8="), b"Hello");
        assert_eq!(base64(b"SGVsbG8"), b"Hello");
        assert_eq!(base64(b"SGk=SGk="), b"HiHi");
        assert_eq!(quoted_printable(b"a=3Db=\r\nc=zz=", false), b"a=bc=zz=");
        assert_eq!(text(Some("iso-8859-1"), b"Gr\xfc\xdfe"), "Grüße");
        assert_eq!(text(None, b"Gr\xfc\xdfe"), "Grüße");
        assert_eq!(text(Some("iso-2022-jp"), b"\x1b$B%O\x1b(B"), "ハ");
        assert_eq!(text(Some("no-such"), "é".as_bytes()), "é");
    }

    #[test]
    fn encoded_words_are_decoded_and_broken_ones_left() {
        assert_eq!(words("=?utf-8?Q?Gr=C3=BC=C3=9Fe?= =?UTF-8?B?IQ==?= x"), "Grüße! x");
        assert_eq!(words("a =?utf-8?Q?=0D=0Ab?="), "a   b");
        for broken in ["=?", "=?utf-8", "=?utf-8?q?", "=?utf-8?z?a?=", "a =? b ?= c"] {
            assert_eq!(words(broken), broken);
        }
    }

    #[test]
    fn xtext_is_undone_only_where_it_is_xtext() {
        assert_eq!(xtext("bob+2Btag@a.test").as_deref(), Some("bob+tag@a.test"));
        assert_eq!(xtext("bob+tag@a.test"), None);
        assert_eq!(xtext("bob+ab@a.test"), None);
        assert_eq!(xtext("bob@a.test"), None);
        assert_eq!(xtext("bob+2"), None);
        assert_eq!(unitext("\\x{5F20}@a.test"), "张@a.test");
        assert_eq!(unitext("\\x{110000}@a.test"), "110000}@a.test");
    }

    #[test]
    fn html_becomes_the_lines_that_are_seen() {
        let page = "<html><head><title>T</title><style>p{}</style></head><p>To &lt;a@b.test&gt;<br>550&nbsp;no</p><a@c.test>&bogus;";
        assert_eq!(html(page), "\nTo <a@b.test>\n550 no\n<a@c.test>&bogus;");
    }
}
