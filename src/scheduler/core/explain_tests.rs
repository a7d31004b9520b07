//! What the scheduler tells of itself, against what it does.

use std::sync::Arc;
use std::time::Duration;

use super::*;
use crate::policy::lane::{Health, Hit, Learned, Mode};
use crate::policy::limits::{LaneLimits, RateLimit, Rates, Span};
use crate::policy::pools::{Family, Member, PoolSettings, Pools, SourceSettings};
use crate::policy::providers::Providers;
use crate::policy::reaction::{Reaction, ReactionKind};
use crate::queue::DueEntry;
use crate::scheduler::Whereabouts;
use crate::scheduler::explanation::{Cause, Lookup, Question, RateOf, SiteExplanation, Standing};
use crate::types::{MessageId, Priority};

const NOW: Timestamp = Timestamp::from_millis(1_700_000_000_000);
const HOUR: Duration = Duration::from_secs(3_600);

struct World {
    scheduler: Scheduler,
    now: Timestamp,
    actions: Vec<Action>,
    jobs: Vec<DueJob>,
    provider: Option<Arc<str>>,
}

fn name(text: &str) -> SourceName {
    SourceName::parse(text).unwrap()
}

/// The default pool of these sources, each with this weight.
fn pools(weights: &[(&str, u32)]) -> Pools {
    let sources = weights.iter().map(|(source, _)| SourceSettings {
        name: name(source),
        family: Family::Any,
        rates: Rates::default(),
    });
    let members = weights.iter().map(|(source, weight)| Member { source: name(source), weight: *weight });
    let pool = PoolSettings {
        name: PoolName::default(),
        members: members.collect(),
        overflow: None,
        rates: Rates::default(),
        managed: None,
    };
    Pools::new(sources.collect(), vec![pool]).unwrap()
}

fn settings(weights: &[(&str, u32)]) -> Settings {
    let limits = LaneLimits { connections: 2, ..LaneLimits::default() };
    Settings { limits, pools: Arc::new(pools(weights)), ..Settings::default() }
}

impl World {
    fn new(settings: Settings) -> Self {
        let scheduler = Scheduler::new(settings, None, Vec::new(), false, NOW);
        Self { scheduler, now: NOW, actions: Vec::new(), jobs: Vec::new(), provider: None }
    }

    /// A job for example.test that is due.
    fn release(&mut self, tenant: &str, priority: Priority, source: &str) -> usize {
        let id = MessageId::new(self.now, self.jobs.len() as u128 + 1);
        let entry = DueEntry {
            domain: "example.test".to_owned(),
            expires_at_ms: self.now.plus(HOUR * 24).millis(),
            tenant: tenant.to_owned(),
            priority: priority.code(),
            source: source.to_owned(),
            ..DueEntry::default()
        };
        let job = DueJob { due_at: self.now, key: JobKey { id, group: 0 }, entry };
        self.scheduler.released(&job, self.now, &mut self.actions);
        self.jobs.push(job);
        if self.scheduler.domains[&domain()].destination.is_none() {
            let hosts = SiteName::new("mx.example.test");
            let site = self.provider.as_deref().map_or(hosts.clone(), SiteName::new);
            let (provider, expires_at) = (self.provider.clone(), NOW.plus(HOUR * 24));
            let destination = Destination { site, hosts, provider, own_pool: None, expires_at };
            self.scheduler.resolved(&domain(), destination, self.now, &mut self.actions);
        }
        self.jobs.len() - 1
    }

    fn accept(&mut self) -> usize {
        self.release("", Priority::Normal, "")
    }

    /// The connections that were opened since the last call, with their sources.
    fn opened(&mut self) -> Vec<(ConnectionId, SourceName)> {
        let opened = self.actions.drain(..).filter_map(|action| match action {
            Action::Open { connection, source, .. } => Some((connection, source)),
            _ => None,
        });
        opened.collect()
    }

    fn closed(&mut self, connection: ConnectionId, learned: Learned) {
        let report = Report { learned, transactions: 1, ..Report::default() };
        self.scheduler.connection_closed(connection, report, Vec::new(), self.now, &mut self.actions);
    }

    fn explain(&self) -> SiteExplanation {
        let question = Question { domain: Some(domain()), destination: None, site: None, pool: PoolName::default() };
        self.scheduler.explain(&question, self.now).unwrap()
    }

    fn cause(&self, job: usize) -> (Cause, crate::scheduler::explanation::Before) {
        match self.scheduler.whereabouts(&self.jobs[job], self.now) {
            Some(Whereabouts::Ready { cause, before, .. }) => (*cause, before),
            other => panic!("{other:?}"),
        }
    }
}

fn domain() -> Domain {
    Domain::parse("example.test").unwrap()
}

fn block(lasts: Duration) -> Learned {
    let reaction = Reaction { kind: ReactionKind::Block, lasts, after: None };
    let hit = Hit { rule: "yahoo-block".into(), reaction, words: "553 5.7.1 [BL21]".into() };
    Learned { reactions: vec![hit], ..Learned::default() }
}

#[test]
fn the_source_that_is_told_to_be_next_is_next() {
    let mut world = World::new(settings(&[("a1", 3), ("a2", 1), ("a3", 2)]));
    let first = world.accept();
    assert_eq!(first, 0);
    let good = Learned { health: Health::Good, ..Learned::default() };
    let (connection, _) = world.opened()[0];
    world.closed(connection, good.clone());
    let mut told = Vec::new();
    for _ in 0..40 {
        let next: Vec<SourceName> =
            world.explain().sources.into_iter().filter(|source| source.next).map(|source| source.source).collect();
        world.accept();
        let opened = world.opened();
        assert_eq!(next, [opened[0].1.clone()]);
        told.push(next[0].clone());
        world.closed(opened[0].0, good.clone());
        world.actions.clear();
    }
    let turns = |source: &str| told.iter().filter(|told| **told == name(source)).count();
    assert!(turns("a1") > turns("a3") && turns("a3") > turns("a2") && turns("a2") > 0, "{told:?}");
}

#[test]
fn a_blocked_source_is_named_with_its_rule_its_reply_and_its_end() {
    let mut world = World::new(settings(&[("a1", 1), ("a2", 1)]));
    world.accept();
    let (connection, source) = world.opened()[0].clone();
    world.closed(connection, block(HOUR));
    let site = world.explain();
    let blocked = site.sources.iter().find(|report| report.source == source).unwrap();
    let Standing::Closed { until, trouble: Some(trouble) } = &blocked.standing else { panic!("{blocked:?}") };
    assert_eq!((*until, trouble.mode), (Some(NOW.plus(HOUR)), Mode::Blocked));
    assert_eq!((trouble.rule.as_deref(), &*trouble.words), (Some("yahoo-block"), "553 5.7.1 [BL21]"));
    assert!(site.sources.iter().any(|report| report.next && report.source != source));
    let counts = world.scheduler.lane_counts(NOW);
    assert_eq!(counts.lanes.iter().map(|lanes| lanes.blocked).sum::<usize>(), 1);
    assert!(counts.pools_blocked.is_empty());

    // The other one, too: all are held back.
    world.accept();
    let (connection, other) = world.opened()[0].clone();
    assert_ne!(other, source);
    world.closed(connection, block(HOUR / 2));
    let job = world.accept();
    let (cause, _) = world.cause(job);
    let Cause::AllClosed { sources: 2, first, .. } = &cause else { panic!("{cause:?}") };
    assert_eq!((first, cause.until()), (&other, Some(NOW.plus(HOUR / 2))));
    assert_eq!(cause.because().0, Some("yahoo-block"));
    assert_eq!(world.scheduler.lane_counts(NOW).pools_blocked, [(PoolName::default(), 1)]);
    assert!(world.explain().queues[0].blocked);
}

#[test]
fn a_job_that_keeps_its_source_waits_for_that_one() {
    let mut world = World::new(settings(&[("a1", 1), ("a2", 1)]));
    world.accept();
    let (connection, source) = world.opened()[0].clone();
    let mut told = block(Duration::from_secs(30));
    told.reactions[0].reaction.kind = ReactionKind::Suspend;
    world.closed(connection, told);
    let kept = world.release("", Priority::Normal, source.as_str());
    let (cause, _) = world.cause(kept);
    assert!(matches!(&cause, Cause::Source { source: kept, keeps: true, .. } if *kept == source), "{cause:?}");
    assert_eq!(cause.until(), Some(NOW.plus(Duration::from_secs(30))));
    assert_eq!(world.explain().queues[0].kept, [(source, 1)]);
}

#[test]
fn a_limit_of_a_providers_rule_is_told_as_such() {
    let rules = "[[provider]]\nname = \"slow\"\nmx = [\".slow.test\"]\nmessages_per_minute = 10\n";
    let providers = Providers::with_own(rules, "providers.toml");
    let providers = providers.unwrap_or_else(|errors| panic!("{errors}"));
    let mut world = World::new(Settings { providers: Arc::new(providers), ..settings(&[("a1", 1)]) });
    world.provider = Some("slow".into());
    world.accept();
    let job = world.accept();
    let (cause, before) = world.cause(job);
    let Cause::Source { keeps: false, standing: Standing::Rate { limit, of, until }, .. } = &cause else {
        panic!("{cause:?}")
    };
    assert_eq!(*limit, RateLimit { count: 10, per: Span::Minute });
    assert_eq!((of, until.is_some_and(|until| until > NOW)), (&RateOf::Provider("slow".into()), true));
    assert_eq!((before.jobs, before.more), (0, false));
    let site = world.explain();
    assert!(site.provider.unwrap().origin.contains("providers.toml"), "where it was written");
    assert_eq!((site.sources[0].rates[0].used, site.sources[0].rates[0].limit), (1, *limit));
}

#[test]
fn a_job_in_a_line_knows_what_is_before_it() {
    let mut world = World::new(settings(&[("a1", 1)]));
    let jobs: Vec<usize> = (0..6).map(|_| world.release("shop", Priority::Bulk, "")).collect();
    world.release("shop", Priority::High, "");
    let (cause, before) = world.cause(jobs[5]);
    assert_eq!(cause, Cause::Busy { open: 2, allowed: 2 });
    assert_eq!((before.jobs, before.more, before.higher), (3, false, 1));
    let queue = &world.explain().queues[0];
    assert_eq!(queue.ready, [(Priority::High, 1), (Priority::Normal, 0), (Priority::Bulk, 4)]);
    assert_eq!(queue.tenants, [("shop".into(), 5)]);
}

#[test]
fn all_connections_of_the_server_in_use_is_a_cause() {
    let mut world = World::new(Settings { connections_max: 1, ..settings(&[("a1", 1)]) });
    world.accept();
    let job = world.accept();
    assert_eq!(world.cause(job).0, Cause::Connections { max: 1, unproven: false });
}

#[test]
fn a_domain_that_is_not_known_is_explained_by_its_route() {
    let world = World::new(settings(&[("a1", 1)]));
    let hosts = SiteName::new("mx.other.test");
    let destination = Destination::of_hosts(hosts.clone(), NOW.plus(HOUR));
    let ask = |destination, site| Question { domain: None, destination, site, pool: PoolName::default() };
    let known = world.scheduler.explain(&ask(Some(destination), None), NOW).unwrap();
    assert_eq!((known.site, known.lookup, known.queues.len()), (hosts.clone(), Lookup::Unknown, 0));
    assert!(known.sources[0].next && !known.sources[0].in_memory);
    assert!(world.scheduler.explain(&ask(None, Some(hosts)), NOW).is_none(), "no site of that name is known");
    assert_eq!(world.scheduler.totals().sites, 0, "to look changes nothing");
}
