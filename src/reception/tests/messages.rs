//! Messages on their way to the queue.

use std::time::Duration;

use super::rig::{Rig, settings};
use crate::queue::intake::SPOOL_PART_BYTES;
use crate::queue::{AcceptError, NewBody};
use crate::reception::settings::{EightBitBodies, Settings};
use crate::types::BodyKind;

const OK: &str = "250 2.0.0 Ok 0101";

#[tokio::test(start_paused = true)]
async fn a_message_is_stamped_accepted_and_answered_with_its_id() {
    let rig = Rig::new(settings(), &[]);
    let mut client = rig.connect();
    client.open_data().await;
    client.send("Subject: x\r\n\r\n..body\r\n.\r\n").await;
    let reply = client.reply().await;
    let accepted = rig.queue.accepted.lock().unwrap().clone();
    assert_eq!(reply, format!("250 2.0.0 Ok {}", accepted[0].id));
    assert_eq!(&*accepted[0].origin.caller, "network");
    assert_eq!(accepted[0].lifetime, Duration::from_secs(60));
    assert_eq!(accepted[0].envelope.recipients[0].address.as_str(), "b@b.test");
    let header =
        "Received: from client.test (192.0.2.1) by mx.test with ESMTP (clear) as network\r\nSubject: x\r\n\r\n";
    assert_eq!(rig.queue.bodies(), [format!("{header}.body\r\n")]);
    assert_eq!(usize::try_from(accepted[0].header_bytes).unwrap(), header.len());
    client.say("QUIT", "221 2.0.0").await;
    client.expect("closed").await;
}

#[tokio::test(start_paused = true)]
async fn a_pipelined_group_is_answered_in_one_write() {
    let rig = Rig::new(settings(), &[]);
    let mut client = rig.connect();
    client.expect("220").await;
    client.say("EHLO client.test", "250").await;
    client.send("MAIL FROM:<a@a.test>\r\nRCPT TO:<b@b.test>\r\nRCPT TO:<c@b.test>\r\nDATA\r\n").await;
    let replies = client.read_once().await;
    assert_eq!(replies.lines().count(), 4, "{replies}");
    client.send("x\r\n.\r\nMAIL FROM:<a@a.test>\r\nRCPT TO:<b@b.test>\r\nBDAT 3 LAST\r\nx\r\nQUIT\r\n").await;
    let replies = client.read_once().await;
    assert_eq!(replies.lines().count(), 5, "{replies}");
    assert_eq!(replies.matches(OK).count(), 2, "{replies}");
    assert_eq!(rig.queue.accepted.lock().unwrap().len(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_250_does_not_wait_for_the_next_message() {
    let rig = Rig::new(settings(), &[]);
    rig.queue.commits.forget_permits(rig.queue.commits.available_permits() - 1);
    let mut client = rig.connect();
    client.open_data().await;
    client.send("x\r\n.\r\nMAIL FROM:<a@a.test>\r\nRCPT TO:<b@b.test>\r\nBDAT 3 LAST\r\nx\r\n").await;
    let replies = client.read_once().await;
    assert_eq!(replies.lines().count(), 3, "{replies}");
    assert!(replies.starts_with(OK), "{replies}");
    rig.queue.commits.add_permits(1);
    client.expect(OK).await;
}

#[tokio::test(start_paused = true)]
async fn no_250_before_the_queue_has_the_message() {
    let rig = Rig::new(settings(), &[]);
    rig.queue.commits.forget_permits(usize::MAX);
    let mut client = rig.connect();
    client.open_data().await;
    client.send("x\r\n.\r\n").await;
    let early = tokio::time::timeout(Duration::from_secs(600), client.reply()).await;
    assert!(early.is_err(), "{early:?}");
    rig.queue.commits.add_permits(1);
    client.expect(OK).await;
}

#[tokio::test(start_paused = true)]
async fn errors_of_the_queue_have_their_replies() {
    let rig = Rig::new(settings(), &[]);
    let mut client = rig.connect();
    client.open_data().await;
    *rig.queue.accept_error.lock().unwrap() = Some(AcceptError::NotDurable("disk".to_owned()));
    client.say("x\r\n.", "451 4.3.0 Temporary service failure").await;
    *rig.queue.check_error.lock().unwrap() = Some(AcceptError::LowDisk { free_bytes: 1, reserve_bytes: 2 });
    client.say("MAIL FROM:<a@a.test>", "452 4.3.1").await;
    *rig.queue.check_error.lock().unwrap() = Some(AcceptError::QueueFull { limit: 1 });
    client.say("MAIL FROM:<a@a.test>", "452 4.3.1").await;
    *rig.queue.check_error.lock().unwrap() = Some(AcceptError::Closed);
    client.say("MAIL FROM:<a@a.test>", "421 4.3.2").await;
    client.expect("closed").await;
    assert!(rig.queue.accepted.lock().unwrap().is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_refusal_of_the_stamp_reaches_the_client_and_the_session_goes_on() {
    let rig = Rig::new(settings(), &[]);
    let mut client = rig.connect();
    client.open_data().await;
    client.say("X-Refuse: 1\r\n\r\nbody\r\n.", "554 5.4.6 Too many hops").await;
    client.start_transaction().await;
    client.say("DATA", "354").await;
    client.say("x: y\r\n.", OK).await;
}

#[tokio::test(start_paused = true)]
async fn strangers_may_not_relay() {
    let rig = Rig::new(settings(), &[]);
    let mut client = rig.connect_from("198.51.100.1:25");
    client.expect("220").await;
    client.say("EHLO client.test", "250").await;
    client.say("MAIL FROM:<a@a.test>", "530 5.7.0 Authentication required").await;
    let mut mapped = rig.connect_from("[::ffff:192.0.2.7]:25");
    mapped.open_transaction().await;
}

#[tokio::test(start_paused = true)]
async fn eight_bit_octets_in_the_body_change_the_declared_kind_where_they_pass() {
    let rig = Rig::new(Settings { eight_bit_bodies: EightBitBodies::Pass, ..settings() }, &[]);
    let mut client = rig.connect();
    client.open_data().await;
    client.say("Subject: x\r\n\r\nü\r\n.", OK).await;
    client.start_transaction().await;
    client.say("DATA", "354").await;
    client.say("Subject: ü\r\n\r\nx\r\n.", OK).await;
    let kinds: Vec<_> = rig.queue.accepted.lock().unwrap().iter().map(|new| new.envelope.body).collect();
    assert_eq!(kinds, [BodyKind::EightBitMime, BodyKind::SevenBit]);
}

#[tokio::test(start_paused = true)]
async fn a_label_that_is_not_needed_is_changed_in_the_header_and_the_body_is_spooled_once() {
    let rig = Rig::new(settings(), &[]);
    let mut client = rig.connect();
    client.open_data().await;
    for text in ["plain\r\n".to_owned(), "Many regards\r\n".repeat(200_000)] {
        client.say(&format!("Content-Transfer-Encoding: 8bit\r\n\r\n{text}."), OK).await;
        let accepted = rig.queue.accepted.lock().unwrap().pop().unwrap();
        let whole: Vec<u8> = match accepted.body {
            NewBody::Inline(octets) => octets.to_vec(),
            NewBody::Spooled { .. } => {
                let parts = rig.queue.parts_in_order();
                assert!(parts.iter().all(|(id, ..)| *id == accepted.id), "spooled anew");
                parts.iter().flat_map(|(_, _, part)| part.to_vec()).collect()
            }
        };
        let whole = String::from_utf8(whole).unwrap();
        assert!(whole.contains("Content-Transfer-Encoding: 7bit\r\n\r\n"));
        assert!(whole.ends_with(&format!("\r\n\r\n{text}")) && !whole.contains("8bit"));
        client.start_transaction().await;
        client.say("DATA", "354").await;
    }
}

#[tokio::test(start_paused = true)]
async fn bodies_are_made_portable_in_memory_and_in_the_spool() {
    let rig = Rig::new(settings(), &[]);
    let mut client = rig.connect();
    client.open_data().await;
    client.say("Subject: x\r\n\r\nGr\u{fc}\u{df}e\r\n.", OK).await;
    let small = rig.queue.bodies().remove(0);
    assert!(
        small.contains("\r\nContent-Transfer-Encoding: quoted-printable\r\n")
            && small.ends_with("\r\n\r\nGr=C3=BC=C3=9Fe\r\n"),
        "{small}"
    );
    client.start_transaction().await;
    client.say("DATA", "354").await;
    client.say(&format!("Subject: x\r\n\r\n{}.", "Many regards to J\u{fc}rgen\r\n".repeat(100_000)), OK).await;
    let accepted = rig.queue.accepted.lock().unwrap().pop().unwrap();
    let parts: Vec<_> = rig.queue.parts_in_order().into_iter().filter(|(id, ..)| *id == accepted.id).collect();
    let whole: Vec<u8> = parts.iter().flat_map(|(_, _, part)| part.to_vec()).collect();
    assert!(whole.is_ascii() && whole.ends_with("Many regards to J=C3=BCrgen\r\n".repeat(100_000).as_bytes()));
    assert!(parts.iter().all(|(_, _, part)| part.len() <= SPOOL_PART_BYTES));
    let NewBody::Spooled { parts: count, bytes } = accepted.body else { panic!("not spooled") };
    assert_eq!((usize::try_from(count).unwrap(), usize::try_from(bytes).unwrap()), (parts.len(), whole.len()));
    assert_eq!(accepted.envelope.body, BodyKind::SevenBit);
    // What came is of no more use.
    let discarded = rig.queue.discarded.lock().unwrap().clone();
    assert!(discarded.len() == 1 && discarded[0].0 != accepted.id, "{discarded:?}");
}

#[tokio::test(start_paused = true)]
async fn a_long_line_that_cannot_be_wrapped_is_refused_with_its_reason() {
    let rig = Rig::new(settings(), &[]);
    let mut client = rig.connect();
    client.open_data().await;
    let signed =
        format!("Content-Type: multipart/signed; boundary=b\r\n\r\n--b\r\n\r\n{}\r\n--b--\r\n.", "x".repeat(2_000));
    client.say(&signed, "550 5.6.11 Message has a line too long, which cannot be re-encoded: ").await;
}

/// A message whose lines are numbered, so that an octet lost or moved is seen.
fn large(bytes: usize) -> String {
    let mut text = "Subject: large\r\n\r\n".to_owned();
    let mut number = 0;
    while text.len() < bytes {
        text += &format!("line {number} of a large message that does not fit into one part\r\n");
        number += 1;
    }
    text
}

#[tokio::test(start_paused = true)]
async fn three_mebibytes_are_spooled_in_parts_and_accepted() {
    let rig = Rig::new(settings(), &[]);
    let mut client = rig.connect();
    let text = large(3 << 20);
    client.open_data().await;
    client.say(&format!("{text}."), OK).await;
    let parts = rig.queue.parts_in_order();
    let accepted = rig.queue.accepted.lock().unwrap().clone();
    assert!(parts.iter().all(|(id, _, part)| *id == accepted[0].id && part.len() <= SPOOL_PART_BYTES));
    // The header is part 0; three mebibytes and some octets of body follow.
    assert_eq!(parts.iter().map(|(_, number, _)| *number).collect::<Vec<_>>(), [0, 1, 2, 3, 4]);
    assert!(parts[0].2.ends_with(b"\r\n\r\n") && parts[0].2.starts_with(b"Received: "), "the header, written last");
    let whole: Vec<u8> = parts.iter().flat_map(|(_, _, part)| part.to_vec()).collect();
    let (received, rest) = whole.split_at(whole.len() - text.len());
    assert!(received.starts_with(b"Received: ") && received.ends_with(b"network\r\n"));
    assert!(rest == text.as_bytes());
    let NewBody::Spooled { parts: count, bytes } = accepted[0].body else { panic!("not spooled") };
    assert_eq!((count, bytes), (5, u64::try_from(whole.len()).unwrap()));
    assert!(rig.queue.discarded.lock().unwrap().is_empty());
    assert_eq!(rig.reception.shared.connections.memory().free_bytes(), rig.settings.load().memory_bytes_max);
}

#[tokio::test(start_paused = true)]
async fn around_the_size_of_a_part_every_size_arrives_whole() {
    let rig = Rig::new(settings(), &[]);
    let mut client = rig.connect();
    client.expect("220").await;
    client.say("EHLO client.test", "250").await;
    for bytes in [-200, -100, -50, 0, 1, 20_000, 90_000] {
        let text = large((1_usize << 20).checked_add_signed(bytes).unwrap());
        client.start_transaction().await;
        client.say("DATA", "354").await;
        client.say(&format!("{text}."), OK).await;
        let parts = rig.queue.parts_in_order();
        rig.queue.parts.lock().unwrap().clear();
        let whole = match rig.queue.accepted.lock().unwrap().pop().unwrap().body {
            NewBody::Inline(octets) => octets.to_vec(),
            NewBody::Spooled { .. } => parts.iter().flat_map(|(_, _, part)| part.to_vec()).collect(),
        };
        assert!(parts.iter().all(|(_, _, part)| part.len() <= SPOOL_PART_BYTES));
        assert!(whole.ends_with(text.as_bytes()), "{bytes}");
    }
}

#[tokio::test(start_paused = true)]
async fn nothing_is_discarded_once_the_queue_was_asked_to_take_it() {
    let rig = Rig::new(settings(), &[]);
    rig.queue.commits.forget_permits(usize::MAX);
    let mut client = rig.connect();
    client.open_data().await;
    client.send(&format!("{}.\r\n", large(2 << 20))).await;
    rig.reception.drain(Duration::from_secs(5)).await;
    client.expect("closed").await;
    assert_eq!(rig.queue.parts.lock().unwrap().len(), 4);
    assert!(rig.queue.discarded.lock().unwrap().is_empty());
}

#[tokio::test(start_paused = true)]
async fn parts_are_discarded_when_the_message_does_not_end_well() {
    let rig = Rig::new(Settings { message_bytes_max: 3 << 20, ..settings() }, &[]);
    // The client goes away.
    let mut client = rig.connect();
    client.open_data().await;
    client.send(&large(2 << 20)).await;
    drop(client);
    // Too long.
    let mut client = rig.connect();
    client.open_data().await;
    client.say(&format!("{}.", large(4 << 20)), "552 5.3.4 Message is too long.").await;
    // The queue does not take it.
    client.start_transaction().await;
    client.say("DATA", "354").await;
    *rig.queue.accept_error.lock().unwrap() = Some(AcceptError::NotDurable(String::new()));
    client.say(&format!("{}.", large(2 << 20)), "451 4.3.0").await;
    // The spool fails.
    client.start_transaction().await;
    client.say("DATA", "354").await;
    *rig.queue.spool_error.lock().unwrap() = Some(AcceptError::LowDisk { free_bytes: 0, reserve_bytes: 1 });
    client.say(&format!("{}.", large(2 << 20)), "452 4.3.1").await;
    // RSET between two chunks.
    client.start_transaction().await;
    let text = large(2 << 20);
    client.say(&format!("BDAT {}\r\n{}NOOP", text.len(), text), "250 2.0.0").await;
    client.expect("250 2.0.0 Ok").await;
    client.say("RSET", "250").await;
    let discarded = rig.queue.discarded.lock().unwrap().clone();
    assert_eq!(discarded.len(), 5, "{discarded:?}");
    assert!(rig.queue.accepted.lock().unwrap().is_empty());
    assert_eq!(rig.reception.shared.connections.memory().free_bytes(), rig.settings.load().memory_bytes_max);
}

#[tokio::test(start_paused = true)]
async fn a_large_message_whose_header_is_refused_is_never_spooled() {
    let rig = Rig::new(settings(), &[]);
    let mut client = rig.connect();
    client.open_data().await;
    client.say(&format!("X-Refuse: y\r\n{}.", large(3 << 20)), "554 5.4.6").await;
    assert!(rig.queue.parts.lock().unwrap().is_empty());
}
