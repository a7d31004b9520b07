//! Replies of real servers, and what must be concluded from them.

use proptest::prelude::*;

use super::*;

/// One case a line: disposition, scope, class, bounce type/sub-type, stage, reply.
const CASES: &str = include_str!("replies/cases.txt");

fn reply(line: &str) -> Reply {
    let (code, rest) = line.split_at_checked(3).unwrap();
    let rest = rest.trim_start();
    let (first, after) = rest.split_once(' ').unwrap_or((rest, ""));
    let (status, text) = match first.parse::<EnhancedStatus>() {
        Ok(status) => (Some(status), after),
        Err(()) => (None, rest),
    };
    let lines = text.split(" / ").map(Into::into).collect();
    Reply::new(ReplyCode::new(code.parse().unwrap()).unwrap(), status, lines)
}

fn stage(word: &str) -> Stage {
    match word {
        "connect" => Stage::Connect,
        "greeting" => Stage::Greeting,
        "ehlo" => Stage::Ehlo,
        "tls" => Stage::Tls,
        "auth" => Stage::Auth,
        "mail" => Stage::Mail,
        "rcpt" => Stage::Rcpt,
        "data" => Stage::Data,
        "dot" => Stage::Dot,
        other => panic!("no stage {other:?}"),
    }
}

fn summary(verdict: &Verdict) -> String {
    let bounce = format!("{}/{}", verdict.bounce_type.name(), verdict.bounce_sub_type.name());
    let disposition = format!("{:?}", verdict.disposition).to_lowercase();
    format!("{disposition} {} {} {bounce}", verdict.scope.name(), verdict.class.name())
}

#[test]
fn replies_of_real_servers_are_understood() {
    let mut wrong = Vec::new();
    let mut count = 0;
    for line in CASES.lines().filter(|line| !line.is_empty() && !line.starts_with('#')) {
        let (expected, rest) = line.split_once(" | ").unwrap();
        let (stage_word, text) = rest.split_once(" | ").unwrap();
        let verdict = classify(&reply(text), stage(stage_word));
        let found = summary(&verdict);
        let expected = expected.split_whitespace().collect::<Vec<_>>().join(" ");
        if found != expected {
            wrong.push(format!("{text}\n  expected {expected}\n  found    {found} by {}", verdict.rule));
        }
        count += 1;
    }
    assert!(wrong.is_empty(), "{} of {count} wrong:\n{}", wrong.len(), wrong.join("\n"));
    assert!(count >= 180, "{count}");
}

#[test]
fn text_beats_enhanced_and_enhanced_beats_basic() {
    let class = |text, at| classify(&reply(text), at).class;
    assert_eq!(class("550 5.7.1 mailbox full", Stage::Rcpt), BounceClass::MailboxFull);
    assert_eq!(class("550 5.2.1 sorry", Stage::Rcpt), BounceClass::InactiveMailbox);
    assert_eq!(class("550 sorry", Stage::Rcpt), BounceClass::BadMailbox);
}

#[test]
fn the_basic_code_wins_where_it_is_permanent_and_the_enhanced_is_not() {
    let disposition = |text, at| classify(&reply(text), at).disposition;
    assert_eq!(disposition("550 4.1.1 sorry", Stage::Rcpt), Disposition::Bounced);
    assert_eq!(disposition("450 5.1.1 sorry", Stage::Rcpt), Disposition::Bounced);
    assert_eq!(disposition("450 4.1.1 sorry", Stage::Rcpt), Disposition::Deferred);
    assert_eq!(disposition("421 5.1.1 sorry", Stage::Rcpt), Disposition::Deferred);
    assert_eq!(disposition("450 2.1.1 sorry", Stage::Rcpt), Disposition::Deferred);
}

#[test]
fn numbers_and_names_within_the_text_decide_nothing() {
    let verdict = classify(&reply("450 4.2.0 said \"550 5.1.1 full\" for <mailbox.full@spam.test>"), Stage::Rcpt);
    assert_eq!(verdict.disposition, Disposition::Deferred);
    assert_eq!(verdict.class, BounceClass::Other);
}

#[test]
fn before_a_recipient_is_named_nothing_bounces_but_a_clear_no() {
    for at in [Stage::Connect, Stage::Greeting, Stage::Ehlo, Stage::Tls, Stage::Auth] {
        for text in ["554 go away", "550 5.1.1 user unknown", "500 what", "535 5.7.8 bad login", "554 5.7.1 spam"] {
            let verdict = classify(&reply(text), at);
            assert_eq!(verdict.disposition, Disposition::Deferred, "{text} at {at:?} by {}", verdict.rule);
        }
    }
    assert_eq!(
        classify(&reply("554 this host does not accept mail"), Stage::Greeting).disposition,
        Disposition::Bounced
    );
}

#[test]
fn a_deferral_never_ends_as_a_permanent_bounce() {
    let verdict = classify(&reply("450 4.1.1 user unknown"), Stage::Rcpt).expired();
    assert_eq!((verdict.disposition, verdict.bounce_type), (Disposition::Bounced, BounceType::Transient));
}

#[test]
fn delays_have_the_types_of_ses() {
    for (text, at, expected) in [
        ("452 4.2.2 mailbox full", Stage::Rcpt, "MailboxFull"),
        ("421 4.7.0 too many connections from your IP", Stage::Greeting, "IPFailure"),
        ("451 4.3.0 queue file write error", Stage::Dot, "RecipientServerError"),
        ("451 4.7.1 greylisted", Stage::Rcpt, "General"),
        ("451 4.7.1 this message looks like spam", Stage::Dot, "SpamDetected"),
        ("451 4.4.3 temporary lookup failure", Stage::Rcpt, "TransientCommunicationFailure"),
    ] {
        assert_eq!(classify(&reply(text), at).delay_type.name(), expected, "{text}");
    }
}

#[test]
fn a_wish_to_wait_is_passed_on() {
    let verdict = classify(&reply("450 4.7.1 Greylisted, try again in 300 seconds"), Stage::Rcpt);
    assert_eq!(verdict.retry_after, Some(std::time::Duration::from_secs(300)));
    assert_eq!(verdict.retry, RetryKind::Greylist);
    assert_eq!(classify(&reply("550 5.1.1 no such user, retry in 5 minutes"), Stage::Rcpt).retry_after, None);
}

#[test]
fn own_rules_go_in_front_of_the_built_in_ones() {
    let own = "[[rule]]\nname = \"own\"\ncodes = [550]\ntext = [\"come to the office\"]\nclass = \"other\"\naction = \"defer\"\n";
    let rules = replies::with_own(own, "replies.toml", None).unwrap();
    let verdict = rules.classify(&reply("550 5.1.1 No such user, come to the office"), Stage::Rcpt, None);
    assert_eq!((&*verdict.rule, verdict.disposition), ("own", Disposition::Deferred));
    assert_eq!(&*rules.classify(&reply("550 5.1.1 No such user"), Stage::Rcpt, None).rule, "no-such-user");
}

proptest! {
    #[test]
    fn every_reply_gets_a_verdict(
        code in 200_u16..=599,
        class in prop::sample::select(vec![None, Some(2_u8), Some(4), Some(5)]),
        (subject, detail) in (0_u16..=9, 0_u16..=999),
        lines in prop::collection::vec("\\PC{0,60}", 0..4),
        at in 0_usize..9,
    ) {
        let stages = [
            Stage::Connect, Stage::Greeting, Stage::Ehlo, Stage::Tls, Stage::Auth,
            Stage::Mail, Stage::Rcpt, Stage::Data, Stage::Dot,
        ];
        let enhanced = class.and_then(|class| EnhancedStatus::new(class, subject, detail));
        let lines = lines.into_iter().map(Into::into).collect();
        let verdict = classify(&Reply::new(ReplyCode::new(code).unwrap(), enhanced, lines), stages[at]);
        prop_assert_eq!(verdict.disposition == Disposition::Delivered, code < 300);
        prop_assert_ne!(&*verdict.rule, "unknown");
        if verdict.disposition == Disposition::Deferred {
            prop_assert_ne!(verdict.bounce_type, BounceType::Permanent);
        }
    }
}
