//! Rates, levels, pauses and who is at fault; and that whatever happens in whatever order, nothing is judged that must not be.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use proptest::prelude::*;

use super::hours::{Counts, WINDOW_HOURS_MAX};
use super::*;
use crate::types::{Hour, Mark, ReputationScope, ScopeKind, Timestamp};

const HOUR: Duration = Duration::from_secs(3_600);
/// In the middle of an hour.
const NOON: Timestamp = Timestamp::from_millis(1_700_000_000_000 / 3_600_000 * 3_600_000 + 1_800_000);

fn tenant(name: &str) -> ReputationScope {
    ReputationScope::new(ScopeKind::Tenant, name)
}

fn set(name: &str) -> ReputationScope {
    ReputationScope::new(ScopeKind::ConfigurationSet, name)
}

fn at(hours: u64) -> Timestamp {
    NOON.plus(HOUR * u32::try_from(hours).unwrap())
}

/// A judge, and the sums that it was told.
#[derive(Default)]
struct World {
    judge: Judge,
    settings: Arc<Settings>,
    sums: BTreeMap<(ReputationScope, Hour, Mark), u64>,
}

impl World {
    fn add(&mut self, scope: &ReputationScope, at: Timestamp, mark: Mark, count: u64) {
        let hour = Hour::of(at);
        let sum = self.sums.entry((scope.clone(), hour, mark)).or_default();
        *sum += count;
        assert!(self.judge.mark(scope, hour, mark, *sum));
    }

    /// Mail of a tenant by a set: so many delivered, so many hard bounces.
    fn send(&mut self, of: &str, by: &str, at: Timestamp, delivered: u64, hard: u64) {
        let pair = ReputationScope::new(ScopeKind::TenantSet, &format!("{of}/{by}"));
        for scope in [tenant(of), set(by), pair] {
            self.add(&scope, at, Mark::Delivered, delivered);
            self.add(&scope, at, Mark::HardBounce, hard);
        }
    }

    fn complain(&mut self, of: &str, by: &str, at: Timestamp, count: u64) {
        let pair = ReputationScope::new(ScopeKind::TenantSet, &format!("{of}/{by}"));
        for scope in [tenant(of), set(by), pair] {
            self.add(&scope, at, Mark::Complaint, count);
        }
    }

    /// Scopes that changed, and to what.
    fn judged(&mut self, now: Timestamp) -> Vec<(String, &'static str)> {
        let verdicts = self.judge.judge(&self.settings, now);
        verdicts.iter().map(|verdict| (verdict.scope.to_string(), verdict.change.to.name())).collect()
    }

    fn state(&self, scope: &ReputationScope, now: Timestamp) -> State {
        let row = self.judge.rows(&self.settings, now, |_, _| true).find(|row| row.scope == *scope);
        row.map_or(State::Healthy, |row| row.standing.state())
    }

    /// What another run knows: everything that is kept.
    fn restarted(&self, now: Timestamp) -> World {
        let mut world =
            World { settings: Arc::new((*self.settings).clone()), sums: self.sums.clone(), ..World::default() };
        for row in self.judge.rows(&self.settings, now, |_, _| true) {
            world.judge.restore(row.scope, row.standing);
        }
        for ((scope, hour, mark), sum) in &self.sums {
            assert!(world.judge.mark(scope, *hour, *mark, *sum));
        }
        world
    }
}

fn pairs(list: &[(&str, &'static str)]) -> Vec<(String, &'static str)> {
    list.iter().map(|(scope, state)| ((*scope).to_owned(), *state)).collect()
}

#[test]
fn a_set_is_warned_at_5_percent_and_paused_at_10() {
    let mut world = World::default();
    world.send("shop", "news", NOON, 951, 49);
    assert_eq!(world.judged(NOON), []);
    world.send("shop", "news", NOON, 0, 4);
    assert_eq!(world.judged(NOON), pairs(&[("configuration_set/news", "warned"), ("tenant/shop", "warned")]));
    assert_eq!(world.judged(NOON), [], "once");
    world.send("shop", "news", NOON, 0, 60);
    // The tenant is as it was: what the set did is the set's.
    assert_eq!(world.judged(NOON), pairs(&[("configuration_set/news", "paused"), ("tenant/shop", "healthy")]));
    assert_eq!(world.judge.paused().collect::<Vec<_>>(), [&set("news")]);
    world.send("shop", "news", NOON, 10_000, 0);
    assert_eq!(world.judged(at(1)), [], "what is paused stays so, whatever its rate");
}

#[test]
fn a_few_bounces_of_a_few_recipients_say_nothing() {
    let mut world = World::default();
    world.send("shop", "news", NOON, 200, 299);
    assert_eq!(world.judged(NOON), []);
    world.send("shop", "news", NOON, 0, 1);
    assert_eq!(world.judged(NOON)[0], ("configuration_set/news".to_owned(), "paused"), "500 are enough");
}

#[test]
fn complaints_are_of_what_was_delivered_and_one_of_a_thousand_is_none() {
    let mut world = World::default();
    world.send("shop", "news", NOON, 1_000, 0);
    for (complaints, expected) in
        [(2, vec![]), (1, vec!["warned", "warned"]), (1, vec![]), (1, vec!["paused", "healthy"])]
    {
        world.complain("shop", "news", NOON, complaints);
        let changes: Vec<_> = world.judged(NOON).into_iter().map(|(_, to)| to).collect();
        assert_eq!(changes, expected, "{complaints} more");
    }
}

#[test]
fn late_bounces_count_of_the_mail_that_they_are_about() {
    let mut world = World::default();
    world.send("shop", "news", NOON, 1_000, 0);
    for scope in [tenant("shop"), set("news"), ReputationScope::new(ScopeKind::TenantSet, "shop/news")] {
        world.add(&scope, NOON, Mark::LateBounce, 100);
        world.add(&scope, NOON, Mark::OtherBounce, 0);
    }
    assert_eq!(world.judged(at(5))[0], ("configuration_set/news".to_owned(), "paused"));
    let row = world.judge.rows(&world.settings, at(5), |_, _| true).find(|row| row.scope == set("news")).unwrap();
    assert_eq!((row.rates.bounces.count, row.rates.bounces.of), (100, 1_000));
}

#[test]
fn other_ends_are_recipients_and_no_bounces() {
    let mut world = World::default();
    world.send("shop", "news", NOON, 500, 50);
    world.add(&set("news"), NOON, Mark::OtherBounce, 450);
    assert!(world.judged(NOON).contains(&("configuration_set/news".to_owned(), "warned")), "50 of 1,000");
}

#[test]
fn a_rate_swings_no_level() {
    let mut world = World::default();
    let news = set("news");
    world.add(&news, NOON, Mark::Delivered, 950);
    world.add(&news, NOON, Mark::HardBounce, 50);
    assert_eq!(world.judged(NOON), pairs(&[("configuration_set/news", "warned")]));
    world.add(&news, NOON, Mark::Delivered, 200);
    assert_eq!(world.judged(NOON), [], "50 of 1,200 is 4.2 %: above four fifths of the threshold");
    world.add(&news, NOON, Mark::Delivered, 100);
    assert_eq!(world.judged(NOON), pairs(&[("configuration_set/news", "healthy")]));
    world.add(&news, NOON, Mark::HardBounce, 10);
    assert_eq!(world.judged(NOON), [], "4.6 %");
}

#[test]
fn what_cannot_be_paused_turns_critical_and_comes_back() {
    let mut world = World::default();
    let server = ReputationScope::new(ScopeKind::Server, "");
    world.add(&server, NOON, Mark::Delivered, 800);
    world.add(&server, NOON, Mark::HardBounce, 200);
    assert_eq!(world.judged(NOON), pairs(&[("server", "critical")]));
    world.add(&server, NOON, Mark::Delivered, 1_400);
    assert_eq!(world.judged(NOON), [], "8.3 %: above four fifths of the second threshold");
    world.add(&server, NOON, Mark::Delivered, 1_200);
    assert_eq!(world.judged(NOON), pairs(&[("server", "warned")]));
    assert_eq!(world.judge.paused().next(), None);
}

#[test]
fn where_the_automatic_pause_is_off_it_is_told_and_nothing_is_paused() {
    let off = Limits { automatic_pause: false, ..Limits::default() };
    let settings = Settings { limits: off, sets: [("news".into(), off)].into(), ..Settings::default() };
    let mut world = World { settings: Arc::new(settings), ..World::default() };
    world.send("shop", "news", NOON, 100, 900);
    assert_eq!(world.judged(NOON), pairs(&[("configuration_set/news", "critical"), ("tenant/shop", "critical")]));
    // A reload switches it on for the set.
    world.settings = Arc::new(Settings { limits: off, ..Settings::default() });
    Arc::get_mut(&mut world.settings).unwrap().sets.insert("news".into(), Limits::default());
    assert_eq!(world.judged(NOON), pairs(&[("configuration_set/news", "paused"), ("tenant/shop", "healthy")]));
}

#[test]
fn own_limits_of_a_set_and_a_tenant_hold_for_them_alone() {
    let limits = |warning, pause| Limits { bounces: Steps { warning, pause }, ..Limits::default() };
    let settings = Settings {
        tenants: [("shop".into(), limits(500_000, 900_000))].into(),
        sets: [("news".into(), limits(300_000, 400_000))].into(),
        ..Settings::default()
    };
    let mut world = World { settings: Arc::new(settings), ..World::default() };
    world.send("shop", "news", NOON, 700, 300);
    world.send("bank", "other", NOON, 900, 100);
    let expected = pairs(&[("configuration_set/news", "warned"), ("configuration_set/other", "paused")]);
    assert_eq!(world.judged(NOON), expected);
}

#[test]
fn a_bad_set_is_paused_alone_and_its_tenant_goes_on_by_the_others() {
    let mut world = World::default();
    world.send("shop", "news", NOON, 300, 400);
    world.send("shop", "receipts", NOON, 600, 6);
    world.send("bank", "pay", NOON, 600, 0);
    assert_eq!(world.judged(NOON), pairs(&[("configuration_set/news", "paused")]));
    for hours in 1..100 {
        assert_eq!(world.judged(at(hours)), [], "{hours}");
    }
    // Once it sends again, its old mail does not turn against its tenant either.
    assert!(world.judge.resume(&set("news"), "list cleaned", &world.settings, at(100)).is_some());
    for hours in 100..200 {
        assert_eq!(world.judged(at(hours)), [], "{hours}");
    }
}

#[test]
fn one_set_with_too_few_recipients_to_be_judged_is_paused_in_place_of_its_tenant() {
    let mut world = World::default();
    world.send("shop", "news", NOON, 100, 300);
    world.send("shop", "receipts", NOON, 450, 3);
    let changes = world.judged(NOON);
    assert_eq!(changes, pairs(&[("configuration_set/news", "paused")]));
    // Two such sets: none of them alone is at fault.
    let mut world = World::default();
    world.send("shop", "news", NOON, 200, 200);
    world.send("shop", "promo", NOON, 200, 200);
    assert_eq!(world.judged(NOON), pairs(&[("tenant/shop", "paused")]));
    // A set that others use, too, is not paused for what one of them did.
    let mut world = World::default();
    world.send("shop", "news", NOON, 100, 390);
    world.send("shop", "receipts", NOON, 450, 3);
    world.send("bank", "news", NOON, 4_000, 0);
    assert_eq!(world.judged(NOON), pairs(&[("configuration_set/news", "warned"), ("tenant/shop", "paused")]));
}

#[test]
fn after_a_resume_nothing_up_to_the_end_of_that_hour_is_judged_and_all_behind_it_is() {
    let mut world = World::default();
    world.send("shop", "news", NOON, 100, 900);
    assert_eq!(world.judged(NOON), pairs(&[("configuration_set/news", "paused")]));
    let resumed = at(3);
    let verdict = world.judge.resume(&set("news"), "", &world.settings, resumed).unwrap();
    assert_eq!((verdict.change.from, verdict.change.to), (State::Paused, State::Healthy));
    assert!(world.judge.resume(&set("news"), "", &world.settings, resumed).is_none());
    // Late reports about mail before, and mail of the same hour.
    world.complain("shop", "news", NOON, 500);
    world.send("shop", "news", resumed, 100, 900);
    for hours in 3..20 {
        assert_eq!(world.judged(at(hours)), [], "{hours}");
    }
    world.send("shop", "news", at(20), 400, 100);
    assert_eq!(world.judged(at(20)), pairs(&[("configuration_set/news", "paused")]));
}

#[test]
fn a_clock_that_is_set_back_forgives_only_up_to_where_it_stands() {
    let mut world = World::default();
    world.send("shop", "news", at(2_000), 100, 900);
    assert_eq!(world.judged(at(2_000)), pairs(&[("configuration_set/news", "paused")]));
    world.judge.resume(&set("news"), "", &world.settings, at(2_000)).unwrap();
    // The clock was ahead by 2,000 hours.
    assert_eq!(world.judged(NOON), []);
    world.send("shop", "news", at(1), 100, 900);
    assert_eq!(world.judged(at(1)), pairs(&[("configuration_set/news", "paused")]));
}

#[test]
fn an_operator_pauses_from_any_state_and_a_restart_changes_nothing() {
    let mut world = World::default();
    world.send("shop", "news", NOON, 940, 60);
    world.send("bank", "pay", NOON, 100, 900);
    world.judged(NOON);
    assert!(world.judge.pause(&tenant("shop"), "asked to", &world.settings, NOON).is_some());
    assert!(world.judge.pause(&tenant("shop"), "asked to", &world.settings, NOON).is_none());
    assert!(world.judge.pause(&tenant("quiet"), "asked to", &world.settings, NOON).is_some());
    let mut again = world.restarted(NOON);
    let rows = |world: &World| world.judge.rows(&world.settings, NOON, |_, _| true).collect::<Vec<_>>();
    assert_eq!(rows(&world), rows(&again));
    assert_eq!(again.judged(NOON), []);
    assert_eq!(again.judge.paused().count(), 3);
    assert_eq!(again.state(&set("news"), NOON), State::Warned);
    // Of whom nothing is known but a pause is not forgotten.
    assert_eq!(again.judged(at(3_000)).len(), 1, "the warned set is healthy again, there is nothing left to judge");
    assert_eq!(again.judge.paused().count(), 3);
}

#[test]
fn a_rate_goes_back_until_the_volume_is_representative_and_a_day_at_least() {
    let mut hours = Hours::default();
    let now = Hour::of(NOON);
    let back = |hours: u64| Hour::from_number(now.number() - hours);
    // A bad campaign 100 hours ago.
    hours.set(back(100), Mark::HardBounce, 5_000);
    hours.set(back(100), Mark::Delivered, 5_000);
    hours.set(back(100), Mark::Complaint, 50);
    let rates = |hours: &Hours| hours.rates(now, 10_000, None, |_| Counts::default());
    assert_eq!(rates(&hours).bounces, Share { count: 5_000, of: 10_000 });
    for hour in 1..=20 {
        hours.set(back(hour), Mark::Delivered, 400);
    }
    let both = rates(&hours);
    assert_eq!(both.bounces, Share { count: 5_000, of: 18_000 }, "8,000 are not enough");
    assert_eq!(both.complaints, Share { count: 50, of: 13_000 });
    hours.set(back(21), Mark::Delivered, 2_000);
    assert_eq!(rates(&hours).bounces, Share { count: 0, of: 10_000 });
    // Within a day everything counts, however much it is.
    hours.set(now, Mark::Delivered, 100_000);
    assert_eq!(rates(&hours).bounces, Share { count: 0, of: 110_000 });
    hours.set(back(71), Mark::Delivered, 1);
    assert_eq!(rates(&hours).complaints.of, 110_001, "and for complaints within three");
    assert_eq!(rates(&hours).bounces.of, 110_000);
}

#[test]
fn nothing_older_than_30_days_counts_and_hours_ahead_only_up_to_a_day() {
    let now = Hour::of(NOON);
    let mut hours = Hours::default();
    let back = |hours: u32| Hour::from_number(now.number() - u64::from(hours));
    hours.set(back(WINDOW_HOURS_MAX), Mark::HardBounce, 1_000);
    hours.set(back(WINDOW_HOURS_MAX - 1), Mark::HardBounce, 7);
    hours.set(now.plus(24), Mark::HardBounce, 20);
    hours.set(now.plus(25), Mark::HardBounce, 4_000);
    assert_eq!(hours.rates(now, 10_000, None, |_| Counts::default()).bounces, Share { count: 27, of: 27 });
    hours.forget(now.plus(2 * WINDOW_HOURS_MAX));
    assert_eq!(hours.at(now.plus(24)).hard, 20);
    hours.forget(now.plus(2 * WINDOW_HOURS_MAX + 25));
    assert!(hours.is_empty());
}

#[test]
fn reasons_name_what_is_at_its_limit() {
    let mut world = World::default();
    world.send("shop", "news", NOON, 880, 120);
    let verdicts = world.judge.judge(&world.settings, NOON);
    assert_eq!(&*verdicts[0].change.reason, "12 % of 1000 recipients bounced, the limit is 10 %");
    assert_eq!(verdicts[0].standing.pause.as_ref().unwrap().reason, verdicts[0].change.reason);
    let mut world = World::default();
    world.send("shop", "news", NOON, 900, 60);
    world.complain("shop", "news", NOON, 9);
    let verdicts = world.judge.judge(&world.settings, NOON);
    assert_eq!(&*verdicts[0].change.reason, "1 % of 900 delivered were complained about, the limit is 0.5 %");
}

#[test]
fn only_what_speaks_of_the_address_is_a_hard_bounce() {
    use crate::policy::{BounceClass as Class, BounceType as Type};
    for class in [Class::BadMailbox, Class::InactiveMailbox, Class::BadDomain, Class::Other] {
        assert!(is_hard_bounce(Type::Permanent, class));
        assert!(!is_hard_bounce(Type::Transient, class) && !is_hard_bounce(Type::Undetermined, class));
    }
    for class in [Class::IpBlock, Class::Spam, Class::Policy, Class::Authentication, Class::Content, Class::MailboxFull]
    {
        assert!(!is_hard_bounce(Type::Permanent, class), "{class:?}");
    }
}

#[derive(Clone, Debug)]
enum Act {
    Wait(u32),
    ClockBack(u32),
    Send { set: usize, delivered: u32, hard: u32, late: u32, complaints: u32, hours_ago: u32 },
    Pause(usize),
    Resume(usize),
    Restart,
}

fn acts() -> impl Strategy<Value = Vec<Act>> {
    let few = prop_oneof![3 => Just(0_u32), 2 => 0..200_u32, 1 => 0..6_000_u32];
    let send = (0..4_usize, few.clone(), few.clone(), few, 0..20_u32, prop_oneof![4 => Just(0_u32), 1 => 0..900_u32]);
    let act = prop_oneof![
        3 => prop_oneof![0..3_u32, 0..60_u32, Just(720_u32)].prop_map(Act::Wait),
        1 => (0..200_u32).prop_map(Act::ClockBack),
        9 => send.prop_map(|(set, delivered, hard, late, complaints, hours_ago)| Act::Send {
            set, delivered, hard, late, complaints, hours_ago,
        }),
        1 => (0..6_usize).prop_map(Act::Pause),
        2 => (0..6_usize).prop_map(Act::Resume),
        1 => Just(Act::Restart),
    ];
    prop::collection::vec(act, 1..120)
}

const SENDERS: [(&str, &str); 4] = [("shop", "news"), ("shop", "receipts"), ("bank", "pay"), ("bank", "news")];

fn pausable(number: usize) -> ReputationScope {
    [tenant("shop"), tenant("bank"), set("news"), set("receipts"), set("pay"), set("unused")][number].clone()
}

proptest! {
    #[test]
    fn only_an_operator_ends_a_pause_and_nothing_is_paused_below_its_thresholds(acts in acts()) {
        let (mut world, mut now) = (World::default(), at(10_000));
        let mut paused: Vec<ReputationScope> = Vec::new();
        for act in acts {
            match act {
                Act::Wait(hours) => now = now.plus(HOUR * hours),
                Act::ClockBack(hours) => now = now.minus(HOUR * hours),
                Act::Send { set: number, delivered, hard, late, complaints, hours_ago } => {
                    let (of, by) = SENDERS[number];
                    let when = now.minus(HOUR * hours_ago);
                    world.send(of, by, when, delivered.into(), hard.into());
                    world.complain(of, by, when, complaints.into());
                    world.add(&set(by), when, Mark::LateBounce, late.into());
                }
                Act::Pause(number) => {
                    let scope = pausable(number);
                    let verdict = world.judge.pause(&scope, "asked", &world.settings.clone(), now);
                    prop_assert_eq!(verdict.is_some(), !paused.contains(&scope));
                    if verdict.is_some() { paused.push(scope); }
                }
                Act::Resume(number) => {
                    let scope = pausable(number);
                    let verdict = world.judge.resume(&scope, "asked", &world.settings.clone(), now);
                    prop_assert_eq!(verdict.is_some(), paused.contains(&scope));
                    paused.retain(|other| *other != scope);
                    // Nothing that happened so far turns against it within this hour.
                    let again = world.judge.judge(&world.settings.clone(), now);
                    let is_it = |verdict: &&Verdict| verdict.scope == scope && verdict.change.to == State::Paused;
                    let of_set = again.iter().find(is_it);
                    if verdict.is_some() {
                        prop_assert!(of_set.is_none(), "{of_set:?}");
                    }
                    paused.extend(again.into_iter().filter(|verdict| verdict.change.to == State::Paused).map(|verdict| verdict.scope));
                }
                Act::Restart => {
                    world.judge.judge(&world.settings.clone(), now).iter()
                        .filter(|verdict| verdict.change.to == State::Paused)
                        .for_each(|verdict| paused.push(verdict.scope.clone()));
                    world = world.restarted(now);
                    prop_assert!(world.judged(now).is_empty(), "a restart changes nothing");
                }
            }
            for verdict in world.judge.judge(&world.settings.clone(), now) {
                prop_assert_ne!(verdict.change.from, verdict.change.to);
                prop_assert_ne!(verdict.change.from, State::Paused, "only an operator ends a pause");
                let Verdict { rates, limits, scope, change, .. } = &verdict;
                if change.to == State::Paused {
                    prop_assert!(scope.kind.is_pausable());
                    let is_blamed = change.reason.starts_with("because of this set alone");
                    let enough = |share: Share| share.of >= 500;
                    let is_over = enough(rates.bounces) && rates.bounces.millionths() >= limits.bounces.pause
                        || enough(rates.complaints) && rates.complaints.millionths() >= limits.complaints.pause;
                    prop_assert!(is_over || is_blamed, "{verdict:?}");
                    paused.push(verdict.scope.clone());
                }
            }
            let mut known: Vec<_> = world.judge.paused().cloned().collect();
            known.sort();
            paused.sort();
            prop_assert_eq!(&known, &paused);
        }
    }
}
