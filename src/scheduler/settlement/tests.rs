//! What an attempt comes to, for one recipient.

use bytes::Bytes;

use super::*;
use crate::events::EventKind;
use crate::policy::mailing::MailRule;
use crate::types::{
    BodyKind, Domain, EmailAddress, Envelope, Hour, Mark, PoolName, Priority, Recipient, ReversePath, SuppressionTier,
};

const ACCEPTED_AT: Timestamp = Timestamp::from_millis(1_000_000_000);
const LIFETIME: Duration = Duration::from_secs(3_600);

fn message() -> StoredMessage {
    let address = EmailAddress::parse("user@a.test", false).unwrap();
    StoredMessage {
        id: MessageId::new(ACCEPTED_AT, 1),
        accepted_at: ACCEPTED_AT,
        expires_at: ACCEPTED_AT.plus(LIFETIME),
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
        domains: vec![Domain::parse("a.test").unwrap()],
        header_bytes: 0,
        body_bytes: 10,
        body_parts: 0,
        recipient_headers: false,
        origin: crate::queue::Origin { caller: "test".into(), ..Default::default() },
        mail_json: Bytes::from_static(b"{}"),
    }
}

/// Those of a config without a word on any of it, but for which bounces are mailed.
fn settings(rule: MailRule) -> SettlementSettings {
    SettlementSettings {
        hostname: "mta.test".to_owned(),
        retry: retry::Settings::default(),
        mail_bounces: Arc::new(Mailing::by_rule(rule)),
        notification_lifetime: LIFETIME,
        signers: Arc::default(),
        counting: Counting::default(),
        listing: Arc::default(),
    }
}

/// The events of an attempt that sent the final dot and got no reply, ended so long after acceptance.
fn unanswered(
    age: Duration,
    kind: AttemptKind,
    states: Vec<Option<RecipientState>>,
) -> (Decided, Vec<(EventKind, bool)>) {
    let message = StoredMessage { states, ..message() };
    let attempt = Attempt {
        message: &message,
        key: JobKey { id: message.id, group: 0 },
        due_at: Some(ACCEPTED_AT),
        now: ACCEPTED_AT.plus(age),
        ambiguous: false,
        kind,
        blocks: 0,
        source: None,
        original: b"",
    };
    let mut verdict = Fault::ConnectionLost.verdict();
    verdict.rule = AMBIGUOUS_RULE.into();
    let words = Words::Local("lost".to_owned());
    let fate = Fate { index: 0, verdict, status: Fault::ConnectionLost.status(), words, way: Arc::default() };
    let settings = SettlementSettings {
        retry: retry::Settings { delay_notices: vec![Duration::from_secs(600)], ..retry::Settings::default() },
        ..settings(MailRule::Never)
    };
    let decided = settle(&attempt, &[fate], &settings, &mut || MessageId::new(ACCEPTED_AT, 2));
    let is_marked = |json: &[u8]| String::from_utf8_lossy(json).contains("\"ambiguous\":true");
    let events = decided.settlement.events.iter().map(|event| (event.kind, is_marked(&event.json))).collect();
    (decided, events)
}

#[test]
fn an_attempt_without_a_reply_to_its_final_dot_is_ambiguous_in_its_own_event() {
    let (_, events) = unanswered(LIFETIME * 2, AttemptKind::Counts, vec![None]);
    assert_eq!(events, [(EventKind::Bounce, true)], "the lifetime is over: there is no later event");
    let (_, events) = unanswered(Duration::from_secs(601), AttemptKind::Counts, vec![None]);
    assert_eq!(events, [(EventKind::DeliveryDelay, true)]);
}

#[test]
fn a_delay_notice_without_an_attempt_keeps_the_mark() {
    let (decided, _) = unanswered(Duration::from_secs(60), AttemptKind::Counts, vec![None]);
    let (_, state) = decided.settlement.states.into_iter().next().unwrap();
    assert!(state.ambiguous);
    let (_, events) = unanswered(Duration::from_secs(601), AttemptKind::Notice, vec![Some(state)]);
    assert_eq!(events, [(EventKind::DeliveryDelay, true)]);
}

/// What a recipient that is held back comes to: the event as text, notifications, and its state.
fn held_back(tier: SuppressionTier, reason: SuppressionReason, kind: AttemptKind) -> (Decided, String) {
    let mut message = message();
    message.origin.pool = PoolName::parse("own").unwrap();
    message.origin.priority = Priority::Bulk;
    message.envelope.reverse_path = ReversePath::Mailbox(EmailAddress::parse("from@b.test", false).unwrap());
    let attempt = Attempt {
        message: &message,
        key: JobKey { id: message.id, group: 0 },
        due_at: Some(ACCEPTED_AT),
        now: ACCEPTED_AT,
        ambiguous: false,
        kind,
        blocks: 0,
        source: None,
        original: b"Subject: x\r\n\r\n",
    };
    let settings = settings(MailRule::Always);
    let fate = Fate::suppressed(0, Suppressed { tier, reason });
    let decided = settle(&attempt, &[fate], &settings, &mut || MessageId::new(ACCEPTED_AT, 2));
    let [event] = &decided.settlement.events[..] else { panic!("one event: {decided:?}") };
    let text = String::from_utf8(event.json.to_vec()).unwrap();
    (decided, text)
}

#[test]
fn held_back_recipients_end_without_an_attempt_by_the_event_of_their_list() {
    use SuppressionReason::{Bounce, Complaint, Unsubscribe};
    use SuppressionTier::{Global, Set, Tenant};
    let account = "\"bounceSubType\":\"OnAccountSuppressionList\"";
    let complaint = "\"complaintSubType\":\"OnAccountSuppressionList\"";
    let unsubscribed = "\"bounceSubType\":\"UnsubscribedRecipient\"";
    for (tier, reason, part, notifications) in [
        (Global, Bounce, "\"bounceSubType\":\"Suppressed\"", 1),
        (Global, Complaint, "\"bounceSubType\":\"Suppressed\"", 0),
        (Tenant, Bounce, account, 1),
        (Tenant, Complaint, complaint, 0),
        (Set, Bounce, account, 1),
        (Set, Complaint, complaint, 0),
        (Global, Unsubscribe, "\"bounceSubType\":\"Suppressed\"", 1),
        (Tenant, Unsubscribe, unsubscribed, 1),
        (Set, Unsubscribe, unsubscribed, 1),
    ] {
        for kind in [AttemptKind::Decision, AttemptKind::Counts] {
            let (decided, text) = held_back(tier, reason, kind);
            assert!(text.contains(part), "{tier:?} {reason:?}: {text}");
            assert!(text.contains(&format!("\"rule\":\"{}\"", tier.rule())), "{text}");
            assert!(!text.contains("\"attempt\""), "{text}");
            assert!(text.contains("\"pool\":\"own\""), "{text}");
            assert_eq!(decided.settlement.notifications.len(), notifications, "{tier:?} {reason:?}");
            for notification in &decided.settlement.notifications {
                let origin = &notification.origin;
                assert_eq!((origin.pool.as_str(), origin.priority), ("own", Priority::Normal));
            }
            let (_, state) = &decided.settlement.states[0];
            assert_eq!((state.outcome, state.attempts), (RecipientOutcome::Bounced, 0));
            assert_eq!(decided.tally.suppressed, [Suppressed { tier, reason }]);
        }
    }
}

/// Who of a recipient with such a past is remembered after an attempt, or a decision without one.
fn remembered(message: &StoredMessage, what: &str, kind: AttemptKind) -> usize {
    let attempt = Attempt {
        message,
        key: JobKey { id: message.id, group: 0 },
        due_at: Some(ACCEPTED_AT),
        now: ACCEPTED_AT,
        ambiguous: false,
        kind,
        blocks: 0,
        source: None,
        original: b"Subject: x\r\n\r\n",
    };
    let (tier, reason) = (SuppressionTier::Tenant, SuppressionReason::Bounce);
    let mut verdict = Fault::ConnectionLost.verdict();
    verdict.disposition = match what {
        "delivered" => Disposition::Delivered,
        "bounced" => Disposition::Bounced,
        _ => Disposition::Deferred,
    };
    let words = Words::Local(what.to_owned());
    let fate = match what {
        "suppressed" => Fate::suppressed(0, Suppressed { tier, reason }),
        "untried" => Fate::untried(0, Arc::default()),
        _ => Fate { index: 0, verdict, status: Fault::ConnectionLost.status(), words, way: Arc::default() },
    };
    let settings = settings(MailRule::Always);
    settle(&attempt, &[fate], &settings, &mut || MessageId::new(ACCEPTED_AT, 2)).settlement.sent.len()
}

#[test]
fn who_ended_after_an_attempt_is_remembered_and_nobody_else() {
    let mut new = message();
    new.origin.tenant = "shop".into();
    let tried = RecipientState { attempts: 1, ..RecipientState::default() };
    let mut old = StoredMessage { states: vec![Some(tried)], ..new.clone() };
    use AttemptKind::{Counts, Decision, Notice};
    for (what, kind, expected) in [
        ("delivered", Counts, [1, 1]),
        ("bounced", Counts, [1, 1]),
        ("bounced", Decision, [0, 1]),
        ("suppressed", Counts, [0, 1]),
        ("suppressed", Decision, [0, 1]),
        ("deferred", Counts, [0, 0]),
        ("deferred", Notice, [0, 0]),
        ("untried", Counts, [0, 0]),
    ] {
        assert_eq!([&new, &old].map(|message| remembered(message, what, kind)), expected, "{what} {kind:?}");
    }
    old.expires_at = ACCEPTED_AT;
    assert_eq!(remembered(&old, "deferred", Counts), 1, "its time is over");
    assert_eq!(remembered(&message(), "delivered", Counts), 0, "it is a notification of ours");
}

/// When the one job of two recipients is due again, and whether for a block, by what became of each: `greylisted`, `untried`,
/// `blocked` or `delivered`.
fn due_again(first: &str, second: &str, blocks: u8) -> (Option<Duration>, bool) {
    let (due, blocked, _) = settled_again(first, second, blocks, None);
    (due, blocked)
}

/// The same with the source that it keeps then, where it kept one before.
fn settled_again(
    first: &str,
    second: &str,
    blocks: u8,
    source: Option<SourceName>,
) -> (Option<Duration>, bool, Option<SourceName>) {
    let mut message = message();
    let recipient = message.envelope.recipients[0].clone();
    message.envelope.recipients.push(recipient);
    message.groups.push(0);
    message.states = vec![None, None];
    let attempt = Attempt {
        message: &message,
        key: JobKey { id: message.id, group: 0 },
        due_at: Some(ACCEPTED_AT),
        now: ACCEPTED_AT,
        ambiguous: false,
        kind: AttemptKind::Counts,
        blocks,
        source,
        original: b"",
    };
    let fate = |index: usize, what: &str| {
        if what == "untried" {
            return Fate::untried(index, Arc::default());
        }
        let mut verdict = Fault::ConnectionLost.verdict();
        match what {
            "greylisted" => verdict.retry = RetryKind::Greylist,
            "blocked" => verdict.retry = RetryKind::Blocked,
            "delivered" => verdict.disposition = Disposition::Delivered,
            "lost" => {}
            other => panic!("{other}"),
        }
        let words = Words::Local(what.to_owned());
        Fate { index, verdict, status: Fault::ConnectionLost.status(), words, way: Arc::default() }
    };
    let settings = SettlementSettings {
        retry: retry::Settings { jitter_percent: 0, ..retry::Settings::default() },
        ..settings(MailRule::Never)
    };
    let fates = [fate(0, first), fate(1, second)];
    let decided = settle(&attempt, &fates, &settings, &mut || MessageId::new(ACCEPTED_AT, 2));
    match decided.settled {
        Settled::Due { at, blocked, source, .. } => (Some(at.since(ACCEPTED_AT)), blocked, source),
        _ => (None, false, None),
    }
}

#[test]
fn what_was_not_tried_is_due_at_once_unless_another_one_must_not_be_tried_so_soon() {
    let (minute, at_once) = (Duration::from_secs(60), Duration::from_millis(1));
    assert_eq!(due_again("delivered", "untried", 0), (Some(at_once), false));
    assert_eq!(due_again("greylisted", "untried", 0), (Some(minute), false));
    assert_eq!(due_again("untried", "greylisted", 0), (Some(minute), false));
    assert_eq!(due_again("blocked", "untried", 0), (Some(at_once), true));
    assert_eq!(due_again("blocked", "greylisted", 0), (Some(minute), true));
    let (due, blocked) = due_again("blocked", "delivered", BLOCKS_IN_A_ROW_MAX);
    assert!(due.unwrap() >= minute && !blocked, "the third source in a row is not tried at once");
}

#[test]
fn who_may_have_been_in_flight_at_an_unclean_stop_is_marked_though_the_attempt_had_no_room_for_him() {
    let message = to_many(2);
    let attempt = |ambiguous| Attempt {
        message: &message,
        key: JobKey { id: message.id, group: 0 },
        due_at: Some(ACCEPTED_AT),
        now: ACCEPTED_AT,
        ambiguous,
        kind: AttemptKind::Counts,
        blocks: 0,
        source: None,
        original: b"",
    };
    for ambiguous in [false, true] {
        let fates = [Fate::untried(0, Arc::default())];
        let new_id = &mut || MessageId::new(ACCEPTED_AT, 2);
        let decided = settle(&attempt(ambiguous), &fates, &settings(MailRule::Never), new_id);
        let [(0, state)] = &decided.settlement.states[..] else { panic!("{decided:?}") };
        assert!(matches!(decided.settled, Settled::Due { .. }), "its due time tells of the stop no more");
        assert_eq!(state.ambiguous, ambiguous);
    }
}

#[test]
fn a_source_is_kept_over_what_was_not_tried_and_let_go_by_a_block() {
    let kept = SourceName::parse("kept");
    for (first, second, stays) in
        [("delivered", "untried", true), ("lost", "delivered", true), ("blocked", "delivered", false)]
    {
        let (_, _, source) = settled_again(first, second, 0, kept.clone());
        assert_eq!(source, if stays { kept.clone() } else { None }, "{first} {second}");
    }
}

/// The marks of an attempt with these fates at a site of Google's, and their scopes.
fn marks(message: &StoredMessage, fates: &[Fate], counting: Counting, now: Timestamp) -> Vec<(Mark, u32, Vec<String>)> {
    let attempt = Attempt {
        message,
        key: JobKey { id: message.id, group: 0 },
        due_at: Some(ACCEPTED_AT),
        now,
        ambiguous: false,
        kind: AttemptKind::Counts,
        blocks: 0,
        source: None,
        original: b"",
    };
    let settings = SettlementSettings { counting, ..settings(MailRule::Never) };
    let decided = settle(&attempt, fates, &settings, &mut || MessageId::new(ACCEPTED_AT, 2));
    assert!(decided.settlement.marks.iter().all(|charge| charge.hour == Hour::of(now)));
    let charges = decided.settlement.marks.into_iter();
    charges.map(|charge| (charge.mark, charge.count, charge.scopes.iter().map(str::to_owned).collect())).collect()
}

fn to_many(count: usize) -> StoredMessage {
    let one = message();
    let mut envelope = one.envelope.clone();
    envelope.recipients = vec![one.envelope.recipients[0].clone(); count];
    let origin = crate::queue::Origin {
        caller: "app".into(),
        tenant: "shop".into(),
        identity: "shop.test".into(),
        configuration_set: "news".into(),
        ..Default::default()
    };
    StoredMessage { envelope, groups: vec![0; count], states: vec![None; count], origin, ..one }
}

/// What hosts said, one after the other, all on one way.
fn said(replies: &[&str]) -> Vec<Fate> {
    let way = Arc::new(Way {
        site: Some("provider:google".to_owned()),
        source_name: SourceName::parse("192.0.2.7"),
        ..Way::default()
    });
    let rules = crate::policy::Rules::built_in();
    let fates = replies.iter().enumerate().map(|(index, text)| {
        let (code, rest) = text.split_once(' ').unwrap();
        let (status, words) = rest.split_once(' ').unwrap();
        let code = crate::types::ReplyCode::new(code.parse().unwrap()).unwrap();
        let status: EnhancedStatus = status.parse().unwrap();
        let reply = Reply::new(code, Some(status), vec![words.into()]);
        let verdict = rules.classify(&reply, crate::types::Stage::Rcpt, None);
        Fate { index, verdict, status, words: Words::Reply(reply), way: Arc::clone(&way) }
    });
    fates.collect()
}

#[test]
fn each_recipient_that_ended_counts_once_for_all_who_sent_it() {
    let replies = [
        "250 2.1.5 OK",
        "250 2.1.5 OK",
        "550 5.1.1 No such user",
        "550 5.7.1 Message rejected as spam by policy",
        "450 4.2.0 Not now",
        "550 5.1.1 No such user",
    ];
    let counting = Counting { has_sets: true, ..Counting::default() };
    let marks = marks(&to_many(6), &said(&replies), counting, ACCEPTED_AT);
    let sums: Vec<_> = marks.iter().map(|(mark, count, _)| (*mark, *count)).collect();
    assert_eq!(sums, [(Mark::Delivered, 2), (Mark::HardBounce, 1), (Mark::OtherBounce, 1), (Mark::HardBounce, 1)]);
    let expected = [
        "server",
        "tenant/shop",
        "credential/app",
        "identity/shop.test",
        "configuration_set/news",
        "pool/default",
        "source/192.0.2.7",
        "provider/google",
        "tenant_set/shop/news",
    ];
    assert!(marks.iter().all(|(.., scopes)| *scopes == expected), "{marks:?}");
}

#[test]
fn what_runs_out_of_time_ended_without_a_hard_bounce() {
    let counting = Counting { has_sets: false, ..Counting::default() };
    let late = ACCEPTED_AT.plus(LIFETIME);
    let marks = marks(&to_many(1), &said(&["450 4.2.0 Not now"]), counting, late);
    assert_eq!((marks[0].0, marks[0].1), (Mark::OtherBounce, 1));
    assert!(!marks[0].2.iter().any(|scope| scope.contains("set")), "no set is configured: {marks:?}");
}

#[test]
fn suppressed_cancelled_and_exempt_recipients_and_our_own_mail_do_not_count() {
    let counting = Counting::default;
    let bounce = || said(&["550 5.1.1 No such user"]);
    assert_eq!(marks(&to_many(1), &bounce(), counting(), ACCEPTED_AT).len(), 1);
    for (tier, reason) in [
        (SuppressionTier::Global, SuppressionReason::Bounce),
        (SuppressionTier::Tenant, SuppressionReason::Complaint),
        (SuppressionTier::Set, SuppressionReason::Bounce),
    ] {
        let fate = Fate::suppressed(0, Suppressed { tier, reason });
        assert_eq!(marks(&to_many(1), &[fate], counting(), ACCEPTED_AT), []);
    }
    let mut cancelled = bounce();
    cancelled[0].verdict.rule = CANCELLED_RULE.into();
    assert_eq!(marks(&to_many(1), &cancelled, counting(), ACCEPTED_AT), []);
    let exempt = Counting { exempt_domains: vec![Domain::parse("a.test").unwrap()], has_sets: true };
    assert_eq!(marks(&to_many(1), &bounce(), exempt, ACCEPTED_AT), []);
    assert_eq!(marks(&message(), &bounce(), counting(), ACCEPTED_AT), [], "a notification has no tenant");
}

#[test]
fn what_bounces_after_an_earlier_attempt_is_told_with_all_that_follows_unless_a_report_told_it() {
    let settings = settings(MailRule::Always);
    let decide = |states: Vec<Option<RecipientState>>, ambiguous| {
        let mut message = StoredMessage { states, ..message() };
        message.envelope.reverse_path = ReversePath::Mailbox(EmailAddress::parse("from@b.test", false).unwrap());
        message.origin.tenant = "shop".into();
        let attempt = Attempt {
            message: &message,
            key: JobKey { id: message.id, group: 0 },
            due_at: Some(ACCEPTED_AT),
            now: ACCEPTED_AT,
            ambiguous,
            kind: AttemptKind::Counts,
            blocks: 0,
            source: None,
            original: b"Subject: x\r\n\r\n",
        };
        let words = Words::Local("no such domain".to_owned());
        let verdict = Fault::NoAddress.verdict();
        let fate = Fate { index: 0, verdict, status: Fault::NoAddress.status(), words, way: Arc::default() };
        settle(&attempt, &[fate], &settings, &mut || MessageId::new(ACCEPTED_AT, 2)).settlement
    };
    let first = decide(vec![None], false);
    let counts = (first.events.len(), first.notifications.len(), first.marks.len(), first.tellings.len());
    assert_eq!(counts, (1, 1, 1, 0), "{first:?}");
    let tried = RecipientState { attempts: 1, ..RecipientState::default() };
    for later in [decide(vec![Some(tried)], false), decide(vec![None], true)] {
        assert!(later.events.is_empty() && later.notifications.is_empty() && later.marks.is_empty(), "{later:?}");
        let [event, notification] = &later.tellings[..] else { panic!("{later:?}") };
        assert_eq!((event.events.len(), event.notifications.len(), &event.recipients[..]), (1, 0, &[0][..]));
        assert_eq!(event.marks, first.marks);
        assert_eq!(
            (notification.events.len(), notification.notifications.len(), &notification.recipients[..]),
            (0, 1, &[0][..])
        );
    }
}
