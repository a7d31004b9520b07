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
use super::outcome::{Results, connect_fates};
use super::route::{Hop, HopHost, Route, RouteFailure};
use super::session::{BodyReader, BodySource, ConnectCause, ConnectFailure, Session, Target, Transaction, connect};
use super::settings::{NextHop, Settings, TlsMode};
use super::shared::{Reloadable, Shared, source_for};
use crate::events::metric;
use crate::net::BoxFuture;
use crate::queue::{Queue, StoredBody};
use crate::scheduler::settlement::Way;
use crate::scheduler::{ConnectionId, HostFeedback, Lease, Payload};
use crate::smtp::client::{LossReason, Stage};
use crate::types::{MessageId, Reply, Severity};

/// An assignment and a close may wait at once.
const ORDERS_MAX: usize = 2;

/// What a worker is told.
#[derive(Debug)]
pub(super) enum Order {
    /// Jobs of one message.
    Deliver(Vec<Lease>),
    /// QUIT.
    Close,
}

/// See the module.
pub(super) struct Worker {
    shared: Arc<Shared>,
    route: Arc<Route>,
    id: ConnectionId,
    orders: mpsc::Receiver<Order>,
    inputs: mpsc::Sender<Input>,
    session: Option<Session>,
    way: Way,
}

/// What a delivery came to, for the connection.
pub(super) enum Progress {
    /// It can take more.
    Reusable(HostFeedback),
    /// It cannot; these jobs were not tried.
    Over(HostFeedback, Vec<Lease>),
}

impl Worker {
    /// Starts a worker with its first jobs.
    pub(super) fn start(
        shared: Arc<Shared>,
        route: Arc<Route>,
        id: ConnectionId,
        jobs: Vec<Lease>,
        inputs: mpsc::Sender<Input>,
    ) -> mpsc::Sender<Order> {
        let (sender, orders) = mpsc::channel(ORDERS_MAX);
        let way = Way { site: Some(route.site.as_str().to_owned()), ..Way::default() };
        let worker = Worker { shared, route, id, orders, inputs, session: None, way };
        let lost = worker.inputs.clone();
        tokio::spawn(async move {
            if let Err(error) = tokio::spawn(worker.run(jobs)).await {
                // Its jobs stay leased until the next start: whether they were sent is not known.
                tracing::error!(%error, "a delivery worker ended by a bug; please report this");
                let (feedback, unserved) = (HostFeedback::None, Vec::new());
                let _ = lost.send(Input::Closed { connection: id, feedback, unserved }).await;
            }
        });
        sender
    }

    async fn run(mut self, jobs: Vec<Lease>) {
        let mut order = Some(Order::Deliver(jobs));
        let mut feedback = HostFeedback::None;
        let mut unserved = Vec::new();
        while let Some(Order::Deliver(jobs)) = order.take() {
            match self.deliver(jobs).await {
                Progress::Reusable(learned) => {
                    let connection = self.id;
                    if self.inputs.send(Input::Idle { connection, feedback: learned }).await.is_err() {
                        break;
                    }
                }
                Progress::Over(learned, jobs) => {
                    (feedback, unserved) = (learned, jobs);
                    break;
                }
            }
            let idle_timeout = self.shared.reloadable().settings.idle_timeout;
            order = timeout(idle_timeout, self.orders.recv()).await.unwrap_or(None);
        }
        // What was sent to us meanwhile goes back.
        self.orders.close();
        while let Some(order) = self.orders.recv().await {
            if let Order::Deliver(jobs) = order {
                unserved.extend(jobs);
            }
        }
        if let Some(session) = self.session.take() {
            session.quit().await;
        }
        let _ = self.inputs.send(Input::Closed { connection: self.id, feedback, unserved }).await;
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
        let Some(payload) = payload else { return self.progress(HostFeedback::None, Vec::new()) };
        let reloadable = self.shared.reloadable();
        let mut results = Results::new(&payload.message, &leases);
        if let Err(error) = results.hold_back(&self.shared).await {
            let keys = leases.into_iter().map(|lease| lease.key).collect();
            clerk::postpone(&self.shared, keys, &error, &self.inputs).await;
            return self.progress(HostFeedback::None, Vec::new());
        }
        // A connection that the host has closed meanwhile, or that spoke out of turn, is of no more use.
        if self.session.as_mut().is_some_and(|session| !session.is_quiet()) {
            self.session = None;
        }
        let needs_tls = payload.message.origin.tls_required;
        // A message that must not go in clear has a connection of its own where this one is.
        if let Some(session) = self.session.take_if(|session| needs_tls && session.about().tls.is_none()) {
            session.quit().await;
        }
        while !results.is_complete() {
            // A message may take several transactions: the limits of a connection hold between them, too.
            let is_used_up =
                |session: &mut Session| !results.is_untouched() && !is_to_go_on(session, &reloadable.settings);
            if let Some(session) = self.session.take_if(is_used_up) {
                session.quit().await;
            }
            if self.session.is_none()
                && let Err(failure) = self.connect(&reloadable, payload.message.id, needs_tls).await
            {
                let feedback = failure.feedback();
                if failure.is_no_attempt() && results.is_untouched() {
                    return Progress::Over(feedback, with_payload(leases, &payload));
                }
                let way = Arc::new(self.way.clone());
                connect_fates(&failure, &way, &mut results, self.shared.clock.now());
                results.settle(&self.shared, leases, &payload, &self.inputs).await;
                return Progress::Over(feedback, Vec::new());
            }
            self.send(&reloadable, &payload, &mut results).await;
            if results.should_give_back() {
                return Progress::Over(results.feedback(), with_payload(leases, &payload));
            }
        }
        let feedback = results.feedback();
        results.settle(&self.shared, leases, &payload, &self.inputs).await;
        self.progress(feedback, Vec::new())
    }

    fn progress(&mut self, feedback: HostFeedback, unserved: Vec<Lease>) -> Progress {
        let settings = &self.shared.reloadable().settings;
        let reusable = self.session.as_ref().is_some_and(|session| is_to_go_on(session, settings));
        if reusable { Progress::Reusable(feedback) } else { Progress::Over(feedback, unserved) }
    }

    /// One transaction: the next recipients without a result.
    async fn send(&mut self, reloadable: &Reloadable, payload: &Payload, results: &mut Results) {
        let Some(session) = &mut self.session else { return };
        let message = &*payload.message;
        let ours = reloadable.settings.recipients_per_transaction_max;
        let theirs = session.peer().limits().rcpt_max.and_then(|limit| usize::try_from(limit).ok());
        let limit = carriage::recipients_max(message, theirs.map_or(ours, |theirs| ours.min(theirs)));
        let (indices, recipients) = results.next_recipients(message, limit);
        let header = match carriage::header(&self.shared, payload, &indices).await {
            Ok(header) => header,
            Err(problem) => return results.unreadable(&indices, &Arc::new(self.way.clone()), &problem),
        };
        let reverse_path = carriage::reverse_path(&self.shared.tokens(), message, &indices);
        let transaction = Transaction {
            reverse_path: &reverse_path,
            recipients: &recipients,
            body: message.envelope.body,
            smtputf8: message.envelope.smtputf8,
            ret: message.envelope.ret,
            envid: message.envelope.envid.as_deref(),
            body_bytes: message.body_bytes + header.as_ref().map_or(0, |header| header.len() as u64),
        };
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
        let first = session.transactions() <= 1;
        let reusable = session.is_reusable();
        results.take(&indices, result, &Arc::new(self.way.clone()), first);
        if !reusable {
            self.session = None;
        }
    }

    /// Opens a connection to the best address that answers.
    async fn connect(&mut self, reloadable: &Reloadable, message: MessageId, needs_tls: bool) -> Result<(), Unreached> {
        let settings = &reloadable.settings;
        let mut failures = Vec::new();
        let mut last: Option<Unreached> = None;
        let mut tried = 0;
        let mut later: Vec<(Hop, SocketAddr)> = Vec::new();
        let hops: Vec<Hop> = self.route.order(message.seed()).into_iter().cloned().collect();
        for hop in hops {
            match reloadable.router.addresses(&self.route, &hop).await {
                Err(failure) => failures.push(failure),
                Ok(addresses) => {
                    let (now, dead) = self.shared.sort_addresses(addresses, settings);
                    later.extend(dead.into_iter().map(|address| (hop.clone(), address)));
                    for address in now {
                        if tried >= settings.addresses_per_attempt_max {
                            break;
                        }
                        tried += 1;
                        match self.connect_to(reloadable, &hop, address, needs_tls).await {
                            Ok(()) => return Ok(()),
                            Err(unreached) => last = Some(unreached),
                        }
                    }
                }
            }
        }
        for (hop, address) in later.into_iter().take(settings.addresses_per_attempt_max.saturating_sub(tried)) {
            match self.connect_to(reloadable, &hop, address, needs_tls).await {
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
        hop: &Hop,
        address: SocketAddr,
        needs_tls: bool,
    ) -> Result<(), Unreached> {
        let settings = &reloadable.settings;
        let outlet = source_for(settings, &address).and_then(|source| reloadable.outlets.named(source.name.as_str()));
        let Some(outlet) = outlet else { return Err(Unreached::StaleRoute) };
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
fn is_to_go_on(session: &Session, settings: &Settings) -> bool {
    session.is_reusable()
        && session.transactions() < settings.messages_per_connection_max
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
    /// The host sent us away before anything was tried (4yz to the connection), or the way is out of date: not an attempt
    /// of any message.
    fn is_no_attempt(&self) -> bool {
        match self {
            Unreached::Failed { failure, .. } => is_busy(failure).is_some(),
            Unreached::StaleRoute => true,
            Unreached::NoAddress(_) | Unreached::NoHosts => false,
        }
    }

    fn feedback(&self) -> HostFeedback {
        match self {
            Unreached::StaleRoute | Unreached::Failed { of_message: true, .. } => HostFeedback::None,
            Unreached::Failed { host, address, failure, .. } if is_busy(failure).is_some() => {
                HostFeedback::Busy(format!("{host}[{}]: {failure}", address.ip()))
            }
            Unreached::Failed { host, address, failure, .. } => {
                HostFeedback::Unreachable(format!("{host}[{}]: {failure}", address.ip()))
            }
            Unreached::NoAddress(failure) => HostFeedback::Unreachable(failure.to_string()),
            Unreached::NoHosts => HostFeedback::Unreachable("the route has no hosts".to_owned()),
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
