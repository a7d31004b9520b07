//! Damaged stores (scenario 3): torn logs, damaged records, damaged files; and `queue recover`.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use posthaste::queue::rocks::{RocksSettings, RocksStore};
use posthaste::queue::store::{Change, Family, Key, Store};
use serde_json::Value;

use crate::harness::*;

/// A daemon with mail that waits: its mail host says "later" until it is told to take everything.
struct Waiting {
    daemon: Daemon,
    mx: Mx,
    takes: Watched<bool>,
    /// Subject by id.
    accepted: BTreeMap<String, String>,
    lab: Lab,
}

impl Waiting {
    /// With this many messages, killed.
    fn killed(messages: usize) -> Self {
        let lab = Lab::new();
        let takes = Watched::new(false);
        let gate = takes.clone();
        let mx = lab.mx_scripted(2, move |ask| {
            let defers = ask.stage == Stage::Rcpt && !*gate.lock();
            if defers { Answer::say("450 4.2.0 Not now") } else { Answer::Usual }
        });
        lab.domain("one.test", &[2]);
        lab.domain("two.test", &[2]);
        let daemon = lab.daemon_with(lab.config().set("retry.steps", "[\"1s\"]"));
        let accepted = Load::some(daemon.smtp_addr(), &["one.test", "two.test"], messages);
        // Each has a state, and so a record of each kind is there.
        daemon.wait_queue("all are tried", |queue| queue.iter().all(|message| message["attempts"] != 0));
        daemon.kill();
        Self { daemon, mx, takes, accepted, lab }
    }

    fn store(&self) -> PathBuf {
        self.lab.dir().join("queue/queue")
    }

    /// The newest file with this end that is not empty.
    fn newest(&self, end: &str) -> PathBuf {
        let mut files = files(&self.store(), end);
        files.retain(|path| path.metadata().unwrap().len() > 0);
        files.pop().unwrap_or_else(|| panic!("no {end} in {}", self.store().display()))
    }

    /// Starts the daemon, which must refuse; the reason.
    fn refusal(&mut self) -> String {
        self.daemon.launch_again();
        let status = self.daemon.wait_exit(PATIENCE);
        assert!(!status.success());
        self.daemon.wait_log_from(0, "posthaste queue recover")
    }

    /// Starts the daemon and lets everything be delivered.
    fn deliver(&mut self) -> Vec<Value> {
        self.daemon.launch_again();
        self.daemon.wait_ready();
        self.takes.change(|takes| *takes = true);
        self.daemon.wait_empty();
        self.daemon.stop();
        Events::read_all(&self.daemon.events_path())
    }

    /// Subjects of what the mail host took.
    fn delivered(&self) -> BTreeSet<String> {
        self.mx.accepted().iter().map(Transaction::subject).collect()
    }

    /// Recovers, then delivers: each message is delivered or named as lost. Returns the answer.
    fn recover_and_deliver(&mut self) -> Value {
        let (code, answer) = self.daemon.recover();
        let losses = ["lost", "held", "damage"].iter().any(|name| !answer[name].as_array().unwrap().is_empty());
        let losses = losses || answer["unnamed"] != 0 || answer["events_lost"] != 0;
        assert_eq!(code, if losses { 6 } else { 0 }, "{answer:#}");
        let aside = answer["damaged_queue"].as_str().unwrap();
        assert!(Path::new(aside).is_dir(), "{answer:#}");
        self.deliver();
        let delivered = self.delivered();
        let lost: BTreeSet<&str> = array(&answer["lost"]).filter_map(|lost| lost["message_id"].as_str()).collect();
        let missing =
            self.accepted.iter().filter(|(id, subject)| !delivered.contains(*subject) && !lost.contains(id.as_str()));
        let unnamed = u64::try_from(missing.count()).unwrap();
        assert_eq!(answer["unnamed"].as_u64().unwrap(), unnamed, "{answer:#}");
        let twice = lost.iter().filter(|id| self.accepted.get(**id).is_some_and(|subject| delivered.contains(subject)));
        assert_eq!(twice.count(), 0, "what is lost is not delivered: {answer:#}");
        answer
    }
}

fn array(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().unwrap().iter()
}

fn files(directory: &Path, end: &str) -> Vec<PathBuf> {
    let mut files: Vec<_> = fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.retain(|path| path.file_name().unwrap().to_string_lossy().contains(end));
    files.sort();
    files
}

/// Flips an octet at a part of the file's length.
fn flip(path: &Path, part: f64) -> usize {
    let mut bytes = fs::read(path).unwrap();
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, clippy::cast_precision_loss, reason = "a place")]
    let at = (bytes.len() as f64 * part) as usize;
    bytes[at] ^= 0x55;
    fs::write(path, bytes).unwrap();
    at
}

#[test]
fn a_torn_log_tail_is_dropped_and_nothing_synced_is_lost() {
    let mut waiting = Waiting::killed(20);
    let log = waiting.newest(".log");
    let mut bytes = fs::read(&log).unwrap();
    // The first part of a record, at the place where the next would stand. Length: octets 4 and 5 of its header of 7.
    let mut at = 0;
    let len = |at: usize| usize::from(u16::from_le_bytes([bytes[at + 4], bytes[at + 5]]));
    while len(at) < 300 {
        at += 7 + len(at);
    }
    // No record reaches over the end of its block; less than a header before it is left empty.
    const BLOCK: usize = 32 * 1024;
    let mut left = BLOCK - bytes.len() % BLOCK;
    let mut torn = bytes[at..at + 7 + len(at)].to_vec();
    if left < 7 {
        bytes.resize(bytes.len() + left, 0);
        left = BLOCK;
    }
    let whole = torn.len().min(left);
    torn[4..6].copy_from_slice(&u16::try_from(whole - 7).unwrap().to_le_bytes());
    bytes.extend_from_slice(&torn[..whole * 2 / 3]);
    fs::write(&log, &bytes).unwrap();
    let events = waiting.deliver();
    let accepted = waiting.accepted.clone();
    assert_nothing_lost_or_doubled(&accepted, &events, &[&waiting.mx]);
}

#[test]
fn damaged_records_are_worked_around_or_set_aside_and_named_and_all_else_is_delivered() {
    let mut waiting = Waiting::killed(12);
    let ids: Vec<String> = waiting.accepted.keys().cloned().collect();
    let store = RocksStore::open(&waiting.store(), &RocksSettings::default()).unwrap();
    let spoil = |family: Family, wanted: &dyn Fn(&[u8]) -> bool| {
        let records = store.scan(family, &[], &[0xff; 40], 10_000).unwrap();
        let wanted: Vec<_> = records.iter().filter(|(key, _)| wanted(key)).collect();
        assert!(!wanted.is_empty());
        for (key, value) in wanted {
            let mut damaged = value.to_vec();
            *damaged.last_mut().unwrap() ^= 1;
            let key = Key::new(key);
            store.write(&[Change::Delete { family, key }], false).unwrap();
            store.write(&[Change::Put { family, key, value: damaged.into() }], true).unwrap();
        }
    };
    let of = |id: &str| {
        let id = id.parse::<posthaste::types::MessageId>().unwrap();
        move |key: &[u8]| key.windows(22).any(|window| window == id.as_bytes())
    };
    // A due entry is made again; a damaged message, body or state sets its message aside.
    spoil(Family::Due, &of(&ids[0]));
    spoil(Family::Message, &of(&ids[1]));
    spoil(Family::Body, &of(&ids[2]));
    spoil(Family::Recipient, &of(&ids[3]));
    // Of this one, both: only the keys of its due entries are left.
    spoil(Family::Due, &of(&ids[4]));
    spoil(Family::Message, &of(&ids[4]));
    drop(store);

    waiting.daemon.launch_again();
    waiting.daemon.wait_ready();
    waiting.takes.change(|takes| *takes = true);
    let held = [&ids[1], &ids[2], &ids[3], &ids[4]];
    let whole = ids.iter().filter(|id| !held.contains(id));
    let mut events = waiting.daemon.events();
    for id in whole {
        let number = waiting.accepted[id].strip_prefix("load ").unwrap().to_owned();
        for domain in ["one.test", "two.test"] {
            events.wait_kind("Delivery", id, &format!("user{number}@{domain}"));
        }
    }
    for id in held {
        waiting.daemon.wait_log_from(0, &format!("message is set aside as held message_id={id}"));
    }
    waiting.daemon.wait_log_from(
        0,
        &format!("a due entry is damaged; made again from the message's record message_id={}", ids[0]),
    );
    // A body that cannot be read leaves the message readable: the operator sees it and why.
    let shown = waiting.daemon.wait_queue("the message is shown as held", |queue| {
        queue.iter().any(|message| message["id"] == **held[1] && message["state"] == "held")
    });
    assert!(shown.iter().any(|message| message.to_string().contains("body record of")), "{shown:#?}");
    // What nobody can deliver, `recover` removes and names.
    waiting.daemon.stop();
    let (code, answer) = waiting.daemon.recover();
    assert_eq!(code, 6);
    let lost: BTreeSet<&str> = array(&answer["lost"]).map(|lost| lost["message_id"].as_str().unwrap()).collect();
    assert_eq!(lost, BTreeSet::from([ids[1].as_str(), &ids[2], &ids[4]]), "{answer:#}");
    let of_body = array(&answer["lost"]).find(|lost| lost["message_id"] == *ids[2]).unwrap();
    assert_eq!(of_body["recipients"].as_array().unwrap().len(), 2, "{of_body:#}");
    assert_eq!(answer["messages"], 1, "{answer:#}");
    assert_eq!(answer["held"][0]["message_id"], *ids[3], "its state is not known: {answer:#}");
}

#[test]
fn a_damaged_event_is_left_out_of_the_files_and_kept_for_the_operator() {
    let lab = Lab::new();
    let _mx = lab.mx(2);
    lab.domain("one.test", &[2]);
    let shim = Shim::new(lab.dir());
    let mut daemon = Daemon::start_under(lab.dir(), lab.config(), &shim.wrapper());
    // Events wait in the queue.
    shim.set("events write 0 enospc");
    let mut client = lab.client(&daemon);
    for number in 0..5 {
        client.send_simple("app@sender.example", &["you@one.test"], &format!("number {number}"));
    }
    daemon.wait_empty();
    daemon.kill();
    let store = lab.dir().join("queue/queue");
    {
        let store = RocksStore::open(&store, &RocksSettings::default()).unwrap();
        let (key, value) = store.scan(Family::Outbox, &[], &[0xff; 40], 9).unwrap().swap_remove(3);
        let mut damaged = value.to_vec();
        *damaged.last_mut().unwrap() ^= 1;
        let change = Change::Put { family: Family::Outbox, key: Key::new(&key), value: damaged.into() };
        store.write(&[change], true).unwrap();
    }
    shim.clear();
    daemon.start_again();
    let line = daemon.wait_log_from(0, "an event cannot be read and is left out of the event files");
    assert!(line.contains("event_id=4"), "{line}");
    daemon.wait_empty();
    daemon.stop();
    let events = Events::read_all(&daemon.events_path());
    let ids: Vec<_> = events.iter().map(|event| event["posthaste"]["eventId"].as_u64().unwrap()).collect();
    assert_eq!(ids, [1, 2, 3, 5, 6, 7, 8, 9, 10]);
    assert!(store.join("damaged/event-4").is_file());
}

#[test]
fn a_log_damaged_before_its_tail_refuses_to_start_naming_file_and_offset_and_is_recovered() {
    let mut waiting = Waiting::killed(60);
    let log = waiting.newest(".log");
    let at = flip(&log, 0.4);
    let reason = waiting.refusal();
    assert!(reason.contains(&format!("write-ahead log {} is damaged at byte ", log.display())), "{reason}");
    let named = reason.split("damaged at byte ").nth(1).unwrap().split(' ').next().unwrap();
    let named: usize = named.parse().unwrap();
    assert!(named <= at && at - named < 33_000, "{named} {at}");
    let before = fs::read(&log).unwrap();
    let answer = waiting.recover_and_deliver();
    assert!(waiting.delivered().len() > 20, "only {} of 60\n{answer:#}", waiting.delivered().len());
    let aside = Path::new(answer["damaged_queue"].as_str().unwrap()).join(log.file_name().unwrap());
    assert_eq!(fs::read(aside).unwrap(), before, "the damaged queue is kept as it was");
}

#[test]
fn a_damaged_table_file_refuses_to_start_naming_it_and_is_recovered() {
    let mut waiting = Waiting::killed(60);
    // A start writes what the log holds to table files.
    waiting.daemon.start_again();
    waiting.daemon.kill();
    let tables = files(&waiting.store(), ".sst");
    let table = tables.iter().max_by_key(|path| path.metadata().unwrap().len()).unwrap().clone();
    flip(&table, 0.3);
    let reason = waiting.refusal();
    assert!(reason.contains(table.file_name().unwrap().to_str().unwrap()) && reason.contains("offset"), "{reason}");
    waiting.recover_and_deliver();
}

#[test]
fn a_missing_table_file_manifest_or_name_of_the_manifest_refuses_to_start_and_is_recovered() {
    for end in [".sst", "MANIFEST", "CURRENT"] {
        let mut waiting = Waiting::killed(30);
        if end == ".sst" {
            waiting.daemon.start_again();
            waiting.daemon.kill();
        }
        fs::remove_file(waiting.newest(end)).unwrap();
        // Twice, as systemd does: a start that is refused changes nothing.
        for _ in 0..2 {
            let reason = waiting.refusal();
            assert!(reason.contains("is damaged"), "{end}: {reason}");
        }
        let answer = waiting.recover_and_deliver();
        if end != ".sst" {
            assert_eq!(waiting.delivered().len(), waiting.accepted.len(), "no message was in it: {answer:#}");
        }
    }
}

#[test]
fn a_damaged_manifest_refuses_to_start_and_loses_no_message() {
    let mut waiting = Waiting::killed(30);
    let manifest = waiting.newest("MANIFEST");
    flip(&manifest, 0.5);
    let reason = waiting.refusal();
    assert!(reason.contains("is damaged"), "{reason}");
    let answer = waiting.recover_and_deliver();
    assert_eq!(waiting.delivered().len(), waiting.accepted.len(), "{answer:#}");
}

#[test]
fn recover_refuses_while_a_daemon_runs_and_loses_nothing_of_a_sound_queue() {
    let mut waiting = Waiting::killed(10);
    waiting.daemon.start_again();
    let refused = std::process::Command::new(env!("CARGO_BIN_EXE_posthaste"))
        .args(["queue", "recover", "--config"])
        .arg(waiting.daemon.config_path())
        .output()
        .unwrap();
    let errors = String::from_utf8_lossy(&refused.stderr);
    assert_eq!(refused.status.code(), Some(1));
    assert!(errors.contains("is in use: stop posthaste first"), "{errors}");
    waiting.daemon.kill();
    let (code, answer) = waiting.daemon.recover();
    assert_eq!(code, 0, "{answer:#}");
    assert_eq!(answer["messages"], waiting.accepted.len());
    let events = waiting.deliver();
    let accepted = waiting.accepted.clone();
    assert_nothing_lost_or_doubled(&accepted, &events, &[&waiting.mx]);
}
