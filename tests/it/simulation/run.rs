//! One world from its first message to an empty queue, through all its stops.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::sync::{Arc, Once};
use std::time::Duration;

use posthaste::queue::store::Family;
use posthaste::types::Timestamp;
use tokio::runtime::{Builder, Runtime};

use super::application;
use super::daemon::Daemon;
use super::judge;
use super::ledger::Restart;
use super::plan::{FileTrouble, Plan, StopKind, StopPlan};
use super::provider::Tally;
use super::world::World;

/// How often a running world is looked at.
const LOOK_EVERY: Duration = Duration::from_secs(60);
/// A planned cut in a world where nothing happens any more comes after this.
const CUT_AFTER: Duration = Duration::from_secs(120);
/// As `RestartSec` of the systemd unit.
const START_AGAIN: Duration = Duration::from_secs(1);
/// What was learned is on disk after that, where the disk writes.
const UNSYNCED: Duration = Duration::from_secs(2);
/// What a world came to.
pub(super) struct Outcome {
    pub(super) violations: Vec<String>,
    /// Every event file, in order: name and content.
    pub(super) files: Vec<(String, String)>,
    pub(super) story: Vec<String>,
    pub(super) steps: u64,
    pub(super) attempts: u64,
    pub(super) span: Duration,
    pub(super) restarts: u64,
    pub(super) deferrals: Deferrals,
}

/// Transactions at providers, and what was refused since we passed a limit.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Deferrals {
    /// Where the daemon was told of the limits.
    pub(super) told: Tally,
    /// Where it was not.
    pub(super) untold: Tally,
    /// Of those, after the time of settling.
    pub(super) settled: Tally,
}

impl Deferrals {
    pub(super) fn add(&mut self, other: &Self) {
        self.told.add(other.told);
        self.untold.add(other.untold);
        self.settled.add(other.settled);
    }

    fn of(world: &World) -> Self {
        let mut sums = Self::default();
        for provider in &world.network.providers {
            let (all, settled) = provider.tallies();
            if provider.plan.told {
                sums.told.add(all);
            } else {
                sums.untold.add(all);
                sums.settled.add(settled);
            }
        }
        sums
    }
}

/// How a run of the daemon ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    /// All is delivered or given up.
    Done,
    /// As it was told to.
    Stopped,
    /// It did not come to its end in the time of the drain.
    CutDrain,
    /// The power was cut.
    Cut,
    /// The disk did not write, or not event files, at its start.
    NotStarted,
    /// A violation was noted that leaves nothing to run.
    Stuck,
}

thread_local! {
    /// What panicked in the world of this thread: a task that does ends silently, as far as others can see.
    static PANICS: RefCell<Vec<String>> = const { RefCell::new(Vec::new()) };
}

fn listen_for_panics() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let before = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            PANICS.with_borrow_mut(|panics| panics.push(info.to_string()));
            before(info);
        }));
    });
}

/// Runs the world of a seed.
pub(super) fn simulate(seed: u64, with_story: bool) -> Outcome {
    listen_for_panics();
    let plan = Plan::new(seed);
    let world = World::new(plan, with_story);
    world.tell(|| format!("{:?}", world.plan));
    let start = world.true_now();
    let mut stops = world.plan.stops.clone().into_iter();
    let mut stop = stops.next();
    let mut run = 0;
    loop {
        let end = period(&world, stop, run);
        world.tell(|| format!("run {run} ended: {end:?} ({stop:?})"));
        let kind = match (end, stop) {
            (End::Done | End::Stuck, _) => break,
            (End::NotStarted, _) => {
                world.clock.pass(START_AGAIN);
                continue;
            }
            (End::Stopped | End::CutDrain, _) => StopKind::Orderly,
            (End::Cut, stop) => stop.map_or(StopKind::Kill, |stop| stop.kind),
        };
        recover(&world, kind, end != End::Stopped);
        world.clock.pass(stop.map_or(Duration::ZERO, |stop| stop.down));
        stop = stops.next();
        run += 1;
    }
    let files = judge::event_files(&world);
    judge::judge(&world, &files);
    let mut ledger = world.ledger();
    for panic in PANICS.take() {
        ledger.violation(format!("PANIC: {panic}"));
    }
    Outcome {
        violations: ledger.violations().iter().cloned().collect(),
        files,
        story: ledger.story(),
        steps: world.power.steps(),
        attempts: ledger.attempts,
        span: world.true_now().since(start),
        restarts: run,
        deferrals: Deferrals::of(&world),
    }
}

fn runtime() -> Runtime {
    // The root future comes before every other task, so that nothing goes on after a cut.
    Builder::new_current_thread().enable_time().start_paused(true).event_interval(1).build().unwrap()
}

/// What a stop leaves, and the notes of it.
fn recover(world: &World, kind: StopKind, unclean: bool) {
    let stopped_at = world.true_now();
    world.power.restore();
    let known = if unclean { world.disk.last_outage_from(stopped_at).minus(UNSYNCED) } else { Timestamp::MAX };
    world.network.restarted(known);
    world.ledger().restarted(known);
    world.disk.survive(kind);
    world.files.limit(None);
    world.files.restart(match kind {
        StopKind::Orderly | StopKind::Kill => posthaste::events::file::model::Crash::Process,
        StopKind::Power => posthaste::events::file::model::Crash::Power,
        StopKind::PowerReordered => posthaste::events::file::model::Crash::PowerReordered,
        StopKind::PowerWithGarbage => posthaste::events::file::model::Crash::PowerWithGarbage,
    });
    if unclean {
        // Completed at the next start, whose time decides.
        world.ledger().restarts.push(Restart { stopped_at, is_up: false, due: BTreeSet::new() });
    }
}

/// One run of the daemon.
fn period(world: &Arc<World>, stop: Option<StopPlan>, run: u64) -> End {
    let runtime = runtime();
    let end = runtime.block_on(async {
        world.clock.start();
        let end = tokio::select! {
            biased;
            () = world.power.cut() => End::Cut,
            end = live(world, stop, run) => end,
        };
        world.clock.stop();
        end
    });
    // What tasks do when they are dropped may need the runtime.
    let handle = runtime.handle().clone();
    let _entered = handle.enter();
    drop(runtime);
    end
}

async fn live(world: &Arc<World>, stop: Option<StopPlan>, run: u64) -> End {
    let daemon = match Daemon::start(world, run).await {
        Ok(daemon) => daemon,
        Err(_) if world.disk.is_out() || world.files_are_in_trouble() => return End::NotStarted,
        Err(error) => {
            world.ledger().violation(format!("START: run {run} does not start: {error}"));
            return End::Stuck;
        }
    };
    for number in 0..world.plan.messages.len() {
        tokio::spawn(application::run(Arc::clone(world), Arc::clone(&daemon.reception), number));
    }
    tokio::spawn(trouble_files(Arc::clone(world)));
    let end = world.plan.end();
    let until = stop.map_or(end, |stop| stop.at);
    let is_done = watch(world, &daemon, until, stop.is_none()).await;
    match stop {
        Some(stop) if stop.kind != StopKind::Orderly => {
            world.power.arm(stop.steps);
            tokio::time::sleep(CUT_AFTER).await;
            world.power.cut_now();
            std::future::pending().await
        }
        Some(_) => {
            let was_orderly = daemon.stop().await;
            if was_orderly { End::Stopped } else { End::CutDrain }
        }
        None if is_done => {
            if !daemon.stop().await && !world.disk.is_out() {
                world.ledger().violation("STALL: the last drain did not end, with nothing in flight".to_owned());
            }
            End::Done
        }
        None => {
            let left: Vec<_> = world.ledger().due.keys().copied().collect();
            let names: Vec<_> = left.iter().flat_map(|job| world.ledger().names_of(job)).collect();
            world.ledger().violation(format!("STALL: the queue is not empty by {end}: {names:?}"));
            End::Stuck
        }
    }
}

/// The file system of the event files gives trouble at its times.
async fn trouble_files(world: Arc<World>) {
    for window in &world.plan.file_troubles {
        tokio::time::sleep(window.from.since(world.now())).await;
        let left = window.to.since(world.now());
        if left.is_zero() {
            continue;
        }
        match window.what {
            FileTrouble::Full(room) => world.files.limit(Some(world.files.used() + room)),
            FileTrouble::Syncs(count) => world.files.fail_syncs(count),
            FileTrouble::ShortWrites(bytes) => world.files.limit_writes(bytes),
        }
        tokio::time::sleep(left).await;
        world.files.limit(None);
    }
}

/// Lets it live until then, with a look now and again. Returns whether all is done.
async fn watch(world: &Arc<World>, daemon: &Daemon, until: Timestamp, may_end: bool) -> bool {
    let began_at = world.now();
    loop {
        let left = until.since(world.now());
        if left.is_zero() {
            return false;
        }
        tokio::time::sleep(left.min(LOOK_EVERY)).await;
        look(world, began_at);
        if daemon.has_failed() {
            world.ledger().violation("STALL: the dispatcher or the event writer ended".to_owned());
            return false;
        }
        let empty = world.disk.store().dump(Family::Message).is_empty();
        let told = world.disk.store().dump(Family::Outbox).is_empty();
        if may_end && empty && told && world.all_handed_in() {
            return true;
        }
    }
}

/// STALL: nothing is due for long without an outcome, and nothing outlives its lifetime.
fn look(world: &World, began_at: Timestamp) {
    let now = world.now();
    let mut ledger = world.ledger();
    let late = |since: Timestamp, max: Duration| now.since(since.max(began_at)) > max;
    let stalled = ledger.due.iter().filter(|(_, due)| {
        let zone = world.plan.zone(&due.domain).expect("the daemon knows no other domains");
        let max = world.plan.stall_max(zone, now);
        late(due.expires_at, world.plan.expiry_max(zone)) || max.is_some_and(|max| late(due.at, max))
    });
    let stalled: Vec<_> = stalled.map(|(job, due)| format!("{:?} was {due:?}", ledger.names_of(job))).collect();
    for text in stalled {
        ledger.violation(format!("STALL: no outcome of {text}"));
    }
}
