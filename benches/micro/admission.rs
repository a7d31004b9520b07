//! What admission costs a message: a login, room in quotas, a look into suppression lists.

use std::hint::black_box;
use std::sync::Arc;
use std::time::Duration;

use criterion::{BenchmarkId, Criterion, Throughput};
use posthaste::admission::authenticate::{Authenticator, Claim, Verdict};
use posthaste::admission::directory::{Credential, Name, Quota};
use posthaste::admission::quota::{Quotas, Scope, ScopeLimit};
use posthaste::admission::{Directory, password};
use posthaste::policy::quota::Minute;
use posthaste::queue::rocks::{RocksSettings, RocksStore};
use posthaste::queue::store::{Change, Family, Key, Store};
use posthaste::queue::suppression::{SuppressionEntry, SuppressionList};
use posthaste::queue::{Queue, Settings as QueueSettings};
use posthaste::types::{Clock, EmailAddress, SuppressionReason, SystemClock, Timestamp};
use tokio::time::Instant;

/// Senders with quotas of their own.
pub(crate) const TENANTS: u64 = 1_000;

/// A login: known to be right, and verified by argon2.
pub(crate) fn logins(criterion: &mut Criterion) {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
    let runtime = runtime.expect("a runtime starts");
    let hash = password::hash(b"correct horse");
    let mut directory = Directory::relay_only(Vec::new(), Duration::from_secs(60));
    directory.add_credential(Credential {
        user: "app".into(),
        secrets: vec![hash.as_str().into()],
        tenant: Arc::clone(&directory.relay.tenant),
        networks: Vec::new(),
        identities: None,
        configuration_set: None,
        quota: Quota::default(),
    });
    let claim = Claim { user: "app", secret: b"correct horse", client: [127, 0, 0, 1].into() };
    let authenticator = runtime.block_on(async { Authenticator::new(1) });
    let verify = || runtime.block_on(authenticator.verify(&directory, claim));
    assert!(matches!(verify(), Verdict::Right(_)));
    let mut group = criterion.benchmark_group("logins");
    group.throughput(Throughput::Elements(1));
    group.bench_function("known", |bencher| bencher.iter(|| black_box(verify())));
    group.sample_size(20);
    group.bench_function("verified", |bencher| bencher.iter(|| black_box(password::verify(&hash, claim.secret))));
    group.finish();
}

/// Lookups in a list of so many entries, a hundred addresses at once: who is on it, who is not, and where all lists are
/// empty. `POSTHASTE_SUPPRESSION_BENCH_ENTRIES` sets how many; 10,000,000 need some minutes and 2 GB of disk.
pub(crate) fn suppression(criterion: &mut Criterion) {
    let entries = std::env::var("POSTHASTE_SUPPRESSION_BENCH_ENTRIES").ok().and_then(|text| text.parse().ok());
    let entries: u64 = entries.unwrap_or(200_000);
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("threads for the runtime");
    let directory = tempfile::tempdir().expect("a temporary directory");
    let store = RocksStore::open(directory.path(), &RocksSettings::default()).expect("RocksDB opens");
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    let opened = Queue::open(Arc::new(store), &QueueSettings::default(), clock, 7).expect("a fresh queue opens");
    let queue = opened.queue;
    let mut group = criterion.benchmark_group("suppression_100_lookups");
    group.throughput(Throughput::Elements(100));
    let absent: Vec<EmailAddress> = (0..10_000).map(|number| suppressed_address("nobody", number)).collect();
    let absent: Vec<Vec<&EmailAddress>> = absent.chunks(100).map(|chunk| chunk.iter().collect()).collect();
    let mut turns = absent.iter().cycle();
    group.bench_function("empty_lists", |bencher| {
        bencher.iter(|| runtime.block_on(queue.listed("tenant", None, turns.next().expect("an endless turn"))));
    });
    fill_suppression_list(&runtime, &queue, entries);
    group.bench_function(BenchmarkId::new("absent", entries), |bencher| {
        bencher.iter(|| runtime.block_on(queue.listed("tenant", None, turns.next().expect("an endless turn"))));
    });
    let step = (entries / 10_000).max(1);
    let present: Vec<EmailAddress> = (0..10_000).map(|n| suppressed_address("user", n * step % entries)).collect();
    let present: Vec<Vec<&EmailAddress>> = present.chunks(100).map(|chunk| chunk.iter().collect()).collect();
    let mut turns = present.iter().cycle();
    group.bench_function(BenchmarkId::new("present", entries), |bencher| {
        bencher.iter(|| runtime.block_on(queue.listed("tenant", None, turns.next().expect("an endless turn"))));
    });
    group.finish();
    drop((queue, runtime));
    opened.committer.join().expect("the committer does not panic");
}

fn suppressed_address(name: &str, number: u64) -> EmailAddress {
    EmailAddress::parse(&format!("{name}{number}@example.org"), false).expect("a plain address")
}

fn fill_suppression_list(runtime: &tokio::runtime::Runtime, queue: &Queue, entries: u64) {
    let began_at = Instant::now();
    let mut next = 0;
    while next < entries {
        let until = (next + 4_096).min(entries);
        let chunk: Vec<SuppressionEntry> = (next..until)
            .map(|number| SuppressionEntry {
                address: suppressed_address("user", number),
                reason: SuppressionReason::Bounce,
                updated_at: Timestamp::from_millis(1_700_000_000_000),
                origin: "bench".to_owned(),
            })
            .collect();
        runtime.block_on(queue.suppress(&SuppressionList::Global, &chunk)).expect("the disk of a bench works");
        next = until;
    }
    println!("suppression: {entries} entries put in {:.1} s", began_at.elapsed().as_secs_f64());
}

pub(crate) fn quota_limits(tenant: u64) -> [ScopeLimit; 2] {
    let quota = Quota { per_day: Some(u64::MAX), per_second: Some(u32::MAX) };
    let name = Name::parse(&format!("tenant-{tenant}")).expect("letters and digits");
    [ScopeLimit { scope: Scope::Tenant(name), quota }, ScopeLimit { scope: Scope::Server, quota }]
}

/// Room for one message and its keeping, by two threads that take turns at a thousand tenants; and what a start reads where
/// a thousand tenants sent in every minute of a day.
pub(crate) fn quotas(criterion: &mut Criterion) {
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    let limits: Vec<_> = (0..TENANTS).map(quota_limits).collect();
    let quotas = Quotas::new(Arc::clone(&clock), Box::new(|_| ()));
    let mut group = criterion.benchmark_group("quota");
    group.bench_function("reserve_and_keep", |bencher| {
        let mut turn = limits.iter().cycle();
        bencher.iter(|| charge(&quotas, turn.next().expect("a cycle has no end")));
    });
    group.throughput(Throughput::Elements(2 * TENANTS));
    group.bench_function("reserve_and_keep_2_threads_1000_tenants_each", |bencher| {
        bencher.iter(|| {
            std::thread::scope(|scope| {
                for _ in 0..2 {
                    scope.spawn(|| limits.iter().for_each(|limits| charge(&quotas, limits)));
                }
            });
        });
    });
    let directory = tempfile::tempdir().expect("a temporary directory");
    let store = RocksStore::open(directory.path(), &RocksSettings::default()).expect("RocksDB opens");
    fill_counters(&store, Minute::of(clock.now()).number());
    let settings = QueueSettings { free_space_reserve_bytes: 0, ..QueueSettings::default() };
    let opened = Queue::open(Arc::new(store), &settings, Arc::clone(&clock), 7).expect("the queue opens");
    group.throughput(Throughput::Elements(TENANTS * 1_440));
    group.sample_size(10);
    group.bench_function("load_1000_scopes_of_1440_minutes", |bencher| {
        bencher.iter(|| {
            let quotas = Quotas::new(Arc::clone(&clock), Box::new(|_| ()));
            quotas.load(&opened.queue).expect("the disk of a bench works");
            quotas.all().len()
        });
    });
    group.finish();
    drop(opened.queue);
    opened.committer.join().expect("the committer does not panic");
}

fn charge(quotas: &Quotas, limits: &[ScopeLimit]) {
    let charges = quotas.reserve(limits, 1).expect("the limits are far").into_charges();
    charges.claim.as_ref().expect("a reservation makes one").keep();
}

fn fill_counters(store: &RocksStore, now: u64) {
    for minute in now - 1_439..=now {
        let puts = (0..TENANTS).map(|tenant| {
            let scope = format!("tenant/tenant-{tenant}");
            let mut value = Vec::new();
            queue_format::encode_counter(&scope, 60, &mut value);
            let key = Key::new(&queue_format::counter_key(queue_format::COUNTER_QUOTA, minute, &scope));
            Change::Put { family: Family::Counter, key, value: value.into() }
        });
        store.write(&puts.collect::<Vec<_>>(), false).expect("the disk of a bench works");
    }
}
