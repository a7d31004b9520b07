//! Scans a header block (RFC 5322 §2.2): where each field starts and ends, and where the header itself ends.
//!
//! Promises: one pass, no allocation, and nothing is lost: the fields' [`Field::raw`] octets and [`Fields::rest`] joined
//! give the input again. Tolerates what real clients send: white space before the colon (RFC 5322 §4.5.8), bare LF line
//! ends, an mbox `From ` line in front, a body that starts without an empty line, no header at all. Does not: judge
//! (that is [`super::stamp`]), decode or unfold.
//!
//! Limits: none of its own. The caller bounds the block (`header_bytes_max` of `reception`), the scan is linear in it.

use memchr::{memchr, memmem};

/// One header field.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Field<'a> {
    raw: &'a [u8],
    name: &'a [u8],
    after_colon: &'a [u8],
}

impl<'a> Field<'a> {
    /// All octets of the field: name, colon, value, folds and the line end (missing only at the end of the input).
    pub fn raw(&self) -> &'a [u8] {
        self.raw
    }

    /// The name as spelled, without the white space that obsolete syntax allows before the colon.
    pub fn name(&self) -> &'a [u8] {
        self.name
    }

    /// Everything after the colon, folds and line end included.
    pub fn after_colon(&self) -> &'a [u8] {
        self.after_colon
    }

    /// The value: after the colon, without white space and line ends at both edges; folds inside are kept.
    pub fn value(&self) -> &'a [u8] {
        self.after_colon.trim_ascii()
    }

    /// Whether white space stands between name and colon.
    pub fn has_space_before_colon(&self) -> bool {
        self.raw.get(self.name.len()) != Some(&b':')
    }

    /// What the name is to us.
    pub fn known(&self) -> Known {
        Known::of(self.name)
    }
}

/// How a header ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// An empty line follows; it is the start of [`Fields::rest`].
    EmptyLine,
    /// A line that is neither a field nor an empty line follows: the body started without one.
    Body,
    /// The input ended.
    Input,
}

/// The fields of a header block, in order. After the iterator returned `None`, [`Fields::rest`] and [`Fields::end`]
/// tell what follows.
#[derive(Clone, Debug)]
pub struct Fields<'a> {
    rest: &'a [u8],
    mbox_line: &'a [u8],
}

impl<'a> Fields<'a> {
    /// Scans `block`: a header block, or a whole message.
    pub fn new(block: &'a [u8]) -> Self {
        let line = first_line(block);
        let is_mbox = (line.starts_with(b"From ") || line.starts_with(b">From ")) && parse_name(line).is_none();
        let at = if is_mbox { line.len() } else { 0 };
        let (mbox_line, rest) = block.split_at_checked(at).unwrap_or((&[], block));
        Self { rest, mbox_line }
    }

    /// The line `From sender date` that mail programs write between messages of an mbox file, where the input starts
    /// with one; else empty. It is not part of the message.
    pub fn mbox_line(&self) -> &'a [u8] {
        self.mbox_line
    }

    /// What has not been scanned: after the last field, the empty line and all that follows it.
    pub fn rest(&self) -> &'a [u8] {
        self.rest
    }

    /// How the header ended. Meaningful once the iterator returned `None`.
    pub fn end(&self) -> End {
        match self.rest {
            [] => End::Input,
            [b'\r', b'\n', ..] | [b'\n', ..] => End::EmptyLine,
            _ => End::Body,
        }
    }
}

impl<'a> Iterator for Fields<'a> {
    type Item = Field<'a>;

    fn next(&mut self) -> Option<Field<'a>> {
        let line = first_line(self.rest);
        let (name_bytes, colon_at) = parse_name(line)?;
        let mut bytes = line.len();
        // RFC 5322 §2.2.3: a line that starts with white space continues the field.
        while let Some(more) = self.rest.get(bytes..).filter(|more| matches!(more.first(), Some(b' ' | b'\t'))) {
            bytes += first_line(more).len();
        }
        let (raw, rest) = self.rest.split_at_checked(bytes)?;
        self.rest = rest;
        Some(Field { raw, name: raw.get(..name_bytes)?, after_colon: raw.get(colon_at + 1..)? })
    }
}

/// Length of the name and position of the colon, if the line starts a field (RFC 5322 §2.2 `ftext`, §4.5.8).
fn parse_name(line: &[u8]) -> Option<(usize, usize)> {
    let colon_at = memchr(b':', line)?;
    let name = line.get(..colon_at)?.trim_ascii_end();
    let valid = !name.is_empty() && name.iter().all(|byte| (33..=126).contains(byte));
    valid.then_some((name.len(), colon_at))
}

/// Whether a line starts a field. One that starts with white space does not, and may continue one.
pub(super) fn is_header_line(line: &[u8]) -> bool {
    parse_name(line).is_some()
}

/// Up to and including the first LF, or everything.
pub(super) fn first_line(bytes: &[u8]) -> &[u8] {
    memchr(b'\n', bytes).and_then(|at| bytes.get(..=at)).unwrap_or(bytes)
}

/// The header fields at the front, an mbox line included, and the body behind them: an empty line between them is in neither.
pub fn split(bytes: &[u8]) -> (&[u8], &[u8]) {
    let mut fields = Fields::new(bytes);
    fields.by_ref().for_each(drop);
    let rest = fields.rest();
    let header = bytes.get(..bytes.len() - rest.len()).unwrap_or(bytes);
    (header, rest.strip_prefix(b"\r\n").or_else(|| rest.strip_prefix(b"\n")).unwrap_or(rest))
}

/// Whether a header block has a field of this name, in any case.
pub fn has(block: &[u8], name: &str) -> bool {
    Fields::new(block).any(|field| field.name().eq_ignore_ascii_case(name.as_bytes()))
}

/// Where the header block of `bytes` ends: the offset behind the first empty line. `None` where there is none yet.
///
/// `searched` octets at the front were searched before without success, so that a reader that gets a message in pieces
/// looks at each octet once. Line ends are CRLF.
pub fn block_end(bytes: &[u8], searched: usize) -> Option<usize> {
    if bytes.starts_with(b"\r\n") {
        return Some(2);
    }
    let from = searched.saturating_sub(3);
    let at = memmem::find(bytes.get(from..)?, b"\r\n\r\n")?;
    Some(from + at + 4)
}

/// Fields that this server treats apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Known {
    /// A field that may stand once (RFC 5322 §3.6, RFC 2045 §3); SES refuses it when repeated.
    Single(Single),
    /// `Received`, counted as hops.
    Received,
    /// `Bcc`, `Resent-Bcc`, `Return-Path`: never sent on.
    Stripped,
    /// `X-SES-*` and `X-Posthaste-*`: read, then stripped.
    Control,
    /// Anything else.
    Other,
}

/// Fields that may stand once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "the variants are the field names of RFC 5322 §3.6 and RFC 2045 §3")]
pub enum Single {
    From,
    Sender,
    ReplyTo,
    To,
    Cc,
    Date,
    Subject,
    MessageId,
    InReplyTo,
    References,
    MimeVersion,
    ContentType,
    ContentTransferEncoding,
}

impl Single {
    /// The name as RFC 5322 spells it.
    pub const fn name(self) -> &'static str {
        match self {
            Single::From => "From",
            Single::Sender => "Sender",
            Single::ReplyTo => "Reply-To",
            Single::To => "To",
            Single::Cc => "Cc",
            Single::Date => "Date",
            Single::Subject => "Subject",
            Single::MessageId => "Message-ID",
            Single::InReplyTo => "In-Reply-To",
            Single::References => "References",
            Single::MimeVersion => "MIME-Version",
            Single::ContentType => "Content-Type",
            Single::ContentTransferEncoding => "Content-Transfer-Encoding",
        }
    }

    /// A bit of its own, for sets.
    pub(super) const fn bit(self) -> u16 {
        1 << self as u16
    }
}

impl Known {
    /// What a field name is to us; case does not matter (RFC 5322 §1.2.2).
    pub fn of(name: &[u8]) -> Known {
        let is = |text: &str| name.eq_ignore_ascii_case(text.as_bytes());
        let single = |field: Single| if is(field.name()) { Known::Single(field) } else { Known::Other };
        let known = match name.len() {
            2 if is("Cc") => Known::Single(Single::Cc),
            2 => single(Single::To),
            3 if is("Bcc") => Known::Stripped,
            4 if is("Date") => Known::Single(Single::Date),
            4 => single(Single::From),
            6 => single(Single::Sender),
            7 => single(Single::Subject),
            8 if is("Received") => Known::Received,
            8 => single(Single::ReplyTo),
            10 if is("Resent-Bcc") => Known::Stripped,
            10 if is("References") => Known::Single(Single::References),
            10 => single(Single::MessageId),
            11 if is("Return-Path") => Known::Stripped,
            11 => single(Single::InReplyTo),
            12 if is("MIME-Version") => Known::Single(Single::MimeVersion),
            12 => single(Single::ContentType),
            25 => single(Single::ContentTransferEncoding),
            _ => Known::Other,
        };
        let begins_with =
            |prefix: &[u8]| name.get(..prefix.len()).is_some_and(|start| start.eq_ignore_ascii_case(prefix));
        let is_control = || begins_with(b"X-SES-") || begins_with(b"X-Posthaste-");
        if known == Known::Other && is_control() { Known::Control } else { known }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn scan(block: &[u8]) -> (Vec<(String, String)>, String, End) {
        let mut fields = Fields::new(block);
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let found = fields.by_ref().map(|field| (text(field.name()), text(field.value()))).collect();
        (found, text(fields.rest()), fields.end())
    }

    fn names(block: &[u8]) -> Vec<String> {
        scan(block).0.into_iter().map(|(name, _)| name).collect()
    }

    #[test]
    fn fields_with_folds_are_found_and_the_empty_line_ends_them() {
        let (fields, rest, end) = scan(b"Subject: a\r\n b\r\n\tc\r\nTo:x@y.test\r\n\r\nBcc: body\r\n");
        assert_eq!(
            fields,
            [("Subject".to_owned(), "a\r\n b\r\n\tc".to_owned()), ("To".to_owned(), "x@y.test".to_owned())]
        );
        assert_eq!((rest.as_str(), end), ("\r\nBcc: body\r\n", End::EmptyLine));
    }

    #[test]
    fn a_body_without_an_empty_line_starts_at_the_first_line_that_is_no_field() {
        for body in
            ["Hello there\r\n", "no colon", " led by a space\r\n", ": no name\r\n", "two words: x\r\n", "ü: x\r\n"]
        {
            let is_fold = body.starts_with(' ');
            let block = if is_fold { body.to_owned() } else { format!("A: 1\r\n{body}") };
            let (fields, rest, end) = scan(block.as_bytes());
            assert_eq!(fields.len(), usize::from(!is_fold), "{body:?}");
            assert_eq!((rest.as_str(), end), (body, End::Body), "{body:?}");
        }
    }

    #[test]
    fn odd_starts_and_ends_are_tolerated() {
        assert_eq!(scan(b""), (vec![], String::new(), End::Input));
        assert_eq!(scan(b"\r\nx").2, End::EmptyLine);
        assert_eq!(scan(b"A: b"), (vec![("A".into(), "b".into())], String::new(), End::Input));
        assert_eq!(names(b"A : b\r\nB\t:c\r\n\r\n"), ["A", "B"]);
        assert_eq!(names(b"A: b\nB: c\n\nD: body"), ["A", "B"]);
        assert_eq!(names(b"From a@b.test Sat Jan  1 10:00:00 2022\r\nA: b\r\n"), ["A"]);
        assert_eq!(names(b"From : a@b.test\r\nA: b\r\n"), ["From", "A"]);
        assert_eq!(Fields::new(b"From x y\r\nA: b\r\n").mbox_line(), b"From x y\r\n");
    }

    #[test]
    fn names_are_known_in_any_case() {
        for (name, known) in [
            ("bcc", Known::Stripped),
            ("RESENT-BCC", Known::Stripped),
            ("Return-path", Known::Stripped),
            ("received", Known::Received),
            ("x-ses-anything", Known::Control),
            ("X-SES-CONFIGURATION-SET", Known::Control),
            ("X-Posthaste-Priority", Known::Control),
            ("x-posthaste-anything", Known::Control),
            ("X-Posthastes", Known::Other),
            ("X-SESAME", Known::Other),
            ("Bc", Known::Other),
            ("mime-version", Known::Single(Single::MimeVersion)),
        ] {
            assert_eq!(Known::of(name.as_bytes()), known, "{name}");
        }
        for single in [
            Single::From,
            Single::Sender,
            Single::ReplyTo,
            Single::To,
            Single::Cc,
            Single::Date,
            Single::Subject,
            Single::MessageId,
            Single::InReplyTo,
            Single::References,
            Single::MimeVersion,
            Single::ContentType,
            Single::ContentTransferEncoding,
        ] {
            assert_eq!(Known::of(single.name().to_ascii_uppercase().as_bytes()), Known::Single(single));
        }
    }

    #[test]
    fn header_and_body_are_split_at_the_empty_line_or_at_the_first_line_that_is_no_field() {
        for (message, header, body) in [
            ("A: b\r\n\r\nbody", "A: b\r\n", "body"),
            ("A: b\r\n", "A: b\r\n", ""),
            ("A: b\r\nbody\r\n\r\nmore", "A: b\r\n", "body\r\n\r\nmore"),
            ("\r\n\r\nbody", "", "\r\nbody"),
            ("From a b\r\nA: b\r\n\r\n", "From a b\r\nA: b\r\n", ""),
        ] {
            assert_eq!(split(message.as_bytes()), (header.as_bytes(), body.as_bytes()), "{message:?}");
        }
    }

    #[test]
    fn the_end_of_a_block_is_found_across_pieces() {
        assert_eq!(block_end(b"\r\nbody", 0), Some(2));
        assert_eq!(block_end(b"A: b\r\n\r\nbody", 0), Some(8));
        assert_eq!(block_end(b"A: b\r\n", 0), None);
        for searched in 0..8 {
            assert_eq!(block_end(b"A: b\r\n\r\nbody", searched), Some(8), "{searched}");
        }
        assert_eq!(block_end(b"A: b\n\nbody", 0), None);
    }

    proptest! {
        #[test]
        fn scan_then_join_gives_the_same_bytes(block in header_like()) {
            let mut fields = Fields::new(&block);
            let mut joined = fields.mbox_line().to_vec();
            for field in fields.by_ref() {
                joined.extend_from_slice(field.raw());
                prop_assert!(field.raw().ends_with(field.after_colon()));
                prop_assert!(field.raw().starts_with(field.name()));
            }
            joined.extend_from_slice(fields.rest());
            prop_assert_eq!(joined, block);
        }

        #[test]
        fn no_field_is_hidden_behind_another(names in prop::collection::vec("[!-9;-~]{1,20}", 1..20)) {
            let block: String = names.iter().map(|name| format!("{name}: value\r\n folded: not a field\r\n")).collect();
            prop_assert_eq!(self::names(block.as_bytes()), names);
        }
    }

    /// Bytes that look like headers often enough to reach every branch.
    fn header_like() -> impl Strategy<Value = Vec<u8>> {
        let piece = prop_oneof![
            Just(b"\r\n".to_vec()),
            Just(b": ".to_vec()),
            Just(b" ".to_vec()),
            Just(b"From ".to_vec()),
            Just(b"Subject".to_vec()),
            Just(b"\n".to_vec()),
            Just(b"\r".to_vec()),
            prop::collection::vec(any::<u8>(), 0..20),
        ];
        prop::collection::vec(piece, 0..40).prop_map(|pieces| pieces.concat())
    }
}
