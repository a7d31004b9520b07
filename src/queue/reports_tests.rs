//! Parts of reports: taken once, whoever brings them again, and remembered as long as the report could come.

use std::time::Duration;

use super::sent_tests::{AT, DAY, Lab};
use super::testing::line;
use super::*;
use crate::events::EventKind;

fn name_at(id: &str, ends_at: Timestamp, now: Timestamp) -> Option<ReportName> {
    ReportName::new(&["dmarc", "receiver.test", id, "sender.test"], ends_at.minus(DAY), ends_at, now)
}

fn name(id: &str) -> ReportName {
    name_at(id, AT, AT).unwrap()
}

fn rows(count: usize) -> Vec<crate::events::EventLine> {
    (0..count).map(|_| line(EventKind::Report)).collect()
}

#[tokio::test(start_paused = true)]
async fn a_part_of_a_report_is_taken_once_also_after_a_power_cut() {
    let lab = Lab::new();
    let before = lab.events();
    assert_eq!(lab.queue.take_report(&name("1"), 0, rows(3)).await.unwrap(), ReportEffect::Taken);
    assert_eq!(lab.store.unsynced(), 0, "the host may get its 250");
    lab.store.crash();
    assert_eq!(lab.queue.take_report(&name("1"), 0, rows(3)).await.unwrap(), ReportEffect::AlreadyKnown);
    assert_eq!(lab.events() - before, 3);
    let after = Lab::on(lab.store.clone(), AT);
    assert_eq!(after.queue.take_report(&name("1"), 0, rows(3)).await.unwrap(), ReportEffect::AlreadyKnown);
    assert_eq!(
        after.queue.take_report(&name("1"), 1, rows(2)).await.unwrap(),
        ReportEffect::Taken,
        "the part that is missing"
    );
    assert_eq!(after.queue.take_report(&name("2"), 0, rows(1)).await.unwrap(), ReportEffect::Taken);
    assert_eq!(lab.events() - before, 6);
    lab.assert_sound();
}

#[tokio::test(start_paused = true)]
async fn of_a_hundred_tasks_with_the_same_part_one_takes_it() {
    let lab = Lab::new();
    let before = lab.events();
    let tasks: Vec<_> = (0..100)
        .map(|_| {
            let queue = lab.queue.clone();
            tokio::spawn(async move { queue.take_report(&name("1"), 0, rows(2)).await.unwrap() })
        })
        .collect();
    let mut taken = 0;
    for task in tasks {
        taken += usize::from(task.await.unwrap() == ReportEffect::Taken);
        assert_eq!(lab.store.unsynced(), 0, "whoever has an answer has it from the disk");
    }
    assert_eq!((taken, lab.events() - before), (1, 2));
    lab.assert_sound();
}

#[test]
fn a_report_is_known_by_all_that_names_it() {
    let known = name("1");
    let other_end = Timestamp::from_millis(AT.millis() - 1);
    for other in [
        name("2"),
        name_at("1", other_end, AT).unwrap(),
        ReportName::new(&["tls-rpt", "receiver.test", "1", "sender.test"], AT.minus(DAY), AT, AT).unwrap(),
        ReportName::new(&["dmarc", "receiver.test1", "", "sender.test"], AT.minus(DAY), AT, AT).unwrap(),
        ReportName::new(&["dmarc", "receiver.test", "1", "other.test"], AT.minus(DAY), AT, AT).unwrap(),
        ReportName::new(&["dmarc", "receiver.test", "1", "sender.test"], AT, AT, AT).unwrap(),
    ] {
        assert_ne!(other, known);
    }
    assert_eq!(name_at("1", AT, AT.plus(DAY)).unwrap(), known, "whenever it comes");
}

#[test]
fn a_report_of_long_ago_or_of_a_time_to_come_has_no_name() {
    let second = Duration::from_secs(1);
    for (now, is_taken) in [
        (AT.plus(REPORT_AGE_MAX), true),
        (AT.plus(REPORT_AGE_MAX + second), false),
        (AT.minus(REPORT_AHEAD_MAX), true),
        (AT.minus(REPORT_AHEAD_MAX + second), false),
    ] {
        assert_eq!(name_at("1", AT, now).is_some(), is_taken, "{now}");
    }
    assert_eq!(name_at("1", Timestamp::MAX, AT), None);
}

#[tokio::test(start_paused = true)]
async fn a_mark_stays_as_long_as_its_report_could_come_and_goes_then() {
    let lab = Lab::new();
    lab.queue.take_report(&name("1"), 0, rows(1)).await.unwrap();
    let marks = |lab: &Lab| {
        let (from, to) = format::counter_range(format::COUNTER_REPORT, 0, u64::MAX);
        lab.store.scan(Family::Counter, &from, &to, 100).unwrap().len()
    };
    let last = AT.plus(REPORT_AGE_MAX);
    lab.clock.set(last);
    // Another report brings the sweep.
    lab.queue.take_report(&name_at("2", last, last).unwrap(), 0, rows(1)).await.unwrap();
    let again = name_at("1", AT, last).unwrap();
    assert_eq!(lab.queue.take_report(&again, 0, rows(1)).await.unwrap(), ReportEffect::AlreadyKnown);
    assert_eq!(marks(&lab), 2);
    let later = last.plus(Duration::from_secs(3 * 3_600));
    lab.clock.set(later);
    lab.queue.take_report(&name_at("3", later, later).unwrap(), 0, rows(1)).await.unwrap();
    assert_eq!((marks(&lab), name_at("1", AT, later)), (2, None));
    lab.assert_sound();
}

#[tokio::test(start_paused = true)]
async fn reports_leave_half_of_the_outbox_to_mail() {
    let lab = Lab::new();
    let limits = Settings { events_pending_max: 10, ..super::sent_tests::settings(DAY) };
    lab.queue.reload(&limits);
    let mut taken = 0;
    let refusal = loop {
        match lab.queue.take_report(&name(&taken.to_string()), 0, rows(1)).await {
            Ok(_) => taken += 1,
            Err(error) => break error,
        }
    };
    assert!(matches!(refusal, AcceptError::QueueFull { limit: 5 }), "{refusal}");
    assert_eq!(taken, 5);
    lab.queue.check(0).unwrap();
    lab.assert_sound();
}
