//! Reservations under limits, threads, failing disks, crashes and clocks that are set.

use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use bytes::Bytes;
use proptest::prelude::*;

use super::*;
use crate::queue::invariants::violations;
use crate::queue::model::ModelStore;
use crate::queue::testing::new_message;
use crate::queue::{Intake, NewBody, Opened, Settings, random_seed};
use crate::types::ManualClock;

const NOON: Timestamp = Timestamp::from_millis(1_700_000_000_000);
const DAY: Duration = Duration::from_secs(86_400);

fn clock() -> Arc<ManualClock> {
    Arc::new(ManualClock::at(NOON))
}

fn quotas(clock: &Arc<ManualClock>) -> Quotas {
    Quotas::new(Arc::clone(clock) as _, Box::new(|_| ()))
}

fn tenant(name: &str) -> Scope {
    Scope::Tenant(Name::parse(name).unwrap())
}

fn per_day(scope: Scope, limit: u64) -> ScopeLimit {
    ScopeLimit { scope, quota: Quota { per_day: Some(limit), per_second: None } }
}

fn unlimited(scope: Scope) -> ScopeLimit {
    ScopeLimit { scope, quota: Quota::default() }
}

fn keep(reservation: Reservation) {
    reservation.into_charges().claim.unwrap().keep();
}

#[test]
fn a_message_is_charged_to_all_its_scopes_or_to_none() {
    let quotas = quotas(&clock());
    let (shop, server) = (tenant("shop"), Scope::Server);
    let limits = [per_day(shop.clone(), 10), unlimited(server.clone())];
    keep(quotas.reserve(&limits, 7).unwrap());
    let refused = quotas.reserve(&limits, 4).unwrap_err();
    assert_eq!(refused, Exceeded::Daily { scope: shop.clone(), used: 7, limit: 10 });
    assert_eq!((quotas.used(&shop), quotas.used(&server)), (7, 7));
    keep(quotas.reserve(&limits, 3).unwrap());
    assert_eq!(quotas.check(&limits).unwrap_err().text(), "Throttling failure: Daily message quota exceeded");
    assert_eq!(quotas.all(), [(shop, 10), (server, 10)]);
}

#[test]
fn what_is_dropped_is_given_back_and_until_then_it_counts() {
    let quotas = quotas(&clock());
    let quota = Quota { per_day: Some(10), per_second: Some(10) };
    let limits = [ScopeLimit { scope: Scope::Server, quota }];
    let held = quotas.reserve(&limits, 6).unwrap();
    assert!(quotas.reserve(&limits, 5).is_err());
    drop(held.into_charges());
    assert_eq!(quotas.used(&Scope::Server), 0);
    let charges = quotas.reserve(&limits, 10).unwrap().into_charges();
    charges.claim.as_ref().unwrap().keep();
    drop(charges);
    assert_eq!(quotas.used(&Scope::Server), 10, "what is kept stays");
}

#[test]
fn the_rate_refuses_with_its_own_text_and_charges_nothing() {
    let clock = clock();
    let quotas = quotas(&clock);
    let quota = Quota { per_day: None, per_second: Some(5) };
    let limits = [ScopeLimit { scope: tenant("shop"), quota }, unlimited(Scope::Server)];
    keep(quotas.reserve(&limits, 5).unwrap());
    let refused = quotas.reserve(&limits, 1).unwrap_err();
    assert_eq!(refused.text(), "Throttling failure: Maximum sending rate exceeded");
    assert_eq!(quotas.used(&Scope::Server), 5);
    clock.advance(Duration::from_millis(200));
    keep(quotas.reserve(&limits, 1).unwrap());
    assert!(quotas.check(&limits).is_ok(), "a rate is no reason to refuse before the message is there");
    let none = ScopeLimit { scope: tenant("none"), quota: Quota { per_day: None, per_second: Some(0) } };
    assert!(quotas.reserve(&[none], 1).is_err());
}

#[test]
fn a_refusal_of_one_scope_takes_nothing_from_the_others() {
    let quotas = quotas(&clock());
    let full = Quota { per_day: None, per_second: Some(1) };
    let limits = [ScopeLimit { scope: tenant("a"), quota: full }, per_day(Scope::Server, 100)];
    keep(quotas.reserve(&limits, 1).unwrap());
    for _ in 0..1_000 {
        assert!(quotas.reserve(&limits, 1).is_err());
    }
    let other = [unlimited(tenant("b")), per_day(Scope::Server, 100)];
    for _ in 0..99 {
        keep(quotas.reserve(&other, 1).unwrap());
    }
    assert!(quotas.reserve(&other, 1).is_err());
}

#[test]
fn a_reload_raises_and_lowers_a_limit_for_what_was_used_before() {
    let quotas = quotas(&clock());
    let at = |limit| [per_day(Scope::Server, limit)];
    keep(quotas.reserve(&at(10), 10).unwrap());
    assert!(quotas.reserve(&at(10), 1).is_err());
    keep(quotas.reserve(&at(11), 1).unwrap());
    assert!(quotas.reserve(&at(5), 1).is_err());
    assert!(quotas.check(&at(5)).is_err());
    assert!(quotas.check(&[unlimited(Scope::Server)]).is_ok());
}

#[test]
fn a_notice_is_given_once_at_80_percent_and_once_at_100() {
    let (sender, notices) = mpsc::channel();
    let clock = clock();
    let listener: Listener = Box::new(move |notice: &QuotaNotice| sender.send((notice.used, notice.percent)).unwrap());
    let quotas = Quotas::new(Arc::clone(&clock) as _, listener);
    let limits = [per_day(tenant("shop"), 10), unlimited(Scope::Server)];
    for _ in 0..10 {
        keep(quotas.reserve(&limits, 1).unwrap());
    }
    assert!(quotas.reserve(&limits, 1).is_err());
    assert_eq!(notices.try_iter().collect::<Vec<_>>(), [(8, 80), (10, 100)]);
    clock.advance(DAY + Duration::from_secs(60));
    keep(quotas.reserve(&limits, 1).unwrap());
    keep(quotas.reserve(&limits, 7).unwrap());
    assert_eq!(notices.try_iter().collect::<Vec<_>>(), [(8, 80)]);
}

#[test]
fn scopes_that_are_idle_are_forgotten_and_those_in_use_are_not() {
    let clock = clock();
    let quotas = quotas(&clock);
    for number in 0..50 {
        keep(quotas.reserve(&[unlimited(tenant(&format!("t{number}")))], 1).unwrap());
    }
    let held = quotas.reserve(&[unlimited(tenant("held"))], 1).unwrap();
    drop(quotas.reserve(&[unlimited(tenant("refused"))], 1).unwrap());
    clock.advance(3 * DAY);
    drop(quotas.reserve(&[unlimited(Scope::Server)], 1));
    assert_eq!(quotas.read().len(), 2, "the one that is held and the server");
    drop(held);
}

#[test]
fn a_full_table_counts_whoever_has_a_limit() {
    let clock = clock();
    let quotas = Quotas { scopes_max: 3, ..quotas(&clock) };
    for name in ["a", "b", "c", "d"] {
        keep(quotas.reserve(&[unlimited(tenant(name))], 1).unwrap());
    }
    assert_eq!((quotas.read().len(), quotas.used(&tenant("d"))), (3, 0));
    keep(quotas.reserve(&[per_day(tenant("e"), 1)], 1).unwrap());
    assert!(quotas.reserve(&[per_day(tenant("e"), 1)], 1).is_err());
    clock.advance(3 * DAY);
    keep(quotas.reserve(&[unlimited(tenant("d"))], 1).unwrap());
    assert_eq!(quotas.used(&tenant("d")), 1, "room is made of those that are idle");
}

#[test]
fn scopes_survive_their_text() {
    let set = Scope::ConfigurationSet(Name::parse("news").unwrap());
    for scope in [Scope::Server, tenant("shop"), Scope::Credential("a/b c".into()), set] {
        assert_eq!(Scope::parse(&scope.to_string()), Some(scope));
    }
    for text in ["", "servers", "tenant", "tenant/", "tenant/a b", "unknown/x"] {
        assert_eq!(Scope::parse(text), None, "{text}");
    }
}

/// Threads that reserve, keep and drop at will; the model is a count of what was kept, and of what was held at once.
#[test]
fn many_threads_never_pass_a_limit_and_waste_none_of_it() {
    const THREADS: u64 = 8;
    const LIMIT: u64 = 3_000;
    let quotas = quotas(&clock());
    // Every tenant has room for all: the server's limit is what they race for, and one tenant's own.
    let limits_of = |number: u64| [per_day(tenant(&format!("t{}", number % 3)), 1_200), per_day(Scope::Server, LIMIT)];
    let kept: Vec<[u64; 3]> = thread::scope(|scope| {
        let run = |thread: u64| {
            let (quotas, limits_of) = (&quotas, &limits_of);
            move || {
                let mut kept = [0; 3];
                for step in 0..6_000 {
                    let number = thread + step;
                    let count = 1 + u32::try_from(step * 7 % 5).unwrap();
                    let Ok(reservation) = quotas.reserve(&limits_of(number), count) else { continue };
                    assert!(quotas.used(&Scope::Server) <= LIMIT);
                    if step % 3 == 0 {
                        kept[usize::try_from(number % 3).unwrap()] += u64::from(count);
                        keep(reservation);
                    }
                }
                kept
            }
        };
        let threads: Vec<_> = (0..THREADS).map(|thread| scope.spawn(run(thread))).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    let by_tenant = [0, 1, 2].map(|tenant: usize| kept.iter().map(|kept| kept[tenant]).sum::<u64>());
    let total: u64 = by_tenant.iter().sum();
    assert!(total <= LIMIT && by_tenant.iter().all(|kept| *kept <= 1_200), "{by_tenant:?}");
    assert_eq!(quotas.used(&Scope::Server), total);
    for (number, kept) in by_tenant.into_iter().enumerate() {
        assert_eq!(quotas.used(&tenant(&format!("t{number}"))), kept);
    }
    // Nothing is left reserved: the rest is free to the last one.
    let rest = u32::try_from(LIMIT - total).unwrap();
    keep(quotas.reserve(&[per_day(Scope::Server, LIMIT)], rest).unwrap());
    assert!(quotas.reserve(&[per_day(Scope::Server, LIMIT)], 1).is_err());
}

/// A step of the life of a daemon whose quotas are used.
#[derive(Clone, Debug)]
enum Step {
    Accept { tenant: u8, recipients: u32 },
    Refuse { tenant: u8, recipients: u32 },
    FailingDisk { tenant: u8, recipients: u32 },
    Wait { minutes: i64 },
    Restart { crash: bool },
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        6 => (0..3_u8, 1..20_u32).prop_map(|(tenant, recipients)| Step::Accept { tenant, recipients }),
        1 => (0..3_u8, 1..20_u32).prop_map(|(tenant, recipients)| Step::Refuse { tenant, recipients }),
        1 => (0..3_u8, 1..20_u32).prop_map(|(tenant, recipients)| Step::FailingDisk { tenant, recipients }),
        2 => (-200..700_i64).prop_map(|minutes| Step::Wait { minutes }),
        1 => any::<bool>().prop_map(|crash| Step::Restart { crash }),
    ];
    proptest::collection::vec(step, 1..60)
}

/// A queue on a store that forgets what was not synced, and quotas in front of it.
struct Daemon {
    queue: Queue,
    quotas: Quotas,
    opened: Opened,
}

impl Daemon {
    fn open(store: &Arc<ModelStore>, clock: &Arc<ManualClock>) -> Self {
        let settings = Settings { free_space_reserve_bytes: 0, ..Settings::default() };
        let opened = Queue::open(Arc::clone(store) as _, &settings, Arc::clone(clock) as _, random_seed()).unwrap();
        let quotas = quotas(clock);
        quotas.load(&opened.queue).unwrap();
        Self { queue: opened.queue.clone(), quotas, opened }
    }

    fn close(self) {
        drop((self.queue, self.opened.queue, self.opened.handoffs));
        self.opened.committer.join().unwrap();
    }
}

async fn accept(daemon: &mut Daemon, reservation: Reservation) -> bool {
    let id = daemon.queue.new_id();
    let mut message = new_message(id, 1, NewBody::Inline(Bytes::from_static(b"Subject: x\r\n\r\nbody\r\n")));
    message.charges = reservation.into_charges();
    let accepted = daemon.queue.accept(message).await.is_ok();
    if accepted {
        daemon.opened.handoffs.recv().await.unwrap();
    }
    accepted
}

#[tokio::test]
async fn a_message_whose_client_went_away_while_it_was_committed_is_charged() {
    let (store, clock) = (Arc::new(ModelStore::new()), clock());
    let mut daemon = Daemon::open(&store, &clock);
    let reservation = daemon.quotas.reserve(&[unlimited(Scope::Server)], 3).unwrap();
    let id = daemon.queue.new_id();
    let mut message = new_message(id, 3, NewBody::Inline(Bytes::from_static(b"Subject: x\r\n\r\nbody\r\n")));
    message.charges = reservation.into_charges();
    let accepting = daemon.queue.accept(message);
    // Asked once, and dropped: the transaction is with the committer.
    tokio::select! {
        biased;
        _ = accepting => {}
        () = std::future::ready(()) => {}
    }
    assert_eq!(daemon.opened.handoffs.recv().await.unwrap().message.id, id);
    assert_eq!(daemon.quotas.used(&Scope::Server), 3);
    daemon.close();
    let daemon = Daemon::open(&store, &clock);
    // To the minute.
    for (pause, used) in [(Duration::ZERO, 3), (DAY, 3), (Duration::from_secs(60), 0)] {
        clock.advance(pause);
        assert_eq!(daemon.quotas.used(&Scope::Server), used);
    }
    daemon.close();
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    #[test]
    fn over_crashes_restarts_and_clock_changes_usage_is_what_was_accepted(steps in steps()) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let (store, clock) = (Arc::new(ModelStore::new()), clock());
            let mut daemon = Daemon::open(&store, &clock);
            let mut accepted: Vec<(Timestamp, u8, u32)> = Vec::new();
            let mut latest = clock.now();
            let limits = |number: u8| [per_day(tenant(&format!("t{number}")), 60), unlimited(Scope::Server)];
            for step in steps {
                match step {
                    Step::Accept { tenant, recipients } => {
                        if let Ok(reservation) = daemon.quotas.reserve(&limits(tenant), recipients) {
                            assert!(accept(&mut daemon, reservation).await);
                            accepted.push((clock.now(), tenant, recipients));
                        }
                    }
                    Step::Refuse { tenant, recipients } => drop(daemon.quotas.reserve(&limits(tenant), recipients)),
                    Step::FailingDisk { tenant, recipients } => {
                        store.set_failing(true);
                        if let Ok(reservation) = daemon.quotas.reserve(&limits(tenant), recipients) {
                            assert!(!accept(&mut daemon, reservation).await);
                        }
                        store.set_failing(false);
                        daemon.close();
                        daemon = Daemon::open(&store, &clock);
                    }
                    Step::Wait { minutes } => {
                        let now_ms = clock.now().millis().saturating_add_signed(minutes * 60_000 + 7_001);
                        clock.set(Timestamp::from_millis(now_ms).max(latest.minus(DAY)));
                        latest = latest.max(clock.now());
                    }
                    Step::Restart { crash } => {
                        if crash {
                            store.crash();
                        }
                        daemon.close();
                        daemon = Daemon::open(&store, &clock);
                    }
                }
                let now = Minute::of(clock.now());
                for number in 0..3 {
                    let of_tenant = accepted.iter().filter(|(at, of, _)| *of == number && Minute::of(*at).counts_in(now));
                    let expected: u64 = of_tenant.map(|(_, _, recipients)| u64::from(*recipients)).sum();
                    assert_eq!(daemon.quotas.used(&tenant(&format!("t{number}"))), expected);
                }
            }
            for (end, number, _) in &accepted {
                let in_window = |at: Timestamp| at <= *end && at.plus(DAY) > *end;
                let of_tenant = accepted.iter().filter(|(at, of, _)| of == number && in_window(*at));
                assert!(of_tenant.map(|(_, _, recipients)| recipients).sum::<u32>() <= 60, "tenant {number} by {end}");
            }
            assert_eq!(violations(&*store).unwrap(), Vec::<String>::new());
            daemon.close();
        });
    }
}
