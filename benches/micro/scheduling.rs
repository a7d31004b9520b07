//! The scheduler on the whole way of a message, at ten thousand sites.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use criterion::{BatchSize, Criterion, Throughput};
use posthaste::policy::lane::Health;
use posthaste::policy::limits::{LaneLimits, Rates};
use posthaste::policy::pools::{Family, Pools, SourceSettings};
use posthaste::queue::{Handoff, RecipientHeaders, StoredBody, StoredMessage};
use posthaste::scheduler::core::Scheduler;
use posthaste::scheduler::{Action, ConnectionId, Destination, Lease, Report, Settings, Settled, SiteName};
use posthaste::types::{Domain, SourceName};

use crate::{NOW, SITES, stored};

/// The destination of a message: as many as there are sites.
pub(crate) fn domain_of(number: u64) -> Domain {
    Domain::parse(&format!("d{}.test", number % SITES)).expect("digits in a label")
}

/// A scheduler that drives itself: every lookup is answered, every delivery succeeds at once.
struct World {
    scheduler: Scheduler,
    actions: Vec<Action>,
    settled: u64,
}

impl World {
    /// With so many sources in the default pool.
    fn new(sources: u8) -> Self {
        let source = |last| SourceSettings {
            name: SourceName::of_address(IpAddr::from([192, 0, 2, last])),
            family: Family::V4,
            rates: Rates::default(),
        };
        let pools = Pools::of_sources((0..sources).map(source).collect()).expect("sources of different names");
        let settings = Settings {
            jobs_max: 1_000_000,
            body_cache_bytes: 256 << 20,
            connections_max: 1_000_000,
            limits: LaneLimits { connections: 10, ..LaneLimits::default() },
            recipients_per_transaction_max: 50,
            delay_notices: Vec::new(),
            pools: Arc::new(pools),
            lanes_max: 1_000_000,
            ..Settings::default()
        };
        Self { scheduler: Scheduler::new(settings, None, Vec::new(), false, NOW), actions: Vec::new(), settled: 0 }
    }

    /// One message on its whole way: accepted, resolved where needed, assigned, settled, its connection idle.
    fn pass(&mut self, message: &Arc<StoredMessage>) {
        self.accept(message);
        self.carry_out();
    }

    /// Accepted; where its site is known, it has a source and a connection at once.
    fn accept(&mut self, message: &Arc<StoredMessage>) {
        let (body, recipient_headers) = (StoredBody::Inline(Bytes::new()), RecipientHeaders::default());
        let handoff = Handoff { message: Arc::clone(message), body, recipient_headers, due_at: NOW };
        self.scheduler.accepted(handoff, NOW, &mut self.actions);
    }

    fn carry_out(&mut self) {
        while let Some(action) = self.actions.pop() {
            match action {
                Action::Resolve(domain) => {
                    let (site, until) = (SiteName::new(domain.as_str()), NOW.plus(Duration::from_secs(3_600)));
                    self.scheduler.resolved(&domain, Destination::of_hosts(site, until), NOW, &mut self.actions);
                }
                Action::Open { connection, jobs, .. } | Action::Assign { connection, jobs, .. } => {
                    self.delivered(connection, &jobs);
                }
                Action::Close(_)
                | Action::Settle { .. }
                | Action::PageIn { .. }
                | Action::SaveLanes(_)
                | Action::SaveHistory(_)
                | Action::SaveLives(_) => {}
            }
        }
    }

    fn delivered(&mut self, connection: ConnectionId, jobs: &[Lease]) {
        for job in jobs {
            self.scheduler.settled(job.key, Settled::Out, NOW, &mut self.actions);
            self.settled += 1;
        }
        self.scheduler.connection_idle(connection, Report::of(Health::Good), NOW, &mut self.actions);
    }
}

pub(crate) fn scheduling(criterion: &mut Criterion) {
    let messages: Vec<Arc<StoredMessage>> = (0..SITES).map(|number| Arc::new(stored(number))).collect();
    let mut world = World::new(1);
    messages.iter().for_each(|message| world.pass(message));
    assert_eq!(world.settled, SITES, "every message came to its end");
    let mut group = criterion.benchmark_group("scheduler");
    group.throughput(Throughput::Elements(SITES));
    group.sample_size(20);
    // One pass over all sites, each with an idle connection.
    group.bench_function("accept_assign_settle_10000_sites", |bencher| {
        bencher.iter(|| messages.iter().for_each(|message| world.pass(message)));
    });
    group.bench_function("first_message_10000_sites", |bencher| {
        bencher.iter_batched_ref(
            || World::new(1),
            |world| messages.iter().for_each(|message| world.pass(message)),
            BatchSize::PerIteration,
        );
    });
    // The decision alone: from a message that is accepted to its source and connection.
    group.bench_function("decide_10000_sites", |bencher| {
        bencher.iter_custom(|iterations| (0..iterations).map(|_| decided_in(&mut world, &messages)).sum());
    });
    // The same with 50 sources, all of whose lanes have been used.
    let mut world = World::new(50);
    // A source keeps its turn for some messages, while its connection is idle.
    for _ in 0..1_000 {
        messages.iter().for_each(|message| world.pass(message));
    }
    assert_eq!(world.scheduler.totals().lanes, 500_000, "each source at each site");
    group.bench_function("accept_assign_settle_10000_sites_50_sources", |bencher| {
        bencher.iter(|| messages.iter().for_each(|message| world.pass(message)));
    });
    group.bench_function("decide_10000_sites_50_sources", |bencher| {
        bencher.iter_custom(|iterations| (0..iterations).map(|_| decided_in(&mut world, &messages)).sum());
    });
    group.finish();
}

/// How long the scheduler decides on one message for each site. What follows the decisions is not counted.
#[allow(clippy::disallowed_methods, reason = "a benchmark measures real time")]
fn decided_in(world: &mut World, messages: &[Arc<StoredMessage>]) -> Duration {
    let before = world.settled;
    let begin = std::time::Instant::now();
    messages.iter().for_each(|message| world.accept(message));
    let taken = begin.elapsed();
    world.carry_out();
    assert_eq!(world.settled - before, SITES, "each message had a source and a connection at once");
    taken
}
