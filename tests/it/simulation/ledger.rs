//! What the world knows of each recipient from outside the daemon: what applications were told, what hosts took, and
//! what stands in the due index.
//!
//! A recipient is known by its *name*: its address, which each try to hand in a message makes anew; for notifications,
//! which go to one address again and again, the address and the id of the message.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use posthaste::events::EventKind;
use posthaste::queue::store::{Change, Family, Record};
use posthaste::types::Timestamp;
use queue_format::{
    COUNTER_QUOTA, DueEntry, MessageRecord, OutboxRecordRef, decode_counter, parse_counter_key, parse_due_key,
};

/// Message id and group.
pub(super) type Job = ([u8; 22], u16);

/// A final dot that came to a host with this recipient.
#[derive(Clone, Copy, Debug)]
pub(super) struct Dot {
    pub(super) at: Timestamp,
    /// The host keeps the message.
    pub(super) taken: bool,
    /// A reply to the dot was sent.
    pub(super) replied: bool,
}

/// What a host that greylists saw of a recipient last.
#[derive(Clone, Copy, Debug)]
struct Greylisted {
    source: IpAddr,
    at: Timestamp,
    /// One after the other.
    times: u32,
}

/// Attempts of a greylisted recipient that come from one source.
const SAME_SOURCE_ATTEMPTS: u32 = 4;

/// A job as the due index has it.
#[derive(Clone, Debug)]
pub(super) struct Due {
    pub(super) at: Timestamp,
    pub(super) expires_at: Timestamp,
    pub(super) domain: String,
}

/// The start after a stop that was not orderly.
#[derive(Clone, Debug)]
pub(super) struct Restart {
    pub(super) stopped_at: Timestamp,
    /// The start came to its end.
    pub(super) is_up: bool,
    /// Names that were due by then, and so may have been in flight.
    pub(super) due: BTreeSet<String>,
}

#[derive(Default)]
pub(super) struct Ledger {
    /// Names for which an application got 250.
    pub(super) accepted: BTreeSet<String>,
    pub(super) dots: BTreeMap<String, Vec<Dot>>,
    pub(super) restarts: Vec<Restart>,
    /// What stands in the due index, as the daemon's writes say.
    pub(super) due: BTreeMap<Job, Due>,
    /// The last time by which what is due may have been in flight before an unclean stop.
    doubtful_until: Option<Timestamp>,
    /// Jobs that were given a due time by then only after that start: the clock was set back.
    behind: BTreeSet<Job>,
    /// What was charged to the server, by minute, as the daemon's writes say.
    charged: BTreeMap<u64, u64>,
    /// What was marked of the server, by mark and hour, as the daemon's writes say.
    marked: BTreeMap<(u8, u64), u64>,
    /// The reverse-path that hosts saw for a recipient, and the other way round.
    paths: BTreeMap<String, String>,
    path_owners: BTreeMap<String, String>,
    jobs: BTreeMap<String, Job>,
    names: BTreeMap<Job, Vec<String>>,
    greylisted: BTreeMap<String, Greylisted>,
    violations: BTreeSet<String>,
    /// What happened, where somebody wants to read it.
    story: Option<Vec<String>>,
    pub(super) attempts: u64,
}

impl Ledger {
    pub(super) fn new(with_story: bool) -> Self {
        Self { story: with_story.then(Vec::new), ..Self::default() }
    }

    /// Something that must not be, by the name of docs/QUEUE.md.
    pub(super) fn violation(&mut self, text: String) {
        if self.violations.insert(text.clone()) {
            self.tell(|| format!("VIOLATION {text}"));
        }
    }

    /// PATH: a recipient has one reverse-path, in all attempts, and nobody else has it.
    pub(super) fn returns(&mut self, address: &str, path: &str, domain: &str) {
        let known = self.paths.entry(address.to_owned()).or_insert_with(|| path.to_owned()).clone();
        let owner = self.path_owners.entry(path.to_owned()).or_insert_with(|| address.to_owned()).clone();
        if known != path || owner != address || path.rsplit_once('@').map(|(_, at)| at) != Some(domain) {
            self.violation(format!("PATH: {address} is sent to from {path}, before it was {known}, of {owner}"));
        }
    }

    pub(super) fn violations(&self) -> &BTreeSet<String> {
        &self.violations
    }

    pub(super) fn tell(&mut self, line: impl FnOnce() -> String) {
        if let Some(story) = &mut self.story {
            story.push(line());
        }
    }

    pub(super) fn story(&mut self) -> Vec<String> {
        self.story.take().unwrap_or_default()
    }

    /// Follows what the daemon writes.
    pub(super) fn written(&mut self, changes: &[Change]) {
        let (before, mut accepted) = (self.charged.values().sum::<u64>(), 0);
        let (marked_before, mut ended) = (self.marked.values().sum::<u64>(), 0);
        for change in changes {
            match change {
                Change::Put { family: Family::Message, key, value } => {
                    accepted += self.message(key.as_ref(), value);
                }
                Change::Put { family: Family::Counter, key, value } => self.put_counter(key.as_ref(), value),
                Change::Put { family: Family::Outbox, value, .. } => ended += u64::from(counts(value)),
                Change::Put { family: Family::Due, key, value } => self.put_due(key.as_ref(), value),
                Change::Delete { family: Family::Due, key } => {
                    if let Some((_, id, group)) = parse_due_key(key.as_ref()) {
                        self.due.remove(&(id, group));
                    }
                }
                _ => {}
            }
        }
        let marked = self.marked.values().sum::<u64>() - marked_before;
        if marked != ended {
            self.violation(format!("MARKED: {marked} recipients count for reputation with the events of {ended}"));
        }
        let charged = self.charged.values().sum::<u64>() - before;
        if charged != accepted {
            self.violation(format!(
                "CHARGED: {charged} recipients were charged with the {accepted} that were accepted"
            ));
        }
    }

    /// What the server was charged in the minutes from `first` on.
    pub(super) fn charged_since(&self, first: u64) -> u64 {
        self.charged.range(first..).map(|(_, count)| count).sum()
    }

    fn put_counter(&mut self, key: &[u8], value: &[u8]) {
        let (kind, minute, _) = parse_counter_key(key).unwrap();
        let (scope, count) = decode_counter(value).unwrap();
        match (scope, kind) {
            ("server", COUNTER_QUOTA) => drop(self.charged.insert(minute, count)),
            ("server", _) => drop(self.marked.insert((kind, minute), count)),
            _ => {}
        }
    }

    /// Returns how many recipients of it somebody pays for.
    fn message(&mut self, key: &[u8], value: &[u8]) -> u64 {
        let id: [u8; 22] = key.try_into().unwrap();
        let record = MessageRecord::decode(value).unwrap();
        let is_notification = record.reverse_path.is_empty();
        for recipient in &record.recipients {
            let name = if is_notification {
                notification_name(&recipient.address, &posthaste::types::MessageId::from_bytes(id).to_string())
            } else {
                recipient.address.clone()
            };
            let job = (id, recipient.domain_index);
            self.names.entry(job).or_default().push(name.clone());
            self.jobs.insert(name, job);
        }
        if is_notification { 0 } else { record.recipients.len() as u64 }
    }

    fn put_due(&mut self, key: &[u8], value: &[u8]) {
        let (due_at_ms, id, group) = parse_due_key(key).unwrap();
        let entry = DueEntry::decode(value).unwrap();
        let (at, expires_at) = (Timestamp::from_millis(due_at_ms), Timestamp::from_millis(entry.expires_at_ms));
        self.due.insert((id, group), Due { at, expires_at, domain: entry.domain });
        if self.doubtful_until.is_some_and(|until| at <= until) {
            self.behind.insert((id, group));
        }
    }

    /// A crash took writes back: the due index and the counters are read anew.
    pub(super) fn reload(&mut self, due: Vec<Record>, counters: Vec<Record>) {
        self.due.clear();
        due.iter().for_each(|(key, value)| self.put_due(key, value));
        self.charged.clear();
        self.marked.clear();
        counters.iter().for_each(|(key, value)| self.put_counter(key, value));
    }

    /// Names whose job is due at `now`.
    fn due_names(&self, now: Timestamp) -> BTreeSet<String> {
        let due = self.due.iter().filter(|(_, due)| due.at <= now);
        due.flat_map(|(job, _)| self.names.get(job).into_iter().flatten().cloned()).collect()
    }

    /// The daemon opened its queue, or is up: what may have been in flight before is known.
    pub(super) fn started(&mut self, now: Timestamp, is_up: bool) {
        let due = self.due_names(now);
        self.doubtful_until = self.restarts.last().map(|_| now);
        if let Some(restart) = self.restarts.last_mut().filter(|restart| !restart.is_up) {
            (restart.due, restart.is_up) = (due, is_up);
        }
    }

    /// Whether a clock that was set back made it look like what was in flight before an unclean stop.
    pub(super) fn is_behind(&self, name: &str) -> bool {
        self.jobs.get(name).is_some_and(|job| self.behind.contains(job))
    }

    /// The names of a job.
    pub(super) fn names_of(&self, job: &Job) -> Vec<String> {
        self.names.get(job).cloned().unwrap_or_default()
    }

    /// A host that greylists each source hears RCPT. SOURCE: it keeps its source for some attempts.
    pub(super) fn greylisted(&mut self, address: &str, source: IpAddr, again: bool, now: Timestamp) {
        let before = self.greylisted.remove(address);
        if let Some(before) = before.filter(|before| before.source != source && before.times < SAME_SOURCE_ATTEMPTS) {
            let Greylisted { source: kept, times, at } = before;
            self.violation(format!(
                "SOURCE: {address} comes from {source}, was greylisted {times} times until {at} from {kept}"
            ));
        }
        if again {
            let times = before.map_or(1, |before| before.times + 1);
            self.greylisted.insert(address.to_owned(), Greylisted { source, at: now, times });
        }
    }

    /// The daemon is gone; what it was told since then may be lost.
    pub(super) fn restarted(&mut self, since: Timestamp) {
        self.greylisted.retain(|_, seen| seen.at < since);
    }

    /// A host hears RCPT: EARLY. `now`: the latest time that the daemon's clock told; what was due stays so when it is set back.
    pub(super) fn attempted(&mut self, address: &str, now: Timestamp) {
        self.attempts += 1;
        let Some(job) = self.jobs.get(address) else { return };
        match self.due.get(job).map(|due| due.at) {
            Some(due_at) if due_at <= now => {}
            Some(due_at) => {
                self.violation(format!("EARLY: {address} was attempted at {now}, and is due at {due_at}"));
            }
            None => self.violation(format!("EARLY: {address} was attempted at {now}, and is not due at all")),
        }
    }

    /// A final dot came. Returns the place of its record.
    pub(super) fn dot(&mut self, name: &str, dot: Dot) -> usize {
        self.tell(|| format!("{} dot {name} {dot:?}", dot.at));
        let dots = self.dots.entry(name.to_owned()).or_default();
        dots.push(dot);
        dots.len() - 1
    }

    /// The reply to a final dot was sent.
    pub(super) fn dot_replied(&mut self, name: &str, place: usize) {
        self.dots.get_mut(name).unwrap()[place].replied = true;
    }
}

pub(super) fn notification_name(address: &str, message_id: &str) -> String {
    format!("{address} {message_id}")
}

/// Whether an event ends a recipient whose sender's reputation it counts for: not those of notifications.
fn counts(value: &[u8]) -> bool {
    let record = OutboxRecordRef::decode(value).unwrap();
    let ends = [EventKind::Delivery, EventKind::Bounce].map(EventKind::code).contains(&record.kind);
    let ours = b"\"callerIdentity\":\"posthaste\"";
    ends && memchr::memmem::find(record.json, ours).is_none()
}
