//! Lines of header fields, and folding those that are too long (RFC 5322 §2.1.1, §2.2.3).
//!
//! Promises: a fold never changes what the field says but for white space at the breaks. Does not: break within a word.

use super::header::first_line;

/// Octets of a line without its CRLF (RFC 5322 §2.1.1). Above: a header line is folded, a body is re-encoded.
pub(super) const LINE_BYTES_MAX: usize = 998;

/// Writes one line in pieces of at most 998 octets, each but the first starting with white space and none of only white
/// space (RFC 5322 §2.2.3, §3.2.2). Of a run of white space at a break, one octet stays. `None` where a piece has no
/// white space to break at; something may have been written then.
pub(super) fn fold(out: &mut Vec<u8>, line: &[u8]) -> Option<()> {
    let mut rest = if line.len() > LINE_BYTES_MAX { trim_end(line) } else { line };
    while rest.len() > LINE_BYTES_MAX {
        let at = rest.get(..=LINE_BYTES_MAX)?.iter().rposition(|byte| is_space(*byte))?;
        let head = trim_end(rest.get(..at)?);
        if head.is_empty() && at == 0 {
            return None;
        }
        let behind = rest.get(head.len()..)?;
        if !head.is_empty() {
            out.extend_from_slice(head);
            out.extend_from_slice(b"\r\n");
        }
        // The octet before the next word is the last of the white space at the break.
        rest = behind.get(behind.len() - trim_start(behind).len() - 1..)?;
    }
    out.extend_from_slice(rest);
    out.extend_from_slice(b"\r\n");
    Some(())
}

/// `WSP` of RFC 5234: what a line may be folded at.
pub(super) fn is_space(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t')
}

fn trim_end(mut bytes: &[u8]) -> &[u8] {
    while let [rest @ .., b' ' | b'\t'] = bytes {
        bytes = rest;
    }
    bytes
}

pub(super) fn trim_start(mut bytes: &[u8]) -> &[u8] {
    while let [b' ' | b'\t', rest @ ..] = bytes {
        bytes = rest;
    }
    bytes
}

/// A CR or LF outside of a CRLF, or a NUL.
#[derive(Debug)]
pub(super) struct ControlCharacter;

/// The lines of a field without their CRLF; an error for any CR, LF or NUL outside of a CRLF. The last line may lack
/// its line end.
pub(super) struct Lines<'a>(&'a [u8]);

impl<'a> Lines<'a> {
    pub(super) fn of(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }
}

impl<'a> Iterator for Lines<'a> {
    type Item = Result<&'a [u8], ControlCharacter>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.0.is_empty() {
            return None;
        }
        let line = first_line(self.0);
        self.0 = self.0.get(line.len()..).unwrap_or_default();
        let content = line.strip_suffix(b"\r\n").unwrap_or(line);
        let broken = memchr::memchr3(b'\r', b'\n', 0, content).is_some();
        Some(if broken { Err(ControlCharacter) } else { Ok(content) })
    }
}
