//! An MX host: answers SMTP as its nature is, and writes down what it takes.

use std::collections::BTreeMap;
use std::sync::atomic::AtomicUsize;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use posthaste::types::Timestamp;
use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};

use super::content;
use super::ledger::{Dot, notification_name};
use super::network::Open;
use super::plan::{HostPlan, Nature, Outage, SENDERS};
use super::world::World;

/// A host that hears nothing for so long closes the connection.
const PATIENCE: Duration = Duration::from_secs(300);

pub(super) struct Host {
    pub(super) plan: HostPlan,
    pub(super) open: Open,
    memory: Mutex<Memory>,
}

struct Memory {
    chance: SmallRng,
    /// When a recipient was first seen, and how often.
    seen: BTreeMap<String, (Timestamp, u32)>,
}

impl Host {
    pub(super) fn new(plan: HostPlan, seed: u64) -> Self {
        let name_hash = plan.name.as_str().bytes().fold(seed, |hash, byte| hash.rotate_left(7) ^ u64::from(byte));
        let memory = Memory { chance: SmallRng::seed_from_u64(name_hash), seen: BTreeMap::new() };
        Self { plan, open: AtomicUsize::new(0), memory: Mutex::new(memory) }
    }

    fn chance(&self, percent: u8) -> bool {
        self.memory.lock().unwrap().chance.random_range(0..100) < percent
    }

    /// Notes that a recipient was seen: since when, and for the how manieth time.
    fn see(&self, address: &str, now: Timestamp) -> (Timestamp, u32) {
        let mut memory = self.memory.lock().unwrap();
        let seen = memory.seen.entry(address.to_owned()).or_insert((now, 0));
        seen.1 += 1;
        *seen
    }

    /// What it says to a recipient, of which it has so many already.
    fn judge_recipient(&self, address: &str, others: usize, now: Timestamp) -> &'static str {
        let (since, times) = self.see(address, now);
        match self.plan.nature {
            Nature::Greylists(wait) if now.since(since) < wait => "451 4.7.1 Greylisted, try again later",
            Nature::Narrow(limit) if others >= limit => "452 4.5.3 Too many recipients",
            Nature::Mixed => {
                match address.bytes().fold(7_u32, |hash, byte| hash.wrapping_mul(31) ^ u32::from(byte)) % 10 {
                    0..5 => "250 2.1.5 OK",
                    5 => "550 5.1.1 No such user",
                    6 => "452 4.2.2 Mailbox full",
                    7 => "550 5.7.1 Not wanted here",
                    _ if times < 4 => "451 4.3.0 Try again later",
                    _ => "250 2.1.5 OK",
                }
            }
            _ => "250 2.1.5 OK",
        }
    }
}

/// Serves one connection.
pub(super) async fn serve(world: Arc<World>, host: Arc<Host>, stream: DuplexStream) {
    let mut session =
        Session { world, host, stream, input: Vec::new(), from: String::new(), recipients: Vec::new(), messages: 0 };
    // Whatever ends it, the stream closes.
    let _ = session.run().await;
}

struct Session {
    world: Arc<World>,
    host: Arc<Host>,
    stream: DuplexStream,
    input: Vec<u8>,
    from: String,
    recipients: Vec<String>,
    messages: u32,
}

/// The connection is over.
struct Over;

impl Session {
    async fn run(&mut self) -> Result<(), Over> {
        match self.host.plan.outage(self.world.now()) {
            Some(Outage::Busy) => return self.say("421 4.3.2 Too busy, try again later").await,
            Some(Outage::Blocks) => return self.say("554 5.7.1 Not from you").await,
            _ => self.say("220 mx ESMTP").await?,
        }
        loop {
            let line = self.line().await?;
            if let Nature::Breaks(percent) = self.host.plan.nature
                && self.host.chance(percent)
            {
                return Err(Over);
            }
            let verb: String = line.chars().take_while(char::is_ascii_alphabetic).collect();
            match verb.as_str() {
                "EHLO" => self.ehlo().await?,
                "MAIL" => self.mail(&line).await?,
                "RCPT" => self.rcpt(&line).await?,
                "DATA" => self.data().await?,
                "RSET" => {
                    self.recipients.clear();
                    self.say("250 2.0.0 OK").await?;
                }
                "QUIT" => {
                    self.say("221 2.0.0 Bye").await?;
                    return Ok(());
                }
                _ => self.say("502 5.5.2 Unknown").await?,
            }
        }
    }

    async fn ehlo(&mut self) -> Result<(), Over> {
        let pipelining = if self.host.plan.pipelining { "250-PIPELINING\r\n" } else { "" };
        self.say(&format!("250-mx\r\n{pipelining}250-8BITMIME\r\n250-DSN\r\n250 ENHANCEDSTATUSCODES")).await
    }

    async fn mail(&mut self, line: &str) -> Result<(), Over> {
        if let Nature::Tires(limit) = self.host.plan.nature
            && self.messages >= limit
        {
            self.say("421 4.7.0 Enough for now").await?;
            return Err(Over);
        }
        self.from = path(line);
        self.recipients.clear();
        self.say("250 2.1.0 OK").await
    }

    async fn rcpt(&mut self, line: &str) -> Result<(), Over> {
        let address = path(line);
        let now = self.world.now();
        // Notifications go to one address again and again: which one is due does not show here.
        if !self.from.is_empty() {
            self.world.ledger().attempted(&address, now);
            if let Some(domain) = self.world.plan.return_path_domain() {
                self.world.ledger().returns(&address, &self.from, domain.as_str());
            }
        }
        let reply = self.host.judge_recipient(&address, self.recipients.len(), now);
        self.world.tell(|| format!("{} rcpt {address}: {reply}", self.host.plan.name));
        if reply.starts_with('2') {
            self.recipients.push(address);
        }
        self.say(reply).await
    }

    async fn data(&mut self) -> Result<(), Over> {
        if self.recipients.is_empty() {
            return self.say("503 5.5.1 No recipients").await;
        }
        self.say("354 Go on").await?;
        let octets = self.until(b"\r\n.\r\n").await?;
        self.messages += 1;
        let (keeps, reply) = match self.host.plan.nature {
            Nature::Forgets(percent) if self.host.chance(percent) => (self.host.chance(50), None),
            Nature::Picky(percent) if self.host.chance(percent) => (false, Some("451 4.3.0 Try again later")),
            Nature::Picky(_) if self.host.chance(10) => (false, Some("554 5.6.0 Not this content")),
            _ => (true, Some("250 2.0.0 Queued")),
        };
        let names = self.names(&octets);
        if !self.world.power.step() {
            return Err(Over);
        }
        if keeps {
            self.check_content(&octets);
        }
        let at = self.world.now();
        let dot = Dot { at, taken: keeps, replied: false };
        let places: Vec<usize> = names.iter().map(|name| self.world.ledger().dot(name, dot)).collect();
        self.recipients.clear();
        let Some(reply) = reply else { return Err(Over) };
        if let Nature::Slow(wait) = self.host.plan.nature {
            tokio::time::sleep(wait).await;
        }
        self.say(reply).await?;
        for (name, place) in names.iter().zip(places) {
            self.world.ledger().dot_replied(name, place);
        }
        Ok(())
    }

    /// Of the recipients, as the ledger knows them.
    fn names(&self, octets: &[u8]) -> Vec<String> {
        if !self.from.is_empty() {
            return self.recipients.clone();
        }
        let id = content::message_id(octets);
        self.recipients.iter().map(|address| notification_name(address, &id)).collect()
    }

    /// CONTENT: what is taken is what was handed in.
    fn check_content(&self, octets: &[u8]) {
        let is_notification = self.recipients.iter().any(|address| address.ends_with(SENDERS));
        if !is_notification && !content::is_whole(octets) {
            let text = format!("CONTENT: {} took something else for {:?}", self.host.plan.name, self.recipients);
            self.world.ledger().violation(text);
        }
    }

    async fn say(&mut self, reply: &str) -> Result<(), Over> {
        let wait = match self.host.plan.nature {
            Nature::Tarpit(wait) => wait,
            _ => Duration::from_millis(self.host.plan.reply_ms),
        };
        if !wait.is_zero() {
            tokio::time::sleep(wait).await;
        }
        if !self.world.power.step() {
            return Err(Over);
        }
        let octets = format!("{reply}\r\n");
        self.stream.write_all(octets.as_bytes()).await.map_err(|_| Over)
    }

    async fn line(&mut self) -> Result<String, Over> {
        let octets = self.until(b"\r\n").await?;
        String::from_utf8(octets).map_err(|_| Over)
    }

    /// Up to `end`, which is taken off.
    async fn until(&mut self, end: &[u8]) -> Result<Vec<u8>, Over> {
        let mut searched = 0;
        loop {
            let from = searched.max(end.len()) - end.len();
            if let Some(at) = self.input[from..].windows(end.len()).position(|window| window == end) {
                let mut octets: Vec<u8> = self.input.drain(..from + at + end.len()).collect();
                octets.truncate(from + at);
                return Ok(octets);
            }
            searched = self.input.len();
            let read = tokio::time::timeout(PATIENCE, self.stream.read_buf(&mut self.input)).await;
            if !matches!(read, Ok(Ok(count)) if count > 0) {
                return Err(Over);
            }
        }
    }
}

/// What stands in angle brackets.
fn path(line: &str) -> String {
    let inner = line.split_once('<').and_then(|(_, rest)| rest.split_once('>'));
    inner.map_or_else(String::new, |(path, _)| path.to_owned())
}
