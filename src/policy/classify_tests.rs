//! Replies of real servers, and what must be concluded from them.

use std::collections::BTreeSet;

use proptest::prelude::*;

use super::*;
use crate::policy::Providers;

/// One case a line: disposition, scope, class, bounce type/sub-type, stage, reply.
const CASES: &str = include_str!("replies/cases.txt");

/// By the built-in table, at a site of no known provider.
fn classify(reply: &Reply, stage: Stage) -> Verdict {
    Rules::built_in().classify(reply, stage, None)
}

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

/// A line of the file, taken apart.
struct Case {
    expected: &'static str,
    rule: &'static str,
    /// Who says so.
    speaker: &'static str,
    stage: Stage,
    text: &'static str,
}

fn cases() -> Vec<Case> {
    let lines = CASES.lines().filter(|line| !line.is_empty() && !line.starts_with('#'));
    let case = |line: &'static str| {
        let columns: Vec<&str> = line.splitn(5, " | ").collect();
        let [expected, rule, speaker, at, text] = columns[..] else { panic!("{line}") };
        Case { expected, rule, speaker, stage: stage(at), text }
    };
    lines.map(case).collect()
}

#[test]
fn replies_of_real_servers_are_understood() {
    let (rules, providers) = (Rules::built_in(), Providers::built_in());
    let mut wrong = Vec::new();
    let cases = cases();
    for Case { expected, rule, speaker, stage, text } in &cases {
        let provider = providers.get(speaker).map(|provider| &*provider.name);
        let verdict = rules.classify(&reply(text), *stage, provider);
        let found = summary(&verdict);
        if found != *expected || &*verdict.rule != *rule {
            wrong.push(format!("{text}\n  expected {expected} by {rule}\n  found    {found} by {}", verdict.rule));
        }
    }
    assert!(wrong.is_empty(), "{} of {} wrong:\n{}", wrong.len(), cases.len(), wrong.join("\n"));
    assert!(cases.len() >= 400, "{}", cases.len());
    let speakers: BTreeSet<&str> = cases.iter().map(|case| case.speaker).filter(|speaker| *speaker != "-").collect();
    assert!(speakers.len() >= 20, "{speakers:?}");
    assert!(
        providers.names().iter().all(|name| speakers.contains(&**name)),
        "each provider rule has replies of its own"
    );
}

#[test]
fn every_built_in_rule_has_a_reply_that_it_is_for() {
    let hit: BTreeSet<&str> = cases().iter().map(|case| case.rule).collect();
    let rules = Rules::built_in();
    let untold: Vec<&str> = rules.names().filter(|name| !hit.contains(name)).collect();
    assert!(untold.is_empty(), "replies/cases.txt has no reply for {untold:?}");
}

#[test]
fn replies_make_lanes_react_as_the_providers_ask_for() {
    let (rules, providers) = (Rules::built_in(), Providers::built_in());
    let check = |provider: &str, at: Stage, text: &str, expected: &str| {
        assert!(provider == "-" || providers.get(provider).is_some(), "{provider}");
        let verdict = rules.classify(&reply(text), at, Some(provider));
        let found = verdict.reaction.map_or("none".to_owned(), |reaction| reaction.to_string());
        assert_eq!(found, expected, "{provider}: {text} by {}", verdict.rule);
    };
    let (greeting, mail, rcpt, dot) = (Stage::Greeting, Stage::Mail, Stage::Rcpt, Stage::Dot);
    check("google", dot, "421 4.7.28 unusual rate of unsolicited mail", "10/minute for 30m, after 2 within 1h");
    check("google", mail, "421 4.7.28 sorry", "10/minute for 30m, after 2 within 1h");
    check(
        "google",
        dot,
        "421 4.7.0 this message is suspicious due to its looks",
        "suspended for 1h, after 5 within 1h",
    );
    check("google", rcpt, "450 4.2.1 The user is receiving mail too quickly", "none");
    check("google", dot, "550 5.7.1 does not meet IPv6 sending guidelines regarding PTR records", "blocked for 1h");
    check("google", mail, "550 5.7.25 sorry", "blocked for 1h");
    check("yahoo", mail, "421 4.7.1 [TS02] later", "1/minute for 30m");
    check("yahoo", greeting, "421 4.7.0 [TSS04] later", "suspended for 2h");
    check("yahoo", greeting, "421 4.7.0 [TSS05] later", "suspended for 4h");
    check("yahoo", greeting, "421 4.7.0 [IPTS05] later", "suspended for 4h");
    check("yahoo", mail, "553 5.7.1 [BL21] no", "blocked for 2h");
    check("yahoo", mail, "452 4.3.1 max message per connection reached", "none");
    check("yahoo-japan", mail, "421 4.7.0 [TSS04] later", "suspended for 1h");
    check("yahoo-japan", mail, "421 4.7.0 [VS98-IP0] later", "suspended for 1h");
    check("outlook", mail, "421 RP-001 later", "1/minute for 30m");
    check("outlook", rcpt, "451 4.7.650 later", "1/minute for 30m");
    check("outlook", rcpt, "451 4.7.652 later", "connections: 1 for 1h");
    check("outlook", mail, "550 SC-001 part of their network is on our block list", "blocked for 2h");
    check("microsoft365", mail, "451 4.7.500 Server busy (S77719)", "suspended for 15m");
    check("microsoft365", mail, "451 4.7.500 later (AS777123)", "suspended for 15m");
    check("microsoft365", rcpt, "550 5.7.606 Access denied, banned sending IP", "blocked for 4h");
    check("microsoft365", rcpt, "550 5.7.649 no", "blocked for 4h");
    check("apple", mail, "421 4.7.1 [HCM1] later", "suspended for 15m");
    check("apple", dot, "554 5.7.1 listed on dbl.spamhaus.org", "suspended for 4h, after 3 within 1h");
    check("-", dot, "554 5.7.1 listed on dbl.spamhaus.org", "none");
    check("comcast", mail, "421 4.1.0 Throttled RL000010", "suspended for 5m");
    check("comcast", mail, "421 4.1.0 Throttled RL000003", "10000/hour for 2h");
    check("gmx", greeting, "421 too many connections", "connections: 1 for 30m");
    check("orange", greeting, "421 too many connections OFR005_104", "connections: 1 for 1h");
    check("mimecast", mail, "451 Internal resource temporarily unavailable", "suspended for 30m");
    check("-", mail, "451 Internal resource temporarily unavailable", "none");
    check("-", greeting, "421 too many connections", "one connection fewer");
    check("-", greeting, "421 sorry", "none");
    check("-", greeting, "554 sorry", "blocked for 1h");
    check("-", rcpt, "554 5.7.1 blocked using zen.spamhaus.org", "blocked for 1h");
    check("-", rcpt, "550 5.1.1 no such user", "none");
    check("-", dot, "550 5.7.1 spam", "none");
    check("-", rcpt, "452 4.2.2 mailbox full", "none");
}

#[test]
fn a_busy_microsoft_host_gets_the_mail_again_from_the_same_address() {
    for text in ["451 4.7.500 Server busy. (S77719)", "451 4.7.500 sorry"] {
        let verdict = Rules::built_in().classify(&reply(text), Stage::Mail, Some("microsoft365"));
        assert_eq!((verdict.retry, verdict.class), (RetryKind::Greylist, BounceClass::RateLimit), "{text}");
    }
}

#[test]
fn a_rule_of_one_provider_leaves_the_others_alone() {
    let own = "[[rule]]\nname = \"own\"\nproviders = [\"google\", \"apple\"]\ntext = [\"go away\"]\nclass = \"spam\"\n";
    let rules = replies::with_own(own, "replies.toml", None).unwrap();
    let rule = |provider| rules.classify(&reply("550 go away"), Stage::Dot, provider).rule;
    assert_eq!(&*rule(Some("google")), "own");
    assert_eq!(&*rule(Some("apple")), "own");
    assert_eq!(&*rule(Some("yahoo")), "5yz");
    assert_eq!(&*rule(None), "5yz");
}

#[test]
fn own_rules_come_first_then_those_of_providers_then_texts_then_codes() {
    let own = "[[rule]]\nname = \"own\"\ncodes = [599]\nclass = \"other\"\n";
    let rules = replies::with_own(own, "replies.toml", None).unwrap();
    let check = |text: &str, expected: &str| {
        assert_eq!(&*rules.classify(&reply(text), Stage::Rcpt, None).rule, expected, "{text}");
    };
    check("599 5.1.1 [TS02] mailbox full", "own");
    check("550 5.1.1 [TS02] mailbox full", "yahoo-rate");
    check("550 5.1.1 mailbox full, greylisted", "greylisted");
    check("550 5.1.1 mailbox full, user unknown", "mailbox-full");
    check("550 5.2.2 user unknown, not permitted", "no-such-user");
    check("550 5.2.2 not permitted", "x.2.2");
    check("550 5.9.9 not permitted", "policy");
    check("550 5.9.9 sorry", "550-at-rcpt");
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
        provider in prop::option::of(prop::sample::select(vec!["google", "mimecast", "gmx", "no one"])),
    ) {
        let stages = [
            Stage::Connect, Stage::Greeting, Stage::Ehlo, Stage::Tls, Stage::Auth,
            Stage::Mail, Stage::Rcpt, Stage::Data, Stage::Dot,
        ];
        let enhanced = class.and_then(|class| EnhancedStatus::new(class, subject, detail));
        let lines = lines.into_iter().map(Into::into).collect();
        let reply = Reply::new(ReplyCode::new(code).unwrap(), enhanced, lines);
        let verdict = Rules::built_in().classify(&reply, stages[at], provider);
        prop_assert_eq!(verdict.disposition == Disposition::Delivered, code < 300);
        prop_assert_ne!(&*verdict.rule, "unknown");
        if verdict.disposition == Disposition::Deferred {
            prop_assert_ne!(verdict.bounce_type, BounceType::Permanent);
        }
    }
}
