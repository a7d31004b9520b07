//! Reports on recipients: each is told once, whoever else reads the same at that moment, and all of it or nothing is on the disk.

use std::sync::Arc;

use super::invariants::violations;
use super::rocks::{RocksSettings, RocksStore};
use super::sent_tests::{AT, Lab, feedback, settings};
use super::store::{Change, Family, Key, Store};
use super::suppression_tests::{entry, list};
use super::telling::Telling;
use super::testing::{line, new_message};
use super::*;
use crate::events::EventKind;
use crate::types::{ManualClock, SuppressionReason};

/// With two events, an address for two lists, and a message to the sender.
fn full(lab: &Lab, id: MessageId) -> Feedback {
    let suppressed = || entry("user@d0.test", SuppressionReason::Complaint);
    let note = new_message(lab.queue.new_id(), 1, NewBody::Inline(Bytes::from_static(b"\r\n")));
    Feedback {
        events: vec![line(EventKind::Complaint), line(EventKind::Bounce)],
        suppress: vec![(list(1), suppressed()), (list(3), suppressed())],
        notifications: vec![note],
        ..feedback(id, 0, FeedbackKind::Complaint)
    }
}

#[tokio::test(start_paused = true)]
async fn all_that_a_report_does_is_on_the_disk_when_it_gets_its_250() {
    let mut lab = Lab::new();
    let message = lab.accept(1).await;
    lab.end(&message, 0, RecipientOutcome::Delivered).await;
    let events = lab.events();
    let report = full(&lab, message.id);
    let note = report.notifications[0].id;
    assert_eq!(lab.queue.apply_feedback(report).await.unwrap(), FeedbackEffect::Applied);
    lab.store.crash();
    assert_eq!(lab.events() - events, 3, "its own two, and the Send of the notification");
    assert_eq!(lab.handoffs.recv().await.unwrap().message.id, note);
    assert_eq!(lab.queue.health().messages(), 1);
    for list in [list(1), list(3)] {
        assert_eq!(lab.queue.suppression_count(&list), 1);
    }
    let sent = lab.queue.sent(message.id, 0).unwrap().unwrap();
    assert_eq!((sent.complained_at, sent.bounced_at, sent.unsubscribed_at), (Some(AT), None, None));
    lab.assert_sound();
    let after = Lab::on(lab.store.clone(), AT);
    let again = full(&after, message.id);
    assert_eq!(after.queue.apply_feedback(again).await.unwrap(), FeedbackEffect::AlreadyKnown);
    after.sync().await;
    assert_eq!(lab.events() - events, 3, "a restart forgets nothing");
    assert_eq!(after.queue.health().messages(), 1);
    lab.assert_sound();
}

#[tokio::test(start_paused = true)]
async fn of_a_hundred_tasks_with_the_same_report_one_tells_it() {
    let mut lab = Lab::new();
    let message = lab.accept(2).await;
    lab.end(&message, 0, RecipientOutcome::Delivered).await;
    let (events, queue) = (lab.events(), lab.queue.clone());
    // All of them look before the committer's task runs: one batch has them all.
    let reports: Vec<_> = (0..100).map(|_| full(&lab, message.id)).collect();
    let tasks = reports.into_iter().map(|report| {
        let queue = queue.clone();
        tokio::spawn(async move { queue.apply_feedback(report).await.unwrap() })
    });
    let tasks: Vec<_> = tasks.collect();
    let mut applied = 0;
    for task in tasks {
        match task.await.unwrap() {
            FeedbackEffect::Applied => applied += 1,
            other => assert_eq!(other, FeedbackEffect::AlreadyKnown),
        }
        assert_eq!(lab.store.unsynced(), 0, "whoever has an answer has it from the disk");
    }
    assert_eq!((applied, lab.events() - events), (1, 3));
    assert_eq!((lab.queue.health().messages(), lab.queue.suppression_count(&list(1))), (2, 1));
    lab.assert_sound();
}

#[test]
fn threads_that_report_the_same_to_rocksdb_tell_it_once() {
    let directory = tempfile::tempdir().unwrap();
    let store = Arc::new(RocksStore::open(directory.path(), &RocksSettings::default()).unwrap());
    let clock = Arc::new(ManualClock::at(AT));
    let Opened { queue, handoffs, committer, .. } =
        Queue::open(store.clone(), &settings(super::sent_tests::DAY), clock, 1).unwrap();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(4).enable_all().build().unwrap();
    let reports = |id: MessageId| {
        let queue = queue.clone();
        async move {
            let kinds = (0..100).map(|n| FeedbackKind::ALL[n % 2]);
            let tasks = kinds.map(|kind| {
                let queue = queue.clone();
                tokio::spawn(async move { queue.apply_feedback(feedback(id, 0, kind)).await.unwrap() })
            });
            let mut applied = 0;
            for task in tasks.collect::<Vec<_>>() {
                applied += usize::from(task.await.unwrap() == FeedbackEffect::Applied);
            }
            applied
        }
    };
    let events = || store.scan(Family::Outbox, b"", &[0xff; 9], 1_000).unwrap().len();
    for _ in 0..5 {
        let before = events();
        let new = new_message(queue.new_id(), 1, NewBody::Inline(Bytes::from_static(b"\r\n")));
        let id = new.id;
        runtime.block_on(queue.accept(new)).unwrap();
        assert_eq!(runtime.block_on(reports(id)), 2, "a bounce and a complaint");
        assert_eq!(events() - before, 3);
    }
    assert_eq!(violations(&*store).unwrap(), Vec::<String>::new());
    drop((queue, handoffs));
    committer.join().unwrap();
}

#[tokio::test(start_paused = true)]
async fn kinds_and_recipients_are_told_apart_and_a_bounce_in_the_session_was_told() {
    let mut lab = Lab::new();
    let message = lab.accept(2).await;
    lab.end(&message, 0, RecipientOutcome::Delivered).await;
    lab.end(&message, 1, RecipientOutcome::Bounced).await;
    use FeedbackEffect::{AlreadyKnown, Applied};
    for (index, kind, expected) in [
        (0, FeedbackKind::Bounce, Applied),
        (0, FeedbackKind::Remark, Applied),
        (0, FeedbackKind::Complaint, Applied),
        (0, FeedbackKind::Remark, AlreadyKnown),
        (0, FeedbackKind::Unsubscribe, Applied),
        (0, FeedbackKind::Bounce, AlreadyKnown),
        (0, FeedbackKind::Unsubscribe, AlreadyKnown),
        (1, FeedbackKind::Bounce, AlreadyKnown),
        (1, FeedbackKind::Complaint, Applied),
    ] {
        let report = feedback(message.id, index, kind);
        assert_eq!(lab.queue.apply_feedback(report).await.unwrap(), expected, "{index} {kind:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_report_that_is_faster_than_its_outcome_is_kept_beside_it() {
    let mut lab = Lab::new();
    let message = lab.accept(1).await;
    let report = || feedback(message.id, 0, FeedbackKind::Bounce);
    assert_eq!(lab.queue.apply_feedback(report()).await.unwrap(), FeedbackEffect::Applied);
    let pending = lab.queue.sent(message.id, 0).unwrap().unwrap();
    assert_eq!((pending.outcome, pending.bounced_at), (RecipientOutcome::Pending, Some(AT)));
    assert_eq!(lab.queue.apply_feedback(report()).await.unwrap(), FeedbackEffect::AlreadyKnown);
    lab.end(&message, 0, RecipientOutcome::Delivered).await;
    let sent = lab.queue.sent(message.id, 0).unwrap().unwrap();
    assert_eq!((sent.outcome, sent.bounced_at), (RecipientOutcome::Delivered, Some(AT)));
    assert_eq!(lab.queue.apply_feedback(report()).await.unwrap(), FeedbackEffect::AlreadyKnown);
    lab.assert_sound();
}

/// The bounce of a recipient that was tried before: an event, and a message to the sender.
fn telling(lab: &Lab) -> Telling {
    let note = new_message(lab.queue.new_id(), 1, NewBody::Inline(Bytes::from_static(b"\r\n")));
    Telling { recipients: vec![0], events: vec![line(EventKind::Bounce)], notifications: vec![note], marks: Vec::new() }
}

#[tokio::test(start_paused = true)]
async fn what_a_report_told_of_a_pending_recipient_is_not_told_again_when_it_bounces() {
    for is_reported in [true, false] {
        let mut lab = Lab::new();
        let message = lab.accept(1).await;
        if is_reported {
            let report = feedback(message.id, 0, FeedbackKind::Bounce);
            assert_eq!(lab.queue.apply_feedback(report).await.unwrap(), FeedbackEffect::Applied);
        }
        // A complaint is another thing.
        lab.queue.apply_feedback(feedback(message.id, 0, FeedbackKind::Complaint)).await.unwrap();
        let (events, told) = (lab.events(), telling(&lab));
        let note = told.notifications[0].id;
        lab.end_telling(&message, 0, RecipientOutcome::Bounced, |settlement| settlement.tellings.push(told)).await;
        let (expected_events, expected_messages) = if is_reported { (0, 0) } else { (2, 1) };
        assert_eq!(lab.events() - events, expected_events, "{is_reported}");
        assert_eq!(lab.queue.health().messages(), expected_messages, "{is_reported}");
        assert_eq!(lab.handoffs.try_recv().ok().map(|handoff| handoff.message.id), (!is_reported).then_some(note));
        let report = feedback(message.id, 0, FeedbackKind::Bounce);
        assert_eq!(lab.queue.apply_feedback(report).await.unwrap(), FeedbackEffect::AlreadyKnown);
        lab.sync().await;
        lab.assert_sound();
    }
}

#[tokio::test(start_paused = true)]
async fn a_bounce_in_the_session_and_its_report_at_the_same_moment_are_told_once() {
    for was_tried in [true, false] {
        let mut lab = Lab::new();
        let message = lab.accept(1).await;
        let before = lab.events();
        let told = telling(&lab);
        // Whoever looked before the settlement was written must hear of it from the committer.
        let (report, ()) = tokio::join!(
            lab.queue.apply_feedback(feedback(message.id, 0, FeedbackKind::Bounce)),
            lab.end_telling(&message, 0, RecipientOutcome::Bounced, |settlement| {
                if was_tried {
                    settlement.tellings.push(told);
                } else {
                    settlement.events.extend(told.events);
                    settlement.notifications.extend(told.notifications);
                }
            })
        );
        let expected = if report.unwrap() == FeedbackEffect::Applied { 1 } else { 2 };
        assert_eq!(
            lab.events() - before,
            expected,
            "{was_tried}: the report's, or that of the session and its message's"
        );
        lab.sync().await;
        lab.assert_sound();
    }
}

#[tokio::test(start_paused = true)]
async fn a_full_queue_takes_no_report_that_is_to_be_forwarded_and_the_same_counts_later() {
    let mut lab = Lab::new();
    let message = lab.accept(1).await;
    lab.end(&message, 0, RecipientOutcome::Delivered).await;
    let events = lab.events();
    lab.queue.reload(&Settings { messages_max: 0, ..settings(super::sent_tests::DAY * 30) });
    let refused = lab.queue.apply_feedback(full(&lab, message.id)).await;
    assert!(matches!(refused, Err(AcceptError::QueueFull { .. })), "{refused:?}");
    assert_eq!(lab.events(), events);
    let plain = feedback(message.id, 0, FeedbackKind::Bounce);
    assert_eq!(lab.queue.apply_feedback(plain).await.unwrap(), FeedbackEffect::Applied, "it adds no message");
    lab.queue.reload(&settings(super::sent_tests::DAY * 30));
    assert_eq!(lab.queue.apply_feedback(full(&lab, message.id)).await.unwrap(), FeedbackEffect::Applied);
}

#[tokio::test(start_paused = true)]
async fn a_disk_that_fails_keeps_what_a_settlement_tells() {
    let mut lab = Lab::new();
    let message = lab.accept(1).await;
    let (before, told) = (lab.events(), telling(&lab));
    lab.store.set_failing(true);
    let ended = lab.end_telling(&message, 0, RecipientOutcome::Bounced, |settlement| settlement.tellings.push(told));
    let mend = async {
        tokio::time::sleep(std::time::Duration::from_secs(5)).await;
        lab.store.set_failing(false);
    };
    tokio::join!(ended, mend);
    assert_eq!(lab.events() - before, 2);
    assert!(lab.handoffs.try_recv().is_ok());
    lab.assert_sound();
}

#[tokio::test(start_paused = true)]
async fn of_strangers_nothing_is_written() {
    let mut lab = Lab::new();
    let message = lab.accept(1).await;
    let (kept, events) = (lab.kept(), lab.events());
    for (id, index) in [(message.id, 1), (message.id, u16::MAX), (MessageId::new(AT, 99), 0)] {
        let report = Feedback { id, index, ..full(&lab, message.id) };
        assert_eq!(lab.queue.apply_feedback(report).await.unwrap(), FeedbackEffect::Unknown);
    }
    lab.sync().await;
    assert_eq!((lab.kept(), lab.events(), lab.queue.has_suppressions()), (kept, events, false));
}

#[tokio::test(start_paused = true)]
async fn a_disk_that_fails_leaves_nothing_and_the_same_report_counts_later() {
    let mut lab = Lab::new();
    let message = lab.accept(1).await;
    lab.end(&message, 0, RecipientOutcome::Delivered).await;
    lab.sync().await;
    let (kept, events) = (lab.kept(), lab.events());
    lab.store.set_failing(true);
    let tasks: Vec<_> = (0..3).map(|_| (lab.queue.clone(), full(&lab, message.id))).collect();
    let tasks =
        tasks.into_iter().map(|(queue, report)| tokio::spawn(async move { queue.apply_feedback(report).await }));
    for task in tasks.collect::<Vec<_>>() {
        let refused = task.await.unwrap();
        assert!(matches!(refused, Err(AcceptError::NotDurable(_))), "{refused:?}");
    }
    assert_eq!((lab.kept(), lab.events(), lab.queue.has_suppressions()), (kept, events, false));
    lab.store.set_failing(false);
    assert_eq!(lab.queue.apply_feedback(full(&lab, message.id)).await.unwrap(), FeedbackEffect::Applied);
    assert_eq!(lab.events() - events, 3);
    lab.assert_sound();
}

#[tokio::test(start_paused = true)]
async fn a_damaged_record_does_not_keep_its_report_away() {
    let mut lab = Lab::new();
    let message = lab.accept(1).await;
    lab.end(&message, 0, RecipientOutcome::Delivered).await;
    let key = Key::new(&queue_format::sent_key(message.id.as_bytes(), 0));
    let junk = Change::Put { family: Family::Sent, key, value: Bytes::from_static(b"junk") };
    lab.store.write(&[junk], true).unwrap();
    let report = || feedback(message.id, 0, FeedbackKind::Bounce);
    assert_eq!(lab.queue.apply_feedback(report()).await.unwrap(), FeedbackEffect::Applied);
    assert_eq!(lab.queue.apply_feedback(report()).await.unwrap(), FeedbackEffect::AlreadyKnown);
}

#[test]
fn the_stored_numbers_of_kinds_never_change() {
    let codes: Vec<(u8, &str)> = FeedbackKind::ALL.into_iter().map(|kind| (kind as u8, kind.name())).collect();
    assert_eq!(codes, [(1, "bounce"), (2, "complaint"), (3, "unsubscribe"), (4, "remark")]);
    assert!(FeedbackKind::ALL.into_iter().all(|kind| FeedbackKind::from_code(kind as u8) == Some(kind)));
    assert_eq!(FeedbackKind::from_code(0), None);
}
