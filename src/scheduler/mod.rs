//! Who is served when: due messages, site queues, connections, settlement of outcomes.
//!
//! [`core::Scheduler`] is a pure state machine: inputs and the time in, actions out. `delivery::dispatch` drives it. It
//! owns what is in flight; the queue owns what is durable. Promises: a job is leased to one worker at a time; one site
//! never holds up another; memory is bounded by `jobs_max`, whatever the queue holds; waiting for our own limits is not
//! an attempt. Does not: touch sockets, disk or clock.

mod backlog;
mod class;
pub mod core;
pub mod explanation;
mod fair;
mod fleet;
pub mod ledger;
mod notification;
pub mod settlement;
mod sites;
pub mod warmup;
mod window;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

pub use fleet::Destination;

pub use crate::policy::lane::{Health, Learned};

use crate::policy::fleet_life::LifeChange;
use crate::policy::lane::{Change, LaneState};
use crate::policy::limits::LaneLimits;
use crate::policy::pools::Pools;
use crate::policy::providers::Providers;
use crate::policy::warmup::Warmups;
use crate::queue::{DueJob, HistoryRow, JobKey, RecipientHeaders, SourceLife, StoredBody, StoredMessage};
use crate::types::{DayTotals, Domain, PoolName, SourceName, Timestamp, provider_of_site, site_of_provider};

/// Hash tables of the scheduler. Names in them come from strangers' DNS: keyed at random, and cheaper than the standard library's.
type Map<K, V> = std::collections::HashMap<K, V, ahash::RandomState>;
/// The same without values.
type Set<K> = std::collections::HashSet<K, ahash::RandomState>;

/// Destinations that share one set of MX hosts, or one next hop: what connections and suspensions are keyed by. Stable
/// across restarts and versions. Cheap to clone.
#[derive(Clone, Eq, PartialOrd, Ord)]
pub struct SiteName(Arc<str>);

impl PartialEq for SiteName {
    /// Mostly it is the same text in memory: then it need not be read.
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0) || self.0 == other.0
    }
}

impl std::hash::Hash for SiteName {
    fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
        self.0.hash(state);
    }
}

impl SiteName {
    /// A site of this name.
    pub fn new(name: &str) -> Self {
        Self(name.into())
    }

    /// The site of a provider.
    pub fn of_provider(name: &str) -> Self {
        Self(site_of_provider(name).into())
    }

    /// The provider whose site it is.
    pub fn provider_name(&self) -> Option<&str> {
        provider_of_site(&self.0)
    }

    /// The name, as events show it.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for SiteName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for SiteName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// What an administrator can set about scheduling.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Jobs in memory: those ready, in flight, or due within a minute. Above, and where a site has more than its share of
    /// it: they wait on disk.
    pub jobs_max: usize,
    /// Octets of messages kept in memory between acceptance and first attempt. Above: read back from disk.
    pub body_cache_bytes: usize,
    /// Connections in all.
    pub connections_max: usize,
    /// What a site lets one source do, where no provider's rule says otherwise.
    pub limits: LaneLimits,
    /// What providers let one source do.
    pub providers: Arc<Providers>,
    /// Sources and pools.
    pub pools: Arc<Pools>,
    /// Who warms up, by which plan.
    pub warmup: Arc<Warmups>,
    /// Lanes in memory. Above: those that learned nothing are forgotten, then those that were used least lately.
    pub lanes_max: usize,
    /// Recipients in one transaction: jobs of one message that share a site go together up to this many.
    pub recipients_per_transaction_max: usize,
    /// How old a message is when its sender first hears of a delay, and later.
    pub delay_notices: Vec<Duration>,
}

impl Default for Settings {
    /// Those of config.toml.example.
    fn default() -> Self {
        Self {
            jobs_max: 1_000_000,
            body_cache_bytes: 64 << 20,
            connections_max: 1_000,
            limits: LaneLimits::default(),
            providers: Providers::built_in(),
            pools: Arc::default(),
            warmup: Arc::default(),
            lanes_max: 100_000,
            recipients_per_transaction_max: 50,
            delay_notices: Vec::new(),
        }
    }
}

/// A job that the scheduler gave out: nobody else works on it until it is settled or returned.
#[derive(Clone, Debug)]
pub struct Lease {
    /// Which job.
    pub key: JobKey,
    /// The time in its due key; `None` where it is held.
    pub due_at: Option<Timestamp>,
    /// Attempts so far.
    pub attempts: u32,
    /// The last stop was unclean, and this job was due: it may have been sent before (promise 3).
    pub ambiguous: bool,
    /// Made from what an operator saw: the due key must be looked up before anything is done.
    pub unverified: bool,
    /// Attempts in a row that ended with a block of their source: the next source may be tried at once only so often.
    pub blocks: u8,
    /// How often it was given back since its last attempt, as its host ended the connection.
    pub spared: u8,
    /// The source that it keeps.
    pub source: Option<SourceName>,
    /// The message, where it is still in memory.
    pub payload: Option<Payload>,
}

impl Lease {
    /// One for a job of which only the key is known.
    pub fn of(key: JobKey, due_at: Option<Timestamp>) -> Self {
        Self {
            key,
            due_at,
            attempts: 0,
            ambiguous: false,
            unverified: false,
            blocks: 0,
            spared: 0,
            source: None,
            payload: None,
        }
    }
}

/// A message in memory.
#[derive(Clone, Debug)]
pub struct Payload {
    /// Envelope and states.
    pub message: Arc<StoredMessage>,
    /// Octets.
    pub body: StoredBody,
    /// Header blocks of single recipients, where they are in memory.
    pub recipient_headers: RecipientHeaders,
}

/// A message in memory without its body, its `mail` object and its recipients, about.
const MESSAGE_BYTES: usize = 500;
/// A recipient of it.
const RECIPIENT_BYTES: usize = 200;

impl Payload {
    /// What it takes in memory, roughly.
    fn bytes(&self) -> usize {
        let body = match &self.body {
            StoredBody::Inline(bytes) => bytes.len(),
            StoredBody::Parts { .. } => 0,
        };
        let recipients = self.message.envelope.recipients.len();
        body + self.recipient_headers.bytes()
            + self.message.mail_json.len()
            + MESSAGE_BYTES
            + recipients * RECIPIENT_BYTES
    }
}

/// A connection, numbered by the scheduler.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ConnectionId(pub u64);

/// Within which limits an assignment is to be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Terms {
    /// Transactions that it may take; what is left of it then is given back untried.
    pub transactions_max: u32,
    /// The connection is closed behind so many transactions.
    pub messages_per_connection_max: u32,
    /// Another source could take the jobs: what fails for the source or the way alone is no attempt.
    pub alternative: bool,
    /// A source of another address family could.
    pub other_family: bool,
}

/// What the driver has to do.
#[derive(Debug)]
pub enum Action {
    /// Find the site of a domain; answer by [`core::Scheduler::resolved`].
    Resolve(Domain),
    /// Open a connection to a site and deliver; answer by `connection_idle` or `connection_closed`.
    Open {
        /// The new connection.
        connection: ConnectionId,
        /// Where to.
        site: SiteName,
        /// Where from.
        source: SourceName,
        /// The destination domain of the jobs: its route leads there.
        domain: Domain,
        /// What to deliver first.
        jobs: Vec<Lease>,
        /// Within which limits.
        terms: Terms,
    },
    /// Deliver on a connection that is open.
    Assign {
        /// Which one.
        connection: ConnectionId,
        /// What to deliver.
        jobs: Vec<Lease>,
        /// Within which limits.
        terms: Terms,
    },
    /// Close an idle connection: another site, or other hosts, need its place.
    Close(ConnectionId),
    /// Write what lanes keep over a restart, and the events of what changed, in one batch; answer by
    /// [`core::Scheduler::lanes_saved`].
    SaveLanes(LaneSave),
    /// Write what was counted, and remove what is too old; nobody waits for it.
    SaveHistory(HistorySave),
    /// Write which sources managed pools use, with the events that tell of it, in one batch; nobody waits for it.
    SaveLives(LifeSave),
    /// Settle without a connection.
    Settle {
        /// The job.
        lease: Lease,
        /// What to settle.
        verdict: Verdict,
    },
    /// Read due jobs from the queue; answer by [`core::Scheduler::paged`].
    PageIn {
        /// From where.
        from: crate::queue::DueKey,
        /// To before which place.
        until: crate::queue::DueKey,
        /// At most so many.
        limit: usize,
    },
}

/// An outcome that needs no connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Its lifetime has passed; the text says what it waited for last.
    Expired(Option<String>),
    /// It waits for its site, whose trouble is named: tell of the delay, change nothing else.
    Notice(String),
    /// An operator said so.
    Cancelled,
    /// An operator said so; the text is the reason.
    Hold(String),
    /// Held no more.
    Release,
    /// Its destination's names have no usable answer.
    Routing(RoutingFailure),
}

/// Why a domain has no route.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RoutingFailure {
    /// Whether it can change.
    pub kind: RoutingFailureKind,
    /// Enhanced status.
    pub status: crate::types::EnhancedStatus,
    /// In words.
    pub text: String,
    /// The rule that says so.
    pub rule: &'static str,
}

/// Kinds of routing failure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RoutingFailureKind {
    /// Bounce.
    Permanent,
    /// NXDOMAIN: bounce at the second look.
    NoSuchDomain,
    /// Try again.
    Temporary,
}

/// Where a job stands after its settlement was committed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Settled {
    /// Gone, or held.
    Out,
    /// As it was: something was told, nothing was tried.
    Unchanged,
    /// Due again.
    Due {
        /// When.
        at: Timestamp,
        /// Attempts so far.
        attempts: u32,
        /// The source that it keeps.
        source: Option<SourceName>,
        /// Its source was blocked for what the host replied.
        blocked: bool,
    },
}

/// What the end of an assignment tells of its connection.
#[derive(Clone, Debug, Default)]
pub struct Report {
    /// What was learned of the lane.
    pub learned: Learned,
    /// Transactions that were begun, of those that the terms allowed.
    pub transactions: u32,
    /// What hosts said of their recipients.
    pub totals: DayTotals,
    /// Of those deferred, by greylisting: it says nothing of a source's name.
    pub greylisted: u32,
    /// The hosts have no address of the family of the source.
    pub no_address: bool,
}

impl Report {
    /// That of an assignment of one transaction that says this of the host.
    pub fn of(health: Health) -> Self {
        let learned = Learned { health, ..Learned::default() };
        Self { learned, transactions: 1, ..Self::default() }
    }
}

/// What lanes keep over a restart, to be written.
#[derive(Clone, Debug, Default)]
pub struct LaneSave {
    /// Their states.
    pub put: Vec<SavedLane>,
    /// Those that were forgotten.
    pub remove: Vec<LaneName>,
    /// What changed.
    pub events: Vec<LaneEvent>,
    /// It must not be lost, so it does not wait for the next write: blocks, and what is to be sent under a limit.
    pub urgent: bool,
}

/// Which sources managed pools use, to be written.
#[derive(Clone, Debug, Default)]
pub struct LifeSave {
    /// Those that changed.
    pub lives: Vec<SourceLife>,
    /// What changed.
    pub events: Vec<LaneEvent>,
}

/// What was counted by source, site and day, to be written.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HistorySave {
    /// Rows that changed, by day and source.
    pub rows: Vec<HistoryRow>,
    /// Rows of days before this one go away.
    pub prune_before: Option<u32>,
}

/// Whose state it is: a lane's, or that of a source or pool as a whole.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum LaneName {
    /// A source at a site.
    Lane(SiteName, SourceName),
    /// What a source sent, to all sites.
    Source(SourceName),
    /// What a pool sent, to all sites.
    Pool(PoolName),
    /// What a configuration set that warms up sent to a site, by all sources.
    Set(SiteName, Box<str>),
}

/// The state of a lane, as it is on disk.
#[derive(Clone, Debug)]
pub struct SavedLane {
    /// Whose.
    pub name: LaneName,
    /// What.
    pub state: LaneState,
}

/// What changed of a lane, or of all lanes of a pool at a site.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LaneEvent {
    /// When.
    pub at: Timestamp,
    /// Where; empty: of no site.
    pub site: SiteName,
    /// The provider whose rule the site is under.
    pub provider: Option<Arc<str>>,
    /// What.
    pub kind: LaneEventKind,
}

/// See [`LaneEvent`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LaneEventKind {
    /// Of one source.
    Lane(SourceName, Change),
    /// Of one configuration set, by all sources.
    Set(Box<str>, Change),
    /// All sources of a pool are blocked, the first until then.
    PoolBlocked(PoolName, Timestamp),
    /// One of them is back.
    PoolUnblocked(PoolName),
    /// A managed pool uses a source, or uses it no more. Of no site.
    Life(PoolName, LifeChange),
}

/// What an operator wants of jobs that are not in flight.
#[derive(Clone, Debug)]
pub enum Command {
    /// Due now.
    Retry,
    /// Stop until released.
    Hold(String),
    /// End them with a bounce event.
    Cancel,
}

/// A row of `posthaste status`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SiteReport {
    /// The site.
    pub site: SiteName,
    /// Jobs in memory that could go now.
    pub ready: usize,
    /// More of them wait on disk until there is room.
    pub more_on_disk: bool,
    /// Open connections.
    pub connections: usize,
    /// Connections it may have now.
    pub window: usize,
    /// When it is tried again, where it is suspended.
    pub suspended_until: Option<Timestamp>,
    /// Its last host-level trouble.
    pub reason: Option<String>,
}

/// Totals for status and metrics.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    /// Jobs in memory.
    pub jobs: usize,
    /// Of those, given out.
    pub in_flight: usize,
    /// Of those, could go now.
    pub ready: usize,
    /// Open connections.
    pub connections: usize,
    /// Sites known.
    pub sites: usize,
    /// Sites whose due jobs are more than memory has room for.
    pub sites_behind: usize,
    /// Lanes known: sources at sites.
    pub lanes: usize,
}

/// Where a job is, for `posthaste queue show`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Whereabouts {
    /// A connection works on it.
    InFlight,
    /// The names of its domain are being looked up.
    Resolving,
    /// It could go now, and waits at its site.
    Ready {
        /// Which.
        site: SiteName,
        /// Why.
        cause: Box<explanation::Cause>,
        /// What stands before it in its line.
        before: explanation::Before,
    },
    /// Its site is down: no source can reach it.
    Suspended {
        /// Which.
        site: SiteName,
        /// Until when.
        until: Timestamp,
        /// Why.
        reason: String,
    },
    /// It is due later.
    Waiting(Timestamp),
    /// On disk: the line of its site, whose state is inside, is longer than its share of memory. A held job may look so too.
    Behind(Box<Whereabouts>),
}

pub(crate) fn job_from_due(due: &DueJob) -> Option<(Domain, Timestamp)> {
    let domain = Domain::parse(&due.entry.domain).ok()?;
    Some((domain, Timestamp::from_millis(due.entry.expires_at_ms)))
}
