//! Fairness between sites, in virtual time: hosts that are dead, hosts that are slow, and what the others get meanwhile.
//! And between tenants at one slow site. Scenarios 10, 14 and 15 of the project, at the scheduler: it alone decides who gets the next
//! connection, and whose mail takes it.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::*;
use crate::policy::lane::Health;
use crate::policy::limits::LaneLimits;
use crate::queue::{DueEntry, DuePage};
use crate::types::{MessageId, Priority};

fn due_again(at: Timestamp, attempts: u32) -> Settled {
    Settled::Due { at, attempts, source: None, blocked: false }
}

/// The tenant with the backlog.
const LARGE: &str = "large";

const NOW: Timestamp = Timestamp::from_millis(1_000_000_000);
/// A connection to a dead host takes so long to fail.
const DIAL: Duration = Duration::from_secs(30);
/// A transaction with a host that is well.
const TRANSACTION: Duration = Duration::from_millis(100);
/// A transaction with a tarpit.
const TARPIT: Duration = Duration::from_secs(600);

enum Event {
    /// A connection did what it was given, or could not.
    Ended(ConnectionId),
    Page(DuePage),
    /// The next message for the living arrives.
    Arrival,
}

/// Hosts by the first label of their domains: `live…`, `dead…`, `slow…`; each domain is a site.
struct World {
    scheduler: Scheduler,
    now: Timestamp,
    actions: Vec<Action>,
    events: BTreeMap<(Timestamp, u64), Event>,
    next_event: u64,
    disk: BTreeMap<DueKey, DueJob>,
    busy: BTreeMap<u64, (Domain, Vec<Lease>)>,
    next_id: u128,
    arrivals: u64,
    /// Between two arrivals for the living.
    arrival_every: Duration,
    living_sites: u64,
    /// Whose the arrivals are, in turn.
    tenants: u64,
    priority: Priority,
    /// How long each living message took.
    waits: Vec<Duration>,
    dead_tried: BTreeSet<Domain>,
}

impl World {
    fn new(settings: Settings, living_sites: u64, arrival_every: Duration) -> Self {
        let mut world = Self {
            scheduler: Scheduler::new(settings, None, Vec::new(), false, NOW),
            now: NOW,
            actions: Vec::new(),
            events: BTreeMap::new(),
            next_event: 0,
            disk: BTreeMap::new(),
            busy: BTreeMap::new(),
            next_id: 0,
            arrivals: 0,
            arrival_every,
            living_sites,
            tenants: 1,
            priority: Priority::Normal,
            waits: Vec::new(),
            dead_tried: BTreeSet::new(),
        };
        world.after(arrival_every, Event::Arrival);
        world
    }

    fn after(&mut self, span: Duration, event: Event) {
        self.next_event += 1;
        self.events.insert((self.now.plus(span), self.next_event), event);
    }

    /// On disk, due now.
    fn store(&mut self, domain: &str) -> DueJob {
        self.store_as(domain, "t0", Priority::Normal)
    }

    fn store_as(&mut self, domain: &str, tenant: &str, priority: Priority) -> DueJob {
        self.next_id += 1;
        let key = JobKey { id: MessageId::new(self.now, self.next_id), group: 0 };
        let entry = DueEntry {
            domain: domain.to_owned(),
            tenant: tenant.to_owned(),
            priority: priority.code(),
            expires_at_ms: self.now.plus(Duration::from_secs(4 * 86_400)).millis(),
            ..DueEntry::default()
        };
        let job = DueJob { due_at: self.now, key, entry };
        self.disk.insert(DueKey::of(job.due_at, key), job.clone());
        job
    }

    fn accept(&mut self, domain: &str) {
        let job = self.store(domain);
        self.arrive(&job);
    }

    fn arrive(&mut self, job: &DueJob) {
        self.scheduler.released(job, self.now, &mut self.actions);
        self.perform();
    }

    fn perform(&mut self) {
        while !self.actions.is_empty() {
            for action in std::mem::take(&mut self.actions) {
                self.perform_one(action);
            }
        }
        let unproven = self.scheduler.sites.values().filter(|site| !site.is_proven()).map(|site| site.connections);
        assert_eq!(self.scheduler.line.unproven_connections, unproven.sum::<usize>());
    }

    fn perform_one(&mut self, action: Action) {
        match action {
            Action::Resolve(domain) => {
                let (site, until) = (SiteName::new(domain.as_str()), self.now.plus(Duration::from_secs(86_400)));
                self.scheduler.resolved(&domain, Destination::of_hosts(site, until), self.now, &mut self.actions);
            }
            Action::Open { connection, domain, jobs, .. } => self.begin(connection, domain, jobs),
            Action::Assign { connection, jobs, .. } => {
                let (domain, _) = self.busy.remove(&connection.0).unwrap();
                self.begin(connection, domain, jobs);
            }
            Action::Close(connection) => {
                self.busy.remove(&connection.0);
                let none = Report::default();
                self.scheduler.connection_closed(connection, none, Vec::new(), self.now, &mut self.actions);
            }
            Action::PageIn { from, until, limit } => {
                let jobs: Vec<DueJob> = self.disk.range(from..until).take(limit).map(|(_, job)| job.clone()).collect();
                let next = (jobs.len() == limit).then(|| {
                    let last = jobs.last().unwrap();
                    DueKey::of(last.due_at, JobKey { id: last.key.id, group: last.key.group + 1 })
                });
                self.after(Duration::from_millis(5), Event::Page(DuePage { jobs, next, damaged: Vec::new() }));
            }
            Action::SaveLanes(_) | Action::SaveHistory(_) | Action::SaveLives(_) => {}
            Action::Settle { verdict, .. } => panic!("nothing expires here: {verdict:?}"),
        }
    }

    fn begin(&mut self, connection: ConnectionId, domain: Domain, jobs: Vec<Lease>) {
        let takes = match &domain.as_str()[..4] {
            "live" => TRANSACTION,
            "dead" => DIAL,
            _ => TARPIT,
        };
        self.busy.insert(connection.0, (domain, jobs));
        self.after(takes, Event::Ended(connection));
    }

    fn ended(&mut self, connection: ConnectionId) {
        let (domain, jobs) = self.busy.remove(&connection.0).unwrap();
        let is_dead = domain.as_str().starts_with("dead");
        for lease in &jobs {
            let job = self.disk.remove(&DueKey::of(lease.due_at.unwrap(), lease.key)).expect("leased jobs are on disk");
            let is_backlog = job.entry.tenant == LARGE || job.entry.priority == Priority::Bulk.code();
            let settled = if is_dead {
                let at = self.now.plus(Duration::from_secs(3_600));
                self.disk.insert(DueKey::of(at, lease.key), DueJob { due_at: at, ..job });
                due_again(at, lease.attempts + 1)
            } else {
                Settled::Out
            };
            if domain.as_str().starts_with("live") && !is_backlog {
                self.waits.push(self.now.since(lease.key.id.accepted_at()));
            }
            self.scheduler.settled(lease.key, settled, self.now, &mut self.actions);
        }
        if is_dead {
            self.dead_tried.insert(domain);
            let dead = Report::of(Health::Unreachable("timed out".into()));
            self.scheduler.connection_closed(connection, dead, Vec::new(), self.now, &mut self.actions);
        } else {
            self.busy.insert(connection.0, (domain, Vec::new()));
            self.scheduler.connection_idle(connection, Report::of(Health::Good), self.now, &mut self.actions);
        }
    }

    fn run(&mut self, span: Duration) {
        let end = self.now.plus(span);
        self.scheduler.tick(self.now, &mut self.actions);
        self.perform();
        loop {
            let event_at = self.events.first_key_value().map_or(Timestamp::MAX, |((at, _), _)| *at);
            let at = event_at.min(self.scheduler.next_wakeup().max(self.now));
            if at > end {
                return;
            }
            self.now = at;
            if at < event_at {
                self.scheduler.tick(self.now, &mut self.actions);
            } else if let Some((_, event)) = self.events.pop_first() {
                self.happen(event);
            }
            self.perform();
        }
    }

    fn happen(&mut self, event: Event) {
        match event {
            Event::Ended(connection) => self.ended(connection),
            Event::Page(page) => self.scheduler.paged(page, self.now, &mut self.actions),
            Event::Arrival => {
                self.arrivals += 1;
                let domain = format!("live{}.test", self.arrivals % self.living_sites);
                let tenant = format!("t{}", self.arrivals % self.tenants);
                let job = self.store_as(&domain, &tenant, self.priority);
                self.arrive(&job);
                self.after(self.arrival_every, Event::Arrival);
            }
        }
    }

    fn longest_wait(&self) -> Duration {
        self.waits.iter().max().copied().unwrap_or(Duration::MAX)
    }
}

fn settings() -> Settings {
    Settings {
        jobs_max: 1_000_000,
        body_cache_bytes: 0,
        connections_max: 1_000,
        limits: LaneLimits { connections: 10, ..LaneLimits::default() },
        recipients_per_transaction_max: 50,
        delay_notices: Vec::new(),
        ..Settings::default()
    }
}

/// Scenario 15: ten thousand dead domains at once.
#[test]
fn ten_thousand_dead_domains_keep_nobody_from_the_living() {
    const DEAD: usize = 10_000;
    let mut world = World::new(settings(), 20, Duration::from_millis(50));
    world.run(Duration::from_secs(10));
    for number in 0..DEAD {
        world.accept(&format!("dead{number}.test"));
    }
    world.accept("live-and-new.test");
    assert_eq!(world.scheduler.line.unproven_connections, 500, "half of all");
    world.run(Duration::from_secs(1_200));
    assert_eq!(world.dead_tried.len(), DEAD, "each of the dead was tried");
    assert!(world.waits.len() > 20_000, "{}", world.waits.len());
    world.waits.sort_unstable();
    // Nobody can know that it lives: it takes its turn among the dead.
    let newcomer = world.waits.pop().unwrap();
    assert!(newcomer <= Duration::from_secs(700), "{newcomer:?}");
    assert!(world.longest_wait() <= Duration::from_secs(1), "{:?}", world.longest_wait());
}

/// Scenario 10, with a backlog of ten times what memory holds.
#[test]
fn a_tarpit_with_a_backlog_leaves_the_others_their_rate() {
    let delivered = |backlog: usize| {
        let settings = Settings { jobs_max: 20_000, ..settings() };
        // 500 a second: what ten sites take with half of their connections.
        let mut world = World::new(settings, 10, Duration::from_millis(2));
        for _ in 0..backlog {
            world.store("slow.test");
        }
        world.run(Duration::from_secs(60));
        (world.waits.len(), world.longest_wait())
    };
    let (alone, _) = delivered(0);
    let (beside, longest) = delivered(200_000);
    assert!(alone > 29_000, "{alone}");
    assert!(beside * 100 >= alone * 95, "{beside} of {alone}");
    assert!(longest <= Duration::from_secs(2), "{longest:?}");
}

/// What 95 of 100 arrivals at one slow site wait at most, each of 49 tenants having 100 of them, with such a backlog before it.
fn p95_at_one_site(backlog: usize, of: (&str, Priority), arriving: Priority) -> Duration {
    let settings = Settings { jobs_max: 20_000, ..settings() };
    let mut world = World::new(settings, 1, Duration::from_millis(20));
    (world.tenants, world.priority) = (49, arriving);
    for _ in 0..backlog {
        world.store_as("live0.test", of.0, of.1);
    }
    world.run(Duration::from_secs(100));
    assert!(world.waits.len() >= 4_900, "{}", world.waits.len());
    world.waits.sort_unstable();
    world.waits[world.waits.len() * 95 / 100]
}

/// Scenario 14: a tenant with a backlog of ten times what memory holds, and 49 with a little.
#[test]
fn a_tenant_with_a_huge_backlog_does_not_make_the_others_wait() {
    let idle = p95_at_one_site(0, (LARGE, Priority::Normal), Priority::Normal);
    let beside = p95_at_one_site(200_000, (LARGE, Priority::Normal), Priority::Normal);
    assert!(beside < 2 * idle, "{beside:?}, {idle:?} alone");
}

/// Scenario 14: what is urgent behind bulk of its own tenants.
#[test]
fn bulk_does_not_make_urgent_mail_of_its_own_tenant_wait() {
    let idle = p95_at_one_site(0, ("t0", Priority::Bulk), Priority::High);
    let behind = p95_at_one_site(200_000, ("t0", Priority::Bulk), Priority::High);
    assert!(behind < 2 * idle, "{behind:?}, {idle:?} alone");
}

/// Scenario 9: the clock jumps an hour ahead.
#[test]
fn a_clock_that_jumps_ahead_causes_no_storm() {
    let mut world = World::new(settings(), 1, Duration::from_secs(86_400));
    for _ in 0..5_000 {
        world.accept("slow.test");
    }
    world.run(Duration::from_secs(1));
    let before = world.scheduler.totals().connections;
    world.now = world.now.plus(Duration::from_secs(3_600));
    world.scheduler.tick(world.now, &mut world.actions);
    world.perform();
    assert_eq!((before, world.scheduler.totals().connections), (10, 10), "the site's limit holds");
}
