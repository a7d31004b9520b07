//! What is kept and told: `data_dir`, `[queue]`, `[retry]`, `[events]`, `[audit]`, `[dsn]`.

use std::time::Duration;

use super::findings::{PathKind, Problem};
use super::section::{Section, Value};
use super::settings::{
    AuditStreamSettings, DsnSettings, EventFileSettings, EventsSettings, QueueSettings, RetrySettings,
};
use super::submission;
use super::units::format_duration;
use crate::admission::Directory;
use crate::events::EventKind;
use crate::policy::mailing::MailRule;

const SECOND: Duration = Duration::from_secs(1);
const MINUTE: Duration = Duration::from_secs(60);
const DAY: Duration = Duration::from_secs(86_400);
const MIB: u64 = 1 << 20;
const TIB: u64 = 1 << 40;

/// Retry steps and delay notices are walked at each deferral. Above: an error.
const STEPS_MAX: usize = 100;

/// Each stream holds an open file and reads the whole outbox. Above: an error.
const EVENT_FILES_MAX: usize = 16;

pub(super) fn queue(root: &mut Section<'_>) -> QueueSettings {
    let default = QueueSettings::default();
    let data_dir = root.path("data_dir", PathKind::DataDirectory).unwrap_or(default.data_dir);
    let mut section = root.child("queue");
    let settings = QueueSettings {
        data_dir,
        lifetime: section.duration("lifetime", default.lifetime, 5 * MINUTE..=30 * DAY),
        free_space_reserve_bytes: section.size("free_space_reserve", default.free_space_reserve_bytes, 16 * MIB..=TIB),
        messages_max: section.count("messages_max", default.messages_max, 1..=1_000_000_000),
        ready_max: section.count("ready_max", default.ready_max, 1_000..=100_000_000),
        body_cache_bytes: section.size("body_cache", default.body_cache_bytes, MIB..=TIB),
        memtable_bytes: section.size("memtable", default.memtable_bytes, 8 * MIB..=16 * 1_024 * MIB),
        wal_bytes_max: section.size("wal_max", default.wal_bytes_max, 16 * MIB..=64 * 1_024 * MIB),
    };
    section.close();
    settings
}

pub(super) fn retry(mut section: Section<'_>, lifetime: Duration) -> RetrySettings {
    let default = RetrySettings::default();
    let ages = SECOND..=30 * DAY;
    let age = |value: &Value<'_>| value.duration(&ages);
    let settings = RetrySettings {
        steps: section.list("steps", default.steps.clone(), "[\"1m\", \"10m\", \"1h\", \"4h\"]", age),
        jitter_percent: section.count("jitter_percent", default.jitter_percent, 0..=50),
        delay_notices: section.list("delay_notices", default.delay_notices, "[\"4h\"]", age),
        mailbox_full_lifetime: section.duration(
            "mailbox_full_lifetime",
            default.mailbox_full_lifetime,
            MINUTE..=30 * DAY,
        ),
    };
    check_rising(&section, "steps", &settings.steps);
    check_rising(&section, "delay_notices", &settings.delay_notices);
    if settings.steps.is_empty() {
        let remedy = "write at least one, such as [\"15m\"]";
        section.error("steps", Problem::new("has no step", remedy));
    }
    if settings.steps.first().is_some_and(|first| *first >= lifetime) {
        let problem = format!("messages expire after {} before a second attempt", format_duration(lifetime));
        section.error("steps", Problem::new(problem, "shorten the first step, or lengthen lifetime in [queue]"));
    }
    if let Some(late) = settings.delay_notices.iter().find(|notice| **notice >= lifetime) {
        let problem = format!("{} is never reached: messages expire before", format_duration(*late));
        section.warn("delay_notices", Problem::new(problem, "remove it, or lengthen lifetime in [queue]"));
    }
    section.close();
    settings
}

fn check_rising(section: &Section<'_>, key: &str, list: &[Duration]) {
    if list.len() > STEPS_MAX {
        section.error(key, Problem::new(format!("has more than {STEPS_MAX} entries"), "leave some out"));
    }
    let drop = list.iter().zip(list.iter().skip(1)).find(|(earlier, later)| earlier > later);
    if let Some((earlier, later)) = drop {
        let problem = format!("{} comes after {}", format_duration(*later), format_duration(*earlier));
        section.error(key, Problem::new(problem, "put them in rising order"));
    }
}

/// `takes_reports`: there are addresses for DMARC or TLS reports, whose rows need a stream.
pub(super) fn events(mut section: Section<'_>, who: &Directory, takes_reports: bool) -> EventsSettings {
    let default = EventsSettings::default();
    let directory = section.path("directory", PathKind::Directory).unwrap_or(default.directory);
    let mut files = match section.children("file") {
        None => default.files,
        Some(sections) => event_files(&section, sections, who),
    };
    if takes_reports && !files.iter().any(EventFileSettings::takes_reports) {
        let reports = EventFileSettings::of_reports();
        if files.iter().any(|file| file.name == reports.name) {
            let problem = format!("{:?} is the name of the stream of DMARC and TLS reports", reports.name);
            section.error("file", Problem::new(problem, "rename that file, or list \"Report\" in its types"));
        }
        files.push(reports);
    }
    section.close();
    EventsSettings { directory, files }
}

fn event_files(events: &Section<'_>, sections: Vec<Section<'_>>, who: &Directory) -> Vec<EventFileSettings> {
    if sections.len() > EVENT_FILES_MAX {
        events.error("file", Problem::new(format!("has more than {EVENT_FILES_MAX} streams"), "join some"));
    }
    let mut accepted: Vec<EventFileSettings> = Vec::new();
    for mut section in sections {
        let settings = event_file(&mut section, who);
        if accepted.iter().any(|earlier| earlier.name == settings.name) {
            let problem = format!("{:?} is the name of an earlier event file", settings.name);
            section.error("name", Problem::new(problem, "give each its own name"));
        }
        section.close();
        accepted.push(settings);
    }
    accepted
}

pub(super) fn audit(mut section: Section<'_>, events: &EventsSettings) -> AuditStreamSettings {
    let default = AuditStreamSettings::default();
    let settings = AuditStreamSettings {
        enabled: section.flag("enabled", default.enabled),
        file: file_settings(&mut section, default.file),
    };
    let name = &settings.file.name;
    if settings.enabled && events.files.iter().any(|file| file.name == *name) {
        let problem = format!("{name:?} is the name of an event file");
        section.error("name", Problem::new(problem, "give the audit stream its own name"));
    }
    section.close();
    settings
}

fn event_file(section: &mut Section<'_>, who: &Directory) -> EventFileSettings {
    let default = EventFileSettings::default();
    let kinds = EventKind::ALL.map(|kind| (kind.name(), kind));
    let listed = section.list("types", default.types.clone(), "[\"Delivery\", \"Bounce\"]", |value| value.word(&kinds));
    if listed.is_empty() && section.has("types") {
        let remedy = "list some, or remove types to take all";
        section.error("types", Problem::new("takes no event", remedy));
    }
    let types = EventKind::ALL.into_iter().filter(|kind| listed.contains(kind)).collect();
    let sets = section.list("configuration_sets", default.sets.clone(), "[\"receipts\"]", |value| {
        let name = submission::name_form(value)?;
        // Where none is configured, names of sets are tags.
        let is_known = !who.has_sets() || who.set(name.as_str()).is_some();
        if is_known { Ok(name.to_string()) } else { Err(submission::unknown("configuration_set", name.as_str())) }
    });
    file_settings(section, EventFileSettings { types, sets, ..default })
}

/// Name, rotation and retention; the rest is as given.
fn file_settings(section: &mut Section<'_>, default: EventFileSettings) -> EventFileSettings {
    EventFileSettings {
        name: section.read("name", default.name, event_file_name),
        rotate_size_bytes: section.size("rotate_size", default.rotate_size_bytes, 64 << 10..=TIB),
        rotate_age: section.duration("rotate_age", default.rotate_age, MINUTE..=366 * DAY),
        keep_files: section.count("keep_files", default.keep_files, 1..=100_000),
        keep_age: section.duration("keep_age", default.keep_age, MINUTE..=3_660 * DAY),
        ..default
    }
}

fn event_file_name(value: &Value<'_>) -> Result<String, Problem> {
    let name = value.text()?;
    let allowed = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-' || byte == b'_';
    if name.is_empty() || name.len() > 64 || !name.bytes().all(allowed) {
        let stem = name.trim_end_matches(".jsonl").to_ascii_lowercase();
        let usable = !stem.is_empty() && stem.len() <= 64 && stem.bytes().all(allowed);
        let remedy = if usable {
            format!("write \"{stem}\"; the file gets .jsonl by itself")
        } else {
            "write 1 to 64 lower-case letters, digits, - or _, without .jsonl".to_owned()
        };
        return Err(Problem::new(format!("{name:?} cannot be a name"), remedy));
    }
    Ok(name.to_owned())
}

pub(super) fn dsn(mut section: Section<'_>) -> DsnSettings {
    let words = [("auto", MailRule::Auto), ("never", MailRule::Never), ("always", MailRule::Always)];
    let settings = DsnSettings {
        bounce_messages: section.word("bounce_messages", MailRule::Auto, &words),
        complaint_messages: section.word("complaint_messages", MailRule::Auto, &words),
    };
    section.close();
    settings
}
