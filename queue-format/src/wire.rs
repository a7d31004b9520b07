//! The fields inside a payload: numbers, byte strings, texts.
//!
//! Fixed numbers are little-endian. A *varint* holds seven bits a byte, lowest first, the top bit set on every byte but
//! the last; only the shortest form is valid. A byte string or text is a varint of its length, then its bytes.

use crate::error::{FormatError, Problem, RecordKind};
use crate::frame::FRAME_BYTES;

/// A decoded record takes at most this many bytes of memory for each byte of its input: the cost of a one-byte empty text
/// in a list, which becomes a `String`.
pub const ALLOCATED_PER_INPUT_BYTE_MAX: usize = 32;

/// The longest varint of a 64-bit number.
pub(crate) const VARINT_BYTES_MAX: usize = 10;

pub(crate) fn put_u64(out: &mut Vec<u8>, value: u64) {
    out.extend_from_slice(&value.to_le_bytes());
}

pub(crate) fn put_varint(out: &mut Vec<u8>, value: u64) {
    let mut rest = value;
    loop {
        let [low, ..] = rest.to_le_bytes();
        rest >>= 7;
        if rest == 0 {
            out.push(low);
            return;
        }
        out.push(low | 0x80);
    }
}

pub(crate) fn put_bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    put_varint(out, bytes.len() as u64);
    out.extend_from_slice(bytes);
}

pub(crate) fn put_text(out: &mut Vec<u8>, text: &str) {
    put_bytes(out, text.as_bytes());
}

/// Takes fields off the front of a payload. Every error names the field that was being read.
pub(crate) struct Fields<'a> {
    record: RecordKind,
    payload_bytes: usize,
    rest: &'a [u8],
}

impl<'a> Fields<'a> {
    pub(crate) fn new(record: RecordKind, payload: &'a [u8]) -> Self {
        Self { record, payload_bytes: payload.len(), rest: payload }
    }

    fn position(&self) -> usize {
        FRAME_BYTES + self.payload_bytes - self.rest.len()
    }

    #[cold]
    fn error(&self, field: &'static str, at_byte: usize, problem: Problem) -> FormatError {
        FormatError::Malformed { record: self.record, field, at_byte, problem }
    }

    /// For a field that was read and holds a value that its record does not allow. The position is that of its end.
    pub(crate) fn out_of_range(&self, field: &'static str) -> FormatError {
        self.error(field, self.position(), Problem::OutOfRange)
    }

    pub(crate) fn byte(&mut self, field: &'static str) -> Result<u8, FormatError> {
        let Some((first, rest)) = self.rest.split_first() else {
            return Err(self.error(field, self.position(), Problem::BeyondEnd));
        };
        self.rest = rest;
        Ok(*first)
    }

    pub(crate) fn u64(&mut self, field: &'static str) -> Result<u64, FormatError> {
        let Some((number, rest)) = self.rest.split_first_chunk() else {
            return Err(self.error(field, self.position(), Problem::BeyondEnd));
        };
        self.rest = rest;
        Ok(u64::from_le_bytes(*number))
    }

    pub(crate) fn varint(&mut self, field: &'static str) -> Result<u64, FormatError> {
        let start = self.position();
        let mut value = 0_u64;
        for shift in (0..).step_by(7).take(VARINT_BYTES_MAX) {
            let byte = self.byte(field)?;
            let bits = u64::from(byte & 0x7f);
            if (bits << shift) >> shift != bits {
                return Err(self.error(field, start, Problem::OutOfRange));
            }
            value |= bits << shift;
            if byte & 0x80 == 0 {
                if bits == 0 && shift > 0 {
                    return Err(self.error(field, start, Problem::NotShortest));
                }
                return Ok(value);
            }
        }
        Err(self.error(field, start, Problem::OutOfRange))
    }

    pub(crate) fn varint_u32(&mut self, field: &'static str) -> Result<u32, FormatError> {
        let start = self.position();
        u32::try_from(self.varint(field)?).map_err(|_| self.error(field, start, Problem::OutOfRange))
    }

    pub(crate) fn varint_u16(&mut self, field: &'static str) -> Result<u16, FormatError> {
        let start = self.position();
        u16::try_from(self.varint(field)?).map_err(|_| self.error(field, start, Problem::OutOfRange))
    }

    pub(crate) fn bytes(&mut self, field: &'static str) -> Result<&'a [u8], FormatError> {
        let start = self.position();
        let len = usize::try_from(self.varint(field)?).unwrap_or(usize::MAX);
        let Some((bytes, rest)) = self.rest.split_at_checked(len) else {
            return Err(self.error(field, start, Problem::BeyondEnd));
        };
        self.rest = rest;
        Ok(bytes)
    }

    pub(crate) fn text(&mut self, field: &'static str) -> Result<&'a str, FormatError> {
        let start = self.position();
        str::from_utf8(self.bytes(field)?).map_err(|_| self.error(field, start, Problem::NotUtf8))
    }

    pub(crate) fn string(&mut self, field: &'static str) -> Result<String, FormatError> {
        self.text(field).map(str::to_owned)
    }

    /// The length of a list whose items take at least `item_bytes_min` bytes each: never more than can still follow, so
    /// that it is safe to reserve room for.
    pub(crate) fn count(&mut self, field: &'static str, item_bytes_min: usize) -> Result<usize, FormatError> {
        let start = self.position();
        let count = usize::try_from(self.varint(field)?).unwrap_or(usize::MAX);
        if count > self.rest.len() / item_bytes_min {
            return Err(self.error(field, start, Problem::BeyondEnd));
        }
        Ok(count)
    }

    /// No byte may be left.
    pub(crate) fn end(self) -> Result<(), FormatError> {
        if self.rest.is_empty() {
            return Ok(());
        }
        Err(self.error("end of record", self.position(), Problem::TrailingBytes))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(bytes: &[u8]) -> Result<u64, Problem> {
        let mut fields = Fields::new(RecordKind::Message, bytes);
        match fields.varint("number") {
            Ok(value) => {
                assert!(fields.end().is_ok(), "{bytes:?} has a surplus byte");
                Ok(value)
            }
            Err(FormatError::Malformed { problem, at_byte, .. }) => {
                assert!(at_byte >= FRAME_BYTES);
                Err(problem)
            }
            Err(other) => panic!("{other}"),
        }
    }

    #[test]
    fn a_varint_is_as_short_as_its_number_allows() {
        for (value, expected) in [
            (0, &[0x00][..]),
            (127, &[0x7f]),
            (128, &[0x80, 0x01]),
            (16_383, &[0xff, 0x7f]),
            (16_384, &[0x80, 0x80, 0x01]),
            (u64::MAX, &[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01]),
        ] {
            let mut out = Vec::new();
            put_varint(&mut out, value);
            assert_eq!(out, expected, "{value}");
            assert_eq!(read(&out), Ok(value));
        }
    }

    #[test]
    fn a_varint_in_another_form_is_refused() {
        for (bytes, problem) in [
            (&[][..], Problem::BeyondEnd),
            (&[0x80], Problem::BeyondEnd),
            (&[0x80, 0x00], Problem::NotShortest),
            (&[0xff, 0x80, 0x00], Problem::NotShortest),
            (&[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x02], Problem::OutOfRange),
            (&[0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x01], Problem::OutOfRange),
        ] {
            assert_eq!(read(bytes), Err(problem), "{bytes:?}");
        }
    }

    #[test]
    fn a_list_cannot_be_longer_than_the_input_has_room_for() {
        let mut fields = Fields::new(RecordKind::Message, &[3, 0, 0, 0, 0, 0, 0, 0, 0]);
        assert!(matches!(
            fields.count("list", 3),
            Err(FormatError::Malformed { field: "list", at_byte: 6, problem: Problem::BeyondEnd, .. })
        ));
        let mut fields = Fields::new(RecordKind::Message, &[2, 0, 0, 0, 0, 0, 0]);
        assert_eq!(fields.count("list", 3), Ok(2));
    }

    #[test]
    fn a_text_must_be_utf8_and_lie_inside_the_record() {
        let mut fields = Fields::new(RecordKind::Message, &[2, 0xc3, 0x28]);
        assert!(matches!(fields.text("name"), Err(FormatError::Malformed { problem: Problem::NotUtf8, .. })));
        let mut fields = Fields::new(RecordKind::Message, &[3, b'a', b'b']);
        assert!(matches!(fields.text("name"), Err(FormatError::Malformed { problem: Problem::BeyondEnd, .. })));
    }
}
