//! One connection to one site, from its first job to QUIT.
//!
//! A worker owns its connection; it gets jobs from the dispatcher, sends them, hands what became of them to the
//! committer, and says when it can take more. It runs as a task of its own that nobody drops, so that what lies between
//! the final dot and its settlement is never cut short (`Session::send` is not cancel-safe).

use std::net::SocketAddr;
use std::sync::Arc;

use bytes::Bytes;
use tokio::sync::mpsc;
use tokio::time::timeout;

use super::carriage;
use super::clerk;
use super::dispatch::Input;
use super::outcome::{Judge, Results, connect_fates, refused};
use super::route::{Hop, HopHost, NO_SOURCE_RULE, Route, RouteFailure, RouteKind};
use super::session::{BodyReader, BodySource, ConnectCause, ConnectFailure, Session, Target, Transaction, connect};
use super::settings::{NextHop, Settings, TlsMode};
use super::shared::{Reloadable, Shared};
use super::sources::Outlet;
use crate::events::metric;
use crate::net::BoxFuture;
use crate::policy::lane::{Health, Learned};
use crate::policy::pools::Family;
use crate::queue::{Queue, StoredBody};
use crate::scheduler::settlement::Way;
use crate::scheduler::{ConnectionId, Destination, Lease, Payload, Report, Terms};
use crate::smtp::client::{LossReason, Stage};
use crate::types::{MessageId, Reply, Severity, SourceName};

/// An assignment and a close may wait at once.
const ORDERS_MAX: usize = 2;

/// What a worker is told.
#[derive(Debug)]
pub(super) enum Order {
    /// Jobs of one message, within these limits.
    Deliver(Vec<Lease>, Terms),
    /// QUIT.
    Close,
}

/// Where a worker goes, and from where.
pub(super) struct Start {
    pub(super) route: Arc<Route>,
    pub(super) destination: Destination,
    pub(super) source: SourceName,
    pub(super) terms: Terms,
}

/// See the module.
pub(super) struct Worker {
    shared: Arc<Shared>,
    route: Arc<Route>,
    provider: Option<Arc<str>>,
    source: SourceName,
    terms: Terms,
    id: ConnectionId,
    orders: mpsc::Receiver<Order>,
    inputs: mpsc::Sender<Input>,
    session: Option<Session>,
    way: Way,
}

/// What a delivery came to, for the connection.
pub(super) enum Progress {
    /// It can take more.
    Reusable(Report),
    /// It cannot; these jobs were not tried.
    Over(Report, Vec<Lease>),
}

impl Worker {
    /// Starts a worker with its first jobs.
    pub(super) fn start(
        shared: Arc<Shared>,
        way: Start,
        id: ConnectionId,
        jobs: Vec<Lease>,
        inputs: mpsc::Sender<Input>,
    ) -> mpsc::Sender<Order> {
        let (sender, orders) = mpsc::channel(ORDERS_MAX);
        let Start { route, destination, source, terms } = way;
        let way = Way {
            site: Some(destination.site.as_str().to_owned()),
            source_name: Some(source.clone()),
            ..Way::default()
        };
        let provider = destination.provider;
        let worker = Worker { shared, route, provider, source, terms, id, orders, inputs, session: None, way };
        let lost = worker.inputs.clone();
        tokio::spawn(async move {
            if let Err(error) = tokio::spawn(worker.run(jobs)).await {
                // Its jobs stay leased until the next start: whether they were sent is not known.
                tracing::error!(%error, "a delivery worker ended by a bug; please report this");
                let report = Report { transactions: u32::MAX, ..Report::default() };
                let _ = lost.send(Input::Closed { connection: id, report, unserved: Vec::new() }).await;
            }
        });
        sender
    }

    async fn run(mut self, jobs: Vec<Lease>) {
        let mut order = Some(Order::Deliver(jobs, self.terms));
        let mut report = Report::default();
        let mut unserved = Vec::new();
        while let Some(Order::Deliver(jobs, terms)) = order.take() {
            self.terms = terms;
            match self.deliver(jobs).await {
                Progress::Reusable(learned) => {
                    let connection = self.id;
                    if self.inputs.send(Input::Idle { connection, report: learned }).await.is_err() {
                        break;
                    }
                }
                Progress::Over(learned, jobs) => {
                    (report, unserved) = (learned, jobs);
                    break;
                }
            }
            let idle_timeout = self.shared.reloadable().settings.idle_timeout;
            order = timeout(idle_timeout, self.orders.recv()).await.unwrap_or(None);
        }
        // What was sent to us meanwhile goes back.
        self.orders.close();
        while let Some(order) = self.orders.recv().await {
            if let Order::Deliver(jobs, _) = order {
                unserved.extend(jobs);
            }
        }
        if let Some(session) = self.session.take() {
            session.quit().await;
        }
        let _ = self.inputs.send(Input::Closed { connection: self.id, report, unserved }).await;
    }

    async fn deliver(&mut self, jobs: Vec<Lease>) -> Progress {
        let mut leases = Vec::with_capacity(jobs.len());
        let mut payload: Option<Payload> = None;
        // What came with acceptance is true for all jobs of the message only while none of them had an attempt.
        let as_accepted = jobs.iter().all(|job| job.payload.is_some() && job.attempts == 0);
        for mut lease in jobs {
            // All jobs of an assignment are of one message.
            lease.payload = if as_accepted { lease.payload } else { None };
            if let Some((lease, loaded)) = clerk::load(&self.shared, lease, &self.inputs).await {
                payload = Some(loaded);
                leases.push(lease);
            }
        }
        let mut report = Report::default();
        let Some(payload) = payload else { return self.progress(report, Vec::new()) };
        let reloadable = self.shared.reloadable();
        let judge = Judge { rules: Arc::clone(&reloadable.rules), provider: self.provider.clone() };
        let mut results =
            Results::new(&payload.message, &leases, judge.clone(), self.terms.messages_per_connection_max);
        if let Err(error) = results.hold_back(&self.shared).await {
            let keys = leases.into_iter().map(|lease| lease.key).collect();
            clerk::postpone(&self.shared, keys, &error, &self.inputs).await;
            return self.progress(report, Vec::new());
        }
        // A connection that the host has closed meanwhile, or that spoke out of turn, is of no more use.
        if self.session.as_mut().is_some_and(|session| !session.is_quiet()) {
            self.session = None;
        }
        // What goes to the simulator never leaves this process.
        let needs_tls = payload.message.origin.tls_required && self.route.kind != RouteKind::Simulator;
        // A message that must not go in clear has a connection of its own where this one is.
        if let Some(session) = self.session.take_if(|session| needs_tls && session.about().tls.is_none()) {
            session.quit().await;
        }
        while !results.is_complete() {
            if report.transactions >= self.terms.transactions_max || results.is_lane_closed() {
                results.leave_untried(&Arc::new(self.way.clone()));
                break;
            }
            // A message may take several transactions: the limits of a connection hold between them, too.
            let terms = self.terms;
            let is_used_up =
                |session: &mut Session| !results.is_untouched() && !is_to_go_on(session, &reloadable.settings, terms);
            if let Some(session) = self.session.take_if(is_used_up) {
                session.quit().await;
            }
            if self.session.is_none()
                && let Err(failure) = self.connect(&reloadable, payload.message.id, needs_tls).await
            {
                report.learned = failure.learned(&judge);
                report.no_address = failure.is_for_family();
                let is_no_attempt = failure.is_no_attempt(&report.learned, self.terms);
                if is_no_attempt && results.is_untouched() {
                    return Progress::Over(report, with_payload(leases, &payload));
                }
                let way = Arc::new(self.way.clone());
                connect_fates(&failure, &way, &mut results, self.shared.clock.now());
                (report.totals, report.greylisted) = results.totals();
                self.tell_early(&mut report).await;
                results.settle(&self.shared, leases, &payload, &self.inputs).await;
                return Progress::Over(report, Vec::new());
            }
            report.transactions += self.send(&reloadable, &payload, &mut results).await;
            if results.should_give_back() {
                report.learned = results.learned();
                return Progress::Over(report, with_payload(leases, &payload));
            }
        }
        self.spare_other_family(&reloadable, &mut results).await;
        report.learned = results.learned();
        (report.totals, report.greylisted) = results.totals();
        self.tell_early(&mut report).await;
        results.settle(&self.shared, leases, &payload, &self.inputs).await;
        self.progress(report, Vec::new())
    }

    /// What keeps others from this lane is told before the jobs come back, so that these are not sent there again.
    async fn tell_early(&mut self, report: &mut Report) {
        if report.learned.health == Health::Good && report.learned.reactions.is_empty() {
            return;
        }
        let learned = std::mem::take(&mut report.learned);
        // An error means that the dispatcher has ended.
        let _ = self.inputs.send(Input::Learned { connection: self.id, learned }).await;
    }

    /// A source of both families that is blocked on IPv6 (where many lack a PTR record) is tried on IPv4 before it is given up.
    async fn spare_other_family(&mut self, reloadable: &Reloadable, results: &mut Results) {
        let family = reloadable.outlets.named(self.source.as_str()).map(|outlet| outlet.family);
        let Some(remote) = self.way.remote.filter(|remote| remote.is_ipv6() && family == Some(Family::Any)) else {
            return;
        };
        if results.forget_blocks() {
            let address = SocketAddr::new(remote, self.route.port);
            self.shared.unreachable(address, None, self.shared.clock.now());
            // Nothing more on this connection: it would fare the same.
            if let Some(session) = self.session.take() {
                session.quit().await;
            }
        }
    }

    fn progress(&mut self, report: Report, unserved: Vec<Lease>) -> Progress {
        let settings = &self.shared.reloadable().settings;
        let reusable = self.session.as_ref().is_some_and(|session| is_to_go_on(session, settings, self.terms));
        if reusable { Progress::Reusable(report) } else { Progress::Over(report, unserved) }
    }

    /// One transaction: the next recipients without a result. 1 where it was begun, else 0.
    async fn send(&mut self, reloadable: &Reloadable, payload: &Payload, results: &mut Results) -> u32 {
        let Some(session) = &mut self.session else { return 0 };
        let message = &*payload.message;
        let ours = reloadable.settings.recipients_per_transaction_max;
        let theirs = session.peer().limits().rcpt_max.and_then(|limit| usize::try_from(limit).ok());
        let limit = carriage::recipients_max(message, theirs.map_or(ours, |theirs| ours.min(theirs)));
        let (indices, recipients) = results.next_recipients(message, limit);
        let header = match carriage::header(&self.shared, payload, &indices).await {
            Ok(header) => header,
            Err(problem) => {
                results.unreadable(&indices, &Arc::new(self.way.clone()), &problem);
                return 0;
            }
        };
        let simulated = reloadable.settings.simulated.as_ref().filter(|_| self.route.kind == RouteKind::Simulator);
        let simulated = simulated.map(|simulated| &simulated.domain);
        let reverse_path = carriage::reverse_path(&self.shared.tokens(), message, &indices, simulated);
        let transaction = Transaction {
            reverse_path: &reverse_path,
            recipients: &recipients,
            body: message.envelope.body,
            smtputf8: message.envelope.smtputf8,
            ret: message.envelope.ret,
            envid: message.envelope.envid.as_deref(),
            body_bytes: message.body_bytes + header.as_ref().map_or(0, |header| header.len() as u64),
        };
        let before = session.transactions();
        let result = match &payload.body {
            StoredBody::Inline(bytes) => {
                let octets: Vec<Bytes> = header.into_iter().chain([bytes.clone()]).collect();
                session.send(&transaction, BodySource::Memory(&octets)).await
            }
            StoredBody::Parts { parts } => {
                let mut reader =
                    PartReader { queue: self.shared.queue.clone(), id: message.id, header, next: 0, parts: *parts };
                session.send(&transaction, BodySource::Reader(&mut reader)).await
            }
        };
        self.way.dsn_passed = result.dsn_passed;
        let (begun, reusable) = (session.transactions() - before, session.is_reusable());
        let one_host = results.take(&indices, result, &Arc::new(self.way.clone()), before, begun > 0);
        if one_host && let Some(remote) = self.way.remote {
            let address = SocketAddr::new(remote, self.route.port);
            self.shared.unreachable(address, self.way.source, self.shared.clock.now());
        }
        if !reusable || one_host {
            self.session = None;
        }
        begun
    }

    /// Opens a connection to the best address that answers.
    async fn connect(&mut self, reloadable: &Reloadable, message: MessageId, needs_tls: bool) -> Result<(), Unreached> {
        let settings = &reloadable.settings;
        let Some(outlet) = reloadable.outlets.named(self.source.as_str()).cloned() else {
            return Err(Unreached::StaleRoute);
        };
        let mut failures = Vec::new();
        let mut last: Option<Unreached> = None;
        let mut tried = 0;
        let mut later: Vec<(Hop, SocketAddr)> = Vec::new();
        let hops: Vec<Hop> = self.route.order(message.seed()).into_iter().cloned().collect();
        for hop in hops {
            match reloadable.router.addresses(&self.route, &hop, outlet.family).await {
                Err(failure) => failures.push(failure),
                Ok(addresses) => {
                    let (now, dead) = self.shared.sort_addresses(addresses, outlet.via.address);
                    later.extend(dead.into_iter().map(|address| (hop.clone(), address)));
                    for address in now {
                        if tried >= settings.addresses_per_attempt_max {
                            break;
                        }
                        tried += 1;
                        match self.connect_to(reloadable, &outlet, &hop, address, needs_tls).await {
                            Ok(()) => return Ok(()),
                            Err(unreached) => last = Some(unreached),
                        }
                    }
                }
            }
        }
        for (hop, address) in later.into_iter().take(settings.addresses_per_attempt_max.saturating_sub(tried)) {
            match self.connect_to(reloadable, &outlet, &hop, address, needs_tls).await {
                Ok(()) => return Ok(()),
                Err(unreached) => last = Some(unreached),
            }
        }
        let no_address = || RouteFailure::of_all(failures).map_or(Unreached::NoHosts, Unreached::NoAddress);
        Err(last.unwrap_or_else(no_address))
    }

    async fn connect_to(
        &mut self,
        reloadable: &Reloadable,
        outlet: &Outlet,
        hop: &Hop,
        address: SocketAddr,
        needs_tls: bool,
    ) -> Result<(), Unreached> {
        let settings = &reloadable.settings;
        let source = outlet.via.address;
        let login = self.route.login.as_ref().and_then(|login| reloadable.logins.get(login)).cloned();
        if self.route.login.is_some() && login.is_none() {
            // A reload took this route away: never without the login that it asks for.
            return Err(Unreached::StaleRoute);
        }
        let target = Target {
            host: match &hop.host {
                HopHost::Name(name) => NextHop::Host(name.clone()),
                HopHost::Address(address) => NextHop::Address(*address),
            },
            address,
            via: outlet.via.clone(),
            ehlo_name: outlet.ehlo_name.clone(),
            tls: if needs_tls { self.route.tls.encrypted() } else { self.route.tls },
            tls_hint: self.shared.tls_hint(address),
            login,
            chunking: false,
        };
        self.way.host = Some(hop.host.to_string());
        self.way.remote = Some(address.ip());
        self.way.source = source;
        self.way.tls = None;
        let outcome = connect(&*self.shared.dialer, &reloadable.tls, &target, &settings.timeouts).await;
        let word = if outcome.is_ok() { "connected" } else { "failed" };
        metrics::counter!(metric::OUTBOUND_CONNECTIONS_TOTAL, "outcome" => word).increment(1);
        match outcome {
            Ok(session) => {
                let about = session.about();
                self.way.tls = about.tls.as_ref().map(|tls| tls.version);
                self.way.source = about.local.or(source);
                self.shared.connected(address, source, about.tls_hint, settings);
                self.session = Some(session);
                Ok(())
            }
            Err(failure) => {
                // That TLS is not to be had says nothing to mail that can do without.
                let of_message = needs_tls && self.route.tls != TlsMode::Require && failure.stage == Stage::Tls;
                if failure.host_fault && !of_message {
                    self.shared.unreachable(address, source, self.shared.clock.now());
                }
                tracing::debug!(site = %self.route.site, host = %hop.host, %address, %failure, "no connection");
                Err(Unreached::Failed { host: hop.host.to_string(), address, failure, of_message })
            }
        }
    }
}

/// Whether another message may go over this connection.
fn is_to_go_on(session: &Session, settings: &Settings, terms: Terms) -> bool {
    session.is_reusable()
        && session.transactions() < terms.messages_per_connection_max
        && session.age() < settings.connection_age_max
}

fn with_payload(leases: Vec<Lease>, payload: &Payload) -> Vec<Lease> {
    leases.into_iter().map(|lease| Lease { payload: Some(payload.clone()), ..lease }).collect()
}

/// Why there is no connection.
#[derive(Debug)]
pub(super) enum Unreached {
    /// The last address tried.
    Failed {
        /// Host name.
        host: String,
        /// Address.
        address: SocketAddr,
        /// What happened.
        failure: ConnectFailure,
        /// It failed for what this message asks for.
        of_message: bool,
    },
    /// No host has an address.
    NoAddress(RouteFailure),
    /// The route has no hosts.
    NoHosts,
    /// A reload replaced the route.
    StaleRoute,
}

impl Unreached {
    /// Not an attempt of any message: the host sent us away before anything was tried, the way is out of date, or another source
    /// may do better.
    fn is_no_attempt(&self, learned: &Learned, terms: Terms) -> bool {
        match self {
            Unreached::Failed { of_message: true, .. } => false,
            Unreached::Failed { failure, .. } => {
                is_busy(failure).is_some() || !learned.reactions.is_empty() || terms.alternative
            }
            Unreached::StaleRoute => true,
            Unreached::NoAddress(_) => terms.other_family && self.is_for_family(),
            Unreached::NoHosts => false,
        }
    }

    /// The hosts have no address that this source reaches.
    fn is_for_family(&self) -> bool {
        matches!(self, Unreached::NoAddress(RouteFailure::Temporary { rule, .. }) if *rule == NO_SOURCE_RULE)
    }

    fn learned(&self, judge: &Judge) -> Learned {
        let unreachable = |words: String| Learned { health: Health::Unreachable(words.into()), ..Learned::default() };
        match self {
            Unreached::StaleRoute | Unreached::Failed { of_message: true, .. } => Learned::default(),
            Unreached::Failed { host, address, failure, .. } => {
                let words = format!("{host}[{}]: {failure}", address.ip());
                match &failure.cause {
                    ConnectCause::Refused(reply) | ConnectCause::Lost(LossReason::ShuttingDown(reply)) => {
                        refused(reply, failure.stage, judge, words)
                    }
                    _ => unreachable(words),
                }
            }
            // A matter of this domain's DNS, not of the site.
            Unreached::NoAddress(_) | Unreached::NoHosts => Learned::default(),
        }
    }
}

/// The 4yz by which a host sent a connection away.
fn is_busy(failure: &ConnectFailure) -> Option<&Reply> {
    match &failure.cause {
        ConnectCause::Refused(reply) | ConnectCause::Lost(LossReason::ShuttingDown(reply)) => {
            Some(reply).filter(|reply| reply.severity() == Severity::Transient)
        }
        _ => None,
    }
}

/// Reads a spooled body part by part while it is sent.
struct PartReader {
    queue: Queue,
    id: MessageId,
    /// Goes first.
    header: Option<Bytes>,
    next: u32,
    parts: u32,
}

impl BodyReader for PartReader {
    fn next_part(&mut self) -> BoxFuture<'_, Result<Option<Bytes>, String>> {
        Box::pin(async move {
            if let Some(header) = self.header.take() {
                return Ok(Some(header));
            }
            if self.next >= self.parts {
                return Ok(None);
            }
            let (id, part) = (self.id, self.next);
            self.next += 1;
            let read = self.queue.reading(move |queue| queue.body_part(id, part)).await;
            let read = read.map_err(|error| error.to_string())?;
            read.map(Some).map_err(|error| error.to_string())
        })
    }
}
