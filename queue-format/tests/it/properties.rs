//! Properties of every record: it comes back as it was, damage is noticed, hostile bytes are refused without harm.

use proptest::collection::vec;
use proptest::prelude::*;
use queue_format::{
    BODY_OVERHEAD_BYTES, CounterRecord, DueEntry, DueEntryRef, FormatError, HoldEntry, LaneBlock, LaneConnections,
    LaneCounts, LaneLearning, LaneRecord, LaneSlow, LaneTold, MessageRecord, OutboxRecord, OutboxRecordRef,
    RecipientEntry, RecipientOutcome, RecipientState, Ret, SuppressionRecord, counter_key, decode_body,
    decode_meta_number, decode_meta_text, due_key, encode_body, encode_meta_number, encode_meta_text, hold_key,
    outbox_key, parse_counter_key, parse_due_key, parse_hold_key, parse_outbox_key, parse_recipient_header_key,
    parse_recipient_key, parse_suppression_key, recipient_header_key, recipient_key, suppression_key,
    suppression_range,
};

fn text() -> impl Strategy<Value = String> {
    prop_oneof![Just(String::new()), "[a-z0-9@.]{1,30}", "\\PC{0,200}"]
}

fn number() -> impl Strategy<Value = u64> {
    prop_oneof![Just(0), Just(u64::MAX), 0..300_u64, any::<u64>()]
}

prop_compose! {
    fn recipient(domains: usize)(
        address in text(),
        index in any::<prop::sample::Index>(),
        notify in prop::option::of(0..=7_u8),
        orcpt in prop::option::of((text(), text())),
    ) -> RecipientEntry {
        RecipientEntry { address, domain_index: u16::try_from(index.index(domains)).unwrap(), notify, orcpt }
    }
}

prop_compose! {
    fn message()(domains in vec(text(), 0..5))(
        recipients in if domains.is_empty() {
            Just(Vec::new()).boxed()
        } else {
            vec(recipient(domains.len()), 0..8).boxed()
        },
        domains in Just(domains),
        texts in (text(), text(), prop::option::of(text())),
        origin in (text(), text(), text(), prop_oneof![Just(0_u8), any::<u8>()]),
        times in (number(), number()),
        flags in (any::<bool>(), any::<bool>(), any::<bool>(), any::<bool>()),
        ret in prop::option::of(prop_oneof![Just(Ret::Full), Just(Ret::Headers)]),
        sizes in (any::<u32>(), number(), any::<u32>()),
        mail_json in vec(any::<u8>(), 0..2_000),
    ) -> MessageRecord {
        MessageRecord {
            accepted_at_ms: times.0,
            expires_at_ms: times.1,
            reverse_path: texts.0,
            recipients,
            domains,
            eight_bit: flags.0,
            smtputf8: flags.1,
            ret,
            envid: texts.2,
            header_bytes: sizes.0,
            body_bytes: sizes.1,
            body_parts: sizes.2,
            tenant: if flags.0 { texts.1.clone() } else { String::new() },
            configuration_set: if flags.1 { texts.1.clone() } else { String::new() },
            tls_required: flags.0 != flags.1,
            identity: origin.0,
            return_path_domain: origin.1,
            return_path_per_message: flags.2,
            recipient_headers: flags.3,
            pool: origin.2,
            priority: origin.3,
            caller: texts.1,
            mail_json,
        }
    }
}

fn outcome() -> impl Strategy<Value = RecipientOutcome> {
    use RecipientOutcome::{Bounced, Cancelled, Delivered, Expired, Pending};
    prop::sample::select(vec![Pending, Delivered, Bounced, Expired, Cancelled])
}

prop_compose! {
    fn state()(
        outcome in outcome(),
        attempts in any::<u32>(),
        times in (number(), number(), number()),
        texts in (text(), text(), text()),
        delay_notices in any::<u8>(),
    ) -> RecipientState {
        RecipientState {
            outcome,
            attempts,
            first_attempt_ms: times.0,
            last_attempt_ms: times.1,
            last_reply: texts.0,
            last_rule: texts.1,
            last_host: texts.2,
            delay_notices,
            failing_since_ms: times.2,
            ambiguous: times.0 % 2 == 1,
            next_attempt_ms: times.1 ^ times.2,
        }
    }
}

prop_compose! {
    fn due()(
        texts in (text(), text(), text(), text()),
        expires_at_ms in number(),
        attempts in any::<u32>(),
        priority in any::<u8>(),
    ) -> DueEntry {
        DueEntry { domain: texts.0, expires_at_ms, attempts, pool: texts.1, tenant: texts.2, priority, source: texts.3 }
    }
}

prop_compose! {
    fn hold()(due in due(), due_at_ms in number(), held_at_ms in number(), reason in text()) -> HoldEntry {
        HoldEntry { due, due_at_ms, held_at_ms, reason }
    }
}

prop_compose! {
    fn outbox()(json in vec(any::<u8>(), 0..500))(
        id_at in 0..=u32::try_from(json.len()).unwrap(),
        json in Just(json),
        kind in any::<u8>(),
    ) -> OutboxRecord {
        OutboxRecord { kind, id_at, json }
    }
}

fn counter() -> impl Strategy<Value = CounterRecord> {
    (text(), number()).prop_map(|(scope, count)| CounterRecord { scope, count })
}

prop_compose! {
    fn suppression()(
        reason in any::<u8>(),
        updated_at_ms in number(),
        texts in (text(), text(), text()),
    ) -> SuppressionRecord {
        SuppressionRecord { reason, updated_at_ms, scope: texts.0, address: texts.1, origin: texts.2 }
    }
}

fn learning() -> impl Strategy<Value = LaneLearning> {
    (any::<u32>(), number(), any::<u8>()).prop_map(|(count, held_until_ms, level)| LaneLearning {
        count,
        held_until_ms,
        level,
    })
}

fn lane_counts() -> impl Strategy<Value = LaneCounts> {
    (number(), number(), number(), vec(any::<u32>(), 0..40))
        .prop_map(|(span_ms, part_ms, newest_end_ms, counts)| LaneCounts { span_ms, part_ms, newest_end_ms, counts })
}

prop_compose! {
    fn lane_connections()(
        window in any::<u32>(),
        refused_at_ms in number(),
        ceiling in prop::option::of(learning()),
    ) -> LaneConnections {
        LaneConnections { window, refused_at_ms, ceiling }
    }
}

prop_compose! {
    fn lane()(
        names in (text(), text()),
        numbers in (number(), any::<bool>(), any::<u32>(), any::<u32>(), any::<u32>()),
        learned in (prop::option::of(lane_connections()), prop::option::of(learning())),
        untils in (prop::option::of(number()), prop::option::of(number())),
        fewer in prop::option::of((any::<u32>(), number())),
        slow in prop::option::of((any::<u32>(), number(), number())),
        block in prop::option::of((number(), number(), prop::option::of(number()))),
        told in prop::option::of((any::<u8>(), prop::option::of(text()), text())),
        counts in vec(lane_counts(), 0..5),
    ) -> LaneRecord {
        LaneRecord {
            source: names.0,
            site: names.1,
            saved_at_ms: numbers.0,
            is_last: numbers.1,
            connections: learned.0,
            messages: learned.1,
            failures: numbers.2,
            ramp: numbers.3,
            unreachable_until_ms: untils.0,
            fewer,
            slow: slow.map(|(count, per_ms, until_ms)| LaneSlow { count, per_ms, until_ms }),
            suspended_until_ms: untils.1,
            block: block.map(|(until_ms, lasts_ms, returned_at_ms)| LaneBlock { until_ms, lasts_ms, returned_at_ms }),
            told: told.map(|(mode, rule, words)| LaneTold { mode, rule, words }),
            outstanding: numbers.4,
            counts,
        }
    }
}

/// Any record of any kind, encoded.
fn encoded() -> impl Strategy<Value = Vec<u8>> {
    fn bytes<T>(encode: impl Fn(&T, &mut Vec<u8>)) -> impl Fn(T) -> Vec<u8> {
        move |value| {
            let mut out = Vec::new();
            encode(&value, &mut out);
            out
        }
    }
    prop_oneof![
        message().prop_map(bytes(MessageRecord::encode)),
        state().prop_map(bytes(RecipientState::encode)),
        due().prop_map(bytes(DueEntry::encode)),
        hold().prop_map(bytes(HoldEntry::encode)),
        outbox().prop_map(bytes(OutboxRecord::encode)),
        suppression().prop_map(bytes(SuppressionRecord::encode)),
        vec(any::<u8>(), 0..500).prop_map(bytes(|body: &Vec<u8>, out: &mut Vec<u8>| encode_body(body, out))),
        number().prop_map(bytes(|number: &u64, out: &mut Vec<u8>| encode_meta_number(*number, out))),
        text().prop_map(bytes(|text: &String, out: &mut Vec<u8>| encode_meta_text(text, out))),
        counter().prop_map(bytes(CounterRecord::encode)),
        lane().prop_map(bytes(LaneRecord::encode)),
    ]
}

/// The results of all decoders, each as the bytes that its value encodes to.
fn decode_as_everything(bytes: &[u8]) -> Vec<Result<Vec<u8>, FormatError>> {
    fn again<T>(value: T, encode: impl Fn(&T, &mut Vec<u8>)) -> Vec<u8> {
        let mut out = Vec::new();
        encode(&value, &mut out);
        out
    }
    vec![
        MessageRecord::decode(bytes).map(|value| again(value, MessageRecord::encode)),
        RecipientState::decode(bytes).map(|value| again(value, RecipientState::encode)),
        DueEntry::decode(bytes).map(|value| again(value, DueEntry::encode)),
        DueEntryRef::decode(bytes).map(|value| again(value, |value, out| value.encode(out))),
        HoldEntry::decode(bytes).map(|value| again(value, HoldEntry::encode)),
        OutboxRecord::decode(bytes).map(|value| again(value, OutboxRecord::encode)),
        OutboxRecordRef::decode(bytes).map(|value| again(value, |value, out| value.encode(out))),
        SuppressionRecord::decode(bytes).map(|value| again(value, SuppressionRecord::encode)),
        decode_body(bytes).map(|value| again(value, |value, out| encode_body(value, out))),
        decode_meta_number(bytes).map(|value| again(value, |value, out| encode_meta_number(*value, out))),
        decode_meta_text(bytes).map(|value| again(value, |value, out| encode_meta_text(value, out))),
        CounterRecord::decode(bytes).map(|value| again(value, CounterRecord::encode)),
        LaneRecord::decode(bytes).map(|value| again(value, LaneRecord::encode)),
    ]
}

/// The version that is written.
fn version_of(kind: u8) -> u8 {
    match kind {
        1 => 3,
        3 | 4 => 2,
        _ => 1,
    }
}

/// What `bytes` would be, had its value been written today: messages of version 1 lack an octet of flags, those of version 2
/// nothing; due and hold entries of version 1 lack an empty text at their end.
fn as_of_today(bytes: &[u8]) -> Vec<u8> {
    let (_, payload) = bytes.split_at(BODY_OVERHEAD_BYTES);
    match bytes[..2] {
        [1, 1] => sealed(1, 3, &[&payload[..1], &[0], &payload[1..]].concat()),
        [1, 2] => sealed(1, 3, payload),
        [kind @ (3 | 4), 1] => sealed(kind, 2, &[payload, &[0]].concat()),
        _ => bytes.to_vec(),
    }
}

/// Bytes with a right frame and any payload: what a buggy or hostile writer with a checksum could have left.
fn sealed(kind: u8, version: u8, payload: &[u8]) -> Vec<u8> {
    let checksum = crc32c::crc32c_append(crc32c::crc32c(&[kind, version]), payload);
    let mut bytes = vec![kind, version];
    bytes.extend_from_slice(&checksum.to_le_bytes());
    bytes.extend_from_slice(payload);
    bytes
}

fn check_round_trip<T: PartialEq + std::fmt::Debug>(
    value: &T,
    hint: usize,
    encode: impl Fn(&T, &mut Vec<u8>),
    decode: impl Fn(&[u8]) -> Result<T, FormatError>,
) {
    let mut out = Vec::new();
    encode(value, &mut out);
    assert!(out.len() <= hint, "hint {hint} is below the length {}", out.len());
    assert_eq!(decode(&out).as_ref(), Ok(value));
}

proptest! {
    #[test]
    fn a_message_comes_back_as_it_was(record in message()) {
        check_round_trip(&record, record.encoded_len_hint(), MessageRecord::encode, MessageRecord::decode);
    }

    #[test]
    fn a_recipient_state_comes_back_as_it_was(state in state()) {
        check_round_trip(&state, state.encoded_len_hint(), RecipientState::encode, RecipientState::decode);
    }

    #[test]
    fn due_and_hold_entries_come_back_as_they_were(hold in hold()) {
        check_round_trip(&hold, hold.encoded_len_hint(), HoldEntry::encode, HoldEntry::decode);
        check_round_trip(&hold.due, hold.due.encoded_len_hint(), DueEntry::encode, DueEntry::decode);
    }

    #[test]
    fn a_suppression_record_comes_back_as_it_was(record in suppression()) {
        check_round_trip(&record, record.encoded_len_hint(), SuppressionRecord::encode, SuppressionRecord::decode);
    }

    #[test]
    fn suppression_keys_come_back_and_lie_in_the_range_of_their_list(list in any::<[u8; 9]>(), address in any::<[u8; 23]>()) {
        let key = suppression_key(&list, &address);
        prop_assert_eq!(parse_suppression_key(&key), Some((list, address)));
        prop_assert_eq!(parse_suppression_key(&key[..31]), None);
        let (from, to) = suppression_range(&list);
        prop_assert!(from <= key && key.as_slice() < to.as_slice());
        prop_assert!(list.as_slice() < from.as_slice());
    }

    #[test]
    fn an_outbox_record_comes_back_as_it_was(record in outbox()) {
        check_round_trip(&record, record.encoded_len_hint(), OutboxRecord::encode, OutboxRecord::decode);
    }

    #[test]
    fn a_counter_comes_back_as_it_was(record in counter()) {
        check_round_trip(&record, record.encoded_len_hint(), CounterRecord::encode, CounterRecord::decode);
    }

    #[test]
    fn a_lane_comes_back_as_it_was(record in lane()) {
        check_round_trip(&record, record.encoded_len_hint(), LaneRecord::encode, LaneRecord::decode);
    }

    #[test]
    fn bodies_and_meta_values_come_back_as_they_were(body in vec(any::<u8>(), 0..5_000), number in number(), text in text()) {
        let mut out = Vec::new();
        encode_body(&body, &mut out);
        prop_assert_eq!(out.len(), body.len() + BODY_OVERHEAD_BYTES);
        prop_assert_eq!(decode_body(&out), Ok(&body[..]));
        out.clear();
        encode_meta_number(number, &mut out);
        prop_assert_eq!(decode_meta_number(&out), Ok(number));
        out.clear();
        encode_meta_text(&text, &mut out);
        prop_assert_eq!(decode_meta_text(&out), Ok(&text[..]));
    }

    #[test]
    fn a_change_of_one_byte_is_noticed(bytes in encoded(), at in any::<prop::sample::Index>(), change in 1..=255_u8) {
        let mut damaged = bytes;
        let at = at.index(damaged.len());
        damaged[at] ^= change;
        for result in decode_as_everything(&damaged) {
            prop_assert!(matches!(result, Err(FormatError::Checksum { .. })), "{result:?}");
        }
    }

    #[test]
    fn a_record_cut_short_or_grown_is_noticed(bytes in encoded(), at in any::<prop::sample::Index>(), byte in any::<u8>()) {
        let cut = bytes.get(..at.index(bytes.len())).unwrap();
        for result in decode_as_everything(cut) {
            prop_assert!(result.is_err());
        }
        let mut grown = bytes;
        grown.push(byte);
        for result in decode_as_everything(&grown) {
            prop_assert!(result.is_err());
        }
    }

    #[test]
    fn only_the_decoder_of_its_kind_takes_a_record(bytes in encoded()) {
        let taken: Vec<_> = decode_as_everything(&bytes).into_iter().filter_map(Result::ok).collect();
        // Due and outbox records have an owned and a borrowed decoder.
        let expected = if matches!(bytes[0], 3 | 5) { 2 } else { 1 };
        prop_assert_eq!(taken.len(), expected);
    }

    #[test]
    fn another_version_is_named_and_not_read(kind in 1..=11_u8, version in any::<u8>(), payload in vec(any::<u8>(), 0..100)) {
        prop_assume!(version == 0 || version > version_of(kind));
        for result in decode_as_everything(&sealed(kind, version, &payload)) {
            let error = result.unwrap_err();
            match error {
                FormatError::WrongRecord { found, .. } => prop_assert_eq!(found, kind),
                FormatError::UnsupportedVersion { found, supported, .. } => {
                    prop_assert_eq!((found, supported), (version, version_of(kind)));
                }
                other => prop_assert!(false, "{}", other),
            }
        }
    }

    #[test]
    fn arbitrary_bytes_never_panic(bytes in vec(any::<u8>(), 0..300)) {
        for result in decode_as_everything(&bytes) {
            prop_assert!(result.is_err(), "an arbitrary checksum is right once in four billion times");
        }
    }

    #[test]
    fn a_hostile_payload_is_refused_or_is_the_one_encoding_of_its_value(
        kind in 1..=11_u8,
        age in 0..3_u8,
        payload in vec(prop_oneof![0..4_u8, any::<u8>()], 0..80),
    ) {
        let bytes = sealed(kind, version_of(kind).saturating_sub(age).max(1), &payload);
        for result in decode_as_everything(&bytes) {
            match result {
                Ok(again) => prop_assert_eq!(&again, &as_of_today(&bytes)),
                Err(FormatError::Malformed { at_byte, .. }) => prop_assert!(at_byte <= bytes.len()),
                Err(FormatError::WrongRecord { found, .. }) => prop_assert_eq!(found, kind),
                Err(other) => prop_assert!(false, "{}", other),
            }
        }
    }

    #[test]
    fn a_changed_payload_byte_under_a_right_checksum_never_panics(
        bytes in encoded(),
        at in any::<prop::sample::Index>(),
        change in 1..=255_u8,
    ) {
        let (head, payload) = bytes.split_at(BODY_OVERHEAD_BYTES);
        prop_assume!(!payload.is_empty());
        let mut payload = payload.to_vec();
        let at = at.index(payload.len());
        payload[at] ^= change;
        for version in 1..=head[1] {
            let bytes = sealed(head[0], version, &payload);
            for again in decode_as_everything(&bytes).into_iter().flatten() {
                prop_assert_eq!(&again, &as_of_today(&bytes));
            }
        }
    }

    #[test]
    fn keys_sort_as_their_parts_and_parse_back(
        left in (number(), any::<[u8; 22]>(), any::<u16>(), any::<u32>()),
        right in (number(), any::<[u8; 22]>(), any::<u16>(), any::<u32>()),
    ) {
        let due = |(at, id, group, _): &(u64, [u8; 22], u16, u32)| due_key(*at, id, *group);
        prop_assert_eq!(due(&left).cmp(&due(&right)), (left.0, left.1, left.2).cmp(&(right.0, right.1, right.2)));
        prop_assert_eq!(parse_due_key(&due(&left)), Some((left.0, left.1, left.2)));
        let (hold_left, hold_right) = (hold_key(&left.1, left.2), hold_key(&right.1, right.2));
        prop_assert_eq!(hold_left.cmp(&hold_right), (left.1, left.2).cmp(&(right.1, right.2)));
        prop_assert_eq!(parse_hold_key(&hold_left), Some((left.1, left.2)));
        let (state_left, state_right) = (recipient_key(&left.1, left.3), recipient_key(&right.1, right.3));
        prop_assert_eq!(state_left.cmp(&state_right), (left.1, left.3).cmp(&(right.1, right.3)));
        prop_assert_eq!(parse_recipient_key(&state_left), Some((left.1, left.3)));
        prop_assert_eq!(parse_recipient_header_key(&recipient_header_key(&left.1, left.3)), Some((left.1, left.3)));
        prop_assert_eq!(parse_recipient_header_key(&left.1), None);
        prop_assert_eq!(outbox_key(left.0).cmp(&outbox_key(right.0)), left.0.cmp(&right.0));
        prop_assert_eq!(parse_outbox_key(&outbox_key(left.0)), Some(left.0));
        let counter = |(minute, _, scope, kind): &(u64, [u8; 22], u16, u32)| {
            counter_key(u8::from(*kind % 2 == 1), *minute, &format!("tenant/{scope}"))
        };
        let order = |(minute, _, _, kind): &(u64, [u8; 22], u16, u32)| (kind % 2, *minute);
        if order(&left) != order(&right) {
            prop_assert_eq!(counter(&left).cmp(&counter(&right)), order(&left).cmp(&order(&right)));
        }
        prop_assert_eq!(counter(&left) == counter(&right), order(&left) == order(&right) && left.2 == right.2);
        prop_assert_eq!(parse_counter_key(&counter(&left)).map(|(_, minute, _)| minute), Some(left.0));
    }
}

#[test]
fn a_length_far_beyond_the_input_is_refused_without_an_allocation_of_that_size() {
    // An outbox record that claims 2^63 bytes of text.
    let mut payload = vec![1, 0];
    payload.extend_from_slice(&[0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x01]);
    let error = OutboxRecord::decode(&sealed(5, 1, &payload)).unwrap_err();
    assert_eq!(error.to_string(), "outbox record: json at byte 8: goes beyond the end of the record");
    // A message that claims four billion domains.
    let mut payload = vec![0; 1 + 16 + 5];
    payload.extend_from_slice(&[0xff, 0xff, 0xff, 0xff, 0x0f]);
    let error = MessageRecord::decode(&sealed(1, 1, &payload)).unwrap_err();
    assert_eq!(error.to_string(), "message record: domains at byte 28: goes beyond the end of the record");
}

#[test]
#[should_panic(expected = "recipient refers to domain 1 of 1")]
fn a_recipient_without_a_domain_is_never_written() {
    let recipients = vec![RecipientEntry { domain_index: 1, ..RecipientEntry::default() }];
    MessageRecord { recipients, domains: vec!["one.example".into()], ..MessageRecord::default() }
        .encode(&mut Vec::new());
}

#[test]
#[should_panic(expected = "event id at byte 3 of 2")]
fn an_event_id_beyond_the_event_is_never_written() {
    OutboxRecordRef { kind: 1, id_at: 3, json: b"{}" }.encode(&mut Vec::new());
}
