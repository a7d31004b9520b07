//! Any bytes as a queue record: no decoder panics, and what decodes encodes to the same bytes again.
#![no_main]

use std::fmt::Debug;

use libfuzzer_sys::fuzz_target;
use queue_format::{
    CounterRecord, DueEntry, DueEntryRef, FormatError, HistoryRecord, HoldEntry, LaneRecord, MessageRecord,
    OutboxRecord, OutboxRecordRef, RecipientState, ReputationRecord, SentRecord, SentRecordRef, SourceLifeRecord,
    SuppressionRecord, decode_body, decode_meta_number, decode_meta_text, encode_body, encode_meta_number,
    encode_meta_text, parse_body_part_key, parse_due_key, parse_history_key, parse_hold_key, parse_outbox_key,
    parse_recipient_header_key, parse_recipient_key, parse_sent_key, recipient_header_key,
};

fuzz_target!(|data: &[u8]| {
    decode_all(data);
    // The same bytes as type and payload of a record with a right frame; without this no input passes the checksum.
    if let Some((kind, payload)) = data.split_first() {
        for version in [1, 2, 3, 4] {
            decode_all(&sealed([*kind, version], payload));
        }
    }
    parse_keys(data);
});

fn sealed(head: [u8; 2], payload: &[u8]) -> Vec<u8> {
    let checksum = crc32c::crc32c_append(crc32c::crc32c(&head), payload).to_le_bytes();
    [&head[..], &checksum, payload].concat()
}

/// A record of an older version, had its value been written today: messages of version 1 lack an octet of flags, due and hold
/// entries of versions 1 and 2 flags and a text at their end, those of version 1 one text more before, others nothing.
fn as_of_today(bytes: &[u8]) -> Vec<u8> {
    match bytes.split_at_checked(6) {
        Some(([1, 1, ..], [flags, rest @ ..])) => sealed([1, 4], &[&[*flags, 0], rest].concat()),
        Some(([1, 2 | 3, ..], rest)) => sealed([1, 4], rest),
        Some(([kind @ (3 | 4), 1, ..], rest)) => sealed([*kind, 3], &[rest, &[0; 3]].concat()),
        Some(([kind @ (3 | 4), 2, ..], rest)) => sealed([*kind, 3], &[rest, &[0; 2]].concat()),
        Some(([11, 1, ..], rest)) => sealed([11, 2], rest),
        _ => bytes.to_vec(),
    }
}

fn decode_all(bytes: &[u8]) {
    check(bytes, MessageRecord::decode(bytes), MessageRecord::encode);
    check(bytes, RecipientState::decode(bytes), RecipientState::encode);
    check(bytes, DueEntry::decode(bytes), DueEntry::encode);
    check(bytes, DueEntryRef::decode(bytes), |entry, out| entry.encode(out));
    check(bytes, HoldEntry::decode(bytes), HoldEntry::encode);
    check(bytes, OutboxRecord::decode(bytes), OutboxRecord::encode);
    check(bytes, OutboxRecordRef::decode(bytes), |record, out| record.encode(out));
    check(bytes, SuppressionRecord::decode(bytes), SuppressionRecord::encode);
    check(bytes, decode_body(bytes), |body, out| encode_body(body, out));
    check(bytes, decode_meta_number(bytes), |number, out| encode_meta_number(*number, out));
    check(bytes, CounterRecord::decode(bytes), CounterRecord::encode);
    check(bytes, LaneRecord::decode(bytes), LaneRecord::encode);
    check(bytes, HistoryRecord::decode(bytes), HistoryRecord::encode);
    check(bytes, ReputationRecord::decode(bytes), ReputationRecord::encode);
    check(bytes, SourceLifeRecord::decode(bytes), SourceLifeRecord::encode);
    check(bytes, SentRecord::decode(bytes), SentRecord::encode);
    check(bytes, SentRecordRef::decode(bytes), |record, out| record.encode(out));
    check(bytes, decode_meta_text(bytes), |text, out| encode_meta_text(text, out));
}

fn check<T: Debug>(bytes: &[u8], decoded: Result<T, FormatError>, encode: impl Fn(&T, &mut Vec<u8>)) {
    match decoded {
        Ok(value) => {
            let mut again = Vec::new();
            encode(&value, &mut again);
            assert_eq!(again, as_of_today(bytes), "{value:?} has two encodings");
        }
        Err(error) => assert!(!error.to_string().is_empty()),
    }
}

fn parse_keys(key: &[u8]) {
    if let Some((due_at_ms, id, group)) = parse_due_key(key) {
        assert_eq!(queue_format::due_key(due_at_ms, &id, group), key);
    }
    if let Some((id, group)) = parse_hold_key(key) {
        assert_eq!(queue_format::hold_key(&id, group), key);
    }
    if let Some((id, index)) = parse_recipient_key(key) {
        assert_eq!(queue_format::recipient_key(&id, index), key);
        assert_eq!(parse_body_part_key(key), Some((id, index)));
        if let Some((id, index)) = parse_recipient_header_key(key) {
            assert_eq!(recipient_header_key(&id, index), key);
        }
    }
    if let Some((day, names)) = parse_history_key(key) {
        assert_eq!(queue_format::history_key(day, &names), key);
    }
    match parse_sent_key(key) {
        Some((id, index, None)) => assert_eq!(queue_format::sent_key(&id, index), key),
        Some((id, index, Some(kind))) => assert_eq!(queue_format::sent_mark_key(&id, index, kind), key),
        None => {}
    }
    if let Some(event_id) = parse_outbox_key(key) {
        assert_eq!(queue_format::outbox_key(event_id), key);
    }
}
