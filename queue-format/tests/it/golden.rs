//! Golden files: the bytes of one or more samples of every record, for every format version that was ever released.
//!
//! Two facts are checked. Each file decodes to its sample: so this release reads what an older one wrote. And, for the
//! current version, each sample encodes to its file: so the layout does not change unnoticed.
//!
//! A file is never overwritten. For a new format version: raise `FORMAT_VERSION` and the version of the record, make a
//! directory `tests/golden/v<N>`, keep the old directories and decode them here to the samples of their time, then run
//! `QUEUE_FORMAT_GOLDEN=create cargo test -p queue-format` once: it writes the files that are missing, and nothing else.
//! Look at the new files (`xxd`) next to FORMAT.md before they are committed.

use std::collections::BTreeSet;
use std::fmt::Debug;
use std::fs;
use std::io::{ErrorKind, Write};
use std::path::PathBuf;

use queue_format::{
    CounterRecord, DueEntry, DueEntryRef, FORMAT_VERSION, FormatError, HistoryRecord, HoldEntry, LaneBlock,
    LaneConnections, LaneCounts, LaneLearning, LaneRecord, LaneSlow, LaneTold, LaneWarmup, LaneWarmupDay,
    MessageRecord, OutboxRecord, OutboxRecordRef, RecipientEntry, RecipientOutcome, RecipientState, ReputationPause,
    ReputationRecord, Ret, SentRecord, SentRecordRef, SourceLifeRecord, SuppressionRecord, WARMUP_PARTS_MAX,
    decode_body, decode_meta_number, decode_meta_text, encode_body, encode_meta_number, encode_meta_text,
};

fn directory(version: u32) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(format!("tests/golden/v{version}"))
}

/// The bytes of a golden file of the current version. Creates it where it is missing and that was asked for.
fn golden(name: &str, encoded: &[u8]) -> Vec<u8> {
    let path = directory(FORMAT_VERSION).join(format!("{name}.bin"));
    match fs::read(&path) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == ErrorKind::NotFound => {
            assert!(
                std::env::var("QUEUE_FORMAT_GOLDEN").is_ok_and(|value| value == "create"),
                "{} is missing: restore it from git, or see tests/it/golden.rs on how to create those of a new version",
                path.display()
            );
            let mut file = fs::File::create_new(&path).unwrap();
            file.write_all(encoded).unwrap();
            encoded.to_vec()
        }
        Err(error) => panic!("{}: {error}", path.display()),
    }
}

fn check<T: PartialEq + Debug>(
    name: &str,
    sample: &T,
    encode: impl Fn(&T, &mut Vec<u8>),
    decode: impl Fn(&[u8]) -> Result<T, FormatError>,
) {
    let mut encoded = Vec::new();
    encode(sample, &mut encoded);
    let bytes = golden(name, &encoded);
    assert_eq!(decode(&bytes).as_ref(), Ok(sample), "{name} decodes to another value");
    assert_eq!(encoded, bytes, "{name}: the layout changed without a new format version");
}

fn typical_message() -> MessageRecord {
    MessageRecord {
        accepted_at_ms: 1_795_302_000_123,
        expires_at_ms: 1_795_647_600_123,
        reverse_path: "bounces@shop.example".into(),
        recipients: vec![RecipientEntry { address: "user@mx.example".into(), ..RecipientEntry::default() }],
        domains: vec!["mx.example".into()],
        header_bytes: 612,
        body_bytes: 10_240,
        caller: "127.0.0.1".into(),
        mail_json: br#"{"messageId":"0101"}"#.to_vec(),
        ..MessageRecord::default()
    }
}

fn full_message() -> MessageRecord {
    MessageRecord {
        accepted_at_ms: 1,
        expires_at_ms: u64::MAX,
        reverse_path: String::new(),
        recipients: vec![
            RecipientEntry {
                address: "grün@münchen.example".into(),
                domain_index: 1,
                notify: Some(0),
                orcpt: Some(("utf-8".into(), "grün@münchen.example".into())),
            },
            RecipientEntry {
                address: "a@one.example".into(),
                domain_index: 0,
                notify: Some(7),
                orcpt: Some(("rfc822".into(), "A@one.example".into())),
            },
            RecipientEntry { address: "b@one.example".into(), domain_index: 0, notify: None, orcpt: None },
        ],
        domains: vec!["one.example".into(), "xn--mnchen-3ya.example".into()],
        eight_bit: true,
        smtputf8: true,
        ret: Some(Ret::Headers),
        envid: Some("QQ314159".into()),
        header_bytes: u32::MAX,
        body_bytes: u64::MAX,
        body_parts: 40,
        caller: "tenant/app".into(),
        tenant: String::new(),
        configuration_set: String::new(),
        tls_required: false,
        identity: String::new(),
        return_path_domain: String::new(),
        return_path_per_message: false,
        recipient_headers: false,
        pool: String::new(),
        priority: 0,
        prefers_warming: false,
        set_warms_up: false,
        mail_json: vec![0x00, 0xff, b'{', b'}'],
    }
}

fn tenants_message() -> MessageRecord {
    MessageRecord {
        tenant: "shop".into(),
        configuration_set: "receipts-1".into(),
        tls_required: true,
        ..typical_message()
    }
}

fn return_path_message() -> MessageRecord {
    MessageRecord {
        identity: "shop.example".into(),
        return_path_domain: "bounce.shop.example".into(),
        return_path_per_message: true,
        recipient_headers: true,
        ..tenants_message()
    }
}

fn pooled_message() -> MessageRecord {
    MessageRecord { pool: "dedicated".into(), priority: 3, ..return_path_message() }
}

fn warming_message() -> MessageRecord {
    MessageRecord { prefers_warming: true, set_warms_up: true, ..pooled_message() }
}

fn failing_recipient() -> RecipientState {
    RecipientState {
        outcome: RecipientOutcome::Pending,
        attempts: 300,
        first_attempt_ms: 1_795_302_000_200,
        last_attempt_ms: 1_795_305_600_200,
        last_reply: "451 4.7.1 Greylisted, try again".into(),
        last_rule: "greylisting".into(),
        last_host: "mx1.example".into(),
        delay_notices: 2,
        failing_since_ms: 1_795_302_000_200,
        ambiguous: true,
        next_attempt_ms: 1_795_302_600_200,
    }
}

fn due() -> DueEntry {
    DueEntry {
        domain: "mx.example".into(),
        expires_at_ms: 1_795_647_600_123,
        attempts: 3,
        pool: "default".into(),
        tenant: "shop".into(),
        priority: 1,
        source: String::new(),
        prefers_warming: false,
        set: String::new(),
    }
}

/// Greylisted: it keeps its source.
fn due_with_source() -> DueEntry {
    DueEntry { source: "2001:db8::10".into(), ..due() }
}

fn warming_due() -> DueEntry {
    DueEntry { prefers_warming: true, set: "newsletter".into(), ..due_with_source() }
}

fn hold(due: DueEntry) -> HoldEntry {
    HoldEntry { due, due_at_ms: 1_795_302_900_000, held_at_ms: 1_795_302_600_000, reason: "held by root".into() }
}

#[test]
fn messages_keep_their_bytes() {
    check("message-empty", &MessageRecord::default(), MessageRecord::encode, MessageRecord::decode);
    check("message-typical", &typical_message(), MessageRecord::encode, MessageRecord::decode);
    check("message-tenant", &tenants_message(), MessageRecord::encode, MessageRecord::decode);
    check("message-return-path", &return_path_message(), MessageRecord::encode, MessageRecord::decode);
    check("message-pool", &pooled_message(), MessageRecord::encode, MessageRecord::decode);
    check("message-warming", &warming_message(), MessageRecord::encode, MessageRecord::decode);
    check("message-full", &full_message(), MessageRecord::encode, MessageRecord::decode);
    let ret_full = MessageRecord { ret: Some(Ret::Full), ..typical_message() };
    check("message-ret-full", &ret_full, MessageRecord::encode, MessageRecord::decode);
}

#[test]
fn messages_of_versions_1_to_3_are_still_read() {
    let ret_full = MessageRecord { ret: Some(Ret::Full), ..typical_message() };
    for (name, sample, first) in [
        ("message-empty", MessageRecord::default(), 1),
        ("message-typical", typical_message(), 1),
        ("message-tenant", tenants_message(), 1),
        ("message-full", full_message(), 1),
        ("message-ret-full", ret_full, 1),
        ("message-return-path", return_path_message(), 2),
        ("message-pool", pooled_message(), 3),
    ] {
        for version in first..=3 {
            let bytes = fs::read(directory(version).join(format!("{name}.bin"))).unwrap();
            assert_eq!(u32::from(bytes[1]), version, "{name} is of another version");
            assert_eq!(MessageRecord::decode(&bytes).as_ref(), Ok(&sample), "{name} of version {version}");
        }
    }
}

#[test]
fn due_and_hold_entries_of_versions_1_to_3_of_the_format_are_still_read() {
    for version in 1..=3 {
        let read = |name: &str| fs::read(directory(version).join(name)).unwrap();
        assert_eq!(DueEntry::decode(&read("due.bin")), Ok(due()));
        assert_eq!(HoldEntry::decode(&read("hold.bin")), Ok(hold(due())));
    }
    let bytes = fs::read(directory(3).join("due-source.bin")).unwrap();
    assert_eq!(DueEntry::decode(&bytes), Ok(due_with_source()));
}

#[test]
fn records_that_did_not_change_are_those_of_the_versions_before() {
    for entry in fs::read_dir(directory(1)).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        let read = |version| fs::read(directory(version).join(&name)).unwrap();
        if !name.starts_with("message-") {
            assert_eq!(read(1), read(2), "{name}");
        }
        if !name.starts_with("message-") && !["due.bin", "hold.bin"].contains(&name.as_str()) {
            assert_eq!(read(2), read(3), "{name}");
        }
    }
    for entry in fs::read_dir(directory(3)).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        let read = |version| fs::read(directory(version).join(&name)).unwrap();
        if !["lane-", "message-", "due", "hold"].iter().any(|changed| name.starts_with(changed)) {
            assert_eq!(read(3), read(4), "{name}");
        }
    }
    for entry in fs::read_dir(directory(4)).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        let read = |version| fs::read(directory(version).join(&name)).unwrap();
        assert_eq!(read(4), read(5), "{name}");
    }
}

#[test]
fn lanes_of_version_3_of_the_format_are_still_read_and_have_no_warm_up() {
    for (name, sample) in
        [("lane-empty", LaneRecord::default()), ("lane-full", full_lane()), ("lane-half", half_lane())]
    {
        let bytes = fs::read(directory(3).join(format!("{name}.bin"))).unwrap();
        assert_eq!(bytes[1], 1, "{name} is of another version");
        assert_eq!(LaneRecord::decode(&bytes).as_ref(), Ok(&sample), "{name}");
        assert_eq!(sample.warmup, None);
    }
}

#[test]
fn recipient_states_keep_their_bytes() {
    check("recipient-new", &RecipientState::default(), RecipientState::encode, RecipientState::decode);
    check("recipient-failing", &failing_recipient(), RecipientState::encode, RecipientState::decode);
    for (name, outcome) in [
        ("recipient-delivered", RecipientOutcome::Delivered),
        ("recipient-bounced", RecipientOutcome::Bounced),
        ("recipient-expired", RecipientOutcome::Expired),
        ("recipient-cancelled", RecipientOutcome::Cancelled),
    ] {
        let state = RecipientState { outcome, ..RecipientState::default() };
        check(name, &state, RecipientState::encode, RecipientState::decode);
    }
}

#[test]
fn due_and_hold_entries_keep_their_bytes() {
    check("due", &due(), DueEntry::encode, DueEntry::decode);
    check("due-source", &due_with_source(), DueEntry::encode, DueEntry::decode);
    check("due-warming", &warming_due(), DueEntry::encode, DueEntry::decode);
    check("hold", &hold(due()), HoldEntry::encode, HoldEntry::decode);
    check("hold-source", &hold(due_with_source()), HoldEntry::encode, HoldEntry::decode);
    check("hold-warming", &hold(warming_due()), HoldEntry::encode, HoldEntry::decode);
}

#[test]
fn outbox_records_keep_their_bytes() {
    let record = OutboxRecord { kind: 2, id_at: 11, json: br#"{"eventId":}"#.to_vec() };
    check("outbox", &record, OutboxRecord::encode, OutboxRecord::decode);
}

#[test]
fn counters_keep_their_bytes() {
    let counter = CounterRecord { scope: "tenant/shop".into(), count: 300 };
    check("counter", &counter, CounterRecord::encode, CounterRecord::decode);
    let full = CounterRecord { scope: "server".into(), count: u64::MAX };
    check("counter-max", &full, CounterRecord::encode, CounterRecord::decode);
}

fn full_lane() -> LaneRecord {
    LaneRecord {
        source: "192.0.2.7".into(),
        site: "google".into(),
        saved_at_ms: 1_795_302_000_123,
        is_last: true,
        connections: Some(LaneConnections {
            window: 5,
            refused_at_ms: 1_795_301_000_000,
            ceiling: Some(LaneLearning { count: 6, held_until_ms: 1_795_302_300_000, level: 2 }),
        }),
        messages: Some(LaneLearning { count: 10, held_until_ms: 1_795_305_600_000, level: 1 }),
        failures: 3,
        ramp: 1,
        unreachable_until_ms: Some(1_795_302_060_000),
        fewer: Some((2, 1_795_303_000_000)),
        slow: Some(LaneSlow { count: 20, per_ms: 60_000, until_ms: 1_795_303_600_000 }),
        suspended_until_ms: Some(1_795_302_600_000),
        block: Some(LaneBlock { until_ms: 1_795_305_600_000, lasts_ms: 3_600_000, returned_at_ms: Some(1) }),
        told: Some(LaneTold { mode: 6, rule: Some("blocked".into()), words: "550 5.7.1 Blocked".into() }),
        outstanding: 300,
        counts: vec![
            LaneCounts {
                span_ms: 3_600_000,
                part_ms: 120_000,
                newest_end_ms: 1_795_302_120_000,
                counts: vec![7, 0, 300],
            },
            LaneCounts { span_ms: 86_400_000, ..LaneCounts::default() },
        ],
        warmup: None,
    }
}

fn half_lane() -> LaneRecord {
    LaneRecord {
        connections: Some(LaneConnections { window: 1, ..LaneConnections::default() }),
        block: Some(LaneBlock::default()),
        told: Some(LaneTold::default()),
        ..LaneRecord::default()
    }
}

fn full_warmup() -> LaneWarmup {
    LaneWarmup {
        plan: "doubling".into(),
        position: 17,
        cap: Some(13_000),
        day: 20_779,
        used: 12_800,
        hour: 498_719,
        used_this_hour: 533,
        delivered_today: 12_000,
        held_today: true,
        before: Some(LaneWarmupDay {
            day: 20_778,
            position: 16,
            cap: Some(11_000),
            used: 10_999,
            delivered: 10_500,
            held: true,
        }),
        ahead: Some((20_780, 7)),
        mode: 2,
        paused: true,
        since_ms: 1_795_302_000_001,
        until_ms: Some(1_795_323_600_000),
        reason: Some("30 of 1,000 complained".into()),
        last_sent_at_ms: Some(1_795_302_000_122),
        set_at_ms: 1_793_302_000_000,
        stepped_back_at_ms: Some(1_795_215_600_000),
        frozen_at_ms: Some(1_795_302_000_000),
        freezes: 3,
        newest_end_ms: 1_795_305_600_000,
        parts: (0..8).map(|part| [1_000 * part, 100, 10, u32::MAX]).collect(),
    }
}

#[test]
fn lanes_keep_their_bytes() {
    check("lane-empty", &LaneRecord::default(), LaneRecord::encode, LaneRecord::decode);
    check("lane-full", &full_lane(), LaneRecord::encode, LaneRecord::decode);
    check("lane-half", &half_lane(), LaneRecord::encode, LaneRecord::decode);
    let warming = LaneRecord { warmup: Some(full_warmup()), ..full_lane() };
    check("lane-warming", &warming, LaneRecord::encode, LaneRecord::decode);
    let begun = LaneRecord { warmup: Some(LaneWarmup::default()), ..LaneRecord::default() };
    check("lane-begun", &begun, LaneRecord::encode, LaneRecord::decode);
    assert_eq!(full_warmup().parts.len(), WARMUP_PARTS_MAX);
}

#[test]
fn rows_of_the_history_keep_their_bytes() {
    check("history-empty", &HistoryRecord::default(), HistoryRecord::encode, HistoryRecord::decode);
    let full = HistoryRecord {
        source: "192.0.2.7".into(),
        site: "provider:google".into(),
        provider: Some("google".into()),
        sent: 12_800,
        delivered: 12_000,
        deferred: 500,
        bounced: vec![(0, 1), (3, 290), (255, u32::MAX)],
        complained: 9,
        blocked: 1,
        cap: Some(12_800),
        position: Some(9),
    };
    check("history-full", &full, HistoryRecord::encode, HistoryRecord::decode);
}

#[test]
fn lives_of_sources_keep_their_bytes() {
    check("source-life-empty", &SourceLifeRecord::default(), SourceLifeRecord::encode, SourceLifeRecord::decode);
    let resting = SourceLifeRecord { source: "192.0.2.7".into(), life: 2, since_ms: 1_795_302_000_123, low_days: 300 };
    check("source-life", &resting, SourceLifeRecord::encode, SourceLifeRecord::decode);
}

fn sent() -> SentRecord {
    SentRecord {
        outcome: RecipientOutcome::Delivered,
        ended_at_ms: 1_795_302_000_456,
        recipient: "user@mx.example".into(),
        reverse_path: "bounces@shop.example".into(),
        caller: "shop-app".into(),
        tenant: "shop".into(),
        identity: "shop.example".into(),
        configuration_set: "receipts-1".into(),
        pool: "dedicated".into(),
        source: "192.0.2.7".into(),
        site: "provider:google".into(),
        mail_json: br#"{"source":"bounces@shop.example"}"#.to_vec(),
    }
}

#[test]
fn what_is_remembered_of_recipients_keeps_its_bytes() {
    check("sent", &sent(), SentRecord::encode, SentRecord::decode);
    check("sent-empty", &SentRecord::default(), SentRecord::encode, SentRecord::decode);
}

#[test]
fn reputations_keep_their_bytes() {
    check("reputation-empty", &ReputationRecord::default(), ReputationRecord::encode, ReputationRecord::decode);
    let pause = ReputationPause { by: 1, since_ms: 1_795_302_000_123, reason: "bounces 12 % of 600 recipients".into() };
    let paused = ReputationRecord {
        scope: "configuration_set/news".into(),
        level: 2,
        since_ms: 1_795_302_000_000,
        forgiven_through: 498_695,
        pause: Some(pause),
    };
    check("reputation-paused", &paused, ReputationRecord::encode, ReputationRecord::decode);
}

#[test]
fn suppression_records_keep_their_bytes() {
    let record = SuppressionRecord {
        reason: 2,
        updated_at_ms: 1_795_302_000_123,
        scope: "shop".into(),
        address: "User@mx.example".into(),
        origin: "import".into(),
    };
    check("suppression", &record, SuppressionRecord::encode, SuppressionRecord::decode);
}

#[test]
fn bodies_and_meta_values_keep_their_bytes() {
    let body = b"Subject: hi\r\n\r\n\x00\xff hello\r\n".to_vec();
    check("body", &body, |body, out| encode_body(body, out), |bytes| decode_body(bytes).map(<[u8]>::to_vec));
    check("meta-number", &1, |number, out| encode_meta_number(*number, out), decode_meta_number);
    check("meta-number-max", &u64::MAX, |number, out| encode_meta_number(*number, out), decode_meta_number);
    let text = "clean".to_owned();
    check(
        "meta-text",
        &text,
        |text, out| encode_meta_text(text, out),
        |bytes| decode_meta_text(bytes).map(str::to_owned),
    );
}

#[test]
fn borrowed_and_owned_forms_read_and_write_the_same_bytes() {
    let (mut owned, mut borrowed) = (Vec::new(), Vec::new());
    let entry = due();
    entry.encode(&mut owned);
    entry.borrowed().encode(&mut borrowed);
    assert_eq!(owned, borrowed);
    assert_eq!(DueEntryRef::decode(&owned).unwrap().into_owned(), entry);

    owned.clear();
    borrowed.clear();
    let record = OutboxRecord { kind: 2, id_at: 0, json: b"{}".to_vec() };
    record.encode(&mut owned);
    record.borrowed().encode(&mut borrowed);
    assert_eq!(owned, borrowed);
    assert_eq!(OutboxRecordRef::decode(&owned).unwrap().into_owned(), record);

    owned.clear();
    borrowed.clear();
    let record = sent();
    record.encode(&mut owned);
    record.borrowed().encode(&mut borrowed);
    assert_eq!(owned, borrowed);
    assert_eq!(SentRecordRef::decode(&owned).unwrap().into_owned(), record);
}

#[test]
fn no_golden_file_is_unknown_to_these_tests() {
    let present: BTreeSet<String> = (1..=FORMAT_VERSION)
        .flat_map(|version| fs::read_dir(directory(version)).unwrap())
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| name.ends_with(".bin"))
        .collect();
    let known = include_str!("golden.rs");
    for name in present {
        let stem = name.trim_end_matches(".bin");
        assert!(known.contains(&format!("\"{stem}\"")), "tests/golden/{name} is not read by any test");
    }
}
