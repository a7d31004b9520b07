//! A world: its plan, its time, its ledger, and the switch that cuts the power amid things.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use posthaste::events::file::model::ModelStorage;
use posthaste::types::{Clock, Timestamp};
use tokio::sync::Notify;
use tokio::time::Instant;

use super::disk::Disk;
use super::ledger::Ledger;
use super::network::Network;
use super::plan::{Plan, START};

/// What outlives a run of the daemon.
pub(super) struct World {
    pub(super) plan: Plan,
    pub(super) clock: Arc<WorldClock>,
    pub(super) power: Arc<Power>,
    pub(super) disk: Arc<Disk>,
    pub(super) files: ModelStorage,
    pub(super) network: Network,
    ledger: Arc<Mutex<Ledger>>,
    /// Of each application: the next message, and how often it was tried.
    pub(super) progress: Mutex<Vec<(usize, u32)>>,
}

impl World {
    pub(super) fn new(plan: Plan, with_story: bool) -> Arc<Self> {
        let ledger = Arc::new(Mutex::new(Ledger::new(with_story)));
        let power = Arc::new(Power::default());
        let clock = Arc::new(WorldClock(Mutex::new((START, None))));
        let disk = Disk::new(Arc::clone(&power), Arc::clone(&ledger), Arc::clone(&clock), plan.disk_outages.clone());
        let files = ModelStorage::new();
        let (observed, switch) = (files.clone(), Arc::clone(&power));
        files.observe(move || {
            if !switch.step() {
                observed.crash_after(0);
            }
        });
        Arc::new(Self {
            progress: Mutex::new(vec![(0, 0); plan.messages.len()]),
            network: Network::new(&plan),
            clock,
            power,
            disk: Arc::new(disk),
            files,
            ledger,
            plan,
        })
    }

    pub(super) fn ledger(&self) -> MutexGuard<'_, Ledger> {
        self.ledger.lock().unwrap()
    }

    pub(super) fn now(&self) -> Timestamp {
        self.clock.now()
    }

    pub(super) fn tell(&self, line: impl FnOnce() -> String) {
        let now = self.now();
        self.ledger().tell(|| format!("{now} {}", line()));
    }

    /// Whether event files may be in trouble now.
    pub(super) fn files_are_in_trouble(&self) -> bool {
        let now = self.now();
        self.plan.file_troubles.iter().any(|window| window.from <= now)
    }

    /// Whether all applications got rid of everything.
    pub(super) fn all_handed_in(&self) -> bool {
        let progress = self.progress.lock().unwrap();
        progress.iter().zip(&self.plan.messages).all(|((next, _), messages)| *next == messages.len())
    }
}

/// The wall clock: it goes on from run to run, and within one with the runtime's paused time.
pub(super) struct WorldClock(Mutex<(Timestamp, Option<Instant>)>);

impl WorldClock {
    /// A runtime begins: called within it.
    pub(super) fn start(&self) {
        self.0.lock().unwrap().1 = Some(Instant::now());
    }

    /// It ends: called within it, too.
    pub(super) fn stop(&self) {
        let now = self.now();
        *self.0.lock().unwrap() = (now, None);
    }

    /// Nothing runs for a while.
    pub(super) fn pass(&self, span: Duration) {
        let mut state = self.0.lock().unwrap();
        state.0 = state.0.plus(span);
    }
}

impl Clock for WorldClock {
    fn now(&self) -> Timestamp {
        let (base, origin) = *self.0.lock().unwrap();
        origin.map_or(base, |origin| base.plus(origin.elapsed()))
    }
}

/// Counts what happens, and cuts the power after so much of it.
#[derive(Default)]
pub(super) struct Power {
    steps: AtomicU64,
    /// Steps left, plus one; 0: no cut is planned.
    left: AtomicU64,
    is_cut: AtomicBool,
    bell: Notify,
}

impl Power {
    /// Something happens: a write, a command, a reply. `false`: it does not happen, and nothing does any more.
    pub(super) fn step(&self) -> bool {
        if self.is_cut() {
            return false;
        }
        self.steps.fetch_add(1, Ordering::Relaxed);
        match self.left.load(Ordering::Relaxed) {
            0 => true,
            1 => {
                self.cut_now();
                false
            }
            left => {
                self.left.store(left - 1, Ordering::Relaxed);
                true
            }
        }
    }

    pub(super) fn arm(&self, steps: u64) {
        self.left.store(steps + 1, Ordering::Relaxed);
    }

    pub(super) fn cut_now(&self) {
        self.is_cut.store(true, Ordering::Relaxed);
        self.bell.notify_one();
    }

    /// Until the power is cut. The runtime polls this before any other task once it is woken.
    pub(super) async fn cut(&self) {
        while !self.is_cut() {
            self.bell.notified().await;
        }
    }

    pub(super) fn is_cut(&self) -> bool {
        self.is_cut.load(Ordering::Relaxed)
    }

    /// The machine is up again.
    pub(super) fn restore(&self) {
        self.left.store(0, Ordering::Relaxed);
        self.is_cut.store(false, Ordering::Relaxed);
    }

    pub(super) fn steps(&self) -> u64 {
        self.steps.load(Ordering::Relaxed)
    }
}
