//! Who is served when: due messages, site queues, connections, settlement of outcomes.
//!
//! [`core::Scheduler`] is a pure state machine: inputs and the time in, actions out. `delivery::dispatch` drives it. It
//! owns what is in flight; the queue owns what is durable. Promises: a job is leased to one worker at a time; one site
//! never holds up another; memory is bounded by `jobs_max`, whatever the queue holds; waiting for our own limits is not
//! an attempt. Does not: touch sockets, disk or clock.

mod backlog;
pub mod core;
mod notification;
pub mod settlement;
pub mod sites;
mod window;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use crate::queue::{DueJob, JobKey, RecipientHeaders, StoredBody, StoredMessage};
use crate::types::{Domain, Timestamp};

/// Destinations that share one set of MX hosts, or one next hop: what connections and suspensions are keyed by. Stable
/// across restarts and versions. Cheap to clone.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SiteName(Arc<str>);

impl SiteName {
    /// A site of this name.
    pub fn new(name: &str) -> Self {
        Self(name.into())
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
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Jobs in memory: those ready, in flight, or due within a minute. Above, and where a site has more than its share of
    /// it: they wait on disk.
    pub jobs_max: usize,
    /// Octets of messages kept in memory between acceptance and first attempt. Above: read back from disk.
    pub body_cache_bytes: usize,
    /// Connections in all.
    pub connections_max: usize,
    /// Connections to one site.
    pub connections_per_site_max: usize,
    /// Recipients in one transaction: jobs of one message that share a site go together up to this many.
    pub recipients_per_transaction_max: usize,
    /// How old a message is when its sender first hears of a delay, and later.
    pub delay_notices: Vec<Duration>,
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
    /// The message, where it is still in memory.
    pub payload: Option<Payload>,
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
        /// The destination domain of the jobs: its route leads there.
        domain: Domain,
        /// What to deliver first.
        jobs: Vec<Lease>,
    },
    /// Deliver on a connection that is open.
    Assign {
        /// Which one.
        connection: ConnectionId,
        /// What to deliver.
        jobs: Vec<Lease>,
    },
    /// Close an idle connection: another site needs its place.
    Close(ConnectionId),
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
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
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
    },
}

/// What a connection learned of its host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HostFeedback {
    /// It took a transaction, whatever its replies to single recipients were.
    Good,
    /// It could not be reached, or refused the connection: nothing else will get through now.
    Unreachable(String),
    /// It wants fewer connections (421, 4.7.x and the like); in its words.
    Busy(String),
    /// Nothing (closed while idle, or at our own limits).
    None,
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
}

/// Where a job is, for `posthaste queue show`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Whereabouts {
    /// A connection works on it.
    InFlight,
    /// The names of its domain are being looked up.
    Resolving,
    /// Its site has no free connection.
    Ready(SiteName),
    /// Its site is suspended.
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
