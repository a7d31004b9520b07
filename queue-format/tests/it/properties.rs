//! Properties of every record: it comes back as it was, damage is noticed, hostile bytes are refused without harm.

use proptest::collection::vec;
use proptest::prelude::*;
use queue_format::{
    BODY_OVERHEAD_BYTES, CounterRecord, DueEntry, DueEntryRef, FormatError, HistoryRecord, HoldEntry, LaneRecord,
    LaneWarmup, MessageRecord, OutboxRecord, OutboxRecordRef, RecipientEntry, RecipientState, ReputationRecord,
    SentRecord, SentRecordRef, SourceLifeRecord, SuppressionRecord, WARMUP_PARTS_MAX, counter_key, decode_body,
    decode_meta_number, decode_meta_text, due_key, encode_body, encode_meta_number, encode_meta_text, history_key,
    history_range, hold_key, outbox_key, parse_counter_key, parse_due_key, parse_history_key, parse_hold_key,
    parse_outbox_key, parse_recipient_header_key, parse_recipient_key, parse_sent_key, parse_suppression_key,
    recipient_header_key, recipient_key, sent_key, sent_mark_key, sent_range, source_key, suppression_key,
    suppression_range,
};

use crate::records::{
    counter, encoded, history, hold, lane, message, number, outbox, reputation, sent, source_life, state, suppression,
    text,
};

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
        HistoryRecord::decode(bytes).map(|value| again(value, HistoryRecord::encode)),
        ReputationRecord::decode(bytes).map(|value| again(value, ReputationRecord::encode)),
        SourceLifeRecord::decode(bytes).map(|value| again(value, SourceLifeRecord::encode)),
        SentRecord::decode(bytes).map(|value| again(value, SentRecord::encode)),
        SentRecordRef::decode(bytes).map(|value| again(value, |value, out| value.encode(out))),
    ]
}

/// The version that is written.
fn version_of(kind: u8) -> u8 {
    match kind {
        1 => 4,
        3 | 4 => 3,
        11 => 2,
        _ => 1,
    }
}

/// What `bytes` would be, had its value been written today: messages of version 1 lack an octet of flags, those of versions
/// 2 and 3 nothing; due and hold entries lack flags and an empty text at their end, those of version 1 one text more before; lanes of
/// version 1 nothing.
fn as_of_today(bytes: &[u8]) -> Vec<u8> {
    let (_, payload) = bytes.split_at(BODY_OVERHEAD_BYTES);
    match bytes[..2] {
        [1, 1] => sealed(1, 4, &[&payload[..1], &[0], &payload[1..]].concat()),
        [1, 2 | 3] => sealed(1, 4, payload),
        [kind @ (3 | 4), 1] => sealed(kind, 3, &[payload, &[0; 3]].concat()),
        [kind @ (3 | 4), 2] => sealed(kind, 3, &[payload, &[0; 2]].concat()),
        [11, 1] => sealed(11, 2, payload),
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
    fn a_lane_without_a_warm_up_is_that_of_version_1(record in lane()) {
        let mut out = Vec::new();
        record.encode(&mut out);
        let old = sealed(11, 1, &out[BODY_OVERHEAD_BYTES..]);
        match LaneRecord::decode(&old) {
            Ok(read) => prop_assert_eq!((read.warmup.is_none(), &read), (true, &record)),
            Err(error) => {
                prop_assert!(record.warmup.is_some());
                prop_assert_eq!(error.to_string(), "lane record: flags at byte 8: value is outside of its range");
            }
        }
    }

    #[test]
    fn a_row_of_the_history_comes_back_as_it_was(record in history()) {
        check_round_trip(&record, record.encoded_len_hint(), HistoryRecord::encode, HistoryRecord::decode);
    }

    #[test]
    fn a_reputation_comes_back_as_it_was(record in reputation()) {
        check_round_trip(&record, record.encoded_len_hint(), ReputationRecord::encode, ReputationRecord::decode);
    }

    #[test]
    fn the_life_of_a_source_comes_back_as_it_was(record in source_life()) {
        check_round_trip(&record, record.encoded_len_hint(), SourceLifeRecord::encode, SourceLifeRecord::decode);
    }

    #[test]
    fn what_is_remembered_of_a_recipient_comes_back_as_it_was(record in sent()) {
        check_round_trip(&record, record.encoded_len_hint(), SentRecord::encode, SentRecord::decode);
    }

    #[test]
    fn keys_of_what_was_sent_sort_by_message_recipient_and_kind(
        left in (any::<[u8; 22]>(), any::<u16>(), any::<Option<u8>>()),
        right in (any::<[u8; 22]>(), any::<u16>(), any::<Option<u8>>()),
    ) {
        let key = |(id, index, kind): &([u8; 22], u16, Option<u8>)| match kind {
            None => sent_key(id, *index).to_vec(),
            Some(kind) => sent_mark_key(id, *index, *kind).to_vec(),
        };
        prop_assert_eq!(key(&left).cmp(&key(&right)), left.cmp(&right));
        prop_assert_eq!(parse_sent_key(&key(&left)), Some(left));
        let (from, to) = sent_range(&left.0, 0, left.1);
        let is_in = |of: &([u8; 22], u16, Option<u8>)| from.as_slice() <= key(of).as_slice() && key(of).as_slice() < to.as_slice();
        prop_assert!(is_in(&left));
        prop_assert_eq!(is_in(&right), right.0 == left.0 && right.1 <= left.1);
    }

    #[test]
    fn keys_of_the_history_sort_by_day_and_lie_in_the_range_of_theirs(
        left in (any::<u32>(), any::<[u8; 16]>()),
        right in (any::<u32>(), any::<[u8; 16]>()),
        names in (text(), text()),
    ) {
        let key = |(day, names): &(u32, [u8; 16])| history_key(*day, names);
        prop_assert_eq!(key(&left).cmp(&key(&right)), left.cmp(&right));
        prop_assert_eq!(parse_history_key(&key(&left)), Some(left));
        let (from, to) = history_range(left.0.min(right.0), left.0.max(right.0));
        for key in [key(&left), key(&right)] {
            prop_assert!(from <= key && key.as_slice() < to.as_slice());
        }
        prop_assert_eq!(source_key(&names.0) == source_key(&names.1), names.0 == names.1);
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
        // Due, outbox and sent records have an owned and a borrowed decoder.
        let expected = if matches!(bytes[0], 3 | 5 | 14) { 2 } else { 1 };
        prop_assert_eq!(taken.len(), expected);
    }

    #[test]
    fn another_version_is_named_and_not_read(kind in 1..=14_u8, version in any::<u8>(), payload in vec(any::<u8>(), 0..100)) {
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
        kind in 1..=13_u8,
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
fn more_parts_than_a_brake_has_and_classes_that_do_not_rise_are_refused() {
    let warmup = LaneWarmup { parts: vec![[0; 4]; WARMUP_PARTS_MAX], ..LaneWarmup::default() };
    let mut out = Vec::new();
    LaneRecord { warmup: Some(warmup), ..LaneRecord::default() }.encode(&mut out);
    let at = out.len() - 4 * WARMUP_PARTS_MAX - 1;
    assert_eq!(usize::from(out[at]), WARMUP_PARTS_MAX);
    out[at] += 1;
    out.extend([0; 4]);
    let error = LaneRecord::decode(&sealed(11, 2, &out[BODY_OVERHEAD_BYTES..])).unwrap_err();
    assert!(error.to_string().ends_with(": value is outside of its range"), "{error}");
    for (classes, is_good) in [([3, 4], true), ([3, 3], false), ([4, 3], false)] {
        let payload = [0, 0, 0, 0, 0, 0, 2, classes[0], 1, classes[1], 1, 0, 0];
        assert_eq!(HistoryRecord::decode(&sealed(12, 1, &payload)).is_ok(), is_good, "{classes:?}");
    }
}

#[test]
#[should_panic(expected = "the classes of bounces do not rise")]
fn one_class_with_two_counts_is_never_written() {
    HistoryRecord { bounced: vec![(1, 1), (1, 2)], ..HistoryRecord::default() }.encode(&mut Vec::new());
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
