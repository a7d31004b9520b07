//! Quotas on the way of a message: who pays, when the answer comes, and what is given back.

use std::sync::Arc;

use super::rig::{Rig, settings};
use crate::admission::Directory;
use crate::admission::directory::Quota;
use crate::admission::quota::Scope;
use crate::queue::AcceptError;
use crate::queue::intake::SPOOL_PART_BYTES;

const DAILY: &str = "454 4.7.0 Throttling failure: Daily message quota exceeded";
const RATE: &str = "454 4.7.0 Throttling failure: Maximum sending rate exceeded";

fn limit(rig: &Rig, per_day: Option<u64>, per_second: Option<u32>) {
    let mut directory = Directory::clone(&rig.admission.load());
    directory.quota = Quota { per_day, per_second };
    rig.admission.store(Arc::new(directory));
}

fn used(rig: &Rig) -> u64 {
    rig.quotas.used(&Scope::Server)
}

#[tokio::test(start_paused = true)]
async fn a_message_without_room_is_refused_at_its_end_and_a_caller_without_any_at_mail() {
    let rig = Rig::new(settings(), &[]);
    limit(&rig, Some(3), None);
    let mut client = rig.connect();
    client.open_data().await;
    client.say("x\r\n.", "250 2.0.0 Ok").await;
    client.start_transaction().await;
    client.say("RCPT TO:<c@b.test>", "250").await;
    client.say("RCPT TO:<d@b.test>", "250").await;
    client.say("DATA", "354").await;
    client.say("x\r\n.", DAILY).await;
    assert_eq!(used(&rig), 1);
    client.start_transaction().await;
    client.say("RCPT TO:<c@b.test>", "250").await;
    client.say("DATA", "354").await;
    client.say("x\r\n.", "250 2.0.0 Ok").await;
    client.say("MAIL FROM:<a@a.test>", DAILY).await;
    // Rights change in open sessions.
    limit(&rig, Some(4), None);
    client.say("MAIL FROM:<a@a.test>", "250").await;
    let charges = rig.queue.accepted.lock().unwrap()[1].charges.list.clone();
    let charges: Vec<_> = charges.iter().map(|charge| (&*charge.scope, charge.recipients)).collect();
    assert_eq!(charges, [("tenant/local", 2), ("server", 2)]);
}

#[tokio::test(start_paused = true)]
async fn too_fast_a_client_is_refused_at_the_end_of_its_message() {
    let rig = Rig::new(settings(), &[]);
    limit(&rig, None, Some(1));
    let mut client = rig.connect();
    client.open_data().await;
    client.say("x\r\n.", "250 2.0.0 Ok").await;
    client.start_transaction().await;
    client.say("RCPT TO:<c@b.test>", "250").await;
    client.say("DATA", "354").await;
    client.say("x\r\n.", RATE).await;
}

#[tokio::test(start_paused = true)]
async fn a_spooled_message_without_room_leaves_nothing_behind() {
    let rig = Rig::new(settings(), &[]);
    limit(&rig, Some(1), None);
    let mut client = rig.connect();
    client.open_transaction().await;
    client.say("RCPT TO:<c@b.test>", "250").await;
    client.say("DATA", "354").await;
    let body = format!("{}\r\n", "y".repeat(998)).repeat(3 * SPOOL_PART_BYTES / 1_000);
    client.send(&format!("Subject: x\r\n\r\n{body}.\r\n")).await;
    client.expect(DAILY).await;
    assert_eq!((used(&rig), rig.queue.discarded.lock().unwrap().len()), (0, 1));
}

#[tokio::test(start_paused = true)]
async fn a_message_that_the_queue_does_not_take_costs_nothing() {
    let rig = Rig::new(settings(), &[]);
    *rig.queue.accept_error.lock().unwrap() = Some(AcceptError::NotDurable("disk".to_owned()));
    let mut client = rig.connect();
    client.open_data().await;
    client.say("x\r\n.", "451").await;
    assert_eq!(used(&rig), 0);
    client.start_transaction().await;
    client.say("DATA", "354").await;
    client.say("x\r\n.", "250").await;
    assert_eq!(used(&rig), 1);
}
