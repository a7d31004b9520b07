//! An MX host: answers SMTP as its nature is, and writes down what it takes.

use std::collections::BTreeMap;
use std::net::IpAddr;
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
use super::provider::{Kind, Provider};
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
        Self { plan, open: Open::default(), memory: Mutex::new(memory) }
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
    fn judge_recipient(&self, address: &str, source: IpAddr, others: usize, now: Timestamp) -> &'static str {
        let greylists = matches!(self.plan.nature, Nature::Greylists(_));
        let key = if greylists { format!("{address} {source}") } else { address.to_owned() };
        let (since, times) = self.see(&key, now);
        match self.plan.nature {
            Nature::Greylists(wait) if now.since(since) < wait => "451 4.7.1 Greylisted, try again later",
            Nature::Narrow(limit) if others >= limit => "452 4.5.3 Too many recipients",
            Nature::Mixed => match hash(address) % 10 {
                0..5 => "250 2.1.5 OK",
                5 => "550 5.1.1 No such user",
                6 => "452 4.2.2 Mailbox full",
                7 => "550 5.7.1 Not wanted here",
                _ if times < 4 => "451 4.3.0 Try again later",
                _ => "250 2.1.5 OK",
            },
            _ => "250 2.1.5 OK",
        }
    }
}

fn hash(address: &str) -> u32 {
    address.bytes().fold(7_u32, |hash, byte| hash.wrapping_mul(31) ^ u32::from(byte))
}

/// Serves one connection, from this source.
pub(super) async fn serve(world: Arc<World>, host: Arc<Host>, source: IpAddr, stream: DuplexStream) {
    let provider = host.plan.provider.map(|index| Arc::clone(&world.network.providers[index]));
    let mut session = Session {
        world,
        host,
        provider,
        source,
        stream,
        input: Vec::new(),
        from: String::new(),
        recipients: Vec::new(),
        messages: 0,
        is_begun: false,
        begun: 0,
        is_probe: false,
    };
    // Whatever ends it, the stream closes.
    let _ = session.run().await;
    session.probe_ended(false);
}

struct Session {
    world: Arc<World>,
    host: Arc<Host>,
    provider: Option<Arc<Provider>>,
    /// What the other side's address is.
    source: IpAddr,
    stream: DuplexStream,
    input: Vec<u8>,
    from: String,
    recipients: Vec<String>,
    messages: u32,
    /// MAIL was taken.
    is_begun: bool,
    /// Transactions that were not refused at MAIL.
    begun: u32,
    /// The transaction is the first one after a block.
    is_probe: bool,
}

/// The connection is over.
struct Over;

impl Session {
    async fn run(&mut self) -> Result<(), Over> {
        match self.host.plan.outage(self.world.now()) {
            Some(Outage::Busy) => return self.say("421 4.3.2 Too busy, try again later").await,
            Some(Outage::Blocks) => return self.say("554 5.7.1 Not from you").await,
            _ => {}
        }
        if let Some(provider) = &self.provider
            && let Err(text) = provider.greets(self.source, self.world.true_now())
        {
            self.world.tell(|| format!("{} greets {}: {text}", self.host.plan.name, self.source));
            return self.say(text).await;
        }
        self.say("220 mx ESMTP").await?;
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
        self.probe_ended(false);
        self.is_begun = false;
        let now = self.world.true_now();
        self.world.network.sent(&self.world, self.source, now);
        if let Some(provider) = &self.provider {
            let answer = provider.mail(self.source, self.begun, now);
            self.world.network.tell_of_providers(&self.world);
            match answer {
                Ok(is_probe) => self.is_probe = is_probe,
                Err(refusal) => {
                    self.world.tell(|| format!("{} mail from {}: {}", self.host.plan.name, self.source, refusal.text));
                    self.say(refusal.text).await?;
                    return if refusal.closes { Err(Over) } else { Ok(()) };
                }
            }
        }
        self.is_begun = true;
        self.begun += 1;
        self.from = path(line);
        self.recipients.clear();
        self.say("250 2.1.0 OK").await
    }

    async fn rcpt(&mut self, line: &str) -> Result<(), Over> {
        if !self.is_begun {
            return self.say("503 5.5.1 MAIL first").await;
        }
        let address = path(line);
        let now = self.world.now();
        // Notifications go to one address again and again: which one is due does not show here.
        if !self.from.is_empty() {
            let latest = self.world.clock.latest();
            self.world.ledger().attempted(&address, latest);
            if let Some(domain) = self.world.plan.return_path_domain() {
                self.world.ledger().returns(&address, &self.from, domain.as_str());
            }
        }
        let reply = match &self.provider {
            Some(provider) if provider.plan.kind == Kind::Gmail && self.receives_too_fast(&address, now) => {
                "450 4.2.1 The user you are trying to contact is receiving mail at a rate that prevents additional \
                 messages from being delivered"
            }
            _ => self.host.judge_recipient(&address, self.source, self.recipients.len(), now),
        };
        self.world.tell(|| format!("{} rcpt {address} from {}: {reply}", self.host.plan.name, self.source));
        // Whatever is said of a recipient, the source is let in again.
        self.probe_ended(true);
        if self.world.plan.is_greylister(&address) {
            let (source, is_greylisted) = (self.source, reply.contains("Greylisted"));
            self.world.ledger().greylisted(&address, source, is_greylisted, self.world.true_now());
        }
        if reply.starts_with('2') {
            self.recipients.push(address);
        }
        self.say(reply).await
    }

    /// Some recipients are, for a while.
    fn receives_too_fast(&self, address: &str, now: Timestamp) -> bool {
        hash(address).is_multiple_of(20) && self.host.see(address, now).1 <= 2
    }

    fn probe_ended(&mut self, went_well: bool) {
        if std::mem::take(&mut self.is_probe)
            && let Some(provider) = &self.provider
        {
            provider.ended(self.source, true, went_well);
        }
    }

    async fn data(&mut self) -> Result<(), Over> {
        if self.recipients.is_empty() || !self.is_begun {
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
        let at = self.world.true_now();
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
