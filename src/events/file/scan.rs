//! Reads lines of event files at offsets, without holding a file in memory.

use std::io;

use memchr::{memchr, memmem, memrchr};

use super::StorageFile;
use crate::events::EventId;

/// What stands before the id in each line. Within strings the quotes would be escaped, so it stands nowhere else.
const ID_MARKER: &[u8] = b"\"posthaste\":{\"eventId\":";
/// First size of a read.
const CHUNK_BYTES: usize = 4_096;
/// Above this, octets without a line end are not a line. Headers are cut at 10 KB, so that no event comes near.
const LINE_BYTES_MAX: usize = 16 << 20;
/// A range this short is read from its start instead of being halved again.
const SEARCH_BYTES_MIN: u64 = 64 << 10;

/// The id of the event that a line tells of; `None` where it is not an event of ours.
pub(crate) fn line_id(line: &[u8]) -> Option<EventId> {
    let at = memmem::rfind(line, ID_MARKER)? + ID_MARKER.len();
    let digits = line.get(at..)?;
    let end = digits.iter().position(|byte| !byte.is_ascii_digit())?;
    let number = std::str::from_utf8(digits.get(..end)?).ok()?.parse().ok()?;
    (number > 0).then(|| EventId::new(number))
}

/// Octets from `offset` on, up to `limit` or the end of the file.
pub(crate) fn read_range(file: &dyn StorageFile, offset: u64, limit: usize) -> io::Result<Vec<u8>> {
    let mut bytes = vec![0; limit];
    let mut filled = 0;
    while let Some(free) = bytes.get_mut(filled..).filter(|free| !free.is_empty()) {
        match file.read_at(offset + filled as u64, free) {
            Ok(0) => break,
            Ok(count) => filled += count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    bytes.truncate(filled);
    Ok(bytes)
}

/// The line that starts at `offset`, without its line feed; `None` where no line feed follows.
pub(super) fn line_at(file: &dyn StorageFile, offset: u64) -> io::Result<Option<Vec<u8>>> {
    let mut limit = CHUNK_BYTES;
    loop {
        let mut bytes = read_range(file, offset, limit)?;
        if let Some(end) = memchr(b'\n', &bytes) {
            bytes.truncate(end);
            return Ok(Some(bytes));
        }
        if bytes.len() < limit || limit >= LINE_BYTES_MAX {
            return Ok(None);
        }
        limit *= 4;
    }
}

/// The start of a line, at most `len`, before which all events are older than `oldest`. Lines after it may be older too
/// where the file holds lines that are not ours.
pub(super) fn first_line_from(file: &dyn StorageFile, oldest: EventId, len: u64) -> io::Result<u64> {
    let is_older = |line: &[u8]| line_id(line).is_some_and(|id| id < oldest);
    let (mut low, mut high) = (0, len);
    while high - low > SEARCH_BYTES_MIN {
        let middle = low + (high - low) / 2;
        let start = line_at(file, middle)?.map(|rest| middle + rest.len() as u64 + 1);
        let line = match start {
            Some(start) if start < high => line_at(file, start)?.map(|line| (start, line)),
            _ => None,
        };
        match line {
            Some((start, line)) if is_older(&line) => low = start + line.len() as u64 + 1,
            _ => high = middle,
        }
    }
    while let Some(line) = line_at(file, low)?.filter(|line| is_older(line)) {
        low += line.len() as u64 + 1;
    }
    Ok(low)
}

/// The end of a file.
pub(super) struct Tail {
    /// The last complete line, without its line feed; empty where there is none.
    pub(super) line: Vec<u8>,
    /// What follows its line feed; empty where the file ends with one.
    pub(super) rest: Vec<u8>,
    /// Octets of the file.
    pub(super) len: u64,
}

/// Reads the end of a file. What is longer than any line is given as `rest`.
pub(super) fn tail(file: &dyn StorageFile) -> io::Result<Tail> {
    let len = file.stat()?.len;
    let mut limit = CHUNK_BYTES;
    loop {
        let start = len.saturating_sub(limit as u64);
        let mut bytes = read_range(file, start, limit)?;
        let end = memrchr(b'\n', &bytes);
        let line_start = match end.and_then(|end| bytes.get(..end)) {
            Some(before) => memrchr(b'\n', before).map(|at| at + 1),
            None => None,
        };
        if line_start.is_none() && start > 0 && limit < LINE_BYTES_MAX {
            limit *= 4;
            continue;
        }
        let rest = bytes.split_off(end.map_or(0, |end| end + 1));
        bytes.pop();
        let line = bytes.split_off(line_start.unwrap_or(0));
        return Ok(Tail { line, rest, len });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::events::file::Storage;
    use crate::events::file::model::ModelStorage;

    fn file(content: &str) -> Box<dyn StorageFile> {
        let storage = ModelStorage::new();
        storage.put("f", content.as_bytes());
        storage.open("f").unwrap().unwrap()
    }

    fn line(id: u64, padding: usize) -> String {
        format!("{{\"pad\":\"{}\",\"posthaste\":{{\"eventId\":{id}}}}}\n", "x".repeat(padding))
    }

    #[test]
    fn an_id_is_read_only_from_its_place() {
        assert_eq!(line_id(line(7, 3).as_bytes()), Some(EventId::new(7)));
        for text in [
            "",
            "{}",
            "\"posthaste\":{\"eventId\":",
            "\"posthaste\":{\"eventId\":7",
            "\\\"posthaste\\\":{\"eventId\":7}",
        ] {
            assert_eq!(line_id(text.as_bytes()), None, "{text}");
        }
        assert_eq!(line_id(b"\"posthaste\":{\"eventId\":99999999999999999999999}"), None);
        assert_eq!(line_id(b"\"posthaste\":{\"eventId\":0}"), None);
    }

    #[test]
    fn the_first_line_from_an_id_is_found_in_files_of_any_size() {
        for (count, padding) in [(0, 0), (1, 0), (3, 10_000), (50, 9_000), (2_000, 90), (2_000, 400)] {
            let lines: Vec<String> = (1..=count).map(|n| line(n * 2, padding)).collect();
            let file = file(&lines.concat());
            let len = file.stat().unwrap().len;
            for wanted in [1, 2, 3, count, count + 1, 2 * count - 1_u64.min(count), 2 * count, 2 * count + 1] {
                let expected: usize = lines.iter().take((wanted.saturating_sub(1) / 2) as usize).map(String::len).sum();
                let found = first_line_from(&*file, EventId::new(wanted), len).unwrap();
                assert_eq!(found, expected as u64, "{count} {padding} {wanted}");
            }
        }
    }

    #[test]
    fn the_tail_is_the_last_whole_line_and_what_follows_it() {
        let long = "y".repeat(20_000);
        for (content, line, rest) in [
            ("", "", ""),
            ("abc", "", "abc"),
            ("abc\n", "abc", ""),
            ("abc\nde", "abc", "de"),
            ("abc\ndef\n", "def", ""),
            ("\n\n", "", ""),
            (&format!("a\n{long}\n"), &long, ""),
            (&format!("a\n{long}\n{long}"), &long, &long),
            (&format!("{long}\n"), &long, ""),
        ] {
            let tail = tail(&*file(content)).unwrap();
            assert_eq!(String::from_utf8(tail.line).unwrap(), line);
            assert_eq!(String::from_utf8(tail.rest).unwrap(), rest);
            assert_eq!(tail.len, content.len() as u64);
        }
    }
}
