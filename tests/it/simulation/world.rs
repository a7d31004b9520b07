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
        let clock = Arc::new(WorldClock::new(plan.clock_steps.clone()));
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

    /// By the daemon's clock.
    pub(super) fn now(&self) -> Timestamp {
        self.clock.now()
    }

    /// Whatever the daemon's clock says.
    pub(super) fn true_now(&self) -> Timestamp {
        self.clock.true_now()
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

/// The wall clock: it goes on from run to run, and within one with the runtime's paused time. Now and again somebody sets it.
pub(super) struct WorldClock {
    time: Mutex<(Timestamp, Option<Instant>)>,
    /// When, in true time, and by how many milliseconds.
    steps: Vec<(Timestamp, i64)>,
    /// The latest time that it ever told.
    latest_ms: AtomicU64,
}

impl WorldClock {
    fn new(steps: Vec<(Timestamp, i64)>) -> Self {
        Self { time: Mutex::new((START, None)), steps, latest_ms: AtomicU64::new(0) }
    }

    /// A runtime begins: called within it.
    pub(super) fn start(&self) {
        self.time.lock().unwrap().1 = Some(Instant::now());
    }

    /// It ends: called within it, too.
    pub(super) fn stop(&self) {
        let now = self.true_now();
        *self.time.lock().unwrap() = (now, None);
    }

    /// Nothing runs for a while.
    pub(super) fn pass(&self, span: Duration) {
        let mut state = self.time.lock().unwrap();
        state.0 = state.0.plus(span);
    }

    /// The time as nobody sets it.
    pub(super) fn true_now(&self) -> Timestamp {
        let (base, origin) = *self.time.lock().unwrap();
        origin.map_or(base, |origin| base.plus(origin.elapsed()))
    }

    /// The latest time that anybody was told.
    pub(super) fn latest(&self) -> Timestamp {
        Timestamp::from_millis(self.latest_ms.load(Ordering::Relaxed))
    }

    /// How often it was set ahead by now.
    pub(super) fn steps_ahead(&self) -> usize {
        let now = self.true_now();
        self.steps.iter().filter(|(at, step_ms)| *at <= now && *step_ms > 0).count()
    }
}

impl Clock for WorldClock {
    fn now(&self) -> Timestamp {
        let now = self.true_now();
        let set_ms: i64 = self.steps.iter().filter(|(at, _)| *at <= now).map(|(_, step_ms)| step_ms).sum();
        let now_ms = now.millis().checked_add_signed(set_ms).unwrap();
        self.latest_ms.fetch_max(now_ms, Ordering::Relaxed);
        Timestamp::from_millis(now_ms)
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
