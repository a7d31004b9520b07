//! The ledger: what has a row, what a midnight and a restart do, and that the rows of a day always add up to what was counted.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;

const DAY: u32 = 19_675;

/// So many seconds after the beginning of day 0.
fn at(seconds: u64) -> Timestamp {
    Timestamp::from_millis((u64::from(DAY) * 86_400 + seconds) * 1_000)
}

fn source(number: u8) -> SourceName {
    SourceName::parse(&format!("192.0.2.{number}")).unwrap()
}

/// What a message that was delivered counts as.
fn sent(count: u32) -> DayTotals {
    DayTotals { sent: count, delivered: count, ..DayTotals::default() }
}

/// The rows as the queue keeps them.
type Store = BTreeMap<(u32, SourceName, Arc<str>), HistoryRow>;

fn save(store: &mut Store, rows: Vec<HistoryRow>) {
    assert!(rows.is_sorted_by(|left, right| (left.day, &left.source) <= (right.day, &right.source)), "{rows:?}");
    store.extend(rows.into_iter().map(|row| ((row.day, row.source.clone(), Arc::clone(&row.site)), row)));
}

/// Site and messages of each row.
fn shown(rows: &[HistoryRow]) -> Vec<(u32, &str, u32)> {
    rows.iter().map(|row| (row.day - DAY, &*row.site, row.totals.sent)).collect()
}

fn google() -> (SiteName, Arc<str>) {
    (SiteName::of_provider("google"), "google".into())
}

fn empty() -> Ledger {
    Ledger::restored([], at(0))
}

#[test]
fn a_providers_site_has_a_row_from_its_first_message_others_from_their_twentieth() {
    let mut ledger = empty();
    let (site, provider) = google();
    ledger.add(&site, &source(1), Some(&provider), &sent(1), at(1));
    ledger.add(&SiteName::new("mx.a.test"), &source(1), None, &sent(19), at(1));
    ledger.add(&SiteName::new("mx.b.test"), &source(1), None, &sent(20), at(1));
    ledger.add(&SiteName::new("mx.c.test"), &source(1), None, &sent(5), at(1));
    let rows = ledger.rows_to_write(at(1));
    assert_eq!(shown(&rows), [(0, "mx.b.test", 20), (0, "provider:google", 1), (0, "", 24)]);
    assert_eq!(rows[1].provider.as_deref(), Some("google"));
    assert_eq!(ledger.rows_to_write(at(2)), [], "nothing changed");
    ledger.add(&SiteName::new("mx.a.test"), &source(1), None, &sent(1), at(3));
    let rows = ledger.rows_to_write(at(3));
    assert_eq!(shown(&rows), [(0, "mx.a.test", 20), (0, "", 5)], "what it had was taken out of the common row");
    ledger.add(&SiteName::new("mx.c.test"), &source(1), None, &sent(15), at(4));
    assert_eq!(shown(&ledger.rows_to_write(at(4))), [(0, "mx.c.test", 20), (0, "", 0)]);
}

#[test]
fn rows_hold_all_counts_and_the_cap_of_now_and_the_common_row_no_cap() {
    let mut ledger = empty();
    let part = |cap| DayTotals {
        sent: 10,
        delivered: 3,
        deferred: 2,
        bounced: [(4, 1), (9, 4)].into(),
        complained: 1,
        blocked: 1,
        cap: Some(cap),
        position: Some(cap / 50),
    };
    let (site, provider) = google();
    for cap in [50, 100] {
        ledger.add(&site, &source(1), Some(&provider), &part(cap), at(1));
    }
    ledger.add(&SiteName::new("mx.a.test"), &source(2), None, &part(50), at(1));
    let rows = ledger.rows_to_write(at(2));
    let twice = DayTotals {
        sent: 20,
        delivered: 6,
        deferred: 4,
        bounced: [(4, 2), (9, 8)].into(),
        complained: 2,
        blocked: 2,
        cap: Some(100),
        position: Some(2),
    };
    assert_eq!(rows[0].totals, twice);
    assert_eq!((&*rows[1].site, &rows[1].totals), ("", &DayTotals { cap: None, position: None, ..part(0) }));
}

#[test]
fn at_midnight_the_day_is_closed_once_and_the_next_begins_with_nothing() {
    let mut ledger = empty();
    let (site, provider) = google();
    let count = |ledger: &mut Ledger, seconds| {
        ledger.add(&site, &source(1), Some(&provider), &sent(1), at(seconds));
    };
    count(&mut ledger, 86_398);
    assert_eq!(shown(&ledger.rows_to_write(at(86_398))), [(0, "provider:google", 1)]);
    count(&mut ledger, 86_399);
    count(&mut ledger, 86_400);
    count(&mut ledger, 86_399);
    let rows = ledger.rows_to_write(at(86_401));
    assert_eq!(shown(&rows), [(0, "provider:google", 2), (1, "provider:google", 2)], "time does not go back");
    assert_eq!(ledger.day(), DAY + 1);
    assert_eq!(ledger.rows_to_write(at(10 * 86_400)), [], "what was given out is not given out again");
    count(&mut ledger, 10 * 86_400);
    assert_eq!(shown(&ledger.rows_to_write(at(11 * 86_400))), [(10, "provider:google", 1)]);
}

#[test]
fn a_restart_goes_on_from_the_rows_of_today() {
    let (mut ledger, mut store) = (empty(), Store::new());
    let (site, provider) = google();
    let small = SiteName::new("mx.a.test");
    ledger.add(&site, &source(1), Some(&provider), &sent(3), at(1));
    ledger.add(&small, &source(1), None, &sent(19), at(1));
    save(&mut store, ledger.rows_to_write(at(1)));
    let mut ledger = Ledger::restored(store.values().cloned(), at(2));
    assert_eq!(ledger.rows_to_write(at(2)), []);
    ledger.add(&site, &source(1), Some(&provider), &sent(1), at(3));
    // Of it only the sum is known now.
    ledger.add(&small, &source(1), None, &sent(25), at(3));
    assert_eq!(shown(&ledger.rows_to_write(at(3))), [(0, "mx.a.test", 25), (0, "provider:google", 4)]);
    let mut tomorrow = Ledger::restored(store.values().cloned(), at(86_400));
    tomorrow.add(&site, &source(1), Some(&provider), &sent(1), at(86_400));
    assert_eq!(shown(&tomorrow.rows_to_write(at(86_400))), [(1, "provider:google", 1)]);
}

#[test]
fn what_a_clock_that_was_ahead_left_behind_is_added_to_when_that_day_comes() {
    let (mut ledger, mut store) = (empty(), Store::new());
    let (site, provider) = google();
    ledger.add(&site, &source(1), Some(&provider), &sent(1), at(86_400));
    save(&mut store, ledger.rows_to_write(at(86_400)));
    let mut ledger = Ledger::restored(store.values().cloned(), at(5));
    assert_eq!(ledger.day(), DAY);
    ledger.add(&site, &source(1), Some(&provider), &sent(10), at(5));
    ledger.add(&site, &source(1), Some(&provider), &sent(100), at(86_400));
    assert_eq!(shown(&ledger.rows_to_write(at(86_400))), [(0, "provider:google", 10), (1, "provider:google", 101)]);
}

#[test]
fn beyond_its_bound_what_goes_to_further_sites_is_counted_in_the_common_row() {
    let mut ledger = Ledger::with_room(2, [], at(0));
    for (number, sites) in [(1_u8, 4), (2, 3)] {
        for site in 0..sites {
            let site = SiteName::new(&format!("mx.{site}.test"));
            ledger.add(&site, &source(number), None, &sent(30), at(1));
        }
    }
    assert_eq!(ledger.sites, 2);
    let rows = ledger.rows_to_write(at(1));
    assert_eq!(shown(&rows), [(0, "mx.0.test", 30), (0, "mx.1.test", 30), (0, "", 60), (0, "", 90)]);
    ledger.add(&SiteName::new("mx.0.test"), &source(1), None, &sent(1), at(86_399));
    ledger.add(&SiteName::new("mx.1.test"), &source(1), None, &sent(1), at(86_399));
    for site in ["mx.0.test", "mx.1.test"] {
        ledger.add(&SiteName::new(site), &source(1), None, &sent(20), at(86_400));
    }
    assert_eq!((ledger.sites, ledger.closed.len()), (0, 2), "rows that nobody took yet need room");
    let rows = ledger.rows_to_write(at(86_400));
    assert_eq!(shown(&rows), [(0, "mx.0.test", 31), (0, "mx.1.test", 31), (1, "", 40)]);
    ledger.add(&SiteName::new("mx.0.test"), &source(1), None, &sent(20), at(86_401));
    assert_eq!(shown(&ledger.rows_to_write(at(86_401))), [(1, "mx.0.test", 20)], "there is room again");
}

#[derive(Clone, Debug)]
enum Step {
    Add {
        site: u8,
        source: u8,
        part: DayTotals,
    },
    Write,
    /// All that was given out is kept, and nothing else: a stop that was orderly.
    Restart,
    /// Forward, or back.
    Pass(i32),
}

fn part() -> impl Strategy<Value = DayTotals> {
    let bounced = proptest::collection::btree_map(0..4_u8, 0..5_u32, 0..3);
    (0..9_u32, 0..5_u32, 0..5_u32, bounced, 0..3_u32, 0..2_u32, proptest::option::of(1..100_u32)).prop_map(
        |(sent, delivered, deferred, bounced, complained, blocked, cap)| {
            let position = cap.map(|cap| cap / 10);
            DayTotals { sent, delivered, deferred, bounced, complained, blocked, cap, position }
        },
    )
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        12 => (0..8_u8, 0..3_u8, part()).prop_map(|(site, source, part)| Step::Add { site, source, part }),
        3 => Just(Step::Write),
        1 => Just(Step::Restart),
        2 => prop_oneof![0..40_000_i32, -50_000..0_i32, 80_000..200_000_i32].prop_map(Step::Pass),
    ];
    proptest::collection::vec(step, 1..200)
}

/// Sites 0 and 1 are providers'.
fn site(number: u8) -> (SiteName, Option<Arc<str>>) {
    let name = format!("p{number}");
    if number < 2 { (SiteName::of_provider(&name), Some(name.into())) } else { (SiteName::new(&name), None) }
}

/// What must be in the rows: by day and source, and by day, source and provider's site.
#[derive(Default)]
struct Truth {
    sums: BTreeMap<(u32, SourceName), DayTotals>,
    providers: BTreeMap<(u32, SourceName, Arc<str>), DayTotals>,
}

fn check(store: &Store, truth: &Truth, has_room: bool) {
    let mut sums: BTreeMap<(u32, SourceName), DayTotals> = BTreeMap::new();
    for row in store.values() {
        sums.entry((row.day, row.source.clone())).or_default().add(&counts_of(&row.totals));
        assert!(!row.site.is_empty() || (row.totals.cap, row.totals.position) == (None, None), "{row:?}");
        let is_large = row.totals.sent >= HISTORY_SITE_MIN || row.provider.is_some() || row.site.is_empty();
        assert!(is_large, "{row:?}");
    }
    let is_something = |totals: &DayTotals| *totals != DayTotals::default();
    let truths: BTreeMap<_, _> = truth.sums.iter().filter(|(_, sum)| is_something(sum)).collect();
    let found: BTreeMap<_, _> = sums.iter().filter(|(_, sum)| is_something(sum)).collect();
    assert_eq!(found, truths);
    if has_room {
        let rows = store.iter().filter(|(_, row)| row.provider.is_some()).map(|(place, row)| (place, &row.totals));
        assert!(rows.eq(truth.providers.iter()), "{store:?}");
    }
}

fn run(steps: Vec<Step>, rows_max: usize) {
    let (mut store, mut truth, mut seconds) = (Store::new(), Truth::default(), 200_000_u64);
    let mut ledger = Ledger::with_room(rows_max, [], at(seconds));
    for step in steps {
        let now = at(seconds);
        match step {
            Step::Add { site: number, source: source_number, part } => {
                let (site, provider) = site(number);
                let source = source(source_number);
                ledger.add(&site, &source, provider.as_ref(), &part, now);
                let day = ledger.day();
                truth.sums.entry((day, source.clone())).or_default().add(&counts_of(&part));
                if provider.is_some() {
                    truth.providers.entry((day, source, Arc::clone(&site.0))).or_default().add(&part);
                }
            }
            Step::Write => save(&mut store, ledger.rows_to_write(now)),
            Step::Restart => {
                save(&mut store, ledger.rows_to_write(now));
                ledger = Ledger::with_room(rows_max, store.values().cloned(), now);
            }
            Step::Pass(by) => seconds = seconds.saturating_add_signed(by.into()),
        }
        let closed = ledger.closed.iter().filter(|row| !row.site.is_empty()).count();
        assert!(ledger.sites + closed <= rows_max + store.len(), "{ledger:?}");
    }
    save(&mut store, ledger.rows_to_write(at(seconds)));
    check(&store, &truth, rows_max > 1_000);
}

proptest! {
    #[test]
    fn the_rows_of_a_day_add_up_to_what_was_counted(steps in steps()) {
        run(steps, LEDGER_MAX);
    }

    #[test]
    fn they_do_where_there_is_room_for_few_sites(steps in steps(), rows_max in 0..6_usize) {
        run(steps, rows_max);
    }
}
