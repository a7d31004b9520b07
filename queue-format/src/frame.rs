//! The six bytes in front of every payload: record type, layout version, CRC-32C of both and of the payload.
//!
//! This frame is the same in every version, so that any release can tell a damaged record from a newer one.

use crate::error::{FormatError, RecordKind};

/// Record type (1), version (1), CRC-32C (4, little-endian).
pub(crate) const FRAME_BYTES: usize = 6;

/// Appends one record: the frame, and what `payload` appends.
pub(crate) fn write(record: RecordKind, out: &mut Vec<u8>, payload: impl FnOnce(&mut Vec<u8>)) {
    let start = out.len();
    let head = [record.code(), record.version()];
    out.extend_from_slice(&head);
    out.extend_from_slice(&[0; FRAME_BYTES - 2]);
    payload(out);
    let (frame, payload) = out
        .get_mut(start..)
        .and_then(|written| written.split_first_chunk_mut::<FRAME_BYTES>())
        .expect("the frame was appended above and payloads only append");
    let [_, _, checksum @ ..] = frame;
    *checksum = crc(head, payload).to_le_bytes();
}

/// The payload of a record of a kind that has one version, if the bytes are a sound one.
pub(crate) fn open(record: RecordKind, bytes: &[u8]) -> Result<&[u8], FormatError> {
    match open_any(record, bytes)? {
        (version, payload) if version == record.version() => Ok(payload),
        (found, _) => Err(FormatError::UnsupportedVersion { record, found, supported: record.version() }),
    }
}

/// Version and payload of a record, if the bytes are a sound record of this kind and a version that this release reads.
pub(crate) fn open_any(record: RecordKind, bytes: &[u8]) -> Result<(u8, &[u8]), FormatError> {
    let Some(([kind, version, checksum @ ..], payload)) = bytes.split_first_chunk::<FRAME_BYTES>() else {
        return Err(FormatError::TooShort { record, len_bytes: bytes.len() });
    };
    let stored = u32::from_le_bytes(*checksum);
    let computed = crc([*kind, *version], payload);
    // The checksum first: where it is wrong, type and version may be wrong too and say nothing.
    if stored != computed {
        return Err(FormatError::Checksum { record, len_bytes: bytes.len(), stored, computed });
    }
    if *kind != record.code() {
        return Err(FormatError::WrongRecord { expected: record, found: *kind });
    }
    if !(1..=record.version()).contains(version) {
        return Err(FormatError::UnsupportedVersion { record, found: *version, supported: record.version() });
    }
    Ok((*version, payload))
}

fn crc(head: [u8; 2], payload: &[u8]) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c(&head), payload)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record_with(kind: u8, version: u8) -> Vec<u8> {
        let mut bytes = vec![kind, version];
        bytes.extend_from_slice(&crc([kind, version], b"payload").to_le_bytes());
        bytes.extend_from_slice(b"payload");
        bytes
    }

    #[test]
    fn a_record_is_appended_and_leaves_what_was_there() {
        let mut out = b"before".to_vec();
        write(RecordKind::Body, &mut out, |out| out.extend_from_slice(b"payload"));
        let (before, record) = out.split_at(6);
        assert_eq!(before, b"before");
        assert_eq!(open(RecordKind::Body, record), Ok(&b"payload"[..]));
        assert_eq!(record, record_with(6, 1));
    }

    #[test]
    fn a_newer_version_is_told_from_damage() {
        assert_eq!(
            open_any(RecordKind::Message, &record_with(1, 5)),
            Err(FormatError::UnsupportedVersion { record: RecordKind::Message, found: 5, supported: 4 })
        );
        assert_eq!(open_any(RecordKind::Message, &record_with(1, 1)), Ok((1, &b"payload"[..])));
        assert!(open_any(RecordKind::Message, &record_with(1, 0)).is_err());
        let mut damaged = record_with(1, 1);
        damaged[1] = 2;
        assert!(matches!(open_any(RecordKind::Message, &damaged), Err(FormatError::Checksum { .. })));
    }

    #[test]
    fn a_record_of_another_kind_is_named() {
        let error = open(RecordKind::Message, &record_with(5, 1)).unwrap_err();
        assert_eq!(error.to_string(), "expected a message record (type 1), found record type 5");
    }

    #[test]
    fn fewer_bytes_than_a_frame_are_damage() {
        for len_bytes in 0..FRAME_BYTES {
            let bytes = vec![0; len_bytes];
            assert_eq!(
                open(RecordKind::Due, &bytes),
                Err(FormatError::TooShort { record: RecordKind::Due, len_bytes })
            );
        }
    }

    #[test]
    fn zeroed_blocks_are_not_records() {
        assert!(matches!(open(RecordKind::Due, &[0; 4_096]), Err(FormatError::Checksum { .. })));
    }

    #[test]
    fn the_checksum_is_crc_32c() {
        // The check value of the polynomial (RFC 3720 appendix B.4 has more).
        assert_eq!(crc32c::crc32c(b"123456789"), 0xe306_9283);
        assert_eq!(crc([b'1', b'2'], b"3456789"), 0xe306_9283);
    }
}
