//! Drives the scheduler: one task that takes in what happened and does what the scheduler says.
//!
//! It waits for nothing but its own inputs: lookups, connections, settlements and reads of the queue run in tasks of
//! their own and report back. So one dead name server, one slow host or one busy disk stops nobody else.

mod asking;

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;
use tokio::time::Instant;

use super::clerk;
use super::lanes;
use super::route::{NO_SUCH_DOMAIN_RULE, Route, RouteKind, RouteOutcome, no_such_domain_status};
use super::shared::Shared;
use super::worker::{Order, Start, Worker};
use crate::events::metric;
use crate::policy::Providers;
use crate::policy::lane::Learned;
use crate::policy::lane::WarmupOrder;
use crate::queue::store::{StoreError, StoreErrorKind};
use crate::queue::{DamagedDue, DueJob, DuePage, Handoff, HeldJob, JobKey};
use crate::queue::{HistoryRow, SourceLife};
use crate::scheduler::core::Scheduler;
use crate::scheduler::explanation::{LaneCounts, Question, SiteExplanation};
use crate::scheduler::warmup::{SourceStanding, WarmupEntry, WarmupFilter};
use crate::scheduler::{
    Action, Command, ConnectionId, Destination, LaneName, Lease, Report, RoutingFailure, RoutingFailureKind, SavedLane,
    Settings, Settled, SiteName, SiteReport, Terms, Totals, Verdict, Whereabouts,
};
use crate::types::{Domain, PoolName, SourceName, Timestamp};

/// Reports waiting for the dispatcher. Full: workers and the committer wait, so nothing new is started or accepted.
pub(super) const INPUTS_MAX: usize = 8_192;
/// Inputs taken in before actions are performed.
const BATCH: usize = 256;
/// Settlements without a connection that run at once; the others wait in line.
const CLERKS_MAX: usize = 64;
/// Settlements in that line above which operators' commands wait.
const CLERK_LINE_MAX: usize = 4_096;
/// How long such a command waits before it asks again.
const LINE_PAUSE: Duration = Duration::from_millis(20);
/// Longest sleep: a wall clock that jumps is noticed after this time.
const SLEEP_MAX: Duration = Duration::from_secs(1);
/// Routes remembered for domains; above, those of domains that the scheduler forgot are dropped.
const ROUTES_MAX: usize = 100_000;

/// What the dispatcher hears.
pub(super) enum Input {
    Resolved {
        domain: Domain,
        outcome: RouteOutcome,
        generation: u64,
    },
    Idle {
        connection: ConnectionId,
        report: Report,
    },
    /// What was learned amid an assignment.
    Learned {
        connection: ConnectionId,
        learned: Learned,
    },
    Closed {
        connection: ConnectionId,
        report: Report,
        unserved: Vec<Lease>,
    },
    /// An assignment that met no worker: its connection has ended, and says so itself when it is gone.
    Returned(Vec<Lease>),
    Settled {
        key: JobKey,
        settled: Settled,
    },
    /// A held job was released: it is due.
    Released(DueJob),
    /// The store could not be read: nothing was written, the job is looked at again later.
    Postponed {
        key: JobKey,
        at: Timestamp,
    },
    /// An operator's command came late: the job is not where it was seen.
    Gone(JobKey),
    ClerkDone,
    /// The states of these lanes are on disk.
    LanesSaved(Vec<LaneName>),
    Paged(Result<DuePage, StoreError>),
    Request(Request),
}

/// What the daemon and the operator ask.
pub enum Request {
    /// Everything is due now.
    Flush,
    /// New limits.
    Reload(Settings),
    /// Apply a command to jobs; the answer is how many took it, the others being in flight.
    Command {
        /// As the due index shows them.
        jobs: Vec<DueJob>,
        /// What to do.
        command: Command,
        /// How many did; `None`: too many settlements wait, ask again.
        reply: oneshot::Sender<Option<usize>>,
    },
    /// Release or cancel held jobs.
    Held {
        /// Which.
        jobs: Vec<HeldJob>,
        /// What to do.
        verdict: Verdict,
        /// How many are done now; `None`: too many settlements wait, ask again.
        reply: oneshot::Sender<Option<usize>>,
    },
    /// Totals and the busiest sites.
    Report {
        /// At most so many sites.
        sites_max: usize,
        /// The answer.
        reply: oneshot::Sender<(Totals, Vec<SiteReport>)>,
    },
    /// Where jobs are.
    Locate {
        /// Which, as the due index has them.
        jobs: Vec<DueJob>,
        /// In the same order; `None`: on disk.
        reply: oneshot::Sender<Vec<Option<Whereabouts>>>,
    },
    /// Everything that decides how mail goes somewhere.
    Explain {
        /// Where.
        question: Question,
        /// The answer; `None`: no site of that name is known.
        reply: oneshot::Sender<Option<SiteExplanation>>,
    },
    /// How warm-ups stand.
    Warmups {
        /// Which.
        filter: WarmupFilter,
        /// The answer: warm-ups, and sources.
        reply: oneshot::Sender<(Vec<WarmupEntry>, Vec<SourceStanding>)>,
    },
    /// An operator's word on warm-ups.
    OrderWarmup {
        /// Which.
        filter: WarmupFilter,
        /// What.
        order: WarmupOrder,
        /// How many that were.
        reply: oneshot::Sender<usize>,
    },
    /// Lanes in numbers.
    LaneCounts(oneshot::Sender<LaneCounts>),
    /// No new attempts; the dispatcher ends when nothing is in flight.
    Drain,
}

/// What the run before left.
#[derive(Debug, Default)]
pub struct Saved {
    /// Of lanes.
    pub lanes: Vec<SavedLane>,
    /// What was counted on this day, and on days to come by a clock that was ahead.
    pub history: Vec<HistoryRow>,
    /// Of the sources of managed pools.
    pub lives: Vec<SourceLife>,
}

/// Handle of the dispatcher. It ends after [`Request::Drain`].
#[derive(Clone)]
pub struct Dispatcher {
    inputs: mpsc::Sender<Input>,
}

impl Dispatcher {
    /// Starts delivery. The join handle yields whether everything in flight came to its end.
    pub fn start(
        shared: Shared,
        settings: Settings,
        handoffs: mpsc::Receiver<Handoff>,
        unclean_since: Option<Timestamp>,
        saved: Saved,
        unclean: bool,
    ) -> (Dispatcher, JoinHandle<()>) {
        let (inputs, receiver) = mpsc::channel(INPUTS_MAX);
        let now = shared.clock.now();
        let run = Run {
            shared: Arc::new(shared),
            scheduler: Scheduler::new(settings, unclean_since, saved.lanes, unclean, now)
                .with_history(saved.history, now)
                .with_lives(saved.lives, now),
            inputs: inputs.clone(),
            workers: HashMap::new(),
            routes: HashMap::new(),
            clerks: 0,
            clerk_line: VecDeque::new(),
            held_at_work: HashSet::new(),
            generation: 0,
            draining: false,
            saving_lanes: false,
            last_save: None,
        };
        let task = tokio::spawn(run.run(receiver, handoffs));
        (Dispatcher { inputs }, task)
    }

    /// Sends a request; an error means that the dispatcher has ended.
    pub async fn request(&self, request: Request) -> Result<(), Ended> {
        self.inputs.send(Input::Request(request)).await.map_err(|_| Ended)
    }

    /// Asks for totals and the busiest sites.
    pub async fn report(&self, sites_max: usize) -> Result<(Totals, Vec<SiteReport>), Ended> {
        let (reply, answer) = oneshot::channel();
        self.request(Request::Report { sites_max, reply }).await?;
        answer.await.map_err(|_| Ended)
    }
}

/// What limits hold for a route: those of its provider, or of its hosts.
pub fn destination_of(providers: &Providers, domain: &Domain, route: &Route) -> Destination {
    let found = match route.kind {
        RouteKind::SmartHost | RouteKind::Simulator => None,
        RouteKind::Mx | RouteKind::ImplicitMx => providers.find(domain, route.mail_hosts()),
    };
    let provider = found.map(|provider| Arc::clone(&provider.name));
    Destination {
        site: provider.as_deref().map_or_else(|| route.site.clone(), SiteName::of_provider),
        hosts: route.site.clone(),
        provider,
        own_pool: (route.kind == RouteKind::Simulator).then(PoolName::simulator),
        expires_at: route.expires_at,
    }
}

/// Delivery has stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("delivery has stopped")]
pub struct Ended;

struct Run {
    shared: Arc<Shared>,
    scheduler: Scheduler,
    inputs: mpsc::Sender<Input>,
    workers: HashMap<ConnectionId, mpsc::Sender<Order>>,
    routes: HashMap<Domain, (Arc<Route>, Destination)>,
    clerks: usize,
    clerk_line: VecDeque<(Lease, Verdict)>,
    /// Held jobs that a clerk has, or will have: they are not in the scheduler.
    held_at_work: HashSet<JobKey>,
    /// Rises with each reload: an answer to a question from before it is asked again.
    generation: u64,
    draining: bool,
    /// States of lanes are on their way to the disk.
    saving_lanes: bool,
    /// The last save of what nobody waits for.
    last_save: Option<JoinHandle<()>>,
}

impl Run {
    async fn run(mut self, mut receiver: mpsc::Receiver<Input>, mut handoffs: mpsc::Receiver<Handoff>) {
        let mut inputs = Vec::with_capacity(BATCH);
        let mut accepted = Vec::with_capacity(BATCH);
        let mut actions = Vec::new();
        let mut handoffs_open = true;
        let sleep = tokio::time::sleep(Duration::ZERO);
        tokio::pin!(sleep);
        let mut last = self.shared.clock.now();
        while !(self.draining && self.is_quiet()) {
            // In this order: whichever wakes us, all three are seen to below, so none can be starved.
            tokio::select! {
                biased;
                _ = receiver.recv_many(&mut inputs, BATCH) => {}
                count = handoffs.recv_many(&mut accepted, BATCH), if handoffs_open => handoffs_open = count > 0,
                () = &mut sleep => {}
            }
            let now = self.shared.clock.now();
            if now < last {
                self.scheduler.clock_went_back(last.since(now), now);
            }
            last = now;
            // Acceptance comes before all else that can be heard of a message: a page may show it first, and it must not
            // be taken for new once it is settled.
            while let Ok(handoff) = handoffs.try_recv() {
                accepted.push(handoff);
            }
            for handoff in accepted.drain(..) {
                self.scheduler.accepted(handoff, now, &mut actions);
            }
            for input in inputs.drain(..) {
                self.take(input, &mut actions);
            }
            let wakeup = self.scheduler.next_wakeup();
            if wakeup <= now {
                self.scheduler.tick(now, &mut actions);
            }
            // One save at a time: they must reach the disk in order.
            if !self.saving_lanes {
                self.scheduler.flush_lanes(now, &mut actions);
            }
            for action in actions.drain(..) {
                self.perform(action);
            }
            let pause = self.scheduler.next_wakeup().since(now).clamp(Duration::from_millis(1), SLEEP_MAX);
            sleep.as_mut().reset(Instant::now() + pause);
        }
        let history = self.scheduler.history(self.shared.clock.now());
        let queue = self.shared.queue.clone();
        self.in_order(async move { lanes::save_history(&queue, history).await });
        if let Some(last) = self.last_save.take() {
            // An error: it panicked, and what it had is lost; the panic is in the log.
            let _ = last.await;
        }
        let save = self.scheduler.all_lanes(self.shared.clock.now());
        lanes::save_and_wait(&self.shared.queue, save).await;
    }

    /// Saves behind all that were begun before: a row that is written over must not come back.
    fn in_order(&mut self, save: impl Future<Output = ()> + Send + 'static) {
        let before = self.last_save.take();
        self.last_save = Some(tokio::spawn(async move {
            if let Some(before) = before {
                let _ = before.await;
            }
            save.await;
        }));
    }

    fn is_quiet(&self) -> bool {
        self.scheduler.is_quiet() && self.clerks == 0 && !self.saving_lanes
    }

    fn take(&mut self, input: Input, actions: &mut Vec<Action>) {
        let now = self.shared.clock.now();
        match input {
            Input::Resolved { domain, generation, .. } if generation != self.generation => {
                actions.push(Action::Resolve(domain));
            }
            Input::Resolved { domain, outcome, .. } => self.resolved(&domain, outcome, actions),
            Input::Idle { connection, report } => self.scheduler.connection_idle(connection, report, now, actions),
            Input::Learned { connection, learned } => {
                self.scheduler.connection_learned(connection, &learned, now, actions);
            }
            Input::LanesSaved(names) => {
                self.saving_lanes = false;
                self.scheduler.lanes_saved(&names, now, actions);
            }
            Input::Closed { connection, report, unserved } => {
                self.workers.remove(&connection);
                metrics::gauge!(metric::OUTBOUND_CONNECTIONS).set(self.workers.len() as f64);
                self.scheduler.connection_closed(connection, report, unserved, now, actions);
            }
            Input::Returned(leases) => self.scheduler.returned(leases, now, actions),
            Input::Settled { key, settled } => {
                if !self.held_at_work.remove(&key) {
                    self.scheduler.settled(key, settled, now, actions);
                }
            }
            Input::Released(job) => {
                self.held_at_work.remove(&job.key);
                self.scheduler.released(&job, now, actions);
            }
            Input::Gone(key) => {
                if !self.held_at_work.remove(&key) {
                    self.scheduler.gone(key, now, actions);
                }
            }
            Input::Postponed { key, at } => {
                if !self.held_at_work.remove(&key) {
                    self.scheduler.postponed(key, at, now, actions);
                }
            }
            Input::ClerkDone => {
                self.clerks -= 1;
                self.start_clerks();
            }
            Input::Paged(Ok(page)) => {
                self.hold_damaged(&page.damaged, actions);
                self.scheduler.paged(page, now, actions);
            }
            Input::Paged(Err(error)) => {
                tracing::error!(%error, "the due index cannot be read; tried again in a second");
                self.scheduler.page_failed();
            }
            Input::Request(request) => self.answer(request, actions),
        }
    }

    fn answer(&mut self, request: Request, actions: &mut Vec<Action>) {
        let now = self.shared.clock.now();
        // Whoever asked may have gone; an answer to nobody is no failure.
        match request {
            Request::Flush => self.scheduler.flush(now, actions),
            Request::Reload(settings) => {
                self.generation += 1;
                self.scheduler.reload(settings, now, actions);
            }
            Request::Command { reply, .. } if self.clerk_line.len() >= CLERK_LINE_MAX => {
                let _ = reply.send(None);
            }
            Request::Command { jobs, command, reply } => {
                let took = jobs.iter().filter(|job| {
                    !self.held_at_work.contains(&job.key) && self.scheduler.command(job, &command, now, actions)
                });
                let _ = reply.send(Some(took.count()));
            }
            Request::Held { reply, .. } if self.clerk_line.len() >= CLERK_LINE_MAX => {
                let _ = reply.send(None);
            }
            Request::Held { jobs, verdict, reply } => {
                let _ = reply.send(Some(self.settle_held(jobs, &verdict, actions)));
            }
            Request::Report { sites_max, reply } => {
                let _ = reply.send((self.scheduler.totals(), self.scheduler.report(sites_max, now)));
            }
            Request::Locate { jobs, reply } => {
                let _ = reply.send(self.scheduler.locate(&jobs, now));
            }
            Request::Explain { question, reply } => {
                let _ = reply.send(self.scheduler.explain(&question, now));
            }
            Request::Warmups { filter, reply } => {
                let _ = reply.send((self.scheduler.warmups(&filter, now), self.scheduler.sources()));
            }
            Request::OrderWarmup { filter, order, reply } => {
                let _ = reply.send(self.scheduler.order_warmup(&filter, order, now, actions));
            }
            Request::LaneCounts(reply) => {
                let _ = reply.send(self.scheduler.lane_counts(now));
            }
            Request::Drain => {
                self.draining = true;
                self.scheduler.drain(actions);
            }
        }
    }

    /// Gives held jobs to clerks, each to one at a time.
    fn settle_held(&mut self, jobs: Vec<HeldJob>, verdict: &Verdict, actions: &mut Vec<Action>) -> usize {
        let mut taken = 0;
        for job in jobs {
            if self.scheduler.knows(job.key) || !self.held_at_work.insert(job.key) {
                continue;
            }
            taken += 1;
            let (key, attempts) = (job.key, job.entry.attempts);
            let lease = Lease { attempts, unverified: true, ..Lease::of(key, None) };
            actions.push(Action::Settle { lease, verdict: verdict.clone() });
        }
        taken
    }

    /// Jobs of which only the key can be read are set aside, so that they do not wait unseen for ever.
    fn hold_damaged(&mut self, damaged: &[DamagedDue], actions: &mut Vec<Action>) {
        for DamagedDue { due_at, key, reason } in damaged {
            if self.scheduler.knows(*key) || !self.held_at_work.insert(*key) {
                continue;
            }
            let (key, due_at) = (*key, Some(*due_at));
            let lease = Lease::of(key, due_at);
            actions.push(Action::Settle { lease, verdict: Verdict::Hold(format!("cannot be read: {reason}")) });
        }
    }

    fn resolved(&mut self, domain: &Domain, outcome: RouteOutcome, actions: &mut Vec<Action>) {
        let now = self.shared.clock.now();
        let failure = |kind, status, text, rule| RoutingFailure { kind, status, text, rule };
        let failure = match outcome {
            RouteOutcome::Route(route) => {
                let destination = destination_of(&self.shared.reloadable().providers, domain, &route);
                if self.routes.len() >= ROUTES_MAX {
                    let scheduler = &self.scheduler;
                    self.routes.retain(|domain, _| scheduler.knows_domain(domain));
                }
                self.routes.insert(domain.clone(), (route, destination.clone()));
                return self.scheduler.resolved(domain, destination, now, actions);
            }
            RouteOutcome::Permanent { status, text, rule } => {
                failure(RoutingFailureKind::Permanent, status, text, rule)
            }
            RouteOutcome::NoSuchDomain { text } => {
                failure(RoutingFailureKind::NoSuchDomain, no_such_domain_status(), text, NO_SUCH_DOMAIN_RULE)
            }
            RouteOutcome::Temporary { status, text, rule } => {
                failure(RoutingFailureKind::Temporary, status, text, rule)
            }
        };
        self.scheduler.unroutable(domain, &failure, actions);
    }

    fn perform(&mut self, action: Action) {
        match action {
            Action::Resolve(domain) => {
                let (shared, inputs, generation) = (Arc::clone(&self.shared), self.inputs.clone(), self.generation);
                tokio::spawn(async move {
                    let outcome = shared.reloadable().router.route(&domain).await;
                    // An error means that the dispatcher has ended, and the job waits on disk.
                    let _ = inputs.send(Input::Resolved { domain, outcome, generation }).await;
                });
            }
            Action::Open { connection, source, domain, jobs, terms, .. } => {
                self.open(connection, source, &domain, jobs, terms);
            }
            Action::Assign { connection, jobs, terms } => self.order(connection, Order::Deliver(jobs, terms)),
            Action::SaveLanes(save) => {
                self.saving_lanes = true;
                let (shared, inputs) = (Arc::clone(&self.shared), self.inputs.clone());
                tokio::spawn(async move { lanes::save(&shared.queue, save, inputs).await });
            }
            Action::SaveLives(save) => {
                let queue = self.shared.queue.clone();
                self.in_order(async move { lanes::save_lives(&queue, save).await });
            }
            Action::SaveHistory(save) => {
                let queue = self.shared.queue.clone();
                self.in_order(async move { lanes::save_history(&queue, save).await });
            }
            Action::Close(connection) => self.order(connection, Order::Close),
            Action::Settle { lease, verdict } => {
                self.clerk_line.push_back((lease, verdict));
                self.start_clerks();
            }
            Action::PageIn { from, until, limit } => {
                let (queue, inputs) = (self.shared.queue.clone(), self.inputs.clone());
                tokio::spawn(async move {
                    let page = queue.reading(move |queue| queue.due(from, until, limit)).await;
                    let page = page.unwrap_or_else(|error| {
                        Err(StoreError::new(StoreErrorKind::Failed, format!("reading it failed: {error}")))
                    });
                    let _ = inputs.send(Input::Paged(page)).await;
                });
            }
        }
    }

    fn open(&mut self, connection: ConnectionId, source: SourceName, domain: &Domain, jobs: Vec<Lease>, terms: Terms) {
        let Some((route, destination)) = self.routes.get(domain) else {
            // Pruned with a domain that had been forgotten: the jobs find their way anew.
            self.scheduler.forget_route(domain);
            let report = Report::default();
            return self.tell_self(Input::Closed { connection, report, unserved: jobs });
        };
        let (route, destination) = (Arc::clone(route), destination.clone());
        let way = Start { route, destination, source, terms };
        let orders = Worker::start(Arc::clone(&self.shared), way, connection, jobs, self.inputs.clone());
        self.workers.insert(connection, orders);
        metrics::gauge!(metric::OUTBOUND_CONNECTIONS).set(self.workers.len() as f64);
    }

    fn order(&mut self, connection: ConnectionId, order: Order) {
        // A worker gets at most one assignment and one close before it reports, and its channel holds two. One that just
        // ends takes no more; until it says that it is gone, its connection counts: it may have to wait for its QUIT.
        let refused = match self.workers.get(&connection) {
            Some(worker) => worker.try_send(order).err().map(mpsc::error::TrySendError::into_inner),
            None => Some(order),
        };
        if let Some(Order::Deliver(unserved, _)) = refused {
            self.tell_self(Input::Returned(unserved));
        }
    }

    /// In a task of its own, as the channel may be full.
    fn tell_self(&self, input: Input) {
        let inputs = self.inputs.clone();
        tokio::spawn(async move {
            let _ = inputs.send(input).await;
        });
    }

    fn start_clerks(&mut self) {
        while self.clerks < CLERKS_MAX {
            let Some((lease, verdict)) = self.clerk_line.pop_front() else { return };
            self.clerks += 1;
            let (shared, inputs) = (Arc::clone(&self.shared), self.inputs.clone());
            tokio::spawn(async move {
                clerk::settle(&shared, lease, verdict, &inputs).await;
                let _ = inputs.send(Input::ClerkDone).await;
            });
        }
    }
}
