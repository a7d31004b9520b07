//! What an administrator can set about events. Validated by `daemon`; defaults are those of config.toml.example.

use std::path::PathBuf;
use std::time::Duration;

use super::file::SinkName;
use super::{EventKind, EventLine};

/// All event files.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Where the files are; made with mode 0750 where it does not exist.
    pub directory: PathBuf,
    /// The streams of files. None: events are dropped.
    pub sinks: Vec<SinkSettings>,
    /// Files are synced at most this often, and events leave the queue after that. Lines can be read before.
    pub sync_interval: Duration,
}

/// One stream of files.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SinkSettings {
    /// Name of the current file within the directory, such as `events.jsonl`.
    pub file_name: String,
    /// Which events it takes; empty: all but reports of receivers ([`EventKind::is_taken_unnamed`]).
    pub kinds: Vec<EventKind>,
    /// Of messages of these configuration sets only; empty: of all.
    pub sets: Vec<String>,
    /// A file of this size is rotated; it may be longer by one line. `None`: whatever its size.
    pub rotate_bytes: Option<u64>,
    /// A file of this age that holds a line is rotated. `None`: whatever its age.
    pub rotate_age: Option<Duration>,
    /// Rotated files kept, at least 1; older ones are deleted. `None`: any number.
    pub keep_files: Option<usize>,
    /// Files rotated longer ago are deleted. `None`: none.
    pub keep_age: Option<Duration>,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            directory: PathBuf::from("/var/log/posthaste"),
            sinks: vec![SinkSettings::default()],
            sync_interval: Duration::from_secs(1),
        }
    }
}

impl Default for SinkSettings {
    fn default() -> Self {
        Self {
            file_name: "events.jsonl".to_owned(),
            kinds: Vec::new(),
            sets: Vec::new(),
            rotate_bytes: Some(256 * 1024 * 1024),
            rotate_age: Some(Duration::from_secs(24 * 3_600)),
            keep_files: Some(14),
            keep_age: None,
        }
    }
}

impl Settings {
    /// Whether any stream takes events of this kind.
    pub fn takes(&self, kind: EventKind) -> bool {
        self.sinks.iter().any(|sink| sink.takes(kind))
    }

    /// Says what is wrong with these settings, in words for the administrator.
    pub fn check(&self) -> Result<(), String> {
        for (index, sink) in self.sinks.iter().enumerate() {
            let name = &sink.file_name;
            if name.is_empty() || name.starts_with('.') || name.contains(['/', '\0']) {
                return Err(format!("event file name {name:?} is not a plain file name; write one like events.jsonl"));
            }
            if sink.rotate_bytes.is_some_and(|bytes| bytes == 0) {
                return Err(format!("event file {name} would be rotated at 0 bytes; write a size such as 256 MiB"));
            }
            if sink.rotate_age.is_some_and(|age| age < Duration::from_secs(1)) {
                return Err(format!("event file {name} would be rotated at less than 1 s; write an age such as 24 h"));
            }
            if sink.keep_files == Some(0) {
                return Err(format!("event file {name} would keep no rotated file for slow readers; write at least 1"));
            }
            for other in self.sinks.iter().skip(index + 1) {
                if SinkName::new(name).claims(&other.file_name) || SinkName::new(&other.file_name).claims(name) {
                    return Err(format!("event files {name} and {} would get in each other's way", other.file_name));
                }
            }
        }
        Ok(())
    }
}

impl SinkSettings {
    /// Whether this stream takes events of this kind.
    pub fn takes(&self, kind: EventKind) -> bool {
        if self.kinds.is_empty() { kind.is_taken_unnamed() } else { self.kinds.contains(&kind) }
    }

    /// Whether this stream takes this event.
    pub fn takes_line(&self, line: &EventLine) -> bool {
        let of_set = || line.configuration_set().is_some_and(|set| self.sets.iter().any(|known| known == set));
        self.takes(line.kind) && (self.sets.is_empty() || of_set())
    }

    /// Whether it takes the same events as `other`.
    pub fn takes_as(&self, other: &SinkSettings) -> bool {
        self.kinds == other.kinds && self.sets == other.sets
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(names: &[&str]) -> Result<(), String> {
        let sink = |name: &&str| SinkSettings { file_name: (*name).to_owned(), ..SinkSettings::default() };
        Settings { sinks: names.iter().map(sink).collect(), ..Settings::default() }.check()
    }

    #[test]
    fn names_that_leave_the_directory_or_clash_are_refused() {
        assert_eq!(check(&["events.jsonl", "bounces.jsonl", "events-bounces.jsonl"]), Ok(()));
        for names in [
            &["a/b"][..],
            &[""],
            &["."],
            &["../events.jsonl"],
            &["a.jsonl", "a.jsonl"],
            &["a.jsonl", "a-20261121T230040Z-7.jsonl"],
            &["a.jsonl.1", "a.jsonl"],
        ] {
            assert!(check(names).is_err(), "{names:?}");
        }
    }

    #[test]
    fn limits_that_leave_no_room_are_refused() {
        let check = |change: fn(&mut SinkSettings)| {
            let mut settings = Settings::default();
            change(&mut settings.sinks[0]);
            settings.check().is_err()
        };
        assert!(!check(|_| {}));
        assert!(check(|sink| sink.rotate_bytes = Some(0)));
        assert!(check(|sink| sink.rotate_age = Some(Duration::from_millis(1))));
        assert!(check(|sink| sink.keep_files = Some(0)));
    }

    #[test]
    fn the_default_takes_every_kind_but_reports_of_receivers_and_a_filter_only_its_own() {
        let not_taken = EventKind::ALL.into_iter().filter(|kind| !Settings::default().takes(*kind));
        assert_eq!(not_taken.collect::<Vec<_>>(), [EventKind::Report]);
        let sink = SinkSettings { kinds: vec![EventKind::Bounce], ..SinkSettings::default() };
        let settings = Settings { sinks: vec![sink], ..Settings::default() };
        assert!(settings.takes(EventKind::Bounce) && !settings.takes(EventKind::Send));
        assert!(!Settings { sinks: Vec::new(), ..Settings::default() }.takes(EventKind::Bounce));
    }
}
