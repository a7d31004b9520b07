//! Base64 in lines of 76 octets (RFC 2045 §6.8), written piece by piece: [`Encode`] for content, [`Rewrap`] for what is
//! base64 already and has long lines.
//!
//! Promises: the line end behind the last line is left to who comes next: that of a part belongs to the delimiter. The
//! result does not depend on how the content was cut.

use mail_builder::encoders::Base64Encoder;

/// Octets of a line.
const LINE_BYTES: usize = 76;
/// Octets of content in a line.
const LINE_CONTENT_BYTES: usize = 57;

/// Encodes content.
#[derive(Debug, Default)]
pub(super) struct Encode {
    /// Content that does not fill a line.
    held: Vec<u8>,
    /// Lines were written, the last without its line end.
    is_begun: bool,
}

impl Encode {
    pub(super) fn content(&mut self, content: &[u8], out: &mut Vec<u8>) {
        let mut rest = content;
        if !self.held.is_empty() {
            let missing = LINE_CONTENT_BYTES.saturating_sub(self.held.len());
            let (head, tail) = rest.split_at_checked(missing).unwrap_or((rest, &[]));
            self.held.extend_from_slice(head);
            rest = tail;
            if self.held.len() < LINE_CONTENT_BYTES {
                return;
            }
            let held = std::mem::take(&mut self.held);
            self.lines(&held, out);
            self.held = held;
            self.held.clear();
        }
        let whole = rest.len() - rest.len() % LINE_CONTENT_BYTES;
        let (lines, tail) = rest.split_at_checked(whole).unwrap_or((rest, &[]));
        self.lines(lines, out);
        self.held.extend_from_slice(tail);
    }

    /// The content is over.
    pub(super) fn finish(&mut self, out: &mut Vec<u8>) {
        let held = std::mem::take(&mut self.held);
        self.lines(&held, out);
    }

    /// Whole lines, or the last.
    fn lines(&mut self, content: &[u8], out: &mut Vec<u8>) {
        if content.is_empty() {
            return;
        }
        if std::mem::replace(&mut self.is_begun, true) {
            out.extend_from_slice(b"\r\n");
        }
        Base64Encoder::new().wrap_lines().encode_into(content, out);
        out.truncate(out.len().saturating_sub(2));
    }
}

/// Wraps base64 lines anew. What is not in the alphabet is dropped, as readers do (RFC 2045 §6.8).
#[derive(Debug, Default)]
pub(super) struct Rewrap {
    column: usize,
}

impl Rewrap {
    pub(super) fn text(&mut self, text: &[u8], out: &mut Vec<u8>) {
        let is_digit = |byte: &&u8| byte.is_ascii_alphanumeric() || b"+/=".contains(byte);
        for byte in text.iter().filter(is_digit) {
            if self.column == LINE_BYTES {
                out.extend_from_slice(b"\r\n");
                self.column = 0;
            }
            out.push(*byte);
            self.column += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn any_pieces_give_the_lines_of_the_whole(
            content in prop::collection::vec(any::<u8>(), 0..400),
            step in 1_usize..130,
        ) {
            let (mut encoder, mut pieces) = (Encode::default(), Vec::new());
            content.chunks(step).for_each(|piece| encoder.content(piece, &mut pieces));
            encoder.finish(&mut pieces);
            let mut whole = Vec::new();
            Base64Encoder::new().wrap_lines().encode_into(&content, &mut whole);
            prop_assert_eq!(&pieces, whole.strip_suffix(b"\r\n").unwrap_or_default());
            let (mut rewrap, mut again) = (Rewrap::default(), Vec::new());
            let single: Vec<u8> = whole.iter().copied().filter(|byte| !byte.is_ascii_whitespace()).collect();
            for piece in single.chunks(step) {
                rewrap.text(piece, &mut again);
                rewrap.text(b" \xff-_\t", &mut again);
            }
            prop_assert_eq!(again, pieces);
        }
    }
}
