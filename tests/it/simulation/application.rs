//! An application: hands in its messages one after the other, and does not give up.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use posthaste::reception::Reception;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};

use super::content;
use super::plan::{MessagePlan, SENDERS};
use super::senders::Senders;
use super::world::World;

/// Between two tries of one message.
const PAUSE: Duration = Duration::from_secs(45);
/// For each reply.
const PATIENCE: Duration = Duration::from_secs(300);
const STREAM_BYTES: usize = 64 * 1024;

/// Runs until everything is handed in, or the daemon is gone.
pub(super) async fn run(world: Arc<World>, reception: Arc<Reception>, number: usize) {
    loop {
        let (next, tries) = world.progress.lock().unwrap()[number];
        let Some(message) = world.plan.messages[number].get(next) else { return };
        let wait = message.at.since(world.now());
        if !wait.is_zero() {
            tokio::time::sleep(wait).await;
        }
        world.progress.lock().unwrap()[number].1 += 1;
        let marker = format!("a{number}m{next}t{tries}");
        let client = Client::connect(&reception, number);
        let done = submit(&world, client, &marker, message).await;
        world.tell(|| format!("application {marker}: {done:?}"));
        if done.is_ok() {
            world.progress.lock().unwrap()[number] = (next + 1, 0);
        } else {
            tokio::time::sleep(PAUSE).await;
        }
    }
}

/// One try, with recipients that no other try has.
async fn submit(world: &World, mut client: Client, marker: &str, message: &MessagePlan) -> Result<(), String> {
    let from = format!("{marker}@{SENDERS}");
    client.expect("220").await?;
    client.say("EHLO app.test", "250").await?;
    client.say(&format!("MAIL FROM:<{from}>"), "250").await?;
    let mut addresses = Vec::new();
    for (number, (zone, notify)) in message.recipients.iter().enumerate() {
        let address = format!("{marker}r{number}@{}", world.plan.zones[*zone].domain);
        let notify = notify.map_or_else(String::new, |notify| format!(" NOTIFY={notify}"));
        client.say(&format!("RCPT TO:<{address}>{notify}"), "250").await?;
        addresses.push(address);
    }
    client.say("DATA", "354").await?;
    let mut fields = Senders::field(message.pool);
    if let Some(priority) = message.priority {
        fields.push_str(&format!("X-Posthaste-Priority: {priority}\r\n"));
    }
    let octets = content::stuff(&content::message(marker, &from, &fields, message.body_bytes));
    client.send(&octets).await?;
    if !world.power.step() {
        return Err("the power is off".to_owned());
    }
    client.send(b".\r\n").await?;
    client.expect("250").await?;
    if world.power.is_cut() {
        return Err("the power is off".to_owned());
    }
    world.ledger().accepted.extend(addresses);
    world.power.step();
    // It is ours no more, however the session ends.
    let _ = client.say("QUIT", "221").await;
    Ok(())
}

struct Client {
    stream: DuplexStream,
    input: Vec<u8>,
}

impl Client {
    fn connect(reception: &Reception, number: usize) -> Self {
        let (ours, theirs) = tokio::io::duplex(STREAM_BYTES);
        let peer = Ipv4Addr::new(192, 0, 2, u8::try_from(number + 1).unwrap());
        reception.serve("memory", Box::new(theirs), SocketAddr::from((peer, 40_000)));
        Self { stream: ours, input: Vec::new() }
    }

    async fn say(&mut self, line: &str, expected: &str) -> Result<(), String> {
        self.send(format!("{line}\r\n").as_bytes()).await?;
        self.expect(expected).await
    }

    async fn send(&mut self, octets: &[u8]) -> Result<(), String> {
        self.stream.write_all(octets).await.map_err(|error| error.to_string())
    }

    async fn expect(&mut self, expected: &str) -> Result<(), String> {
        loop {
            let line = self.line().await?;
            if line.as_bytes().get(3) == Some(&b'-') {
                continue;
            }
            return if line.starts_with(expected) { Ok(()) } else { Err(line) };
        }
    }

    async fn line(&mut self) -> Result<String, String> {
        loop {
            if let Some(at) = self.input.iter().position(|octet| *octet == b'\n') {
                let line: Vec<u8> = self.input.drain(..=at).collect();
                return Ok(String::from_utf8_lossy(&line).trim_end().to_owned());
            }
            let read = tokio::time::timeout(PATIENCE, self.stream.read_buf(&mut self.input)).await;
            if !matches!(read, Ok(Ok(count)) if count > 0) {
                return Err("closed".to_owned());
            }
        }
    }
}
