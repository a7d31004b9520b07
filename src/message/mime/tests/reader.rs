//! A second reader of MIME: the whole message at once, by recursion, without any of the code under test. Fields are read by
//! mail-parser.

use mail_parser::{MessageParser, MimeHeaders};

/// What a reader finds in a part.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Leaf {
    pub(super) path: String,
    pub(super) content_type: String,
    pub(super) charset: Option<String>,
    pub(super) name: Option<String>,
    pub(super) content: Vec<u8>,
}

pub(super) fn read(message: &[u8]) -> Vec<Leaf> {
    let mut leaves = Vec::new();
    entity(message, false, "", &mut leaves);
    leaves
}

fn entity(octets: &[u8], digest: bool, path: &str, leaves: &mut Vec<Leaf>) {
    let (header, body) = split_header(octets);
    let block = [b"X: y\r\n", header, b"\r\n"].concat();
    let parsed = MessageParser::default().parse(&block).unwrap();
    let content_type = parsed.content_type();
    let named = content_type.map(|found| {
        let sub = found.subtype().unwrap_or_default();
        format!("{}/{}", found.ctype(), sub).to_ascii_lowercase()
    });
    let default = if digest { "message/rfc822" } else { "text/plain" };
    let named = named.filter(|name| !name.ends_with('/')).unwrap_or_else(|| default.to_owned());
    let attribute = |name| content_type.and_then(|found| found.attribute(name)).map(str::to_owned);
    let encoding = parsed.content_transfer_encoding().unwrap_or_default().to_ascii_lowercase();
    let is_sealed = named == "multipart/signed" || named == "multipart/encrypted";
    let boundary = attribute("boundary").filter(|boundary| named.starts_with("multipart/") && boundary.is_ascii());
    if let Some(boundary) = boundary.filter(|_| !is_sealed)
        && let Some(parts) = parts(body, &boundary)
    {
        for (number, part) in parts.iter().enumerate() {
            entity(part, named == "multipart/digest", &format!("{path}/{number}"), leaves);
        }
        return;
    }
    let is_plain = !matches!(encoding.as_str(), "base64" | "quoted-printable");
    if (named == "message/rfc822" || named == "message/global") && is_plain {
        return entity(body, false, &format!("{path}/m"), leaves);
    }
    let name = parsed.attachment_name().map(str::to_owned);
    let content = if named.starts_with("multipart/") { body.to_vec() } else { decode(&encoding, body) };
    leaves.push(Leaf { path: path.to_owned(), content_type: named, charset: attribute("charset"), name, content });
}

fn lines(octets: &[u8]) -> impl Iterator<Item = &[u8]> {
    let mut rest = octets;
    std::iter::from_fn(move || {
        let end = memchr::memmem::find(rest, b"\r\n").map_or(rest.len(), |at| at + 2);
        let (line, tail) = rest.split_at(end);
        rest = tail;
        (!line.is_empty()).then_some(line)
    })
}

/// The header without its empty line.
fn split_header(octets: &[u8]) -> (&[u8], &[u8]) {
    let mut end = 0;
    for line in lines(octets) {
        if line == b"\r\n" {
            return (&octets[..end], &octets[end + 2..]);
        }
        let name = line.split(|byte| *byte == b':').next().unwrap().trim_ascii_end();
        let is_field = line.contains(&b':') && !name.is_empty() && name.iter().all(u8::is_ascii_graphic);
        if !is_field && !(end > 0 && line.starts_with(b" ") || end > 0 && line.starts_with(b"\t")) {
            break;
        }
        end += line.len();
    }
    octets.split_at(end)
}

/// What stands between delimiters; `None` where there is none.
fn parts<'a>(body: &'a [u8], boundary: &str) -> Option<Vec<&'a [u8]>> {
    let mut parts: Vec<&[u8]> = Vec::new();
    let (mut start, mut at) = (None, 0);
    for line in lines(body) {
        let text = String::from_utf8_lossy(line);
        let text = text.trim_end_matches(['\r', '\n']).trim_end_matches([' ', '\t']);
        let rest = text.strip_prefix("--").and_then(|text| text.strip_prefix(boundary.trim_end()));
        let kind = rest.filter(|rest| line.len() <= 1_000 && (rest.is_empty() || *rest == "--"));
        if let Some(kind) = kind {
            if let Some(start) = start.take() {
                let part = &body[start..at];
                parts.push(part.strip_suffix(b"\r\n").unwrap_or(part));
            }
            if !kind.is_empty() {
                return Some(parts).filter(|parts| !parts.is_empty());
            }
            start = Some(at + line.len());
        }
        at += line.len();
    }
    parts.extend(start.map(|start| &body[start..]));
    Some(parts).filter(|parts| !parts.is_empty())
}

fn decode(encoding: &str, body: &[u8]) -> Vec<u8> {
    match encoding {
        // The digits say it all, and are compared even where they are no right base64.
        "base64" => {
            let digits: Vec<u8> =
                body.iter().copied().filter(|byte| byte.is_ascii_alphanumeric() || b"+/=".contains(byte)).collect();
            mail_parser::decoders::base64::base64_decode(&digits).unwrap_or(digits)
        }
        "quoted-printable" => quoted_printable(body),
        _ => body.to_vec(),
    }
}

/// What is no escape stays as it is.
fn quoted_printable(body: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    for line in lines(body) {
        let text = line.strip_suffix(b"\r\n").unwrap_or(line);
        let is_ended = text.len() < line.len();
        let blanks = text.iter().rev().take_while(|byte| matches!(**byte, b' ' | b'\t')).count();
        let text = if is_ended { &text[..text.len() - blanks] } else { text };
        let (text, is_soft) = match text.strip_suffix(b"=") {
            Some(text) if is_ended => (text, true),
            _ => (text, false),
        };
        let mut rest = text;
        while let Some((first, tail)) = rest.split_first() {
            let digits = tail.get(..2).and_then(|digits| std::str::from_utf8(digits).ok());
            let escaped = digits.filter(|digits| digits.bytes().all(|byte| byte.is_ascii_hexdigit()));
            match escaped.filter(|_| *first == b'=') {
                Some(digits) => {
                    out.push(u8::from_str_radix(digits, 16).unwrap());
                    rest = &tail[2..];
                }
                None => {
                    out.push(*first);
                    rest = tail;
                }
            }
        }
        if is_ended && !is_soft {
            out.extend_from_slice(b"\r\n");
        }
    }
    out
}
