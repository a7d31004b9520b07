//! Scenario 34 (file rotated, disk full, reader slow) and promise 5 of docs/ARCHITECTURE.md, on a model file system that
//! stops at every step, and on the real one.

mod crash;
mod files;
mod thread;

use std::sync::Arc;

use super::*;
use crate::events::file::line_id;
use crate::events::file::model::{Crash, ModelOutbox, ModelStorage};
use crate::events::schema::samples::send_line;
use crate::events::{EventId, SinkSettings};
use crate::types::ManualClock;

const START: Timestamp = Timestamp::from_millis(1_700_000_000_000);

/// One writer on a model.
struct Bench {
    outbox: Arc<ModelOutbox>,
    storage: ModelStorage,
    clock: Arc<ManualClock>,
    settings: Settings,
    pump: Option<Pump>,
}

fn sink(file_name: &str, kinds: &[EventKind]) -> SinkSettings {
    SinkSettings {
        sets: Vec::new(),
        file_name: file_name.to_owned(),
        kinds: kinds.to_vec(),
        rotate_bytes: None,
        rotate_age: None,
        keep_files: None,
        keep_age: None,
    }
}

fn settings(sinks: Vec<SinkSettings>) -> Settings {
    Settings { directory: "/model".into(), sinks, sync_interval: Duration::from_secs(1) }
}

impl Bench {
    fn new(sinks: Vec<SinkSettings>) -> Self {
        let mut bench = Self {
            outbox: Arc::default(),
            storage: ModelStorage::new(),
            clock: Arc::new(ManualClock::at(START)),
            settings: settings(sinks),
            pump: None,
        };
        bench.start();
        bench
    }

    /// `false` where the machine stops while starting.
    fn start(&mut self) -> bool {
        let storage = Arc::new(self.storage.clone());
        let clock: Arc<dyn Clock> = Arc::clone(&self.clock) as _;
        let outbox: Arc<dyn Outbox> = Arc::clone(&self.outbox) as _;
        self.pump = match Pump::open(outbox, storage, &self.settings, clock) {
            Ok(pump) => Some(pump),
            Err(error) if self.storage.has_crashed() => {
                assert!(error.to_string().contains("crashed"), "{error}");
                None
            }
            Err(error) => panic!("{error}"),
        };
        self.pump.is_some()
    }

    fn restart(&mut self, crash: Crash) {
        self.pump = None;
        self.storage.restart(crash);
        assert!(self.start());
    }

    fn pump(&mut self) -> &mut Pump {
        self.pump.as_mut().unwrap()
    }

    fn push(&self, count: u64) {
        for _ in 0..count {
            self.outbox.push(send_line("x"));
        }
    }

    /// Steps until there is nothing to do.
    fn run(&mut self) {
        for _ in 0..1_000 {
            if self.storage.has_crashed() || self.pump().step().unwrap() != Step::Worked {
                return;
            }
        }
        panic!("the pump finds no rest");
    }

    /// Moves time on in steps, running in each.
    fn pass(&mut self, span: Duration) {
        let steps = 10;
        for _ in 0..steps {
            self.clock.advance(span / steps);
            self.run();
        }
    }

    fn names(&self) -> Vec<String> {
        self.storage.list().unwrap()
    }

    /// Ids in the whole stream, each line checked against what the outbox had.
    fn ids(&self, sink: &str) -> Vec<u64> {
        let stem = sink.strip_suffix(".jsonl").unwrap();
        let mut names = self.names();
        names.retain(|name| name.starts_with(&format!("{stem}-2")) || name.starts_with(sink));
        // Rotated files sort by time; the current one is last.
        names.sort_by_key(|name| (name == sink, name.clone()));
        let texts = names.iter().map(|name| self.storage.content(name).unwrap());
        texts.flat_map(|text| checked_ids(&text)).collect()
    }
}

fn checked_ids(text: &str) -> Vec<u64> {
    assert!(text.is_empty() || text.ends_with('\n'), "torn: {text}");
    text.lines().map(checked_id).collect()
}

fn checked_id(line: &str) -> u64 {
    serde_json::from_str::<serde_json::Value>(line).unwrap_or_else(|error| panic!("{error}: {line}"));
    line_id(line.as_bytes()).unwrap().value()
}

fn up_to(last: u64) -> Vec<u64> {
    (1..=last).collect()
}

#[test]
fn a_line_is_readable_at_once_and_consumed_only_after_a_sync() {
    let mut bench = Bench::new(vec![sink("events.jsonl", &[])]);
    bench.push(1);
    bench.run();
    assert_eq!(bench.outbox.consumed_through(), 1, "the first sync is due at once");
    bench.push(2);
    assert_eq!(bench.pump().step().unwrap(), Step::Worked);
    assert_eq!(bench.ids("events.jsonl"), up_to(3));
    assert_eq!(bench.outbox.consumed_through(), 1);
    assert_eq!(bench.pump().pending(), 2);
    let idle = bench.pump().step().unwrap();
    assert_eq!(idle, Step::Idle { after: EventId::new(3), wait: Duration::from_secs(1) });
    bench.clock.advance(Duration::from_secs(1));
    bench.run();
    assert_eq!(bench.outbox.consumed_through(), 3);
    assert_eq!(bench.pump().pending(), 0);
}

#[test]
fn many_events_share_one_sync() {
    let mut bench = Bench::new(vec![sink("events.jsonl", &[])]);
    let before = bench.storage.syncs();
    bench.push(5_000);
    bench.run();
    bench.pass(Duration::from_secs(1));
    assert_eq!(bench.ids("events.jsonl"), up_to(5_000));
    assert!(bench.storage.syncs() <= before + 3);
}

#[test]
fn a_clock_that_goes_back_does_not_hold_events_in_the_queue() {
    let mut bench = Bench::new(vec![sink("events.jsonl", &[])]);
    bench.push(1);
    bench.run();
    bench.clock.set(START.minus(Duration::from_secs(86_400)));
    bench.push(1);
    bench.run();
    assert_eq!(bench.outbox.consumed_through(), 2);
}
