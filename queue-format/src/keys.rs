//! Keys: numbers big-endian, so that the order of bytes is the order of time, id and index.
//!
//! A range is a first key and an exclusive end, one byte longer than a key: the last key of the range with a zero byte
//! after it, which is its successor in byte order. So an end exists for every id, also for one of 0xff only.
//!
//! Parsers take exactly the bytes of a key; anything else is `None`, which the queue reports as a foreign key.

/// Length of a message id.
pub const ID_BYTES: usize = 22;
/// Length of a [`due_key`].
pub const DUE_KEY_BYTES: usize = 8 + ID_BYTES + 2;
/// Length of a [`hold_key`].
pub const HOLD_KEY_BYTES: usize = ID_BYTES + 2;
/// Length of a [`recipient_key`].
pub const RECIPIENT_KEY_BYTES: usize = ID_BYTES + 4;
/// Length of a [`body_part_key`].
pub const BODY_PART_KEY_BYTES: usize = ID_BYTES + 4;
/// Length of a [`sent_key`].
pub const SENT_KEY_BYTES: usize = ID_BYTES + 2;
/// Length of a [`sent_mark_key`].
pub const SENT_MARK_KEY_BYTES: usize = SENT_KEY_BYTES + 1;
/// Octets of the time of acceptance, with which a message id begins.
const ID_TIME_BYTES: usize = 6;
/// Length of an [`outbox_key`].
pub const OUTBOX_KEY_BYTES: usize = 8;
/// Length of a [`counter_key`].
pub const COUNTER_KEY_BYTES: usize = 1 + 8 + SCOPE_HASH_BYTES;
/// Length of the key of a lane: SHA-256 of the name of its source, an octet 0 and the name of its site.
pub const LANE_KEY_BYTES: usize = 32;
/// Length of a [`history_key`].
pub const HISTORY_KEY_BYTES: usize = 4 + HISTORY_NAMES_BYTES;
/// Length of what names a row within a [`history_key`]: the first octets of SHA-256 of the name of its source, an octet 0 and
/// the name of its site.
pub const HISTORY_NAMES_BYTES: usize = 16;
/// Length of a [`source_key`].
pub const SOURCE_KEY_BYTES: usize = SCOPE_HASH_BYTES;
/// Length of a [`reputation_key`].
pub const REPUTATION_KEY_BYTES: usize = SCOPE_HASH_BYTES;
/// First byte of the keys of counters that quotas ask for. 2 to 6 are marks of reputation, by the hour.
pub const COUNTER_QUOTA: u8 = 1;
/// First byte of the keys of parts of DMARC and TLS reports that were taken, by the hour at which the time of the report ends.
pub const COUNTER_REPORT: u8 = 7;
/// Of the scope's name a key holds a hash: names are longer than a key may be.
const SCOPE_HASH_BYTES: usize = 16;
/// Length of what names a list within a [`suppression_key`]: its tier, and a hash of its owner's name.
pub const SUPPRESSION_LIST_BYTES: usize = 1 + 8;
/// Length of the hash of an address within a [`suppression_key`].
pub const SUPPRESSION_ADDRESS_BYTES: usize = 23;
/// Length of a [`suppression_key`].
pub const SUPPRESSION_KEY_BYTES: usize = SUPPRESSION_LIST_BYTES + SUPPRESSION_ADDRESS_BYTES;

const ID_LAST: [u8; ID_BYTES] = [0xff; ID_BYTES];

/// Key of a due entry: time in Unix milliseconds, message, group of recipients (position of their domain).
pub fn due_key(due_at_ms: u64, id: &[u8; ID_BYTES], group: u16) -> [u8; DUE_KEY_BYTES] {
    let mut key = [0; DUE_KEY_BYTES];
    let (time, rest) = key.split_at_mut(8);
    time.copy_from_slice(&due_at_ms.to_be_bytes());
    rest.copy_from_slice(&hold_key(id, group));
    key
}

/// Time, message and group of a [`due_key`].
pub fn parse_due_key(key: &[u8]) -> Option<(u64, [u8; ID_BYTES], u16)> {
    let (time, rest) = key.split_first_chunk()?;
    let (id, group) = parse_hold_key(rest)?;
    Some((u64::from_be_bytes(*time), id, group))
}

/// Everything due from `first_ms` to `last_ms`, both included.
pub fn due_range(first_ms: u64, last_ms: u64) -> ([u8; DUE_KEY_BYTES], [u8; DUE_KEY_BYTES + 1]) {
    (due_key(first_ms, &[0; ID_BYTES], 0), successor(&due_key(last_ms, &ID_LAST, u16::MAX)))
}

/// Key of a held entry: message, group of recipients.
pub fn hold_key(id: &[u8; ID_BYTES], group: u16) -> [u8; HOLD_KEY_BYTES] {
    let mut key = [0; HOLD_KEY_BYTES];
    let (key_id, key_group) = key.split_at_mut(ID_BYTES);
    key_id.copy_from_slice(id);
    key_group.copy_from_slice(&group.to_be_bytes());
    key
}

/// Message and group of a [`hold_key`].
pub fn parse_hold_key(key: &[u8]) -> Option<([u8; ID_BYTES], u16)> {
    let (id, group) = key.split_first_chunk()?;
    Some((*id, u16::from_be_bytes(group.try_into().ok()?)))
}

/// All held entries of one message.
pub fn hold_range(id: &[u8; ID_BYTES]) -> ([u8; HOLD_KEY_BYTES], [u8; HOLD_KEY_BYTES + 1]) {
    (hold_key(id, 0), successor(&hold_key(id, u16::MAX)))
}

/// Key of the state of one recipient: message, position of the recipient.
pub fn recipient_key(id: &[u8; ID_BYTES], index: u32) -> [u8; RECIPIENT_KEY_BYTES] {
    let mut key = [0; RECIPIENT_KEY_BYTES];
    let (key_id, key_index) = key.split_at_mut(ID_BYTES);
    key_id.copy_from_slice(id);
    key_index.copy_from_slice(&index.to_be_bytes());
    key
}

/// Message and position of a [`recipient_key`].
pub fn parse_recipient_key(key: &[u8]) -> Option<([u8; ID_BYTES], u32)> {
    let (id, index) = key.split_first_chunk()?;
    Some((*id, u32::from_be_bytes(index.try_into().ok()?)))
}

/// All recipients of one message.
pub fn recipient_range(id: &[u8; ID_BYTES]) -> ([u8; RECIPIENT_KEY_BYTES], [u8; RECIPIENT_KEY_BYTES + 1]) {
    (recipient_key(id, 0), successor(&recipient_key(id, u32::MAX)))
}

/// Key of a body (part 0) or of one part of a spooled one.
pub fn body_part_key(id: &[u8; ID_BYTES], part: u32) -> [u8; BODY_PART_KEY_BYTES] {
    recipient_key(id, part)
}

/// Message and part of a [`body_part_key`].
pub fn parse_body_part_key(key: &[u8]) -> Option<([u8; ID_BYTES], u32)> {
    parse_recipient_key(key)
}

/// All parts of the body of one message.
pub fn body_part_range(id: &[u8; ID_BYTES]) -> ([u8; BODY_PART_KEY_BYTES], [u8; BODY_PART_KEY_BYTES + 1]) {
    recipient_range(id)
}

/// Key of the header block of one recipient, beside the body of its message, whose key is the message id alone.
pub fn recipient_header_key(id: &[u8; ID_BYTES], index: u32) -> [u8; RECIPIENT_KEY_BYTES] {
    recipient_key(id, index)
}

/// Message and position of a [`recipient_header_key`]; `None` for the key of a body.
pub fn parse_recipient_header_key(key: &[u8]) -> Option<([u8; ID_BYTES], u32)> {
    parse_recipient_key(key)
}

/// Key of what is remembered of a recipient that a message was sent to: message, position of the recipient.
pub fn sent_key(id: &[u8; ID_BYTES], index: u16) -> [u8; SENT_KEY_BYTES] {
    hold_key(id, index)
}

/// Key of the time at which something of this kind was told of that recipient; stands behind its [`sent_key`].
pub fn sent_mark_key(id: &[u8; ID_BYTES], index: u16, kind: u8) -> [u8; SENT_MARK_KEY_BYTES] {
    let mut key = [0; SENT_MARK_KEY_BYTES];
    let (key_sent, key_kind) = key.split_at_mut(SENT_KEY_BYTES);
    key_sent.copy_from_slice(&sent_key(id, index));
    key_kind.copy_from_slice(&[kind]);
    key
}

/// Message and position of a [`sent_key`]; with a kind, that of a [`sent_mark_key`].
pub fn parse_sent_key(key: &[u8]) -> Option<([u8; ID_BYTES], u16, Option<u8>)> {
    let (sent, kind) = key.split_at_checked(SENT_KEY_BYTES)?;
    let (id, index) = parse_hold_key(sent)?;
    match kind {
        [] => Some((id, index, None)),
        [kind] => Some((id, index, Some(*kind))),
        _ => None,
    }
}

/// All that is remembered of the recipients of one message from position `first` to `last`, both included.
pub fn sent_range(id: &[u8; ID_BYTES], first: u16, last: u16) -> ([u8; SENT_KEY_BYTES], [u8; SENT_MARK_KEY_BYTES + 1]) {
    (sent_key(id, first), successor(&sent_mark_key(id, last, u8::MAX)))
}

/// All that is remembered of messages that were accepted before `time_ms`.
pub fn sent_before(time_ms: u64) -> ([u8; ID_TIME_BYTES], [u8; ID_TIME_BYTES]) {
    // Nine thousand years fit into six octets; what is beyond is taken for their end.
    let [_, _, time @ ..] = time_ms.min((1 << (8 * ID_TIME_BYTES)) - 1).to_be_bytes();
    ([0; ID_TIME_BYTES], time)
}

/// Key of an event: its id.
pub fn outbox_key(event_id: u64) -> [u8; OUTBOX_KEY_BYTES] {
    event_id.to_be_bytes()
}

/// Event id of an [`outbox_key`].
pub fn parse_outbox_key(key: &[u8]) -> Option<u64> {
    Some(u64::from_be_bytes(key.try_into().ok()?))
}

/// Events from `first` to `last`, both included.
pub fn outbox_range(first: u64, last: u64) -> ([u8; OUTBOX_KEY_BYTES], [u8; OUTBOX_KEY_BYTES + 1]) {
    (outbox_key(first), successor(&outbox_key(last)))
}

/// Key of a counter: what it is for, its minute (Unix time / 60 s), a hash of its scope. By time first, so that what is too
/// old is one range.
pub fn counter_key(kind: u8, minute: u64, scope: &str) -> [u8; COUNTER_KEY_BYTES] {
    counter_key_of(kind, minute, scope_hash(scope))
}

/// Kind, minute and hash of the scope of a [`counter_key`].
pub fn parse_counter_key(key: &[u8]) -> Option<(u8, u64, [u8; SCOPE_HASH_BYTES])> {
    let (kind, rest) = key.split_first()?;
    let (minute, hash) = rest.split_first_chunk()?;
    Some((*kind, u64::from_be_bytes(*minute), hash.try_into().ok()?))
}

/// All counters of one kind from `first_minute` to `last_minute`, both included.
pub fn counter_range(
    kind: u8,
    first_minute: u64,
    last_minute: u64,
) -> ([u8; COUNTER_KEY_BYTES], [u8; COUNTER_KEY_BYTES + 1]) {
    let first = counter_key_of(kind, first_minute, [0; SCOPE_HASH_BYTES]);
    (first, successor(&counter_key_of(kind, last_minute, [0xff; SCOPE_HASH_BYTES])))
}

fn counter_key_of(kind: u8, minute: u64, hash: [u8; SCOPE_HASH_BYTES]) -> [u8; COUNTER_KEY_BYTES] {
    let mut key = [0; COUNTER_KEY_BYTES];
    let parts = std::iter::once(kind).chain(minute.to_be_bytes()).chain(hash);
    for (to, from) in key.iter_mut().zip(parts) {
        *to = from;
    }
    key
}

/// Names come from the config of one administrator, or are a strong hash themselves: nobody looks for two with one hash.
fn scope_hash(scope: &str) -> [u8; SCOPE_HASH_BYTES] {
    fnv1a(scope.as_bytes()).to_be_bytes()
}

/// Key of a row of the history: its day (Unix time / 24 h), a hash of the names of source and site. By time first, so that what
/// is too old is one range.
pub fn history_key(day: u32, names: &[u8; HISTORY_NAMES_BYTES]) -> [u8; HISTORY_KEY_BYTES] {
    let mut key = [0; HISTORY_KEY_BYTES];
    let (key_day, key_names) = key.split_at_mut(4);
    key_day.copy_from_slice(&day.to_be_bytes());
    key_names.copy_from_slice(names);
    key
}

/// Day and hash of the names of a [`history_key`].
pub fn parse_history_key(key: &[u8]) -> Option<(u32, [u8; HISTORY_NAMES_BYTES])> {
    let (day, names) = key.split_first_chunk()?;
    Some((u32::from_be_bytes(*day), names.try_into().ok()?))
}

/// All rows of the history from `first_day` to `last_day`, both included.
pub fn history_range(first_day: u32, last_day: u32) -> ([u8; HISTORY_KEY_BYTES], [u8; HISTORY_KEY_BYTES + 1]) {
    let last = history_key(last_day, &[0xff; HISTORY_NAMES_BYTES]);
    (history_key(first_day, &[0; HISTORY_NAMES_BYTES]), successor(&last))
}

/// Key of the life of a source: a hash of its name, which comes from the config.
pub fn source_key(source: &str) -> [u8; SOURCE_KEY_BYTES] {
    scope_hash(source)
}

/// Key of what is kept of the reputation of a scope: a hash of its name, which comes from the config.
pub fn reputation_key(scope: &str) -> [u8; REPUTATION_KEY_BYTES] {
    scope_hash(scope)
}

/// FNV-1a of 128 bits: its result may never change, since names and keys that hold it are stored. Not for what an enemy chooses.
pub fn fnv1a(bytes: &[u8]) -> u128 {
    const BASIS: u128 = 0x6c62_272e_07bb_0142_62b8_2175_6295_c58d;
    const PRIME: u128 = 0x0000_0000_0100_0000_0000_0000_0000_013b;
    bytes.iter().fold(BASIS, |hash, byte| (hash ^ u128::from(*byte)).wrapping_mul(PRIME))
}

/// Key of an entry of a suppression list: the list, then the hash of the address. The list alone is the key of the number
/// of its entries, and stands before all of them.
pub fn suppression_key(
    list: &[u8; SUPPRESSION_LIST_BYTES],
    address: &[u8; SUPPRESSION_ADDRESS_BYTES],
) -> [u8; SUPPRESSION_KEY_BYTES] {
    let mut key = [0; SUPPRESSION_KEY_BYTES];
    let (key_list, key_address) = key.split_at_mut(SUPPRESSION_LIST_BYTES);
    key_list.copy_from_slice(list);
    key_address.copy_from_slice(address);
    key
}

/// List and hash of the address of a [`suppression_key`].
pub fn parse_suppression_key(key: &[u8]) -> Option<([u8; SUPPRESSION_LIST_BYTES], [u8; SUPPRESSION_ADDRESS_BYTES])> {
    let (list, address) = key.split_first_chunk()?;
    Some((*list, address.try_into().ok()?))
}

/// All entries of one list.
pub fn suppression_range(
    list: &[u8; SUPPRESSION_LIST_BYTES],
) -> ([u8; SUPPRESSION_KEY_BYTES], [u8; SUPPRESSION_KEY_BYTES + 1]) {
    let last = suppression_key(list, &[0xff; SUPPRESSION_ADDRESS_BYTES]);
    (suppression_key(list, &[0; SUPPRESSION_ADDRESS_BYTES]), successor(&last))
}

/// The smallest byte string above `key`.
fn successor<const KEY: usize, const END: usize>(key: &[u8; KEY]) -> [u8; END] {
    const { assert!(END == KEY + 1) }
    let mut end = [0; END];
    for (to, from) in end.iter_mut().zip(key) {
        *to = *from;
    }
    end
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: [u8; ID_BYTES] = *b"ABCDEFGHIJKLMNOPQRSTUV";

    #[test]
    fn keys_have_the_documented_bytes() {
        assert_eq!(
            due_key(0x0102_0304_0506_0708, &ID, 0x090a),
            *b"\x01\x02\x03\x04\x05\x06\x07\x08ABCDEFGHIJKLMNOPQRSTUV\x09\x0a"
        );
        assert_eq!(hold_key(&ID, 0x0102), *b"ABCDEFGHIJKLMNOPQRSTUV\x01\x02");
        assert_eq!(recipient_key(&ID, 0x0102_0304), *b"ABCDEFGHIJKLMNOPQRSTUV\x01\x02\x03\x04");
        assert_eq!(body_part_key(&ID, 1), *b"ABCDEFGHIJKLMNOPQRSTUV\x00\x00\x00\x01");
        assert_eq!(sent_key(&ID, 0x0102), *b"ABCDEFGHIJKLMNOPQRSTUV\x01\x02");
        assert_eq!(sent_mark_key(&ID, 0x0102, 3), *b"ABCDEFGHIJKLMNOPQRSTUV\x01\x02\x03");
        assert_eq!(outbox_key(0x0102), *b"\x00\x00\x00\x00\x00\x00\x01\x02");
        assert_eq!(
            counter_key(1, 0x0203, "a"),
            *b"\x01\x00\x00\x00\x00\x00\x00\x02\x03\xd2\x28\xcb\x69\x6f\x1a\x8c\xaf\x78\x91\x2b\x70\x4e\x4a\x89\x64"
        );
        assert_eq!(history_key(0x0102_0304, b"ABCDEFGHIJKLMNOP"), *b"\x01\x02\x03\x04ABCDEFGHIJKLMNOP");
        assert_eq!(source_key("a"), *b"\xd2\x28\xcb\x69\x6f\x1a\x8c\xaf\x78\x91\x2b\x70\x4e\x4a\x89\x64");
    }

    #[test]
    fn keys_of_another_length_do_not_parse() {
        let bytes = [7; 64];
        for len in 0..bytes.len() {
            let key = bytes.get(..len).unwrap();
            assert_eq!(parse_due_key(key).is_some(), len == DUE_KEY_BYTES, "{len}");
            assert_eq!(parse_hold_key(key).is_some(), len == HOLD_KEY_BYTES, "{len}");
            assert_eq!(parse_recipient_key(key).is_some(), len == RECIPIENT_KEY_BYTES, "{len}");
            assert_eq!(parse_body_part_key(key).is_some(), len == BODY_PART_KEY_BYTES, "{len}");
            assert_eq!(parse_outbox_key(key).is_some(), len == OUTBOX_KEY_BYTES, "{len}");
            let is_sent = len == SENT_KEY_BYTES || len == SENT_MARK_KEY_BYTES;
            assert_eq!(parse_sent_key(key).is_some(), is_sent, "{len}");
            assert_eq!(parse_counter_key(key).is_some(), len == COUNTER_KEY_BYTES, "{len}");
            assert_eq!(parse_history_key(key).is_some(), len == HISTORY_KEY_BYTES, "{len}");
        }
    }

    #[test]
    fn a_range_of_history_holds_its_days_whatever_the_names() {
        for (first, last, day, is_in) in [
            (5, 6, 4, false),
            (5, 6, 5, true),
            (5, 6, 6, true),
            (5, 6, 7, false),
            (255, 256, 256, true),
            (0, u32::MAX, u32::MAX, true),
        ] {
            let (start, end) = history_range(first, last);
            for names in [[0; HISTORY_NAMES_BYTES], [0xff; HISTORY_NAMES_BYTES]] {
                let key = history_key(day, &names);
                let found = (start.as_slice()..end.as_slice()).contains(&key.as_slice());
                assert_eq!(found, is_in, "{first} {last} {day}");
            }
        }
    }

    #[test]
    fn a_range_of_what_was_sent_holds_records_and_marks_of_its_recipients_and_no_others() {
        for (first, last, index, is_in) in
            [(3, 3, 2, false), (3, 3, 3, true), (3, 3, 4, false), (0, u16::MAX, u16::MAX, true), (0, 255, 256, false)]
        {
            for id in [ID, [0; ID_BYTES], ID_LAST] {
                let (start, end) = sent_range(&id, first, last);
                let is_within = |key: &[u8]| start.as_slice() <= key && key < end.as_slice();
                assert_eq!(is_within(&sent_key(&id, index)), is_in, "{first} {last} {index}");
                for kind in [0, 1, u8::MAX] {
                    assert_eq!(is_within(&sent_mark_key(&id, index, kind)), is_in, "{first} {last} {index} {kind}");
                }
            }
        }
    }

    #[test]
    fn what_was_sent_before_a_time_ends_at_the_first_id_of_that_time() {
        let id_at = |time_ms: u64, fill: u8| {
            let mut id = [fill; ID_BYTES];
            id[..ID_TIME_BYTES].copy_from_slice(&time_ms.to_be_bytes()[2..]);
            id
        };
        for (before, time_ms, is_in) in
            [(0, 0, false), (256, 255, true), (256, 256, false), (u64::MAX, (1 << 48) - 2, true), (1, 0, true)]
        {
            let (start, end) = sent_before(before);
            for fill in [0, 0xff] {
                let key = sent_mark_key(&id_at(time_ms, fill), u16::MAX, u8::MAX);
                let found = start.as_slice() <= key.as_slice() && key.as_slice() < end.as_slice();
                assert_eq!(found, is_in, "{before} {time_ms}");
            }
        }
    }

    #[test]
    fn a_range_holds_its_last_key_and_nothing_of_the_next_message() {
        for last_byte in [0x00, 0x56, 0xfe] {
            let mut id = ID_LAST;
            id[ID_BYTES - 1] = last_byte;
            let mut next = id;
            next[ID_BYTES - 1] += 1;
            let (start, end) = recipient_range(&id);
            assert!(start.as_slice() <= recipient_key(&id, 0).as_slice());
            assert!(recipient_key(&id, u32::MAX).as_slice() < end.as_slice());
            assert!(end.as_slice() <= recipient_key(&next, 0).as_slice());
        }
    }

    #[test]
    fn ranges_end_also_behind_the_last_possible_id() {
        let (start, end) = hold_range(&ID_LAST);
        assert!(start.as_slice() < end.as_slice());
        assert!(hold_key(&ID_LAST, u16::MAX).as_slice() < end.as_slice());
        let (_, end) = due_range(0, u64::MAX);
        assert!(due_key(u64::MAX, &ID_LAST, u16::MAX).as_slice() < end.as_slice());
        let (_, end) = outbox_range(1, u64::MAX);
        assert!(outbox_key(u64::MAX).as_slice() < end.as_slice());
        let (_, end) = body_part_range(&ID_LAST);
        assert!(body_part_key(&ID_LAST, u32::MAX).as_slice() < end.as_slice());
    }

    #[test]
    fn a_range_of_counters_holds_its_minutes_whatever_the_scope_and_no_other_kind() {
        let (start, end) = counter_range(1, 5, 6);
        for (kind, minute, is_in) in
            [(1, 4, false), (1, 5, true), (1, 6, true), (1, 7, false), (0, 5, false), (2, 5, false)]
        {
            for scope in ["", "server", "tenant/shop", "credential/a"] {
                let key = counter_key(kind, minute, scope);
                assert_eq!(
                    (start.as_slice()..end.as_slice()).contains(&key.as_slice()),
                    is_in,
                    "{kind} {minute} {scope}"
                );
            }
        }
    }

    #[test]
    fn a_due_range_of_one_instant_holds_that_instant_only() {
        let (start, end) = due_range(5, 5);
        let within = |key: [u8; DUE_KEY_BYTES]| start.as_slice() <= key.as_slice() && key.as_slice() < end.as_slice();
        assert!(within(due_key(5, &[0; ID_BYTES], 0)));
        assert!(within(due_key(5, &ID_LAST, u16::MAX)));
        assert!(!within(due_key(4, &ID_LAST, u16::MAX)));
        assert!(!within(due_key(6, &[0; ID_BYTES], 0)));
    }
}
