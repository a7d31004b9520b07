//! Limits and timeouts, with a paused clock.

use std::time::Duration;

use tokio::time::Instant;

use super::rig::{FREE_BYTES, Rig, settings};
use crate::reception::memory::{ClientMemory, Reservation};
use crate::reception::settings::Settings;

#[tokio::test(start_paused = true)]
async fn connections_above_the_limits_get_421() {
    let rig = Rig::new(Settings { connections_max: 3, connections_per_client_max: 2, ..settings() }, &[]);
    let mut first = rig.connect();
    let _second = rig.connect();
    rig.connect().expect("421 4.7.0 Too many concurrent SMTP connections").await;
    let _other = rig.connect_from("192.0.2.9:1");
    rig.connect_from("192.0.2.10:1").expect("421 4.3.2 Too many concurrent SMTP connections").await;
    assert_eq!(rig.reception.sessions(), 3);
    first.expect("220").await;
    first.say("QUIT", "221").await;
    first.expect("closed").await;
    // The place is free when the task has ended.
    while rig.reception.sessions() > 2 {
        tokio::task::yield_now().await;
    }
    rig.connect().expect("220").await;
}

#[tokio::test(start_paused = true)]
async fn an_idle_client_is_told_and_closed() {
    let rig = Rig::new(settings(), &[]);
    let mut client = rig.connect();
    client.expect("220").await;
    let began_at = Instant::now();
    tokio::time::sleep(Duration::from_secs(200)).await;
    client.say("NOOP", "250").await;
    client.expect("451 4.4.2 Timeout waiting for data from client.").await;
    client.expect("closed").await;
    assert_eq!(began_at.elapsed().as_secs(), 500);
}

#[tokio::test(start_paused = true)]
async fn a_size_above_limit_and_disk_is_refused_for_good() {
    let rig = Rig::new(settings(), &[]);
    let mut client = rig.connect();
    client.expect("220").await;
    client.say("EHLO client.test", "250 ").await;
    client.say(&format!("MAIL FROM:<a@a.test> SIZE={}", FREE_BYTES + 1), "552 5.3.4").await;
}

#[tokio::test(start_paused = true)]
async fn a_stalled_message_is_given_up() {
    let rig = Rig::new(settings(), &[]);
    let mut client = rig.connect();
    client.open_data().await;
    let began_at = Instant::now();
    client.send("half of a").await;
    client.expect("451 4.4.2").await;
    assert_eq!(began_at.elapsed().as_secs(), 180);
    assert!(rig.queue.accepted.lock().unwrap().is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_session_has_an_end() {
    let rig = Rig::new(settings(), &[]);
    let mut client = rig.connect();
    client.open_data().await;
    let began_at = Instant::now();
    loop {
        client.send("drip\r\n").await;
        if let Ok(reply) = tokio::time::timeout(Duration::from_secs(100), client.reply()).await {
            assert!(reply.starts_with("421 4.4.2"), "{reply}");
            break;
        }
    }
    assert_eq!(began_at.elapsed().as_secs(), 3_600);
}

#[tokio::test(start_paused = true)]
async fn a_client_that_does_not_read_is_dropped() {
    let rig = Rig::new(Settings { idle_commands_max: u32::MAX, ..settings() }, &[]);
    let mut client = rig.connect();
    let flood = async {
        // More replies than the stream holds.
        for _ in 0..10_000 {
            client.send("HELP\r\nHELP\r\nHELP\r\nHELP\r\n").await;
        }
    };
    let ends = tokio::time::timeout(Duration::from_secs(299), flood).await;
    assert!(ends.is_err());
    assert_eq!(rig.reception.sessions(), 1);
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert_eq!(rig.reception.sessions(), 0);
}

#[tokio::test(start_paused = true)]
async fn new_limits_hold_from_the_next_mail_on() {
    let rig = Rig::new(settings(), &[]);
    let mut client = rig.connect();
    client.open_transaction().await;
    rig.settings.store(Settings { recipients_max: 1, message_bytes_max: 10, ..settings() }.into());
    client.say("RCPT TO:<c@b.test>", "250").await;
    client.say("RSET", "250").await;
    client.say("MAIL FROM:<a@a.test> SIZE=11", "552 5.3.4").await;
    client.start_transaction().await;
    client.say("RCPT TO:<c@b.test>", "452 4.5.3").await;
}

#[tokio::test(start_paused = true)]
async fn readers_wait_for_memory() {
    let rig = Rig::new(Settings { memory_bytes_max: 100 * 1024, ..settings() }, &[]);
    let (mut first, mut second) = (rig.connect(), rig.connect());
    first.open_data().await;
    second.open_transaction().await;
    second.send("DATA\r\n").await;
    assert!(tokio::time::timeout(Duration::from_secs(60), second.reply()).await.is_err());
    first.say("x\r\n.", "250 2.0.0 Ok").await;
    second.expect("354").await;
    second.say("x\r\n.", "250 2.0.0 Ok").await;
    assert_eq!(rig.reception.shared.connections.memory().free_bytes(), 100 * 1024);
}

#[tokio::test(start_paused = true)]
async fn without_memory_in_time_the_message_is_refused_for_now() {
    let rig =
        Rig::new(Settings { memory_bytes_max: 100 * 1024, data_timeout: Duration::from_secs(20), ..settings() }, &[]);
    let mut others = Reservation::default();
    let now = Instant::now();
    let memory = ClientMemory::new(rig.reception.shared.connections.memory());
    assert!(others.grow(&memory, 100 * 1024, now).await);
    let mut client = rig.connect();
    client.open_data().await;
    assert_eq!(now.elapsed().as_secs(), 20);
    client.say("x\r\n.", "452 4.3.1").await;
    drop(others);
    client.start_transaction().await;
    client.say("DATA", "354").await;
    client.say("x\r\n.", "250 2.0.0 Ok").await;
}

#[tokio::test(start_paused = true)]
async fn messages_that_one_client_never_ends_leave_memory_to_others() {
    let rig = Rig::new(Settings { memory_bytes_max: 1024 * 1024, ..settings() }, &[]);
    let mut stalled = Vec::new();
    for _ in 0..16 {
        let mut client = rig.connect();
        client.open_transaction().await;
        client.send("DATA\r\n").await;
        stalled.push(client);
    }
    tokio::time::sleep(Duration::from_secs(1)).await;
    // Half of the budget, by 64 KiB each.
    assert_eq!(rig.reception.shared.connections.memory().free_bytes(), 512 * 1024);
    let mut other = rig.connect_from("192.0.2.9:1");
    other.open_data().await;
    other.say("x\r\n.", "250 2.0.0 Ok").await;
}
