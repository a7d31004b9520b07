//! Header blocks edited: MIME fields replaced and added, and fields of parts made 7-bit and folded.
//!
//! Promises: what is not edited stays to the octet; what cannot be made clean stays as it is, and is told.

use super::super::encode;
use super::super::fold::{LINE_BYTES_MAX, Lines, fold};
use super::super::header::{Field, Fields};
use super::EightBitBodies;
use super::plan::Dirt;

/// Octets up to which a parameter is appended to its line (RFC 5322 §2.1.1 wants 78).
const SHORT_LINE_BYTES: usize = 78;

/// What is to be done with a header block.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Edits {
    /// In place of the field that is there, or added.
    pub(super) encoding: Option<&'static str>,
    /// Appended to `Content-Type`, which is added where there is none.
    pub(super) charset: Option<&'static str>,
    /// Text without a `Content-Type` that gets an encoding: the default is written down.
    pub(super) mime_version: bool,
    /// It has no empty line, and what follows changes: it must not be taken for more of the header.
    pub(super) ends: bool,
    /// Fields are made 7-bit, as far as this says, and folded. Not for the header of the message itself.
    pub(super) tidy: Option<EightBitBodies>,
}

/// What is wrong with the fields of a part's header.
pub(super) struct Survey {
    /// What stands there.
    pub(super) found: Dirt,
    /// What stays when it is tidied, but for the next.
    pub(super) remaining: Dirt,
    /// What stays in `Content-Transfer-Encoding`, if that is not replaced.
    pub(super) remaining_encoding: Dirt,
    /// Tidying changes something.
    pub(super) is_changed: bool,
}

/// Looks what tidying would do.
pub(super) fn survey(block: &[u8], eight_bit: EightBitBodies) -> Survey {
    let found = dirt(block);
    let (remaining, remaining_encoding) = (Dirt::default(), Dirt::default());
    let mut survey = Survey { found, remaining, remaining_encoding, is_changed: false };
    if found == Dirt::default() {
        return survey;
    }
    let mut fields = Fields::new(block);
    let mut scratch = Vec::new();
    for field in fields.by_ref() {
        scratch.clear();
        tidy(&mut scratch, &field, eight_bit);
        survey.is_changed |= scratch != field.raw();
        if is_encoding(&field) {
            survey.remaining_encoding |= dirt(&scratch);
        } else {
            survey.remaining |= dirt(&scratch);
        }
    }
    survey.remaining |= dirt(fields.rest());
    survey.remaining |= dirt(Fields::new(block).mbox_line());
    survey
}

/// The block as edited, with an empty line at its end; lines of the body that stand in it without one are left out.
pub(super) fn edit(block: &[u8], edits: &Edits) -> Vec<u8> {
    edit_fields(block, edits).0
}

/// The same for a part, whose block holds nothing but its header: whatever is no field in it stays.
pub(super) fn edit_part(block: &[u8], edits: &Edits) -> Vec<u8> {
    let (mut edited, rest) = edit_fields(block, edits);
    edited.extend_from_slice(rest.strip_prefix(b"\r\n").unwrap_or(rest));
    edited
}

fn edit_fields<'a>(block: &'a [u8], edits: &Edits) -> (Vec<u8>, &'a [u8]) {
    let mut fields = Fields::new(block);
    let mut out = Vec::with_capacity(block.len() + 128);
    out.extend_from_slice(fields.mbox_line());
    let (mut encoding, mut charset) = (edits.encoding, edits.charset);
    for field in fields.by_ref() {
        if is_encoding(&field) && edits.encoding.is_some() {
            // Once: where it stands twice, nothing is edited.
            append(&mut out, "Content-Transfer-Encoding", encoding.take().unwrap_or("7bit"));
            continue;
        }
        let start = out.len();
        match edits.tidy {
            Some(eight_bit) => tidy(&mut out, &field, eight_bit),
            None => out.extend_from_slice(field.raw()),
        }
        if field.name().eq_ignore_ascii_case(b"Content-Type")
            && let Some(charset) = charset.take()
        {
            add_charset(&mut out, start, charset);
        }
        if !out.ends_with(b"\r\n") {
            out.extend_from_slice(b"\r\n");
        }
    }
    if edits.mime_version {
        append(&mut out, "MIME-Version", "1.0");
    }
    if let Some(charset) = charset {
        append(&mut out, "Content-Type", &format!("text/plain; charset={charset}"));
    }
    if let Some(encoding) = encoding {
        append(&mut out, "Content-Transfer-Encoding", encoding);
    }
    out.extend_from_slice(b"\r\n");
    (out, fields.rest())
}

fn is_encoding(field: &Field<'_>) -> bool {
    field.name().eq_ignore_ascii_case(b"Content-Transfer-Encoding")
}

fn append(out: &mut Vec<u8>, name: &str, value: &str) {
    for part in [name, ": ", value, "\r\n"] {
        out.extend_from_slice(part.as_bytes());
    }
}

/// Appends to the field that begins at `start`.
fn add_charset(out: &mut Vec<u8>, start: usize, charset: &str) {
    while out.len() > start && out.last().is_some_and(|byte| byte.is_ascii_whitespace() || *byte == b';') {
        out.pop();
    }
    let line = out.iter().rev().take_while(|byte| **byte != b'\n').count();
    let parameter = format!("charset={charset}");
    let is_short = line + 2 + parameter.len() <= SHORT_LINE_BYTES;
    out.extend_from_slice(if is_short { b"; " } else { b";\r\n\t" });
    out.extend_from_slice(parameter.as_bytes());
    out.extend_from_slice(b"\r\n");
}

/// Writes a field without octets above 127 and long lines, or as it is.
fn tidy(out: &mut Vec<u8>, field: &Field<'_>, eight_bit: EightBitBodies) {
    if tidied(out, field, eight_bit).is_none() {
        out.extend_from_slice(field.raw());
    }
}

fn tidied(out: &mut Vec<u8>, field: &Field<'_>, eight_bit: EightBitBodies) -> Option<()> {
    let dirt = dirt(field.raw());
    let to_encode = dirt.eight_bit && eight_bit == EightBitBodies::Encode;
    if !to_encode && !dirt.long_line {
        return None;
    }
    // What has other line ends than CRLF is not ours to fold.
    Lines::of(field.raw()).try_for_each(|line| line.map(drop)).ok()?;
    let encoded = if to_encode { Some([field.name(), b": ", &encode::encode(field)?].concat()) } else { None };
    let mut lines = Vec::new();
    for line in Lines::of(encoded.as_deref().unwrap_or(field.raw())) {
        fold(&mut lines, line.ok()?)?;
    }
    out.extend_from_slice(&lines);
    Some(())
}

fn dirt(octets: &[u8]) -> Dirt {
    let is_long = |line: &[u8]| line.strip_suffix(b"\r").unwrap_or(line).len() > LINE_BYTES_MAX;
    Dirt {
        eight_bit: !octets.is_ascii(),
        long_line: octets.len() > LINE_BYTES_MAX && octets.split(|byte| *byte == b'\n').any(is_long),
    }
}
