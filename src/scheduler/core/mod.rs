//! The scheduler's state machine.
//!
//! ```text
//!             accepted / paged, due           site known            connection free
//!  (disk) ──────────────────────────▶ resolving ─────────▶ ready ─────────────────▶ leased ──▶ settled
//!   ▲  ▲  paged, due within a minute ▶ waiting ───▲ due     │ no room                  │
//!   │  └──────────────────── backlog of the site ◀──────────┘                          │
//!   └────────────────────────── due later than the window ◀────────────────────────────┘
//! ```

mod charge;
mod explain;
#[cfg(test)]
mod explain_tests;
#[cfg(test)]
mod fairness_tests;
#[cfg(test)]
mod lane_tests;
mod learn;
mod life;
mod line;
mod look;
mod operate;
mod paging;
mod pick;
mod report;
mod serve;
mod sweep;
#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;
#[cfg(test)]
mod turn_tests;
mod warming;
#[cfg(test)]
mod warmup_world_tests;
#[cfg(test)]
mod world_tests;

use std::collections::BTreeSet;
use std::sync::Arc;

use self::life::Volume;
use self::line::Line;
use crate::policy::lane::LaneState;
use crate::queue::{DueJob, DueKey, Handoff, HistoryRow, JobKey};
use crate::scheduler::backlog::Backlog;
use crate::scheduler::class::{Class, Classes};
use crate::scheduler::fleet::{Destination, Families, Fleet, MeterKey, SourceId};
use crate::scheduler::ledger::Ledger;
use crate::scheduler::sites::Site;
use crate::scheduler::window::Window;
use crate::scheduler::{
    Action, ConnectionId, LaneEvent, LaneName, Lease, LifeSave, Map, Payload, Report, RoutingFailure, SavedLane,
    Settings, Settled, SiteName, Verdict, job_from_due,
};
use crate::types::{Domain, PoolName, SourceName, Timestamp};

#[derive(Debug)]
struct Job {
    due_at: Timestamp,
    expires_at: Timestamp,
    domain: Domain,
    attempts: u32,
    notices: u8,
    ambiguous: bool,
    /// Made by an operator's command from what the disk showed a moment ago: to be looked up again before it is used.
    unverified: bool,
    state: JobState,
    /// It is out for a settlement that needs no connection.
    settling: bool,
    /// The site in whose line its key stands.
    queued_at: Option<SiteName>,
    /// Whose it is, by which pool it goes, how urgent it is.
    class: Arc<Class>,
    /// The source that it keeps.
    source: Option<SourceName>,
    /// Attempts in a row that a block of their source ended.
    blocks: u8,
    /// How often it was given back since its last attempt, as its host ended the connection.
    spared: u8,
    payload: Option<Box<Payload>>,
}

impl Job {
    /// A job as the due index knows it, before its first attempt.
    fn waiting(domain: Domain, class: Arc<Class>, due_at: Timestamp, expires_at: Timestamp) -> Self {
        Self {
            due_at,
            expires_at,
            domain,
            attempts: 0,
            notices: 0,
            ambiguous: false,
            unverified: false,
            state: JobState::Waiting,
            settling: false,
            queued_at: None,
            class,
            source: None,
            blocks: 0,
            spared: 0,
            payload: None,
        }
    }

    /// Made due by an operator, early: it stays in memory, since its place on disk says another time.
    fn is_early(&self, now: Timestamp) -> bool {
        self.unverified || self.due_at > now
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum JobState {
    Waiting,
    Resolving,
    Ready,
    Leased,
}

#[derive(Debug, Default)]
struct DomainState {
    destination: Option<Destination>,
    /// Its hosts have no address of these.
    lacks: Families,
    /// Wait for the site. Not empty: a lookup is under way.
    parked: Vec<JobKey>,
    /// More of them, for whom there was no room, and their classes.
    backlog: Backlog,
    left: BTreeSet<Arc<Class>>,
}

#[derive(Debug)]
struct Connection {
    site: SiteName,
    source: SourceId,
    /// The queue's pool and configuration set for which it works.
    pool: PoolName,
    set: Box<str>,
    hosts: SiteName,
    /// Of these domain's route.
    domain: Domain,
    /// Transactions that its assignment may take.
    taken: u32,
    closing: bool,
}

/// The jobs of a class at a site.
type FlowName = (SiteName, Arc<Class>);

/// See the module. All methods append what the driver has to do to `actions`.
#[derive(Debug)]
pub struct Scheduler {
    settings: Settings,
    unclean_since: Option<Timestamp>,
    jobs: Map<JobKey, Job>,
    waiting: BTreeSet<(Timestamp, JobKey)>,
    domains: Map<Domain, DomainState>,
    sites: Map<SiteName, Site>,
    fleet: Fleet,
    classes: Classes,
    /// States of lanes from before the start, until they are used.
    saved: Map<LaneName, LaneState>,
    /// The daemon was not stopped in order: more may have been sent than was saved.
    unclean: bool,
    started_at: Timestamp,
    /// Lanes in memory.
    lanes: usize,
    /// Lanes that may have something to save.
    dirty: BTreeSet<LaneName>,
    /// Lanes whose states are being written.
    saving: BTreeSet<LaneName>,
    /// Lanes whose records are to go.
    forgotten: BTreeSet<LaneName>,
    /// What changed since the last save.
    lane_events: Vec<LaneEvent>,
    /// States of lanes that are not in memory and that an operator changed.
    ordered: Vec<SavedLane>,
    ledger: Ledger,
    volume: Volume,
    /// When managed pools were last looked at.
    lives_at: Timestamp,
    life_save: LifeSave,
    /// When what was counted was last given out.
    history_at: Timestamp,
    /// The day on which old rows were last removed.
    pruned_on: Option<u32>,
    connections: Map<ConnectionId, Connection>,
    /// Those that do nothing. In order, so that which one is closed first depends on nothing but what happened.
    idle: BTreeSet<ConnectionId>,
    line: Line,
    /// Jobs that are due and must not be looked at before a time.
    postponed: BTreeSet<(Timestamp, JobKey)>,
    /// Ends of suspensions.
    alarms: BTreeSet<(Timestamp, SiteName)>,
    window: Window,
    /// Flows with a backlog.
    behind: BTreeSet<FlowName>,
    /// What was left on disk and belongs to no site: the table was full, or a lookup failed.
    strays: Backlog,
    /// Some site may have room again for what it left on disk.
    room: bool,
    /// Where the patrol through all backlogs stands, when it is under way.
    patrol: Option<DueKey>,
    patrol_began: Timestamp,
    /// Pages that it read.
    patrol_pages: u32,
    /// When the one before began: what it looked at needs no second look.
    patrolled: Timestamp,
    payload_bytes: usize,
    in_flight: usize,
    /// Of those, out for a settlement without a connection.
    settling: usize,
    /// Connections that were told to close and have not yet.
    closing: usize,
    next_connection: u64,
    next_sweep: Timestamp,
    draining: bool,
}

impl Scheduler {
    /// A scheduler that knows no job yet: the first page brings them. Jobs that were due before `unclean_since` are
    /// marked as ambiguous. `saved` is what lanes kept over the restart; `unclean`: it was not in order.
    pub fn new(
        settings: Settings,
        unclean_since: Option<Timestamp>,
        saved: Vec<SavedLane>,
        unclean: bool,
        now: Timestamp,
    ) -> Self {
        let mut fleet = Fleet::default();
        fleet.reload(&settings.pools, &settings.warmup, now);
        let mut saved: Map<LaneName, LaneState> = saved.into_iter().map(|saved| (saved.name, saved.state)).collect();
        for (key, meter) in fleet.all_meters() {
            let name = match &key {
                MeterKey::Source(name) => LaneName::Source(name.clone()),
                MeterKey::Pool(name) => LaneName::Pool(name.clone()),
            };
            match saved.remove(&name) {
                Some(state) => meter.restore(&state, unclean, now),
                // What was sent right before is not known.
                None if unclean => meter.restore(&LaneState::default(), unclean, now),
                None => {}
            }
        }
        Self {
            settings,
            unclean_since,
            fleet,
            classes: Classes::default(),
            saved,
            unclean,
            started_at: now,
            lanes: 0,
            dirty: BTreeSet::new(),
            saving: BTreeSet::new(),
            forgotten: BTreeSet::new(),
            lane_events: Vec::new(),
            ordered: Vec::new(),
            ledger: Ledger::restored(Vec::new(), now),
            volume: Volume::new(now),
            lives_at: now,
            life_save: LifeSave::default(),
            history_at: now,
            pruned_on: None,
            jobs: Map::default(),
            waiting: BTreeSet::new(),
            domains: Map::default(),
            sites: Map::default(),
            connections: Map::default(),
            idle: BTreeSet::new(),
            line: Line::default(),
            postponed: BTreeSet::new(),
            alarms: BTreeSet::new(),
            window: Window::new(),
            behind: BTreeSet::new(),
            strays: Backlog::default(),
            room: false,
            patrol: None,
            patrol_began: Timestamp::EPOCH,
            patrol_pages: 0,
            patrolled: Timestamp::EPOCH,
            payload_bytes: 0,
            in_flight: 0,
            settling: 0,
            closing: 0,
            next_connection: 0,
            next_sweep: Timestamp::EPOCH,
            draining: false,
        }
    }

    /// Goes on counting where the run before stopped: rows of this day and of days to come, and those of the day before for managed
    /// pools.
    #[must_use]
    pub fn with_history(mut self, rows: Vec<HistoryRow>, now: Timestamp) -> Self {
        self.volume.restore(&rows);
        self.ledger = Ledger::restored(rows, now);
        self
    }

    /// New limits, from now on.
    pub fn reload(&mut self, settings: Settings, now: Timestamp, actions: &mut Vec<Action>) {
        self.settings = settings;
        // Routes and DNS settings may have changed too: every domain is looked up again, for what waits as well.
        for domain in self.domains.values_mut() {
            domain.lacks = Families::default();
            if let Some(destination) = &mut domain.destination {
                destination.expires_at = now;
            }
        }
        // What was left on disk may belong to other queues now: it is read again.
        for (name, class) in std::mem::take(&mut self.behind) {
            let from = self.flow_mut(&name, &class).and_then(|flow| std::mem::take(&mut flow.backlog).from());
            if let Some(from) = from {
                self.leave_stray(from);
            }
        }
        self.fleet.reload(&self.settings.pools, &self.settings.warmup, now);
        self.look_at_pools(now);
        self.refit_sites(now, actions);
        self.give_out_lives(actions);
        self.serve_line(now, actions);
    }

    /// A message was committed.
    pub fn accepted(&mut self, handoff: Handoff, now: Timestamp, actions: &mut Vec<Action>) {
        let message = &handoff.message;
        let class = self.classes.of_message(message);
        for group in message.open_groups() {
            let Some(domain) = message.domains.get(usize::from(group)) else { break };
            let key = JobKey { id: message.id, group };
            // A page may have shown it before the committer told of it.
            if self.jobs.contains_key(&key) {
                continue;
            }
            let payload = Payload {
                message: handoff.message.clone(),
                body: handoff.body.clone(),
                recipient_headers: handoff.recipient_headers.clone(),
            };
            let fits = self.payload_bytes + payload.bytes() <= self.settings.body_cache_bytes;
            let mut job = Job::waiting(domain.clone(), Arc::clone(&class), handoff.due_at, message.expires_at);
            job.payload = fits.then(|| Box::new(payload));
            self.insert(key, job, true, now, actions);
        }
        if self.room {
            self.page_in(now, actions);
        }
    }

    /// Where mail for a domain goes is known.
    pub fn resolved(&mut self, domain: &Domain, destination: Destination, now: Timestamp, actions: &mut Vec<Action>) {
        let name = destination.site.clone();
        self.make_site(&destination);
        let state = self.domains.entry(domain.clone()).or_default();
        state.lacks = Families::default();
        let before = state.destination.replace(destination).map(|before| before.site).filter(|before| *before != name);
        let parked = std::mem::take(&mut state.parked);
        let (backlog, left) = (std::mem::take(&mut state.backlog), std::mem::take(&mut state.left));
        for key in parked {
            self.enqueue(key, &name, now);
        }
        for class in left {
            if let Some(place) = backlog.from() {
                self.leave_behind(&name, &class, place);
            }
        }
        // What waits at another site finds its way here: limits are this one's now.
        if let Some(before) = before {
            let keys = self.take_line(&before);
            self.reroute(&before, keys, now, actions);
        }
        self.serve(&name, now, actions);
        self.page_in(now, actions);
    }

    /// A domain has no route: its jobs are settled accordingly.
    pub fn unroutable(&mut self, domain: &Domain, failure: &RoutingFailure, actions: &mut Vec<Action>) {
        let Some(state) = self.domains.get_mut(domain) else { return };
        state.destination = None;
        let parked = std::mem::take(&mut state.parked);
        state.left.clear();
        if let Some(place) = std::mem::take(&mut state.backlog).from() {
            self.leave_stray(place);
        }
        for key in parked {
            self.settle(key, Verdict::Routing(failure.clone()), actions);
        }
    }

    /// A connection did what it was given, and could do more. Its jobs are settled by their own messages.
    pub fn connection_idle(&mut self, id: ConnectionId, report: Report, now: Timestamp, actions: &mut Vec<Action>) {
        let Some(connection) = self.connections.get(&id) else { return };
        let (name, source, hosts) = (connection.site.clone(), connection.source, connection.hosts.clone());
        self.ended(id, &report, now);
        let Some(site) = self.sites.get_mut(&name) else { return };
        site.put_idle(source, id, hosts);
        let Some(entry) = site.lane_mut(source) else { return };
        let surplus = entry.connections > entry.lane.window(now);
        self.idle.insert(id);
        if self.draining || surplus {
            return self.close(id, actions);
        }
        self.serve_same_hosts(id, now);
        self.serve(&name, now, actions);
        self.serve_line(now, actions);
    }

    /// An assignment crossed the end of its connection, which is yet to be told.
    pub fn returned(&mut self, leases: Vec<Lease>, now: Timestamp, actions: &mut Vec<Action>) {
        for lease in leases {
            self.give_back(lease, now, actions);
        }
    }

    /// A connection is gone. `unserved` are jobs it was given and did not try.
    pub fn connection_closed(
        &mut self,
        id: ConnectionId,
        report: Report,
        unserved: Vec<Lease>,
        now: Timestamp,
        actions: &mut Vec<Action>,
    ) {
        if report.no_address {
            self.lacks_addresses(id);
        }
        let learned = &report.learned;
        let sent_away = matches!(learned.health, crate::policy::lane::Health::Busy(_))
            || learned.spent_after.is_some()
            || !learned.reactions.is_empty();
        // What it learned comes first: the jobs that it gives back go by what is known now.
        self.ended(id, &report, now);
        let connection = self.connections.remove(&id);
        for mut lease in unserved {
            lease.spared = lease.spared.saturating_add(u8::from(sent_away));
            self.give_back(lease, now, actions);
        }
        let Some(connection) = connection else { return };
        let name = connection.site;
        self.closing -= usize::from(connection.closing);
        self.idle.remove(&id);
        if let Some(site) = self.sites.get_mut(&name) {
            site.connections -= 1;
            self.line.unproven_connections -= usize::from(!site.is_proven());
            if let Some(entry) = site.lane_mut(connection.source) {
                entry.connections -= 1;
                entry.closing -= u32::from(connection.closing);
            }
            site.take_idle(connection.source, id);
            // The jobs that it gave back found its place still taken.
            site.unstick();
        }
        // Its own site comes after those that wait for a connection: otherwise a long line would keep its place forever.
        self.serve_line(now, actions);
        self.serve(&name, now, actions);
    }

    /// A settlement was committed.
    pub fn settled(&mut self, key: JobKey, settled: Settled, now: Timestamp, actions: &mut Vec<Action>) {
        self.window.changed(key);
        let Some(mut job) = self.remove(key) else {
            // A released job that was not in memory.
            return self.page_in(now, actions);
        };
        match settled {
            Settled::Out => return self.page_in(now, actions),
            Settled::Unchanged => {}
            Settled::Due { at, attempts, source, blocked } => {
                (job.due_at, job.attempts, job.ambiguous) = (at, attempts, false);
                (job.source, job.spared) = (source, 0);
                job.blocks = if blocked { job.blocks.saturating_add(1) } else { 0 };
            }
        }
        (job.state, job.unverified) = (JobState::Waiting, false);
        self.insert(key, job, false, now, actions);
        if self.room {
            self.page_in(now, actions);
        }
    }

    /// A job is not as the scheduler has it (an operator's command was late): nothing was written.
    pub fn gone(&mut self, key: JobKey, now: Timestamp, actions: &mut Vec<Action>) {
        self.window.changed(key);
        self.remove(key);
        self.page_in(now, actions);
    }

    /// Whether a job is in memory.
    pub fn knows(&self, key: JobKey) -> bool {
        self.jobs.contains_key(&key)
    }

    /// Whether anything is remembered of a domain.
    pub fn knows_domain(&self, domain: &Domain) -> bool {
        self.domains.contains_key(domain)
    }

    /// The driver has no route for a domain any more: it is looked up again.
    pub fn forget_route(&mut self, domain: &Domain) {
        if let Some(state) = self.domains.get_mut(domain) {
            state.destination = None;
        }
    }

    /// A job could not be looked at (the store does not answer): it stays as it is on disk, and is ready again at `at`.
    pub fn postponed(&mut self, key: JobKey, at: Timestamp, now: Timestamp, actions: &mut Vec<Action>) {
        let Some(job) = self.jobs.get_mut(&key).filter(|job| job.state == JobState::Leased) else { return };
        self.in_flight -= 1;
        self.settling -= usize::from(std::mem::take(&mut job.settling));
        job.state = JobState::Waiting;
        self.postponed.insert((at, key));
        self.tick(now, actions);
    }

    /// A job that was not in memory was made due (released).
    pub fn released(&mut self, due: &DueJob, now: Timestamp, actions: &mut Vec<Action>) {
        let Some((domain, expires_at)) = job_from_due(due) else { return };
        self.window.changed(due.key);
        if self.jobs.contains_key(&due.key) {
            return;
        }
        let class = self.classes.of(&due.entry);
        let mut job = Job::waiting(domain, class, due.due_at, expires_at);
        (job.attempts, job.source) = (due.entry.attempts, SourceName::parse(&due.entry.source));
        self.insert(due.key, job, true, now, actions);
    }

    /// The time has come that [`Scheduler::next_wakeup`] named, or any other.
    pub fn tick(&mut self, now: Timestamp, actions: &mut Vec<Action>) {
        while let Some((at, key)) = self.waiting.first().copied() {
            if at > now {
                break;
            }
            self.waiting.pop_first();
            self.make_ready(key, now, actions);
        }
        while let Some((at, key)) = self.postponed.first().copied() {
            if at > now {
                break;
            }
            self.postponed.pop_first();
            if self.jobs.get(&key).is_some_and(|job| job.state == JobState::Waiting) {
                self.make_ready(key, now, actions);
            }
        }
        while let Some((at, site)) = self.alarms.first().cloned() {
            if at > now {
                break;
            }
            self.alarms.pop_first();
            if let Some(state) = self.sites.get_mut(&site) {
                state.alarm = None;
                state.unstick();
            }
            self.reroute_if_stale(&site, now, actions);
            self.serve(&site, now, actions);
        }
        if now >= self.next_sweep {
            self.sweep(now, actions);
        }
        self.page_in(now, actions);
        self.serve_line(now, actions);
    }

    /// When [`Scheduler::tick`] is needed next.
    pub fn next_wakeup(&self) -> Timestamp {
        let waiting = self.waiting.first().map(|(at, _)| *at);
        let alarm = self.alarms.first().map(|(at, _)| *at);
        let postponed = self.postponed.first().map(|(at, _)| *at);
        [waiting, alarm, postponed, Some(self.next_sweep)].into_iter().flatten().min().unwrap_or(Timestamp::MAX)
    }
}
