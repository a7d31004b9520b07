//! Looks through RocksDB's write-ahead logs for damage before they are replayed: RocksDB itself only says "checksum
//! mismatch", without a place, and takes some damage for the end of a log.
//!
//! The layout is RocksDB's: blocks of 32 KiB; in each, records of a masked CRC-32C (4 bytes, of type and payload), a
//! length (2) and a type (1), in recycled logs a log number (4) after it; the last bytes of a block, too few for a record,
//! are zero. A record that is cut short by the end of the log, and zeros up to its end, are a torn tail, which is no damage.
//!
//! Does not: interpret what is in the records, or change anything.

use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};

const BLOCK_BYTES: usize = 32 << 10;
const HEADER_BYTES: usize = 7;
/// Types from here on carry the number of their log in the header.
const RECYCLED_TYPES: std::ops::RangeInclusive<u8> = 5..=8;
const RECYCLED_HEADER_BYTES: usize = 11;
/// RocksDB stores checksums rotated and with this added, since it computes checksums of data that holds checksums.
const MASK_DELTA: u32 = 0xa282_ead8;

/// Sentences about the logs of a database that are damaged before their tail, each with file and offset. Reads them all.
pub(super) fn damages(directory: &Path) -> Vec<String> {
    logs(directory).iter().filter_map(|path| damage_in(path)).collect()
}

/// The logs of a database, oldest first.
pub(super) fn logs(directory: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(directory).into_iter().flatten().flatten().map(|entry| entry.path());
    let mut logs: Vec<_> = entries.filter(|path| path.extension().is_some_and(|end| end == "log")).collect();
    logs.sort();
    logs
}

fn damage_in(path: &Path) -> Option<String> {
    let found = File::open(path).and_then(|file| {
        let len = file.metadata()?.len();
        Ok((first_damage(file, len)?, len))
    });
    let path = path.display();
    match found {
        Ok((damage, len)) => {
            damage.map(|(at, what)| format!("write-ahead log {path} is damaged at byte {at} of {len}: {what}"))
        }
        Err(error) => Some(format!("write-ahead log {path} cannot be read: {error}")),
    }
}

/// Where the first record stands that is not what was written, and why.
fn first_damage(mut log: impl Read, len: u64) -> io::Result<Option<(u64, &'static str)>> {
    let mut block = Vec::with_capacity(BLOCK_BYTES);
    let mut start = 0;
    // Space that was reserved and never written, if nothing follows it.
    let mut zeros_from = None;
    while start < len {
        block.clear();
        log.by_ref().take(BLOCK_BYTES as u64).read_to_end(&mut block)?;
        if block.is_empty() {
            break;
        }
        if let Some(zeros_from) = zeros_from {
            if block.iter().any(|byte| *byte != 0) {
                return Ok(Some((zeros_from, "zeros where a record belongs")));
            }
        } else {
            match look_at(&block, start + block.len() as u64 >= len) {
                Block::Good => {}
                Block::ZerosFrom(at) => zeros_from = Some(start + at as u64),
                Block::Damaged(at, what) => return Ok(Some((start + at as u64, what))),
            }
        }
        start += block.len() as u64;
    }
    Ok(None)
}

/// What a block holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Block {
    Good,
    ZerosFrom(usize),
    Damaged(usize, &'static str),
}

fn look_at(block: &[u8], is_last: bool) -> Block {
    let mut at = 0;
    while let Some(rest) = block.get(at..).filter(|rest| rest.len() >= HEADER_BYTES) {
        match record(rest) {
            Record::Good(len) => at += len,
            Record::Zero if rest.iter().all(|byte| *byte == 0) => return Block::ZerosFrom(at),
            Record::Zero => return Block::Damaged(at, "zeros where a record belongs"),
            Record::BadChecksum => return Block::Damaged(at, "checksum mismatch"),
            Record::BeyondEnd if !is_last => return Block::Damaged(at, "a record is longer than its block"),
            Record::BeyondEnd if is_followed(rest) => return Block::Damaged(at, "a record is longer than it was"),
            Record::BeyondEnd => return Block::Good,
        }
    }
    Block::Good
}

/// What stands at the start of some octets, of which there are enough for a header.
enum Record {
    /// With this length in all.
    Good(usize),
    Zero,
    BadChecksum,
    BeyondEnd,
}

fn record(bytes: &[u8]) -> Record {
    let Some(([c0, c1, c2, c3, len_low, len_high, kind], _)) = bytes.split_first_chunk::<HEADER_BYTES>() else {
        return Record::BeyondEnd;
    };
    let payload_bytes = usize::from(u16::from_le_bytes([*len_low, *len_high]));
    if *kind == 0 && payload_bytes == 0 {
        return Record::Zero;
    }
    let header_bytes = if RECYCLED_TYPES.contains(kind) { RECYCLED_HEADER_BYTES } else { HEADER_BYTES };
    let len = header_bytes + payload_bytes;
    // The checksum covers the type and all behind it.
    let Some(covered) = bytes.get(HEADER_BYTES - 1..len) else { return Record::BeyondEnd };
    let is_good = mask(crc32c::crc32c(covered)) == u32::from_le_bytes([*c0, *c1, *c2, *c3]);
    if is_good { Record::Good(len) } else { Record::BadChecksum }
}

/// Whether a whole record stands further on: then this one is not cut short by the end, its length is wrong.
fn is_followed(rest: &[u8]) -> bool {
    let starts = (1..rest.len().saturating_sub(HEADER_BYTES)).filter_map(|at| rest.get(at..));
    starts.map(record).any(|record| matches!(record, Record::Good(_)))
}

fn mask(crc: u32) -> u32 {
    crc.rotate_right(15).wrapping_add(MASK_DELTA)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(payload: &[u8]) -> Vec<u8> {
        let typed = [&[1], payload].concat();
        let len = u16::try_from(payload.len()).unwrap();
        [&mask(crc32c::crc32c(&typed)).to_le_bytes()[..], &len.to_le_bytes(), &typed].concat()
    }

    #[track_caller]
    fn check(log: &[u8], expected: Option<(u64, &'static str)>) {
        assert_eq!(first_damage(log, log.len() as u64).unwrap(), expected);
    }

    #[test]
    fn a_torn_tail_is_no_damage_wherever_it_is_cut() {
        let log = [written(b"first"), written(b"second"), written(b"third")].concat();
        for cut in 0..=log.len() {
            check(&log[..cut], None);
        }
        check(&[&log[..], &[0; 100_000]].concat(), None);
    }

    #[test]
    fn every_flipped_octet_before_the_last_record_is_found() {
        let log = [written(b"first"), written(b"second"), written(b"third")].concat();
        let second = written(b"first").len();
        let third = second + written(b"second").len();
        for at in 0..third {
            let mut damaged = log.clone();
            damaged[at] ^= 0x81;
            let found = first_damage(&damaged[..], log.len() as u64).unwrap();
            let place = if at < second { 0 } else { second as u64 };
            assert_eq!(found.map(|(at, _)| at), Some(place), "octet {at}");
        }
    }

    #[test]
    fn zeros_with_records_behind_them_are_damage() {
        let mut log = [written(&[7; 20_000]), written(&[8; 12_754]), written(b"next block")].concat();
        assert_eq!(log[BLOCK_BYTES..], written(b"next block"), "a full block, then one more record");
        let second = written(&[7; 20_000]).len();
        log[second..BLOCK_BYTES].fill(0);
        check(&log, Some((second as u64, "zeros where a record belongs")));
    }
}
