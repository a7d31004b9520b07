//! The header fields as they were submitted, for the `mail` object of events.
//!
//! Promises: bounded whatever the header holds; text is valid UTF-8 and decoded only where it is shown decoded. Does
//! not: render JSON (`events::schema` does).

use std::borrow::Cow;

use mail_parser::parsers::MessageStream;

use super::header::{Field, Known, Single};

/// Octets of names and values kept in [`OriginalHeaders::headers`], as SES limits them. Above: the rest is left out
/// and `truncated` is set.
const HEADERS_BYTES_MAX: usize = 10 * 1024;
/// Octets of one field that are looked at for the common headers. Above: addresses behind it are left out, `truncated`
/// is set.
const COMMON_FIELD_BYTES_MAX: usize = 10 * 1024;

/// Room for this many fields is made at once: most messages have fewer.
const HEADERS_USUAL: usize = 24;

/// `headers`, `headersTruncated` and `commonHeaders` of an event's `mail` object, without the return path, which is the
/// envelope's.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct OriginalHeaders {
    /// Name and unfolded value of the fields as submitted, control fields included, in order; encoded words are left
    /// as they are. At most 10 KB.
    pub headers: Vec<(String, String)>,
    /// Something was left out for size.
    pub truncated: bool,
    /// `From`, one element an address, encoded words decoded.
    pub from: Vec<String>,
    /// `To`, likewise.
    pub to: Vec<String>,
    /// `Cc`, likewise.
    pub cc: Vec<String>,
    /// `Reply-To`, likewise.
    pub reply_to: Vec<String>,
    /// `Date` of the message as sent: the one submitted, else the one added.
    pub date: Option<String>,
    /// `Message-ID` of the message as sent: the one submitted, else the one added.
    pub message_id: Option<String>,
    /// `Subject`, encoded words decoded.
    pub subject: Option<String>,
}

/// Gathers [`OriginalHeaders`] field by field.
#[derive(Debug, Default)]
pub(super) struct Collector {
    original: OriginalHeaders,
    used_bytes: usize,
    full: bool,
}

impl Collector {
    pub(super) fn add(&mut self, field: &Field<'_>, known: Known) {
        let value = unfold(field.value());
        if let Known::Single(single) = known {
            self.add_common(single, &value);
        }
        self.used_bytes = self.used_bytes.saturating_add(field.name().len() + value.len());
        if self.full || self.used_bytes > HEADERS_BYTES_MAX {
            self.full = true;
            self.original.truncated = true;
            return;
        }
        if self.original.headers.capacity() == 0 {
            self.original.headers.reserve(HEADERS_USUAL);
        }
        let name = lossy(field.name()).into_owned();
        self.original.headers.push((name, value.into_owned()));
    }

    /// Ends the collection; `date` and `message_id` are those added to the message, if any.
    pub(super) fn finish(mut self, date: Option<&str>, message_id: Option<&str>) -> OriginalHeaders {
        self.original.date = date.map(str::to_owned).or(self.original.date);
        self.original.message_id = message_id.map(str::to_owned).or(self.original.message_id);
        self.original
    }

    fn add_common(&mut self, single: Single, value: &str) {
        let (value, cut) = bounded(value);
        let original = &mut self.original;
        let list = match single {
            Single::From => &mut original.from,
            Single::To => &mut original.to,
            Single::Cc => &mut original.cc,
            Single::ReplyTo => &mut original.reply_to,
            Single::Date => return original.date = Some(value.to_owned()),
            Single::MessageId => return original.message_id = Some(value.to_owned()),
            Single::Subject => {
                original.truncated |= cut;
                return original.subject = Some(decode(value).into_owned());
            }
            _ => return,
        };
        *list = split_addresses(value);
        if cut {
            // The last one may have been cut in the middle.
            list.pop();
            original.truncated = true;
        }
    }
}

fn bounded(value: &str) -> (&str, bool) {
    if value.len() <= COMMON_FIELD_BYTES_MAX {
        return (value, false);
    }
    (value.get(..value.floor_char_boundary(COMMON_FIELD_BYTES_MAX)).unwrap_or_default(), true)
}

/// RFC 5322 §2.2.3: takes the line ends out and leaves the white space.
pub(super) fn unfold(value: &[u8]) -> Cow<'_, str> {
    if memchr::memchr2(b'\r', b'\n', value).is_none() {
        return lossy(value);
    }
    let mut line = Vec::with_capacity(value.len());
    for part in value.split(|byte| matches!(byte, b'\r' | b'\n')) {
        line.extend_from_slice(part);
    }
    Cow::Owned(lossy(&line).into_owned())
}

/// `String::from_utf8_lossy` looks at single octets; nearly every header is valid, and the plain check is many times
/// faster.
fn lossy(bytes: &[u8]) -> Cow<'_, str> {
    std::str::from_utf8(bytes).map_or_else(|_| String::from_utf8_lossy(bytes), Cow::Borrowed)
}

/// Decodes encoded words (RFC 2047); control characters that they bring become spaces.
pub(super) fn decode(text: &str) -> Cow<'_, str> {
    if !has_encoded_word(text) {
        return Cow::Borrowed(text);
    }
    let mut line = Vec::with_capacity(text.len() + 1);
    line.extend_from_slice(text.as_bytes());
    line.push(b'\n');
    match MessageStream::new(&line).parse_unstructured().into_text() {
        Some(decoded) => Cow::Owned(decoded.chars().map(|c| if c.is_control() { ' ' } else { c }).collect()),
        None => Cow::Borrowed(text),
    }
}

fn has_encoded_word(text: &str) -> bool {
    memchr::memmem::find(text.as_bytes(), b"=?").is_some()
}

/// One element of an address list. Encoded words within quotes are not encoded words by RFC 2047 §5, but common: the
/// quotes go, so that the words can be decoded.
fn decode_address(text: &str) -> String {
    if !has_encoded_word(text) {
        return text.to_owned();
    }
    decode(&text.replace("\"=?", "=?").replace("?=\"", "?=")).trim().to_owned()
}

/// Splits an address list (RFC 5322 §3.4) at its commas, not at those in quotes, comments, angle brackets and domain
/// literals. A group gives its members; one without members gives itself (`undisclosed-recipients:;`).
pub(super) fn split_addresses(list: &str) -> Vec<String> {
    split(list).into_iter().map(decode_address).collect()
}

/// The same, each element as it stands.
pub(super) fn split(list: &str) -> Vec<&str> {
    // Without a separator there is at most one: by far the most common case.
    if memchr::memchr3(b',', b':', b';', list.as_bytes()).is_none() {
        let only = list.trim_matches([' ', '\t']);
        return if only.is_empty() { Vec::new() } else { vec![only] };
    }
    let mut splitter = Splitter::default();
    for (at, byte) in list.bytes().enumerate() {
        splitter.step(list, at, byte);
    }
    splitter.push(list, list.len());
    splitter.found
}

#[derive(Default)]
struct Splitter<'a> {
    found: Vec<&'a str>,
    /// Where the current element starts.
    start: usize,
    /// Where the current group's name starts, and how many were found before it.
    group: Option<(usize, usize)>,
    escaped: bool,
    quoted: bool,
    comments: usize,
    angle: bool,
    literal: bool,
}

impl<'a> Splitter<'a> {
    fn step(&mut self, list: &'a str, at: usize, byte: u8) {
        if std::mem::take(&mut self.escaped) {
            return;
        }
        match byte {
            b'\\' if self.quoted || self.comments > 0 => self.escaped = true,
            b'"' if self.comments == 0 => self.quoted = !self.quoted,
            _ if self.quoted => {}
            b'(' => self.comments += 1,
            b')' => self.comments = self.comments.saturating_sub(1),
            _ if self.comments > 0 => {}
            b'<' => self.angle = true,
            b'>' => self.angle = false,
            b'[' => self.literal = true,
            b']' => self.literal = false,
            _ if self.angle || self.literal => {}
            b',' => self.push(list, at),
            b':' if self.group.is_none() => {
                self.group = Some((self.start, self.found.len()));
                self.start = at + 1;
            }
            b';' => self.end_group(list, at),
            _ => {}
        }
    }

    fn push(&mut self, list: &'a str, end: usize) {
        let element = list.get(self.start..end).unwrap_or_default().trim();
        if !element.is_empty() {
            self.found.push(element);
        }
        self.start = end + 1;
    }

    fn end_group(&mut self, list: &'a str, at: usize) {
        self.push(list, at);
        if let Some((start, found_before)) = self.group.take()
            && self.found.len() == found_before
        {
            self.found.push(list.get(start..=at).unwrap_or_default().trim());
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::header::Fields;
    use super::*;

    fn collect(block: &str) -> OriginalHeaders {
        let mut collector = Collector::default();
        Fields::new(block.as_bytes()).for_each(|field| collector.add(&field, field.known()));
        collector.finish(None, None)
    }

    #[test]
    fn addresses_are_split_at_the_right_commas() {
        for (list, expected) in [
            ("a@b.test", vec!["a@b.test"]),
            (" a@b.test , c@d.test,", vec!["a@b.test", "c@d.test"]),
            ("\"Doe, John\" <j@d.test>, x@y.test", vec!["\"Doe, John\" <j@d.test>", "x@y.test"]),
            ("\"a\\\",b\" <j@d.test>,k@d.test", vec!["\"a\\\",b\" <j@d.test>", "k@d.test"]),
            ("a@b.test (one, two), c@d.test", vec!["a@b.test (one, two)", "c@d.test"]),
            ("<@x.test,@y.test:a@b.test>, c@d.test", vec!["<@x.test,@y.test:a@b.test>", "c@d.test"]),
            ("Team: a@b.test, c@d.test; , e@f.test", vec!["a@b.test", "c@d.test", "e@f.test"]),
            ("undisclosed-recipients:;", vec!["undisclosed-recipients:;"]),
            ("a@[IPv6:2001:db8::1], b@c.test", vec!["a@[IPv6:2001:db8::1]", "b@c.test"]),
            ("=?utf-8?q?J=C3=BCrgen?= <j@d.test>", vec!["Jürgen <j@d.test>"]),
            ("\"=?utf-8?q?J=C3=BCrgen?=\" <j@d.test>", vec!["Jürgen <j@d.test>"]),
            ("\"unclosed, a@b.test", vec!["\"unclosed, a@b.test"]),
            ("", vec![]),
        ] {
            assert_eq!(split_addresses(list), expected, "{list:?}");
        }
    }

    #[test]
    fn common_headers_are_decoded_and_headers_are_not() {
        let found = collect(
            "From: A <a@b.test>\r\nSubject: =?iso-8859-1?Q?Gr=FC=DFe?=\r\n =?utf-8?B?IQ==?=\r\nDate: Fri, 5 May 2023\r\n\
             Message-ID: <x@y>\r\nCc: c@d.test\r\nReply-To: r@d.test\r\nX-SES-MESSAGE-TAGS: a=b\r\n",
        );
        assert_eq!(found.subject.as_deref(), Some("Grüße!"));
        assert_eq!(found.from, ["A <a@b.test>"]);
        assert_eq!((found.cc.len(), found.reply_to.len(), found.to.len()), (1, 1, 0));
        assert_eq!(found.message_id.as_deref(), Some("<x@y>"));
        assert_eq!(found.headers.len(), 7);
        assert_eq!(found.headers[1].1, "=?iso-8859-1?Q?Gr=FC=DFe?= =?utf-8?B?IQ==?=");
        assert!(!found.truncated);
    }

    #[test]
    fn ten_kilobytes_of_headers_are_kept() {
        let found = collect(&format!("A: {}\r\nB: {}\r\nC: c\r\n", "x".repeat(9_000), "y".repeat(2_000)));
        assert_eq!(found.headers.len(), 1);
        assert!(found.truncated);
        let many = (0..1_000).map(|n| format!("user{n}@example.test")).collect::<Vec<_>>().join(", ");
        let found = collect(&format!("To: {many}\r\n"));
        assert!(found.truncated);
        assert!(found.headers.is_empty());
        assert!((400..600).contains(&found.to.len()));
        assert!(found.to.iter().all(|address| address.ends_with("@example.test")));
    }

    #[test]
    fn control_characters_hidden_in_encoded_words_do_not_get_out() {
        assert_eq!(decode("=?utf-8?Q?a=0D=0Ab=00?="), "a  b ");
        for broken in ["=?", "=?utf-8", "=?utf-8?q?", "=?x?q?a?=", "=?utf-8?z?a?=", "=?utf-8?b?!!?=", "a =? b ?= c"] {
            assert!(!decode(broken).chars().any(char::is_control), "{broken}");
        }
    }

    proptest! {
        #[test]
        fn any_text_can_be_split_and_decoded(text in "([ -~]|=\\?utf-8\\?[qQbB]\\?|\\?=|[\",<>():;]|\\PC){0,60}") {
            let _ = decode(&text);
            let parts = split_addresses(&text);
            prop_assert!(parts.iter().all(|part| !part.contains('\n')));
        }

        #[test]
        fn plain_addresses_come_back(parts in prop::collection::vec("[a-z]{1,8}@[a-z]{1,8}\\.test", 0..20)) {
            prop_assert_eq!(split_addresses(&parts.join(", ")), parts);
        }
    }
}
