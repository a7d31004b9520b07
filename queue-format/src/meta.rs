//! Values of the meta column family: numbers (counters, positions, versions) and short texts.

use crate::FORMAT_VERSION;
use crate::error::{FormatError, RecordKind};
use crate::frame::{self, FRAME_BYTES};
use crate::wire::{Fields, VARINT_BYTES_MAX, put_text, put_u64};

/// Appends the record of a number.
pub fn encode_meta_number(number: u64, out: &mut Vec<u8>) {
    out.reserve(FRAME_BYTES + 8);
    frame::write(RecordKind::MetaNumber, out, |out| put_u64(out, number));
}

/// The number in a record.
pub fn decode_meta_number(bytes: &[u8]) -> Result<u64, FormatError> {
    let kind = RecordKind::MetaNumber;
    let mut fields = Fields::new(kind, frame::open(kind, bytes)?);
    let number = fields.u64("number")?;
    fields.end()?;
    Ok(number)
}

/// Appends the record of a text.
pub fn encode_meta_text(text: &str, out: &mut Vec<u8>) {
    out.reserve(FRAME_BYTES + VARINT_BYTES_MAX + text.len());
    frame::write(RecordKind::MetaText, out, |out| put_text(out, text));
}

/// The text in a record.
pub fn decode_meta_text(bytes: &[u8]) -> Result<&str, FormatError> {
    let kind = RecordKind::MetaText;
    let mut fields = Fields::new(kind, frame::open(kind, bytes)?);
    let text = fields.text("text")?;
    fields.end()?;
    Ok(text)
}

/// Whether this release may open a store whose format version is `found`.
pub fn check_format_version(found: u64) -> Result<(), FormatError> {
    if (1..=u64::from(FORMAT_VERSION)).contains(&found) {
        return Ok(());
    }
    Err(FormatError::UnsupportedFormat { found, supported: FORMAT_VERSION })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn another_format_version_names_what_was_found_and_what_is_read() {
        for version in 1..=5 {
            assert_eq!(check_format_version(version), Ok(()));
        }
        assert_eq!(
            check_format_version(6).unwrap_err().to_string(),
            "the queue has format version 6, this release reads version 5: \
             start a release of posthaste that reads version 6"
        );
        assert!(check_format_version(0).is_err());
    }
}
