//! Names of the files of one stream.

use crate::events::EventId;
use crate::types::Timestamp;

/// `20261121T230040Z`.
const STAMP_BYTES: usize = 16;
/// What other programs append to the name of a file that they compress.
const COMPRESSED: [&str; 6] = [".gz", ".bz2", ".xz", ".zst", ".lz4", ".Z"];

/// The name of a stream's current file, from which those of its rotated ones follow.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct SinkName {
    current: String,
    /// Octets before the last dot.
    stem_bytes: usize,
}

/// A rotated file. Sorts by the time of rotation, then by the first event.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Rotated {
    /// When, as the name says it; texts compare as times do.
    pub(crate) stamp: String,
    /// Id of the first event.
    pub(crate) first: EventId,
    /// The file's name.
    pub(crate) name: String,
}

impl SinkName {
    pub(crate) fn new(current: &str) -> Self {
        let stem_bytes = current.rfind('.').unwrap_or(current.len());
        Self { current: current.to_owned(), stem_bytes }
    }

    /// The current file.
    pub(crate) fn current(&self) -> &str {
        &self.current
    }

    /// The name after a rotation.
    pub(crate) fn rotated(&self, at: Timestamp, first: EventId) -> String {
        let (stem, extension) = self.current.split_at(self.stem_bytes);
        format!("{stem}-{}-{}{extension}", stamp(at), first.value())
    }

    /// What a name says, if it is one of this stream's rotated files.
    pub(crate) fn parse(&self, name: &str) -> Option<Rotated> {
        let (stem, extension) = self.current.split_at(self.stem_bytes);
        let middle = name.strip_prefix(stem)?.strip_prefix('-')?.strip_suffix(extension)?;
        let (stamp, first) = middle.split_once('-')?;
        let stamp_is_right = stamp.len() == STAMP_BYTES
            && stamp.bytes().enumerate().all(|(at, byte)| match at {
                8 => byte == b'T',
                15 => byte == b'Z',
                _ => byte.is_ascii_digit(),
            });
        let first_is_right = !first.is_empty() && first.bytes().all(|byte| byte.is_ascii_digit());
        if !stamp_is_right || !first_is_right {
            return None;
        }
        Some(Rotated { stamp: stamp.to_owned(), first: EventId::new(first.parse().ok()?), name: name.to_owned() })
    }

    /// All rotated files among `names`, oldest first.
    pub(crate) fn rotated_among(&self, names: &[String]) -> Vec<Rotated> {
        let mut rotated: Vec<Rotated> = names.iter().filter_map(|name| self.parse(name)).collect();
        rotated.sort();
        rotated
    }

    /// Whether someone else may have moved the current file here: `events.jsonl.1`, `events.jsonl-20261121`.
    pub(crate) fn is_moved(&self, name: &str) -> bool {
        name.strip_prefix(self.current.as_str()).is_some_and(|rest| rest.starts_with(['.', '-']))
            && !COMPRESSED.iter().any(|extension| name.ends_with(extension))
    }

    /// Whether a file of this name would be taken for one of this stream.
    pub(crate) fn claims(&self, name: &str) -> bool {
        self.current == name || self.parse(name).is_some() || self.is_moved(name)
    }
}

/// `20230505T210023Z`.
pub(crate) fn stamp(at: Timestamp) -> String {
    let iso = at.to_iso8601();
    let digits = iso.chars().take_while(|c| *c != '.').filter(|c| !matches!(c, '-' | ':'));
    digits.chain(['Z']).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rotated_name_is_made_and_read_back() {
        let at = Timestamp::from_millis(1_683_320_423_244);
        for (current, expected) in [
            ("events.jsonl", "events-20230505T210023Z-42.jsonl"),
            ("a.b.jsonl", "a.b-20230505T210023Z-42.jsonl"),
            ("events", "events-20230505T210023Z-42"),
        ] {
            let name = SinkName::new(current);
            let rotated = name.rotated(at, EventId::new(42));
            assert_eq!(rotated, expected);
            let parsed = name.parse(&rotated).unwrap();
            assert_eq!((parsed.first, parsed.stamp.as_str()), (EventId::new(42), "20230505T210023Z"));
        }
    }

    #[test]
    fn other_files_are_left_alone() {
        let name = SinkName::new("events.jsonl");
        for other in [
            "events.jsonl",
            "events-bounces.jsonl",
            "events-20230505T210023Z-.jsonl",
            "events-20230505T210023Z-4x.jsonl",
            "events-20230505T210023Z-+4.jsonl",
            "events-20230505-210023Z-4.jsonl",
            "events-20230505T210023Z-4.jsonl.gz",
            "events-bounces-20230505T210023Z-4.jsonl",
            "events-20230505T210023Z-99999999999999999999.jsonl",
            "",
        ] {
            assert_eq!(name.parse(other), None, "{other}");
        }
    }

    #[test]
    fn files_that_logrotate_moved_are_known_and_compressed_ones_are_not() {
        let name = SinkName::new("events.jsonl");
        assert!(name.is_moved("events.jsonl.1") && name.is_moved("events.jsonl-20261121"));
        assert!(!name.is_moved("events.jsonl") && !name.is_moved("events.jsonl.2.gz") && !name.is_moved("events.json"));
    }
}
