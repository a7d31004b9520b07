//! The whole daemon in a world of one seed: style.md's fourth rung.
//!
//! The parts are those that ship: sessions, queue, committer, scheduler, dispatcher, workers, event writer. Their ports
//! lead into the world: a paused clock, hosts and zones as data, streams in memory, a disk that forgets what was not
//! synced. Everything runs on one thread, so one seed gives one course of events, to the octet.
//!
//! `POSTHASTE_SIM_SEEDS=N` runs N fresh seeds, `POSTHASTE_SIM_SEED=S` one, with its story on stderr. A seed that fails
//! goes into tests/it/simulation/failing-seeds.txt, which is run first for ever after.

mod application;
mod content;
mod daemon;
mod disk;
mod host;
mod judge;
mod ledger;
mod network;
mod plan;
mod run;
mod world;

use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use run::{Outcome, simulate};

/// Fresh seeds where nobody says how many.
const SEEDS: u64 = 200;
const FAILING_SEEDS: &str = include_str!("failing-seeds.txt");

/// Seeds that failed once, and why.
fn failing_seeds() -> Vec<u64> {
    let lines = FAILING_SEEDS.lines().map(|line| line.split('#').next().unwrap_or_default().trim());
    lines.filter(|line| !line.is_empty()).map(|line| line.parse().unwrap()).collect()
}

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|text| text.parse().unwrap_or_else(|_| panic!("{name} is not a number: {text}")))
}

fn report(seed: u64, outcome: &Outcome) -> String {
    let violations = outcome.violations.join("\n  ");
    format!("seed {seed}: POSTHASTE_SIM_SEED={seed} repeats it and tells its story\n  {violations}")
}

/// Runs all seeds on all cores; returns the reports of those that failed.
fn run_all(seeds: &[u64]) -> Vec<String> {
    let next = AtomicU64::new(0);
    let failures = Mutex::new(Vec::new());
    let (worlds, steps, attempts, restarts, hours) =
        (AtomicU64::new(0), AtomicU64::new(0), AtomicU64::new(0), AtomicU64::new(0), AtomicU64::new(0));
    std::thread::scope(|scope| {
        for _ in 0..std::thread::available_parallelism().map_or(1, usize::from) {
            scope.spawn(|| {
                while let Some(seed) = seeds.get(next.fetch_add(1, Ordering::Relaxed) as usize) {
                    let outcome = simulate(*seed, false);
                    worlds.fetch_add(1, Ordering::Relaxed);
                    steps.fetch_add(outcome.steps, Ordering::Relaxed);
                    attempts.fetch_add(outcome.attempts, Ordering::Relaxed);
                    restarts.fetch_add(outcome.restarts as u64, Ordering::Relaxed);
                    hours.fetch_add(outcome.span.as_secs() / 3_600, Ordering::Relaxed);
                    if !outcome.violations.is_empty() {
                        failures.lock().unwrap().push(report(*seed, &outcome));
                    }
                }
            });
        }
    });
    eprintln!(
        "{worlds:?} worlds, {hours:?} virtual hours, {attempts:?} recipients attempted, {restarts:?} restarts, {steps:?} steps"
    );
    failures.into_inner().unwrap()
}

#[test]
fn the_invariants_hold_in_every_world() {
    if let Some(seed) = number("POSTHASTE_SIM_SEED") {
        let outcome = simulate(seed, true);
        outcome.story.iter().for_each(|line| eprintln!("{line}"));
        assert!(outcome.violations.is_empty(), "{}", report(seed, &outcome));
        return;
    }
    let kept = run_all(&failing_seeds());
    assert!(kept.is_empty(), "seeds that failed before fail again:\n{}", kept.join("\n"));
    let first = posthaste::queue::random_seed() >> 16;
    let seeds: Vec<u64> = (0..number("POSTHASTE_SIM_SEEDS").unwrap_or(SEEDS)).map(|number| first + number).collect();
    let fresh = run_all(&seeds);
    assert!(fresh.is_empty(), "{} of {} seeds fail:\n{}", fresh.len(), seeds.len(), fresh.join("\n"));
}

#[test]
fn one_seed_gives_the_same_event_files_octet_for_octet() {
    for seed in 1..=10 {
        let (once, again) = (simulate(seed, true), simulate(seed, true));
        for (first, second) in once.story.iter().zip(&again.story) {
            assert_eq!(first, second, "seed {seed}");
        }
        assert_eq!((once.steps, once.attempts), (again.steps, again.attempts), "seed {seed}");
        assert!(once.files == again.files, "the event files of seed {seed} differ");
        assert!(!once.files.is_empty() && once.attempts > 0, "seed {seed} is no world");
    }
}
