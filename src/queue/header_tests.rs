//! Header blocks of single recipients in the queue: kept with their message, gone with it, and back after a recovery. And what
//! becomes of a store that an older release wrote.

use std::sync::Arc;

use super::invariants::violations;
use super::model::ModelStore;
use super::salvage::{Source, Sources, salvage};
use super::store::{Change, Family, Key, Store};
use super::testing::new_message;
use super::*;
use crate::events::EventId;
use crate::types::{Domain, ManualClock, PoolName, Priority, SourceName, Timestamp};

const NOW: Timestamp = Timestamp::from_millis(1_700_000_000_000);

fn open(store: Arc<dyn Store>) -> Opened {
    Queue::open(store, &Settings::default(), Arc::new(ManualClock::at(NOW)), 1).unwrap()
}

fn close(opened: Opened) {
    let Opened { queue, handoffs, committer, .. } = opened;
    drop((queue, handoffs));
    committer.join().unwrap();
}

fn block_on<F: Future>(future: F) -> F::Output {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(future)
}

/// A message to so many domains, with a block for each.
fn message(id: MessageId, domains: u8) -> NewMessage {
    let mut message = new_message(id, domains, NewBody::Inline(Bytes::from_static(b"Subject: x\r\n\r\n")));
    message.recipient_headers = (0..domains).map(|domain| Bytes::from(format!("X-To: {domain}\r\n"))).collect();
    message.origin.identity = "app.test".into();
    let domain = Domain::parse("bounce.app.test").unwrap();
    message.origin.return_path = Some(ReturnPath { domain, granularity: Granularity::PerMessage });
    message.origin.pool = PoolName::parse("dedicated").unwrap();
    message.origin.priority = Priority::Bulk;
    message
}

#[test]
fn origin_and_header_blocks_come_back_after_a_power_cut() {
    let store = Arc::new(ModelStore::new());
    let opened = open(Arc::clone(&store) as _);
    let id = opened.queue.new_id();
    let new = message(id, 3);
    block_on(opened.queue.accept(new.clone())).unwrap();
    store.crash();
    let opened_again = open(Arc::clone(&store) as _);
    let stored = opened_again.queue.load(id).unwrap().unwrap();
    assert_eq!(stored.origin, new.origin);
    let source = SourceName::parse("2001:db8::10").unwrap();
    let entry = stored.due_entry(0, 2, Some(&source));
    assert_eq!((&*entry.pool, &*entry.tenant, entry.priority), ("dedicated", "shop", Priority::Bulk.code()));
    assert_eq!((entry.attempts, &*entry.source), (2, "2001:db8::10"));
    assert!(stored.recipient_headers);
    for (index, block) in new.recipient_headers.iter().enumerate() {
        assert_eq!(opened_again.queue.recipient_header(id, index).unwrap(), block);
    }
    assert!(opened_again.queue.recipient_header(id, 3).is_err());
    assert_eq!(violations(&*store).unwrap(), Vec::<String>::new());
    close(opened);
    close(opened_again);
}

#[test]
fn blocks_above_the_bound_are_refused_and_nothing_is_written() {
    let store = Arc::new(ModelStore::new());
    let opened = open(Arc::clone(&store) as _);
    let mut new = message(opened.queue.new_id(), 2);
    let limit_bytes = intake::RECIPIENT_HEADERS_BYTES_MAX;
    new.recipient_headers[0] = Bytes::from([vec![b'x'; limit_bytes], b"\r\n".to_vec()].concat());
    let refused = block_on(opened.queue.accept(new.clone())).unwrap_err();
    let bytes = limit_bytes + 2 + new.recipient_headers[1].len();
    assert!(
        matches!(refused, AcceptError::HeadersTooLarge { bytes: of, limit_bytes: limit } if (of, limit) == (bytes, limit_bytes))
    );
    assert!(store.dump(Family::Body).is_empty() && store.dump(Family::Message).is_empty());
    close(opened);
}

#[test]
#[should_panic(expected = "a header block is whole lines without an empty one")]
fn a_block_that_would_end_the_header_is_never_taken() {
    let opened = open(Arc::new(ModelStore::new()));
    let mut new = message(opened.queue.new_id(), 1);
    new.recipient_headers[0] = Bytes::from_static(b"X-To: 0\r\n\r\nBody\r\n");
    let _ = block_on(opened.queue.accept(new));
}

/// Accepts one message to two domains, damages the header block of the first recipient, and salvages.
fn salvaged(first_has_ended: bool) -> (salvage::Salvaged, Arc<ModelStore>, MessageId) {
    let store = Arc::new(ModelStore::new());
    let opened = open(Arc::clone(&store) as _);
    let id = opened.queue.new_id();
    let mut new = message(id, 2);
    if first_has_ended {
        let state = RecipientState { outcome: RecipientOutcome::Bounced, ..RecipientState::default() };
        new.ended.states.push((0, state));
    }
    block_on(opened.queue.accept(new)).unwrap();
    close(opened);
    let damaged = ModelStore::new();
    let victim = format::recipient_header_key(id.as_bytes(), 0);
    for family in Family::ALL {
        let put = |(key, value): (Vec<u8>, Bytes)| {
            let value = if family == Family::Body && key == victim { Bytes::from_static(b"?") } else { value };
            Change::Put { family, key: Key::new(&key), value }
        };
        let changes: Vec<Change> = store.dump(family).into_iter().map(put).collect();
        damaged.write(&changes, true).unwrap();
    }
    let source = Source { name: "as it is", store: Box::new(damaged), families: Family::ALL.into() };
    let fresh = Arc::new(ModelStore::new());
    let found = salvage(&Sources(vec![source]), &*fresh, EventId::new(0), Timestamp::EPOCH).unwrap();
    assert_eq!(violations(&*fresh).unwrap(), Vec::<String>::new());
    (found, fresh, id)
}

#[test]
fn recovery_keeps_blocks_and_names_a_message_whose_block_is_damaged() {
    let (found, fresh, id) = salvaged(false);
    assert_eq!((found.messages, found.lost.len()), (0, 1));
    assert!(found.lost[0].reason.starts_with("the header block of recipient 0: "), "{}", found.lost[0].reason);
    assert!(fresh.dump(Family::Body).is_empty());
    let (found, fresh, of_ended) = salvaged(true);
    assert_eq!((found.messages, found.lost.len()), (1, 0), "nobody needs the block of a recipient that ended");
    let opened = open(fresh);
    assert_eq!(opened.queue.recipient_header(of_ended, 1).unwrap(), "X-To: 1\r\n");
    close(opened);
    assert_eq!(id.accepted_at(), of_ended.accepted_at());
}

#[test]
fn a_store_of_format_1_is_read_and_marked_so_that_an_older_release_refuses_it() {
    let store = Arc::new(ModelStore::new());
    close(open(Arc::clone(&store) as _));
    store.write(&[committer::meta_put(meta::FORMAT, 1)], true).unwrap();
    // A message as version 1 wrote it: without the second octet of flags, and what follows from it.
    let id = MessageId::new(NOW, 7);
    let opened = open(Arc::clone(&store) as _);
    assert_eq!(
        store.get(Family::Meta, meta::FORMAT.as_bytes()).unwrap().map(|value| format::decode_meta_number(&value)),
        Some(Ok(u64::from(format::FORMAT_VERSION)))
    );
    let new = new_message(id, 1, NewBody::Inline(Bytes::from_static(b"\r\n")));
    let mut record = Vec::new();
    let of_today = StoredMessage::from_new(&new).to_record();
    format::MessageRecord { pool: String::new(), priority: 0, ..of_today }.encode(&mut record);
    let (_, payload) = record.split_at(6);
    let payload = [&payload[..1], &payload[2..]].concat();
    let checksum = crc32c::crc32c_append(crc32c::crc32c(&[1, 1]), &payload).to_le_bytes();
    let record = [&[1, 1], &checksum[..], &payload].concat();
    let change = Change::Put { family: Family::Message, key: Key::new(id.as_bytes()), value: record.into() };
    store.write(&[change], true).unwrap();
    let stored = opened.queue.load(id).unwrap().unwrap();
    assert_eq!((stored.origin, stored.recipient_headers), (new.origin, false));
    close(opened);
}
