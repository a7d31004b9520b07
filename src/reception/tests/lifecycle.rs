//! Start, reload, drain, and sessions that fail.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::rig::{Client, Rig, settings};
use crate::reception::settings::{ListenerAuth, ListenerSettings, ListenerTakes, ListenerTls};

fn listener(name: &str, address: &str) -> ListenerSettings {
    ListenerSettings {
        name: name.to_owned(),
        address: address.parse().unwrap(),
        tls: ListenerTls::None,
        auth: ListenerAuth::Tls,
        takes: ListenerTakes::Messages,
    }
}

#[tokio::test(start_paused = true)]
async fn drain_ends_idle_sessions_and_lets_messages_finish() {
    let rig = Rig::new(settings(), &[]);
    let (mut idle, mut busy) = (rig.connect(), rig.connect());
    idle.open_transaction().await;
    busy.open_data().await;
    let reception = Arc::clone(&rig.reception);
    let drain = tokio::spawn(async move { reception.drain(Duration::from_secs(30)).await });
    idle.expect("421 4.3.2").await;
    idle.expect("closed").await;
    busy.say("x\r\n.", "250 2.0.0 Ok").await;
    busy.expect("421 4.3.2").await;
    busy.expect("closed").await;
    drop((idle, busy));
    drain.await.unwrap();
    assert_eq!(rig.reception.sessions(), 0);
    assert_eq!(rig.queue.accepted.lock().unwrap().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn what_takes_too_long_is_cut_at_the_end_of_the_drain() {
    let rig = Rig::new(settings(), &[]);
    let mut busy = rig.connect();
    busy.open_data().await;
    let began_at = Instant::now();
    rig.reception.drain(Duration::from_secs(30)).await;
    assert_eq!(began_at.elapsed().as_secs(), 30);
    busy.expect("closed").await;
    assert_eq!(rig.reception.sessions(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_pipelining_client_gets_no_new_transaction_while_draining() {
    let rig = Rig::new(settings(), &[]);
    let mut busy = rig.connect();
    busy.open_data().await;
    let reception = Arc::clone(&rig.reception);
    let drain = tokio::spawn(async move { reception.drain(Duration::from_secs(30)).await });
    tokio::task::yield_now().await;
    busy.say("x\r\n.\r\nMAIL FROM:<a@a.test>", "250 2.0.0 Ok").await;
    busy.expect("421 4.3.2").await;
    drop(busy);
    drain.await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn drain_waits_between_two_chunks_of_a_message() {
    let rig = Rig::new(settings(), &[]);
    let mut busy = rig.connect();
    busy.open_transaction().await;
    busy.say("BDAT 4\r\na:", "250 2.0.0 4 octets").await;
    let reception = Arc::clone(&rig.reception);
    let drain = tokio::spawn(async move { reception.drain(Duration::from_secs(30)).await });
    tokio::task::yield_now().await;
    busy.say("BDAT 3 LAST\r\nb", "250 2.0.0 Ok").await;
    busy.expect("421 4.3.2").await;
    drop(busy);
    drain.await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_session_that_panics_ends_alone() {
    let rig = Rig::new(settings(), &[]);
    let (mut victim, mut other) = (rig.connect(), rig.connect());
    victim.open_data().await;
    victim.say("X-Panic: 1\r\n\r\n.", "closed").await;
    other.open_data().await;
    other.say("x\r\n.", "250 2.0.0 Ok").await;
    assert_eq!(rig.reception.sessions(), 1);
}

#[tokio::test]
async fn listeners_come_and_go_on_reload_and_sessions_stay() {
    let first = listener("first", "127.0.0.1:0");
    let second = listener("second", "[::1]:0");
    let rig = Rig::new(settings(), std::slice::from_ref(&first));
    let mut client = Client::new(Box::new(rig.dial(0).await));
    client.expect("220 mx.test").await;
    let (_, kept) = rig.reception.local_addrs().swap_remove(0);
    rig.reception.reload(&[second.clone(), first.clone()]).unwrap();
    let addresses = rig.reception.local_addrs();
    assert_eq!(addresses.iter().map(|(name, _)| name.as_str()).collect::<Vec<_>>(), ["second", "first"]);
    assert_eq!(addresses[1].1, kept);
    Client::new(Box::new(rig.dial(0).await)).expect("220").await;
    rig.reception.reload(&[second]).unwrap();
    client.say("NOOP", "250").await;
    client.say("QUIT", "221").await;
    // The accept loop closes its socket when it runs next.
    while tokio::net::TcpStream::connect(kept).await.is_ok() {
        tokio::task::yield_now().await;
    }
    rig.reception.drain(Duration::from_secs(5)).await;
}

#[tokio::test]
async fn a_taken_port_is_named_and_changes_nothing() {
    let rig = Rig::new(settings(), &[listener("first", "127.0.0.1:0")]);
    let taken: SocketAddr = rig.reception.local_addrs()[0].1;
    let error = rig
        .reception
        .reload(&[listener("third", "127.0.0.1:0"), listener("other", &taken.to_string())])
        .unwrap_err()
        .to_string();
    assert!(error.contains("listener other") && error.contains(&taken.to_string()), "{error}");
    assert!(error.contains("another program listens there"), "{error}");
    assert_eq!(rig.reception.local_addrs().len(), 1);
    Client::new(Box::new(rig.dial(0).await)).expect("220").await;
}

#[tokio::test]
async fn a_whole_session_runs_over_a_socket() {
    let rig = Rig::new(settings(), &[listener("first", "127.0.0.1:0")]);
    let mut client = Client::new(Box::new(rig.dial(0).await));
    client.open_data().await;
    client.say("Subject: x\r\n\r\nbody\r\n.", "250 2.0.0 Ok").await;
    client.say("QUIT", "221").await;
    client.expect("closed").await;
    assert!(rig.queue.bodies()[0].starts_with("Received: from client.test (127.0.0.1) by mx.test with ESMTP"));
}
