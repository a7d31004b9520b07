//! The parts of a message (RFC 2045, RFC 2046), as a flat list.
//!
//! Promises: any octets give a list; the work is linear in the size, with a factor of at most [`DEPTH_MAX`], since each level looks
//! at its octets once; nothing is copied but header fields. Broken multiparts are read as far as they go: a boundary that is not
//! named is taken from the first line that looks like one, a missing end is the end of what is around it.
//!
//! Why not mail-parser: 0.11.9 panics on some nested messages, and knows no bounds.

use std::borrow::Cow;

use super::decode;
use super::fields::{self, Block};
use crate::message::header;

/// Multiparts and attached messages within one another. Above: what is deeper is one part.
pub(super) const DEPTH_MAX: usize = 12;
/// Parts of a message. Above: the others are not read.
pub(super) const PARTS_MAX: usize = 100;
/// Octets of one header that are read.
const HEADER_BYTES_MAX: usize = 128 << 10;
/// Octets of a boundary.
const BOUNDARY_BYTES_MAX: usize = 250;

/// A message taken apart.
pub(super) struct Mail<'a> {
    pub(super) parts: Vec<Part<'a>>,
}

/// One part; the first one is the message itself.
pub(super) struct Part<'a> {
    pub(super) header: Block,
    /// What was given as header, bounded.
    pub(super) header_raw: &'a [u8],
    /// As transferred.
    body: &'a [u8],
    /// `type/subtype` in lower case.
    pub(super) kind: String,
    charset: Option<String>,
    /// The parameter `report-type`, in lower case.
    pub(super) report_type: Option<String>,
    /// The file name, in lower case.
    pub(super) name: Option<String>,
    encoding: Encoding,
    /// The message that this part is of: its index. That of a message is its own.
    pub(super) message: usize,
    pub(super) depth: usize,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Encoding {
    Identity,
    Base64,
    QuotedPrintable,
}

impl<'a> Mail<'a> {
    pub(super) fn parse(message: &'a [u8]) -> Self {
        let mut mail = Mail { parts: Vec::new() };
        mail.enter(message, Around { message: None, depth: 0, is_digest: false });
        mail
    }

    /// The header of the message itself.
    pub(super) fn header(&self) -> Option<&Block> {
        self.parts.first().map(|part| &part.header)
    }

    /// The first part of one of these types, the outermost one.
    pub(super) fn find(&self, kinds: &[&str]) -> Option<(usize, &Part<'a>)> {
        let fits = |(_, part): &(usize, &Part<'a>)| kinds.contains(&part.kind.as_str());
        self.parts.iter().enumerate().filter(fits).min_by_key(|(at, part)| (part.depth, *at))
    }

    /// Parts of the message with this index, those of messages within it not included.
    pub(super) fn of_message(&self, message: usize) -> impl Iterator<Item = (usize, &Part<'a>)> {
        self.parts.iter().enumerate().filter(move |(_, part)| part.message == message)
    }

    fn enter(&mut self, bytes: &'a [u8], around: Around) {
        if self.parts.len() >= PARTS_MAX {
            return;
        }
        let (header_raw, body) = header::split(bytes);
        let header_raw = header_raw.get(..HEADER_BYTES_MAX).unwrap_or(header_raw);
        let header = fields::header(header_raw);
        let default = if around.is_digest { "message/rfc822" } else { "text/plain" };
        let content_type = ContentType::parse(header.get("content-type").unwrap_or(default), default);
        let at = self.parts.len();
        let disposition = header.get("content-disposition").map(|value| ContentType::parse(value, "attachment"));
        let name = disposition.and_then(|mut disposition| disposition.take("filename"));
        let mut parameters = content_type;
        let encoding = match header.get("content-transfer-encoding").map(first_word).as_deref() {
            Some("base64") => Encoding::Base64,
            Some("quoted-printable") => Encoding::QuotedPrintable,
            _ => Encoding::Identity,
        };
        let boundary = parameters.take("boundary");
        let kind = std::mem::take(&mut parameters.kind);
        let depth = around.depth;
        self.parts.push(Part {
            header,
            header_raw,
            body,
            kind: kind.clone(),
            charset: parameters.take("charset"),
            report_type: parameters.take("report-type").map(|value| value.to_ascii_lowercase()),
            name: name.or_else(|| parameters.take("name")).map(|name| name.to_ascii_lowercase()),
            encoding,
            message: around.message.unwrap_or(at),
            depth,
        });
        if depth >= DEPTH_MAX {
            return;
        }
        if kind.starts_with("multipart/") {
            let message = Some(around.message.unwrap_or(at));
            let is_digest = kind == "multipart/digest";
            let within = Around { message, depth: depth + 1, is_digest };
            self.split(body, boundary.as_deref().map(str::as_bytes), within);
        } else if matches!(kind.as_str(), "message/rfc822" | "message/global") && encoding == Encoding::Identity {
            self.enter(body, Around { message: None, depth: depth + 1, is_digest: false });
        }
    }

    fn split(&mut self, body: &'a [u8], boundary: Option<&[u8]>, within: Around) {
        let usable = |boundary: &&[u8]| !boundary.is_empty() && boundary.len() <= BOUNDARY_BYTES_MAX;
        let Some(boundary) = boundary.filter(usable).or_else(|| guess_boundary(body)) else { return };
        let mut start: Option<usize> = None;
        let mut at = 0;
        for line in body.split_inclusive(|byte| *byte == b'\n') {
            let end = at;
            at += line.len();
            let Some(tail) = line.strip_prefix(b"--").and_then(|line| line.strip_prefix(boundary)) else { continue };
            let tail = tail.trim_ascii();
            if !(tail.is_empty() || tail == b"--") {
                continue;
            }
            if let Some(part) = start.and_then(|start| body.get(start..end)) {
                self.enter(part, within);
            }
            start = (tail.is_empty()).then_some(at);
            if start.is_none() || self.parts.len() >= PARTS_MAX {
                return;
            }
        }
        if let Some(part) = start.and_then(|start| body.get(start..)) {
            self.enter(part, within);
        }
    }
}

#[derive(Clone, Copy)]
struct Around {
    message: Option<usize>,
    depth: usize,
    is_digest: bool,
}

/// The first line that can be a delimiter.
fn guess_boundary(body: &[u8]) -> Option<&[u8]> {
    let is_delimiter = |line: &&[u8]| line.len() > 6 && line.starts_with(b"--") && !line.contains(&b' ');
    let line = fields::lines(body).take(200).map(<[u8]>::trim_ascii_end).find(is_delimiter)?;
    line.get(2..).filter(|boundary| boundary.len() <= BOUNDARY_BYTES_MAX)
}

impl<'a> Part<'a> {
    /// The body with its transfer encoding undone, up to about `bytes_max`.
    pub(super) fn content(&self, bytes_max: usize) -> Cow<'a, [u8]> {
        let bounded = |limit: usize| self.body.get(..limit).unwrap_or(self.body);
        match self.encoding {
            Encoding::Identity => Cow::Borrowed(bounded(bytes_max)),
            // Two line ends on 76 digits.
            Encoding::Base64 => Cow::Owned(decode::base64(bounded(bytes_max.saturating_mul(3) / 2))),
            Encoding::QuotedPrintable => {
                Cow::Owned(decode::quoted_printable(bounded(bytes_max.saturating_mul(3)), false))
            }
        }
    }

    /// The same as text, HTML as what is seen of it, line ends as LF.
    pub(super) fn text(&self, bytes_max: usize) -> String {
        let text = decode::text(self.charset.as_deref(), &self.content(bytes_max)).replace("\r\n", "\n");
        if self.kind == "text/html" { decode::html(&text) } else { text }
    }

    /// Whether it is a message in an encoding that hides its parts.
    pub(super) fn is_hidden_message(&self) -> bool {
        matches!(self.kind.as_str(), "message/rfc822" | "message/global") && self.encoding != Encoding::Identity
    }

    /// Octets as transferred.
    pub(super) fn size_bytes(&self) -> usize {
        self.body.len()
    }
}

/// `type/subtype; name=value` (RFC 2045 §5.1), read as mail programs write it.
struct ContentType {
    kind: String,
    parameters: Vec<(String, String)>,
}

/// Parameters of a field. Above: the others are not read.
const PARAMETERS_MAX: usize = 20;

impl ContentType {
    fn parse(value: &str, default: &str) -> Self {
        let (kind, mut rest) = value.split_once(';').unwrap_or((value, ""));
        let kind = kind.split('(').next().unwrap_or_default().trim().trim_matches('"').to_ascii_lowercase();
        let kind = if kind.is_empty() { default.to_owned() } else { kind.replace(' ', "") };
        let mut parameters = Vec::new();
        while parameters.len() < PARAMETERS_MAX
            && let Some((name, tail)) = rest.split_once('=')
        {
            let tail = tail.trim_start();
            let (value, tail) = match tail.strip_prefix('"') {
                Some(quoted) => quoted.split_once('"').unwrap_or((quoted, "")),
                None => tail.split_once(';').map_or((tail, ""), |(value, tail)| (value, tail)),
            };
            // `name*0*=utf-8''...` is near enough to `name` (RFC 2231): only its end is looked at.
            let name = name.trim_matches([' ', ';', '\t']).split('*').next().unwrap_or_default().to_ascii_lowercase();
            parameters.push((name, value.trim().to_owned()));
            rest = tail;
        }
        Self { kind, parameters }
    }

    fn take(&mut self, name: &str) -> Option<String> {
        let at = self.parameters.iter().position(|parameter| parameter.0 == name)?;
        Some(self.parameters.swap_remove(at).1)
    }
}

fn first_word(value: &str) -> String {
    value.split([' ', ';', '(']).next().unwrap_or_default().to_ascii_lowercase()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kinds(message: &str) -> Vec<(String, usize, usize)> {
        let mail = Mail::parse(message.as_bytes());
        mail.parts.iter().map(|part| (part.kind.clone(), part.message, part.depth)).collect()
    }

    #[test]
    fn parts_are_found_whatever_is_broken() {
        let whole = "Content-Type: multipart/report; boundary=\"a\"\n\n--a\n\nx\n--a\nContent-Type: message/rfc822\n\nSubject: s\n\nbody\n--a--\nend";
        let expected =
            [("multipart/report", 0, 0), ("text/plain", 0, 1), ("message/rfc822", 0, 1), ("text/plain", 3, 2)];
        let expected: Vec<_> = expected.map(|(kind, message, depth)| (kind.to_owned(), message, depth)).into();
        assert_eq!(kinds(whole), expected);
        assert_eq!(kinds(&whole.replace("; boundary=\"a\"", "").replace("--a", "--aaaaaaa")), expected);
        assert_eq!(kinds(&whole.replace("\n--a--\nend", "")), expected);
        assert_eq!(kinds(&whole.replace('\n', "\r\n")), expected);
        assert_eq!(kinds(""), [("text/plain".to_owned(), 0, 0)]);
    }

    #[test]
    fn depth_and_number_of_parts_are_bounded() {
        let deep = "Content-Type: message/rfc822\n\n".repeat(5_000);
        assert_eq!(kinds(&deep).len(), DEPTH_MAX + 1);
        let wide = format!("Content-Type: multipart/mixed; boundary=a\n\n{}", "--a\n\nx\n".repeat(5_000));
        assert_eq!(kinds(&wide).len(), PARTS_MAX);
    }
}
