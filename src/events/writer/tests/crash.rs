//! Crashes at every step, full disks, failed syncs.

use std::sync::Mutex;

use proptest::prelude::*;

use super::*;
use crate::events::schema::samples::bounce_line;
use crate::events::tail::EventTail;

/// Pushes events, rotates by size and by request, and lets time pass. A reader looks after every step of the file system.
fn eventful_run(bench: &mut Bench) {
    for id in bench.outbox.newest().unwrap().value() + 1..=14 {
        let line = if id % 3 == 0 { bounce_line("x") } else { send_line("x") };
        bench.outbox.push(line);
        if id == 6 {
            bench.pump().rotate();
        }
        bench.run();
        if bench.storage.has_crashed() {
            return;
        }
        bench.clock.advance(Duration::from_millis(400));
        bench.run();
    }
    bench.pass(Duration::from_secs(20));
}

fn crash_at_every_step(crash: Crash, write_max: usize) {
    let mut rotating = sink("events.jsonl", &[]);
    rotating.rotate_bytes = Some(1_800);
    let sinks = vec![rotating, sink("bounces.jsonl", &[EventKind::Bounce])];
    for steps in 0..2_000 {
        let mut bench = Bench::new(sinks.clone());
        bench.storage.limit_writes(write_max);
        let seen = Arc::new(Mutex::new(Vec::new()));
        let storage: Arc<dyn Storage> = Arc::new(bench.storage.clone());
        let tail = Mutex::new(EventTail::resume_in(storage, "events.jsonl", EventId::NONE).unwrap());
        let ids = Arc::clone(&seen);
        bench.storage.observe(move || {
            while let Some(line) = tail.lock().unwrap().next_line().unwrap() {
                ids.lock().unwrap().push(checked_id(&line.json));
            }
        });
        bench.storage.crash_after(steps);
        eventful_run(&mut bench);
        if !bench.storage.has_crashed() {
            assert_eq!(bench.ids("events.jsonl"), up_to(14));
            assert!(steps > 40, "only {steps} steps");
            return;
        }
        if crash != Crash::Process {
            bench.outbox.forget_consumed(bench.outbox.consumed_through().saturating_sub(steps % 3));
        }
        bench.restart(crash);
        eventful_run(&mut bench);
        assert_eq!(bench.ids("events.jsonl"), up_to(14), "{crash:?} at step {steps}");
        assert_eq!(bench.ids("bounces.jsonl"), [3, 6, 9, 12], "{crash:?} at step {steps}");
        assert_eq!(bench.outbox.consumed_through(), 14);
        if crash == Crash::Process {
            assert_eq!(*seen.lock().unwrap(), up_to(14), "as tail -F saw it, step {steps}");
        }
        bench.restart(Crash::Power);
        bench.pass(Duration::from_secs(2));
        assert_eq!(bench.ids("events.jsonl"), up_to(14), "after one more restart, {crash:?} at step {steps}");
    }
    panic!("the run never ends");
}

#[test]
fn killed_at_any_step_every_event_stands_exactly_once_and_a_tailing_reader_sees_it_so() {
    crash_at_every_step(Crash::Process, usize::MAX);
    crash_at_every_step(Crash::Process, 250);
}

#[test]
fn after_a_power_cut_at_any_step_every_event_stands_exactly_once() {
    crash_at_every_step(Crash::Power, usize::MAX);
    crash_at_every_step(Crash::Power, 250);
    crash_at_every_step(Crash::PowerReordered, usize::MAX);
}

#[test]
fn garbage_that_a_power_cut_left_is_cut_off_and_written_again() {
    crash_at_every_step(Crash::PowerWithGarbage, usize::MAX);
    crash_at_every_step(Crash::PowerWithGarbage, 250);
}

#[test]
fn killed_twice_while_recovering_nothing_is_lost() {
    for first in 4..24 {
        for second in 0..6 {
            let mut rotating = sink("events.jsonl", &[]);
            rotating.rotate_bytes = Some(1_800);
            let mut bench = Bench::new(vec![rotating]);
            bench.storage.crash_after(first);
            eventful_run(&mut bench);
            bench.pump = None;
            bench.storage.restart(Crash::PowerWithGarbage);
            bench.storage.crash_after(second);
            if bench.start() {
                eventful_run(&mut bench);
            }
            bench.restart(Crash::PowerWithGarbage);
            eventful_run(&mut bench);
            assert_eq!(bench.ids("events.jsonl"), up_to(14), "{first} {second}");
        }
    }
}

#[test]
fn a_full_disk_stops_amid_a_line_and_goes_on_there() {
    let mut bench = Bench::new(vec![sink("events.jsonl", &[])]);
    let storage: Arc<dyn Storage> = Arc::new(bench.storage.clone());
    let mut tail = EventTail::follow_in(storage, "events.jsonl").unwrap();
    bench.storage.limit(Some(1_000));
    bench.push(5);
    bench.pass(Duration::from_secs(30));
    assert_eq!(bench.storage.used(), 1_000);
    assert!(bench.pump().failure().is_some());
    assert_eq!(bench.outbox.consumed_through(), 0, "nothing is dropped while the file is torn");
    assert_eq!(tail.next_line().unwrap().map(|line| line.id), Some(EventId::new(1)));
    assert_eq!(tail.next_line().unwrap(), None);
    let Step::Idle { wait, after } = bench.pump().step().unwrap() else { panic!("busy") };
    assert!(wait <= Duration::from_secs(5) && after > EventId::new(5), "waits for time, not for events");

    bench.storage.limit(Some(2_500));
    bench.pass(Duration::from_secs(30));
    bench.storage.limit(None);
    bench.pass(Duration::from_secs(30));
    assert_eq!(bench.pump().failure(), None);
    assert_eq!(bench.ids("events.jsonl"), up_to(5));
    assert_eq!(bench.outbox.consumed_through(), 5);
    let mut ids = vec![1];
    while let Some(line) = tail.next_line().unwrap() {
        ids.push(checked_id(&line.json));
    }
    assert_eq!(ids, up_to(5));
}

#[test]
fn a_restart_while_the_disk_is_full_completes_the_line_later() {
    let mut bench = Bench::new(vec![sink("events.jsonl", &[])]);
    bench.storage.limit(Some(1_000));
    bench.push(3);
    bench.pass(Duration::from_secs(3));
    bench.restart(Crash::Process);
    bench.pass(Duration::from_secs(3));
    assert_eq!(bench.storage.used(), 1_000);
    bench.storage.limit(None);
    bench.pass(Duration::from_secs(10));
    assert_eq!(bench.ids("events.jsonl"), up_to(3));
}

#[test]
fn a_failed_sync_is_followed_by_the_same_octets_at_the_same_place() {
    for fails in 1..4 {
        let mut rotating = sink("events.jsonl", &[]);
        rotating.rotate_bytes = Some(2_000);
        let mut bench = Bench::new(vec![rotating]);
        bench.push(2);
        bench.run();
        bench.storage.fail_syncs(fails);
        bench.push(4);
        bench.pass(Duration::from_secs(30));
        bench.push(4);
        bench.pass(Duration::from_secs(30));
        assert_eq!(bench.pump().failure(), None);
        assert_eq!(bench.ids("events.jsonl"), up_to(10));
        assert_eq!(bench.outbox.consumed_through(), 10);
        bench.restart(Crash::Power);
        assert_eq!(bench.ids("events.jsonl"), up_to(10), "they are on the disk");
    }
}

#[test]
fn a_smaller_file_size_taken_amid_rewriting_does_not_split_the_file_there() {
    let mut bench = Bench::new(vec![sink("events.jsonl", &[])]);
    bench.push(2);
    bench.run();
    bench.storage.fail_syncs(1);
    bench.push(6);
    bench.pass(Duration::from_secs(1));
    assert!(bench.pump().failure().is_some());
    let mut smaller = sink("events.jsonl", &[]);
    smaller.rotate_bytes = Some(2_000);
    bench.pump().reload(&settings(vec![smaller]), None).unwrap();
    bench.pump().rotate();
    bench.push(3);
    bench.pass(Duration::from_secs(10));
    assert_eq!(bench.ids("events.jsonl"), up_to(11));
}

/// What may happen, in any order.
#[derive(Clone, Debug)]
enum Action {
    Push(u64),
    Pass(u64),
    Rotate,
    MoveAway,
    FillDisk(usize),
    FreeDisk,
    FailSyncs(u32),
    Crash(u64, Crash),
    RotateAt(u64),
}

fn action() -> impl Strategy<Value = Action> {
    let crash = prop_oneof![Just(Crash::Process), Just(Crash::Power), Just(Crash::PowerReordered)];
    prop_oneof![
        4 => (1..20_u64).prop_map(Action::Push),
        4 => (1..3_000_u64).prop_map(Action::Pass),
        1 => Just(Action::Rotate),
        1 => Just(Action::MoveAway),
        1 => (0..3_000_usize).prop_map(Action::FillDisk),
        1 => Just(Action::FreeDisk),
        1 => (1..3_u32).prop_map(Action::FailSyncs),
        2 => (0..12_u64, crash).prop_map(|(steps, crash)| Action::Crash(steps, crash)),
        1 => (600..9_000_u64).prop_map(Action::RotateAt),
    ]
}

fn act(bench: &mut Bench, action: &Action, moves: &mut u32) {
    match action {
        Action::Push(count) => {
            bench.push(*count);
            bench.run();
        }
        Action::Pass(millis) => bench.pass(Duration::from_millis(*millis)),
        Action::Rotate => bench.pump().rotate(),
        Action::MoveAway => {
            if bench.storage.content("events.jsonl").is_some() {
                *moves += 1;
                bench.storage.rename_externally("events.jsonl", &format!("events.jsonl.{moves}"));
            }
        }
        Action::FillDisk(more) => bench.storage.limit(Some(bench.storage.used() + more)),
        Action::FreeDisk => bench.storage.limit(None),
        Action::FailSyncs(count) => bench.storage.fail_syncs(*count),
        Action::Crash(steps, crash) => {
            bench.storage.crash_after(*steps);
            bench.push(3);
            bench.pass(Duration::from_secs(2));
            bench.storage.limit(None);
            bench.storage.fail_syncs(0);
            bench.restart(*crash);
        }
        Action::RotateAt(bytes) => {
            bench.settings.sinks[0].rotate_bytes = Some(*bytes);
            let settings = bench.settings.clone();
            // Refused while the disk fails; then the size changes at the next start.
            let _ = bench.pump().reload(&settings, None);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]
    #[test]
    fn whatever_happens_every_event_stands_exactly_once(actions in prop::collection::vec(action(), 1..40)) {
        let mut bench = Bench::new(vec![sink("events.jsonl", &[])]);
        let mut moves = 0;
        for action in &actions {
            act(&mut bench, action, &mut moves);
        }
        bench.storage.limit(None);
        bench.storage.fail_syncs(0);
        bench.pass(Duration::from_secs(20));
        bench.restart(Crash::Power);
        bench.pass(Duration::from_secs(2));
        let last = bench.outbox.newest().unwrap().value();
        let contents = bench.names().into_iter().map(|name| bench.storage.content(&name).unwrap());
        let mut files: Vec<Vec<u64>> = contents.map(|text| checked_ids(&text)).collect();
        files.sort();
        prop_assert_eq!(files.concat(), up_to(last));
        prop_assert_eq!(bench.outbox.consumed_through(), last);
    }
}
