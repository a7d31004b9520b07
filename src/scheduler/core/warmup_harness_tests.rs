//! A world that lasts for months: a scheduler whose sources warm up, a disk that keeps what it is told to, receivers that count on
//! their own. Its clock is moved from event to event. `warmup_world_tests` says what happens in it, and what must hold.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use bytes::Bytes;
use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};

use super::super::*;
use super::config::{PROVIDERS, provider_of, site};
use super::receivers::{Allowed, Mood, Receivers};
use crate::policy::lane::{Health, Hit, Learned};
use crate::policy::reaction::{Reaction, ReactionKind};
use crate::queue::{DueEntry, DuePage, Origin, RecipientHeaders, SourceLife, StoredBody, StoredMessage};
use crate::scheduler::warmup::{WarmupEntry, WarmupFilter};
use crate::scheduler::{LaneEventKind, LaneSave};
use crate::types::{BodyKind, DayTotals, EmailAddress, Envelope, MessageId, Recipient, ReversePath};

pub(super) const DAY: Duration = Duration::from_secs(86_400);
pub(super) const HOUR: Duration = Duration::from_secs(3_600);
pub(super) const MINUTE: Duration = Duration::from_secs(60);
/// A midnight.
pub(super) const START: Timestamp = Timestamp::from_millis(20_000 * 86_400_000);
/// Between two sweeps, where nothing else happens: a month has many of them.
const SWEEP_PAUSE: Duration = Duration::from_secs(300);
const LIFETIME: Duration = Duration::from_secs(400 * 86_400);

/// A message for a provider.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Mail {
    pub(super) provider: usize,
    pub(super) set: &'static str,
    pub(super) prefers_warming: bool,
}

pub(super) enum Event {
    /// The receiver counts the message that a connection has.
    Counted(ConnectionId),
    Ended(ConnectionId),
    Page(DuePage),
    Written,
    Arrive(Mail),
    /// What a test wants.
    Call(u32),
}

/// What a connection works on.
pub(super) struct Busy {
    pub(super) site: SiteName,
    pub(super) source: SourceName,
    pub(super) jobs: Vec<Lease>,
    pub(super) is_counted: bool,
}

/// A message that was given out.
#[derive(Clone, Debug)]
#[expect(dead_code, reason = "told by Debug, where an assertion fails")]
pub(super) struct Given {
    pub(super) at: Timestamp,
    pub(super) site: SiteName,
    pub(super) source: SourceName,
    pub(super) set: Box<str>,
}

pub(super) struct World {
    pub(super) rng: SmallRng,
    pub(super) scheduler: Scheduler,
    pub(super) settings: Settings,
    /// As it is; [`World::clock`] is what the scheduler's machine says.
    pub(super) now: Timestamp,
    pub(super) ahead: Duration,
    pub(super) actions: Vec<Action>,
    events: BTreeMap<(Timestamp, u64), Event>,
    next_event: u64,
    next_id: u128,
    /// The disk.
    pub(super) due: BTreeMap<DueKey, DueJob>,
    pub(super) lanes: BTreeMap<LaneName, LaneState>,
    pub(super) history: BTreeMap<(u32, SourceName, Arc<str>), HistoryRow>,
    pub(super) lives: BTreeMap<SourceName, SourceLife>,
    writing: Option<LaneSave>,
    pub(super) busy: BTreeMap<ConnectionId, Busy>,
    is_paging: bool,
    pub(super) receivers: Receivers,
    pub(super) allowed: Allowed,
    sampled_on: u64,
    pub(super) told: Vec<(Timestamp, SiteName, LaneEventKind)>,
    pub(super) given: Option<Vec<Given>>,
    /// One in so many transactions takes minutes; 0: none.
    pub(super) slow_one_in: u32,
    pub(super) broken_one_in: u32,
    pub(super) accepted: usize,
    pub(super) delivered: BTreeSet<JobKey>,
    pub(super) bounced: usize,
    pub(super) waited: usize,
    pub(super) late: usize,
    pub(super) overflowed: usize,
}

impl World {
    pub(super) fn new(seed: u64, settings: Settings) -> Self {
        let scheduler = Scheduler::new(settings.clone(), None, Vec::new(), false, START).with_lives(Vec::new(), START);
        let mut world = Self {
            rng: SmallRng::seed_from_u64(seed),
            scheduler,
            settings,
            now: START,
            ahead: Duration::ZERO,
            actions: Vec::new(),
            events: BTreeMap::new(),
            next_event: 0,
            next_id: 0,
            due: BTreeMap::new(),
            lanes: BTreeMap::new(),
            history: BTreeMap::new(),
            lives: BTreeMap::new(),
            writing: None,
            busy: BTreeMap::new(),
            is_paging: false,
            receivers: Receivers::default(),
            allowed: Allowed::default(),
            sampled_on: 0,
            told: Vec::new(),
            given: None,
            slow_one_in: 50,
            broken_one_in: 0,
            accepted: 0,
            delivered: BTreeSet::new(),
            bounced: 0,
            waited: 0,
            late: 0,
            overflowed: 0,
        };
        world.begin_run();
        world
    }

    /// What the scheduler's machine says.
    pub(super) fn clock(&self) -> Timestamp {
        self.now.plus(self.ahead)
    }

    pub(super) fn at(&mut self, at: Timestamp, event: Event) {
        self.next_event += 1;
        self.events.insert((at, self.next_event), event);
    }

    pub(super) fn after(&mut self, span: Duration, event: Event) {
        self.at(self.now.plus(span), event);
    }

    pub(super) fn millis(&mut self, from: u64, to: u64) -> Duration {
        Duration::from_millis(self.rng.random_range(from..to))
    }

    fn begin_run(&mut self) {
        let now = self.clock();
        self.scheduler.tick(now, &mut self.actions);
        self.perform();
    }

    /// Messages to one provider, evenly over a time from now on.
    pub(super) fn send(&mut self, count: u32, over: Duration, mail: Mail) {
        for number in 0..count {
            self.after(over * number / count.max(1), Event::Arrive(mail));
        }
    }

    fn accept(&mut self, mail: Mail) {
        self.next_id += 1;
        self.accepted += 1;
        let now = self.clock();
        let id = MessageId::new(now, self.next_id);
        let name = format!("{}.test", PROVIDERS[mail.provider]);
        let domain = Domain::parse(&name).unwrap();
        let entry = DueEntry {
            domain: name.clone(),
            expires_at_ms: now.plus(LIFETIME).millis(),
            set: mail.set.to_owned(),
            prefers_warming: mail.prefers_warming,
            ..DueEntry::default()
        };
        let job = DueJob { due_at: now, key: JobKey { id, group: 0 }, entry };
        self.due.insert(DueKey::of(now, job.key), job);
        let address = EmailAddress::parse(&format!("user@{name}"), false).unwrap();
        let origin = Origin {
            caller: "test".into(),
            configuration_set: mail.set.into(),
            set_warms_up: !mail.set.is_empty(),
            prefers_warming: mail.prefers_warming,
            ..Default::default()
        };
        let message = StoredMessage {
            id,
            accepted_at: now,
            expires_at: now.plus(LIFETIME),
            envelope: Envelope {
                reverse_path: ReversePath::Null,
                recipients: vec![Recipient { address, notify: None, orcpt: None }],
                body: BodyKind::SevenBit,
                smtputf8: false,
                ret: None,
                envid: None,
            },
            groups: vec![0],
            states: vec![None],
            domains: vec![domain],
            header_bytes: 0,
            body_bytes: 10,
            body_parts: 0,
            recipient_headers: false,
            origin,
            mail_json: Bytes::new(),
        };
        let body = StoredBody::Inline(Bytes::from_static(b"0123456789"));
        let handoff =
            Handoff { message: Arc::new(message), body, recipient_headers: RecipientHeaders::default(), due_at: now };
        self.scheduler.accepted(handoff, now, &mut self.actions);
    }

    pub(super) fn perform(&mut self) {
        let now = self.clock();
        loop {
            if self.writing.is_none() {
                self.scheduler.flush_lanes(now, &mut self.actions);
            }
            if self.actions.is_empty() {
                return;
            }
            for action in std::mem::take(&mut self.actions) {
                self.perform_one(action);
            }
        }
    }

    fn perform_one(&mut self, action: Action) {
        let now = self.clock();
        match action {
            Action::Resolve(domain) => {
                let provider = PROVIDERS.iter().position(|name| domain.as_str().starts_with(name)).unwrap();
                let destination = Destination {
                    own_pool: None,
                    site: site(provider),
                    hosts: SiteName::new(&format!("mx.{domain}")),
                    provider: Some(PROVIDERS[provider].into()),
                    expires_at: now.plus(Duration::from_secs(7 * 86_400)),
                };
                self.scheduler.resolved(&domain, destination, now, &mut self.actions);
            }
            Action::Open { connection, site, source, jobs, .. } => self.begin(connection, site, source, jobs),
            Action::Assign { connection, jobs, .. } => {
                let Busy { site, source, .. } = self.busy.remove(&connection).unwrap();
                self.begin(connection, site, source, jobs);
            }
            Action::Close(connection) => {
                self.busy.remove(&connection);
                self.scheduler.connection_closed(connection, Report::default(), Vec::new(), now, &mut self.actions);
            }
            Action::PageIn { from, until, limit } => {
                let jobs: Vec<DueJob> = self.due.range(from..until).take(limit).map(|(_, job)| job.clone()).collect();
                let next = (jobs.len() == limit).then(|| {
                    let last = jobs.last().unwrap();
                    DueKey::of(last.due_at, JobKey { id: last.key.id, group: last.key.group + 1 })
                });
                assert!(!std::mem::replace(&mut self.is_paging, true), "one page at a time");
                self.after(Duration::from_millis(5), Event::Page(DuePage { jobs, next, damaged: Vec::new() }));
            }
            Action::SaveLanes(save) => {
                assert!(self.writing.is_none(), "one save at a time");
                let takes = self.millis(1, 80);
                self.writing = Some(save);
                self.after(takes, Event::Written);
            }
            Action::SaveHistory(save) => self.keep_history(save.rows),
            Action::SaveLives(save) => {
                let told = save.events.into_iter().map(|event| (event.at, event.site, event.kind));
                self.told.extend(told);
                self.lives.extend(save.lives.into_iter().map(|life| (life.source.clone(), life)));
            }
            Action::Settle { verdict, .. } => panic!("nothing expires here: {verdict:?}"),
        }
    }

    fn keep_history(&mut self, rows: Vec<HistoryRow>) {
        for row in rows {
            self.history.insert((row.day, row.source.clone(), Arc::clone(&row.site)), row);
        }
    }

    fn keep_lanes(&mut self, save: LaneSave) -> Vec<LaneName> {
        self.told.extend(save.events.into_iter().map(|event| (event.at, event.site, event.kind)));
        for name in save.remove {
            self.lanes.remove(&name);
        }
        let names = save.put.iter().map(|saved| saved.name.clone()).collect();
        self.lanes.extend(save.put.into_iter().map(|saved| (saved.name, saved.state)));
        names
    }

    fn begin(&mut self, connection: ConnectionId, site: SiteName, source: SourceName, jobs: Vec<Lease>) {
        let is_slow = self.slow_one_in > 0 && self.rng.random_ratio(1, self.slow_one_in);
        let takes = if is_slow { self.millis(60_000, 900_000) } else { self.millis(50, 4_000) };
        let counted = takes.mul_f64(self.rng.random_range(0.0..1.0));
        if let Some(given) = &mut self.given {
            let set = self.due.get(&DueKey::of(jobs[0].due_at.unwrap(), jobs[0].key)).unwrap().entry.set.as_str();
            given.push(Given { at: self.now, site: site.clone(), source: source.clone(), set: set.into() });
        }
        self.busy.insert(connection, Busy { site, source, jobs, is_counted: false });
        let is_broken = self.broken_one_in > 0 && self.rng.random_ratio(1, self.broken_one_in);
        if !is_broken {
            self.after(counted, Event::Counted(connection));
        }
        self.after(takes, Event::Ended(connection));
    }

    /// The receiver counts it, at a time of its own.
    pub(super) fn count(&mut self, connection: ConnectionId, at: Timestamp) {
        let Some(busy) = self.busy.get_mut(&connection).filter(|busy| !busy.is_counted) else { return };
        let Some(lease) = busy.jobs.first() else { return };
        busy.is_counted = true;
        let set = self.due.get(&DueKey::of(lease.due_at.unwrap(), lease.key)).map(|job| job.entry.set.clone());
        let of_clock = at.plus(self.ahead);
        self.receivers.count(&busy.site, &busy.source, &set.unwrap_or_default(), at, of_clock);
    }

    pub(super) fn ended(&mut self, connection: ConnectionId) {
        let Some(Busy { site, source, mut jobs, is_counted }) = self.busy.remove(&connection) else { return };
        let (now, lease) = (self.clock(), jobs.pop().unwrap());
        let mood = self.receivers.mood(provider_of(&site), &source, self.now);
        let is_unlucky = |rng: &mut SmallRng, per_mille: u32| rng.random_range(0..1_000) < per_mille;
        let mut report = Report::of(Health::Good);
        report.totals.sent = 1;
        match mood {
            _ if !is_counted => {
                // It broke before the host had anything.
                let report = Report { transactions: 0, ..Report::default() };
                return self.scheduler.connection_closed(connection, report, vec![lease], now, &mut self.actions);
            }
            Mood::Blocks => {
                report.learned = Learned { reactions: vec![block()], ..Learned::default() };
                report.totals.deferred = 1;
                self.settled(
                    &lease,
                    Settled::Due { at: now, attempts: lease.attempts + 1, source: None, blocked: true },
                );
                return self.scheduler.connection_closed(connection, report, Vec::new(), now, &mut self.actions);
            }
            Mood::Defers(per_mille) if is_unlucky(&mut self.rng, per_mille) => {
                report.totals.deferred = 1;
                let at = now.plus(self.millis(300_000, 7_200_000));
                let keeps = self.rng.random_ratio(1, 4).then(|| source.clone());
                self.settled(&lease, Settled::Due { at, attempts: lease.attempts + 1, source: keeps, blocked: false });
            }
            Mood::Bounces(per_mille) if is_unlucky(&mut self.rng, per_mille) => {
                report.totals.bounced = BTreeMap::from([(1, 1)]);
                self.bounced += 1;
                self.settled(&lease, Settled::Out);
            }
            _ => {
                report.totals.delivered = 1;
                self.note_delivery(&lease, &source);
                self.settled(&lease, Settled::Out);
            }
        }
        self.busy.insert(connection, Busy { site, source, jobs, is_counted });
        if self.rng.random_ratio(1, 8) {
            self.busy.remove(&connection);
            return self.scheduler.connection_closed(connection, report, Vec::new(), now, &mut self.actions);
        }
        self.scheduler.connection_idle(connection, report, now, &mut self.actions);
    }

    fn note_delivery(&mut self, lease: &Lease, source: &SourceName) {
        assert!(self.delivered.insert(lease.key), "delivered twice: {:?}", lease.key);
        let took = self.clock().since(lease.key.id.accepted_at());
        self.waited += usize::from(took > HOUR);
        self.late += usize::from(took > DAY);
        self.overflowed += usize::from(source.as_str().starts_with("spare"));
    }

    fn settled(&mut self, lease: &Lease, settled: Settled) {
        let job = self.due.remove(&DueKey::of(lease.due_at.unwrap(), lease.key)).expect("what is given out is on disk");
        if let Settled::Due { at, attempts, source, .. } = &settled {
            let source = source.as_ref().map(ToString::to_string).unwrap_or_default();
            let entry = DueEntry { attempts: *attempts, source, ..job.entry };
            self.due.insert(DueKey::of(*at, lease.key), DueJob { due_at: *at, key: lease.key, entry });
        }
        let now = self.clock();
        self.scheduler.settled(lease.key, settled, now, &mut self.actions);
    }

    /// Goes on until `end`, or a test's own event, which it returns.
    pub(super) fn run(&mut self, end: Timestamp) -> Option<u32> {
        loop {
            self.sample();
            self.perform();
            let next_event = self.events.first_key_value().map_or(Timestamp::MAX, |((at, _), _)| *at);
            let scheduler = &self.scheduler;
            let alarm = scheduler.alarms.first().map(|(at, _)| *at);
            let waiting = scheduler.waiting.first().map(|(at, _)| *at);
            let wakeup = [alarm, waiting, Some(scheduler.next_sweep)].into_iter().flatten().min().unwrap();
            let wakeup = wakeup.minus(self.ahead).max(self.now);
            let at = next_event.min(wakeup);
            if at > end {
                self.now = self.now.max(end);
                return None;
            }
            // A machine that slept does late what was to be done.
            self.now = self.now.max(at);
            self.sample();
            if wakeup < next_event {
                let now = self.clock();
                self.scheduler.tick(now, &mut self.actions);
                self.scheduler.next_sweep = self.scheduler.next_sweep.max(now.plus(SWEEP_PAUSE));
            } else if let Some(((at, _), event)) = self.events.pop_first()
                && let Some(call) = self.happen(at, event)
            {
                self.perform();
                return Some(call);
            }
        }
    }

    fn happen(&mut self, at: Timestamp, event: Event) -> Option<u32> {
        let now = self.clock();
        match event {
            Event::Counted(connection) => self.count(connection, at),
            Event::Ended(connection) => self.ended(connection),
            Event::Page(page) => {
                self.is_paging = false;
                self.scheduler.paged(page, now, &mut self.actions);
            }
            Event::Written => {
                if let Some(save) = self.writing.take() {
                    let names = self.keep_lanes(save);
                    self.scheduler.lanes_saved(&names, now, &mut self.actions);
                }
            }
            Event::Arrive(mail) => self.accept(mail),
            Event::Call(call) => return Some(call),
        }
        None
    }

    /// What plans allow on this day, by what operators are shown of positions.
    pub(super) fn sample(&mut self) {
        let now = self.clock();
        self.receivers.look_at_clock(self.now, self.ahead);
        if now.seconds() / 86_400 != self.sampled_on {
            self.sample_now();
        }
    }

    pub(super) fn sample_now(&mut self) {
        let now = self.clock();
        self.sampled_on = now.seconds() / 86_400;
        let entries = self.scheduler.warmups(&WarmupFilter::default(), now);
        self.allowed.note(&entries, self.sampled_on);
    }

    pub(super) fn entries(&self) -> Vec<WarmupEntry> {
        self.scheduler.warmups(&WarmupFilter::default(), self.clock())
    }

    /// Another config.
    pub(super) fn reload(&mut self, settings: Settings) {
        let now = self.clock();
        self.sample_now();
        self.settings = settings.clone();
        self.scheduler.reload(settings, now, &mut self.actions);
        self.sample_now();
        self.perform();
    }

    /// A power cut, or (`clean`) an orderly stop, and a start some time later.
    pub(super) fn restart(&mut self, clean: bool, down: Duration) {
        self.sample_now();
        if clean {
            self.stop()
        } else {
            self.crash()
        }
        // Nobody works now; what receivers and senders do goes on after the start.
        let kept = std::mem::take(&mut self.events).into_iter();
        let kept = kept.filter(|(_, event)| matches!(event, Event::Arrive(_) | Event::Call(_)));
        self.events = kept.collect();
        (self.is_paging, self.writing) = (false, None);
        let stopped_at = self.clock();
        self.now = self.now.plus(down);
        let now = self.clock();
        let today = u32::try_from(now.seconds() / 86_400).unwrap();
        let saved = self.lanes.iter().map(|(name, state)| SavedLane { name: name.clone(), state: state.clone() });
        let rows = self.history.values().filter(|row| row.day >= today).cloned().collect();
        let unclean_since = (!clean).then_some(stopped_at);
        self.scheduler = Scheduler::new(self.settings.clone(), unclean_since, saved.collect(), !clean, now)
            .with_history(rows, now)
            .with_lives(self.lives.values().cloned().collect(), now);
        self.sample_now();
        self.begin_run();
    }

    fn crash(&mut self) {
        for connection in self.busy.keys().copied().collect::<Vec<_>>() {
            // The host may have it, or not.
            if self.rng.random_ratio(1, 2) {
                self.count(connection, self.now);
            }
        }
        self.busy.clear();
        self.actions.clear();
        if let Some(save) = self.writing.take().filter(|_| self.rng.random_ratio(1, 2)) {
            self.keep_lanes(save);
        }
    }

    fn stop(&mut self) {
        let now = self.clock();
        self.scheduler.drain(&mut self.actions);
        for _ in 0..10_000 {
            self.perform();
            if let Some(save) = self.writing.take() {
                let names = self.keep_lanes(save);
                self.scheduler.lanes_saved(&names, now, &mut self.actions);
                continue;
            }
            let Some(connection) = self.busy.iter().find(|(_, busy)| !busy.jobs.is_empty()).map(|(id, _)| *id) else {
                break;
            };
            self.count(connection, self.now);
            self.ended(connection);
        }
        assert!(self.scheduler.is_quiet() && self.busy.is_empty());
        let history = self.scheduler.history(now);
        self.keep_history(history.rows);
        let save = self.scheduler.all_lanes(now);
        self.keep_lanes(save);
    }

    /// Nothing more arrives: until all is delivered.
    pub(super) fn run_out(&mut self, at_most: Duration) {
        let end = self.now.plus(at_most);
        while !self.due.is_empty() && self.now < end {
            self.run(self.now.plus(HOUR));
        }
        assert_eq!(self.due.len(), 0, "what is left: {:?}", self.due.values().next());
        assert_eq!(self.delivered.len() + self.bounced, self.accepted, "nothing is lost");
        let caps = self.receivers.violations(&self.allowed);
        assert!(caps.is_empty(), "{}", caps.join("\n"));
    }

    /// Names of the changes of warm-ups that were told of a source at a site, in order.
    pub(super) fn changes_of(&self, source: &str, site: &SiteName) -> Vec<&'static str> {
        let name = |kind: &LaneEventKind| match kind {
            LaneEventKind::Lane(name, crate::policy::lane::Change::WarmUp(change)) if name.as_str() == source => {
                Some(change.name())
            }
            _ => None,
        };
        self.told.iter().filter(|(_, at, _)| at == site).filter_map(|(_, _, kind)| name(kind)).collect()
    }
}

fn block() -> Hit {
    let reaction = Reaction { kind: ReactionKind::Block, lasts: 4 * HOUR, after: None };
    Hit { rule: "block".into(), reaction, words: "553 5.7.1 [BL21]".into() }
}

/// Totals of all rows of a history.
pub(super) fn sent_of(history: &BTreeMap<(u32, SourceName, Arc<str>), HistoryRow>) -> DayTotals {
    let mut sum = DayTotals::default();
    for row in history.values() {
        sum.add(&row.totals);
    }
    sum
}
