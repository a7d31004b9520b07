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
mod provider;
mod provider_plan;
mod run;
mod senders;
mod world;

use std::fmt;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use provider::SETTLING;
use run::{Deferrals, Outcome, simulate};

/// Fresh seeds where nobody says how many.
const SEEDS: u64 = 200;
/// Transactions that say something of a percentage.
const ENOUGH: u64 = 400;
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

/// Runs all seeds on all cores.
fn run_all(seeds: &[u64]) -> Sums {
    let next = AtomicUsize::new(0);
    let sums = Mutex::new(Sums::default());
    std::thread::scope(|scope| {
        for _ in 0..std::thread::available_parallelism().map_or(1, usize::from) {
            scope.spawn(|| {
                while let Some(seed) = seeds.get(next.fetch_add(1, Ordering::Relaxed)) {
                    // A panic of the product is a finding as well, and names its seed.
                    let outcome = std::panic::catch_unwind(|| simulate(*seed, false));
                    sums.lock().unwrap().take(*seed, outcome.ok());
                }
            });
        }
    });
    let sums = sums.into_inner().unwrap();
    eprintln!("{sums}");
    sums
}

/// What many worlds came to.
#[derive(Default)]
struct Sums {
    worlds: u64,
    restarts: u64,
    attempts: u64,
    events: usize,
    steps: u64,
    span: Duration,
    deferrals: Deferrals,
    failures: Vec<String>,
}

impl Sums {
    fn take(&mut self, seed: u64, outcome: Option<Outcome>) {
        self.worlds += 1;
        let Some(outcome) = outcome else {
            self.failures.push(format!("seed {seed}: it panics"));
            return;
        };
        self.restarts += outcome.restarts;
        self.attempts += outcome.attempts;
        self.events += outcome.files.iter().map(|(_, content)| content.lines().count()).sum::<usize>();
        self.steps += outcome.steps;
        self.span += outcome.span;
        self.deferrals.add(&outcome.deferrals);
        if !outcome.violations.is_empty() {
            self.failures.push(report(seed, &outcome));
        }
    }
}

impl fmt::Display for Sums {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { worlds, restarts, attempts, events, steps, span, deferrals, failures } = self;
        let days = span.as_secs() / 86_400;
        write!(f, "{worlds} worlds, {days} virtual days, {restarts} stops, {attempts} attempts at recipients, ")?;
        writeln!(f, "{events} events, {steps} steps, {} failures", failures.len())?;
        let Deferrals { told, untold, settled } = deferrals;
        write!(f, "at providers: {} of {} transactions refused where limits are told, ", told.caused, told.all)?;
        write!(
            f,
            "{} of {} where not, {} of {} of those after ",
            untold.caused, untold.all, settled.caused, settled.all
        )?;
        write!(f, "{} minutes", SETTLING.as_secs() / 60)
    }
}

#[test]
fn the_invariants_hold_in_every_world() {
    if let Some(seed) = number("POSTHASTE_SIM_SEED") {
        let outcome = simulate(seed, true);
        outcome.story.iter().for_each(|line| eprintln!("{line}"));
        assert!(outcome.violations.is_empty(), "{}", report(seed, &outcome));
        return;
    }
    let kept = run_all(&failing_seeds()).failures;
    assert!(kept.is_empty(), "seeds that failed before fail again:\n{}", kept.join("\n"));
    let first = posthaste::queue::random_seed() >> 16;
    let seeds: Vec<u64> = (0..number("POSTHASTE_SIM_SEEDS").unwrap_or(SEEDS)).map(|number| first + number).collect();
    let Sums { failures: fresh, deferrals, .. } = run_all(&seeds);
    assert!(fresh.is_empty(), "{} of {} seeds fail:\n{}", fresh.len(), seeds.len(), fresh.join("\n"));
    let settled = deferrals.settled;
    if settled.all >= ENOUGH {
        let (caused, all) = (settled.caused, settled.all);
        assert!(caused * 20 < all, "{caused} of {all} transactions were refused since we passed a limit: 5 % or more");
    }
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
