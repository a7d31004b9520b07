//! Compressed attachments: gzip (RFC 1952) and zip, into bounded memory.
//!
//! Promises: at most [`UNPACKED_BYTES_MAX`] octets come out, and at most [`RATIO_MAX`] for each octet that went in; sizes that an archive
//! claims are not believed. Above either it is refused: a report is text, and text packs by ten or twenty.

use std::io::{Cursor, Read};

use flate2::read::MultiGzDecoder;

/// Octets of an unpacked report. A day of DMARC at one receiver has some thousand rows of half a kilobyte.
pub(super) const UNPACKED_BYTES_MAX: usize = 16 << 20;
/// Octets out for each octet in; XML of equal rows packs by less than a hundred.
pub(super) const RATIO_MAX: usize = 200;
/// Small packages may have any ratio up to here.
const RATIO_FREE_BYTES: usize = 256 << 10;
const _: () = assert!(RATIO_FREE_BYTES <= UNPACKED_BYTES_MAX);
/// Files of an archive. Above: it is refused; a report is one file.
const ENTRIES_MAX: usize = 10;

/// Why a package was not opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum UnpackError {
    /// More octets than a report may have, or too many for what went in.
    #[error("unpacks to more than a report may have")]
    TooLarge,
    /// Not gzip or zip, or damaged.
    #[error("damaged archive")]
    Damaged,
}

/// The content of a package, by its first octets: gzip, zip, or what it is.
pub(super) fn unpack(packed: &[u8]) -> Result<Vec<u8>, UnpackError> {
    match packed {
        [0x1f, 0x8b, ..] => read(MultiGzDecoder::new(packed), packed.len()),
        [b'P', b'K', 3, 4, ..] => zip(packed),
        _ if packed.len() > UNPACKED_BYTES_MAX => Err(UnpackError::TooLarge),
        _ => Ok(packed.to_vec()),
    }
}

fn zip(packed: &[u8]) -> Result<Vec<u8>, UnpackError> {
    let mut archive = zip::ZipArchive::new(Cursor::new(packed)).map_err(|_| UnpackError::Damaged)?;
    if archive.len() > ENTRIES_MAX {
        return Err(UnpackError::Damaged);
    }
    for at in 0..archive.len() {
        let file = archive.by_index(at).map_err(|_| UnpackError::Damaged)?;
        if file.is_file() && !file.name().starts_with("__MACOSX") {
            return read(file, packed.len());
        }
    }
    Err(UnpackError::Damaged)
}

fn read(source: impl Read, packed_bytes: usize) -> Result<Vec<u8>, UnpackError> {
    let limit = packed_bytes.saturating_mul(RATIO_MAX).clamp(RATIO_FREE_BYTES, UNPACKED_BYTES_MAX);
    let mut output = Vec::new();
    let one_more = u64::try_from(limit).unwrap_or(u64::MAX).saturating_add(1);
    let end = source.take(one_more).read_to_end(&mut output);
    if output.len() > limit {
        return Err(UnpackError::TooLarge);
    }
    end.map(|_| output).map_err(|_| UnpackError::Damaged)
}
