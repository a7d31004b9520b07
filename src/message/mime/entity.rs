//! What the header of a message or of a part says about its body (RFC 2045, RFC 2046).
//!
//! Promises: what can be read in two ways is [`Kind::Frozen`] with the reason.

use super::super::header::{Field, Fields};
use super::content_type::{Boundary, ContentType};
use super::plan::Reason;

/// Octets of a boundary; RFC 2046 §5.1.1 allows 70. Above: the multipart stays as it is.
const BOUNDARY_BYTES_MAX: usize = 200;

/// Where a header block stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Role {
    /// Of a message: the one that is sent, or one attached.
    Message,
    /// Of a part of a multipart.
    Part {
        /// In a `multipart/digest`, where `message/rfc822` is the default (RFC 2046 §5.1.5).
        digest: bool,
    },
}

/// What a header says.
#[derive(Clone, Debug)]
pub(super) struct Entity {
    pub(super) role: Role,
    pub(super) kind: Kind,
    /// The encoding that is declared is `8bit` or `binary`.
    pub(super) says_eight_bit: bool,
    pub(super) has_mime_version: bool,
}

#[derive(Clone, Debug)]
pub(super) enum Kind {
    Leaf(Leaf),
    Multipart {
        boundary: Vec<u8>,
        digest: bool,
    },
    /// `message/rfc822` or `message/global`: a header block follows.
    Message,
    /// Nothing in it may change.
    Frozen(Reason),
}

/// A part with content of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Leaf {
    pub(super) encoding: Encoding,
    /// Its CRLF are line breaks.
    pub(super) is_text: bool,
    pub(super) label: Label,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Encoding {
    /// The octets are the content.
    Identity,
    QuotedPrintable,
    Base64,
    /// `x-uuencode` and the like: what is in there is unknown.
    Unknown,
}

/// Whether a charset may be added.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Label {
    /// There is one, or none is due.
    Settled,
    /// Text without a charset.
    Missing,
    /// HTML or XML without a charset in its header, which may have one inside.
    MaybeInside,
}

impl Entity {
    /// Of a header block, with or without its empty line.
    pub(super) fn of(header: &[u8], role: Role) -> Self {
        let (mut content_type, mut encoding) = (Once::None, Once::None);
        let mut has_mime_version = false;
        for field in Fields::new(header) {
            match field.name().len() {
                12 if field.name().eq_ignore_ascii_case(b"Content-Type") => content_type.set(field),
                12 => has_mime_version |= field.name().eq_ignore_ascii_case(b"MIME-Version"),
                25 if field.name().eq_ignore_ascii_case(b"Content-Transfer-Encoding") => encoding.set(field),
                _ => {}
            }
        }
        let word = match &encoding {
            Once::One(field) => first_word(field.value()),
            Once::None | Once::More => Vec::new(),
        };
        let kind = match (&content_type, &encoding) {
            (Once::More, _) | (_, Once::More) => Kind::Frozen(Reason::RepeatedField),
            (Once::One(field), _) => typed(ContentType::parse(field.after_colon()).as_ref(), &word),
            (Once::None, _) if role == (Role::Part { digest: true }) => attached_message(&word),
            (Once::None, _) => leaf(&word, true, Label::Missing),
        };
        let says_eight_bit = matches!(word.as_slice(), b"8bit" | b"binary");
        Self { role, kind, says_eight_bit, has_mime_version }
    }

    /// One that is left as it is.
    pub(super) fn frozen(role: Role, reason: Reason) -> Self {
        Self { role, kind: Kind::Frozen(reason), says_eight_bit: false, has_mime_version: true }
    }

    pub(super) fn is_composite(&self) -> bool {
        matches!(self.kind, Kind::Multipart { .. } | Kind::Message)
    }
}

/// A field that may stand once.
enum Once<'a> {
    None,
    One(Field<'a>),
    More,
}

impl<'a> Once<'a> {
    fn set(&mut self, field: Field<'a>) {
        *self = if matches!(self, Once::None) { Once::One(field) } else { Once::More };
    }
}

fn typed(content_type: Option<&ContentType>, encoding: &[u8]) -> Kind {
    let Some(content_type) = content_type else {
        return leaf(encoding, true, Label::Settled);
    };
    match (content_type.main.as_slice(), content_type.sub.as_slice()) {
        (b"multipart", b"signed" | b"encrypted") => Kind::Frozen(Reason::Signed),
        (b"multipart", sub) => match &content_type.boundary {
            Boundary::One(boundary) => multipart(boundary, sub == b"digest"),
            Boundary::Missing | Boundary::Unclear => Kind::Frozen(Reason::NoBoundary),
        },
        (b"message", b"rfc822" | b"global") => attached_message(encoding),
        (b"message", _) => Kind::Frozen(Reason::MessageType),
        (b"text", sub) => {
            let label = match sub {
                _ if content_type.has_charset || content_type.is_open => Label::Settled,
                b"html" | b"xml" => Label::MaybeInside,
                _ => Label::Missing,
            };
            leaf(encoding, true, label)
        }
        _ => leaf(encoding, false, Label::Settled),
    }
}

fn multipart(boundary: &[u8], digest: bool) -> Kind {
    // White space at its end cannot be told from that of the line (RFC 2046 §5.1.1 forbids it).
    let boundary = boundary.trim_ascii_end();
    if boundary.is_empty() || boundary.len() > BOUNDARY_BYTES_MAX || !boundary.is_ascii() {
        return Kind::Frozen(Reason::NoBoundary);
    }
    Kind::Multipart { boundary: boundary.to_vec(), digest }
}

/// RFC 2046 §5.2.1 allows it no encoding, RFC 6532 §3.7 does; readers undo one where it stands.
fn attached_message(encoding: &[u8]) -> Kind {
    match self::encoding(encoding) {
        Encoding::Identity => Kind::Message,
        _ => leaf(encoding, false, Label::Settled),
    }
}

fn leaf(encoding: &[u8], is_text: bool, label: Label) -> Kind {
    match self::encoding(encoding) {
        Encoding::Unknown => Kind::Frozen(Reason::UnknownEncoding),
        encoding => Kind::Leaf(Leaf { encoding, is_text, label }),
    }
}

/// Readers take what they do not know for no encoding at all; but `x-` and the names of uuencode and its kin are some.
fn encoding(word: &[u8]) -> Encoding {
    match word {
        b"quoted-printable" => Encoding::QuotedPrintable,
        b"base64" => Encoding::Base64,
        b"uuencode" | b"uue" | b"uu" | b"yenc" | b"binhex" | b"binhex40" | b"mac-binhex40" => Encoding::Unknown,
        _ if word.starts_with(b"x-") => Encoding::Unknown,
        _ => Encoding::Identity,
    }
}

/// Without comments and what programs append, in lower case.
fn first_word(value: &[u8]) -> Vec<u8> {
    let mut rest = value;
    while rest.first() == Some(&b'(') {
        let end = rest.iter().position(|byte| *byte == b')').map_or(rest.len(), |at| at + 1);
        rest = rest.get(end..).unwrap_or_default().trim_ascii_start();
    }
    let is_end = |byte: &u8| byte.is_ascii_whitespace() || b";(,".contains(byte);
    let length = rest.iter().position(is_end).unwrap_or(rest.len());
    rest.get(..length).unwrap_or_default().to_ascii_lowercase()
}
