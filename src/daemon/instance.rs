//! One running daemon: everything wired together, started, reloaded, drained. The process around it is in `run`; tests
//! and the demo start instances of their own.

use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use arc_swap::ArcSwap;
use tokio::task::{AbortHandle, JoinHandle};
use tokio_util::sync::CancellationToken;

use super::admin::AdminServer;
use super::admin::model::QuotaReport;
use super::assembly;
use super::backend::Control;
use super::config::Config;
use super::feedback;
use super::lint::Lints;
use super::monitor;
use super::pauses;
use super::quotas;
use super::reputation::{self, ReputationHandle};
use super::signing::{Signatures, SigningKeys};
use super::simulating::{Simulating, is_reports_listener};
use super::stamp::{Mint, Stamper};
use super::suppressing::SuppressingIntake;
use super::token_keys::{Prepared, TokenKeyFile};
use super::unsubscribe;
use crate::admission::Directory;
use crate::admission::authenticate::Authenticator;
use crate::admission::quota::Quotas;
use crate::admission::suppression::Lists;
use crate::delivery;
use crate::delivery::dispatch::{Dispatcher, Request, Saved};
use crate::delivery::shared::{Counts, Reloadable, Shared};
use crate::events::audit::AuditLog;
use crate::events::writer::{EventWriter, WriterHandle};
use crate::feedback::desk::Settings as FeedbackDesk;
use crate::net::dial::TcpDialer;
use crate::net::dns::HickoryResolver;
use crate::policy::token::{TokenKeys, mint};
use crate::queue::rocks::RocksStore;
use crate::queue::store::StoreError;
use crate::queue::suppression::SuppressionCheck;
use crate::queue::{self, HistoryQuery, Queue};
use crate::reception::settings::Settings as ReceptionSettings;
use crate::reception::{Ports, Reception, Signing};
use crate::scheduler::settlement::Tally;
use crate::types::{Clock, SystemClock, Timestamp};

/// Of the drain deadline, what is left for the last writes.
const LAST_WRITES: Duration = Duration::from_secs(3);

/// How long clients are given to read why a daemon ends that cannot write.
const LAST_REPLIES: Duration = Duration::from_secs(1);

/// How long the end of the committer is waited for: rounds of a pause each.
const CLOSE_ROUNDS: u32 = 200;
/// See [`CLOSE_ROUNDS`].
const CLOSE_PAUSE: Duration = Duration::from_millis(10);

/// See the module.
pub struct Instance {
    config: Mutex<Config>,
    queue: Queue,
    committer: thread::JoinHandle<()>,
    reception: Reception,
    reception_settings: Arc<ArcSwap<ReceptionSettings>>,
    admission: Arc<ArcSwap<Directory>>,
    feedback: Arc<ArcSwap<FeedbackDesk>>,
    links: unsubscribe::Links,
    quotas: Arc<Quotas>,
    reputation: ReputationHandle,
    signing: SigningKeys,
    reloadable: Arc<ArcSwap<Reloadable>>,
    resolver: Arc<HickoryResolver>,
    dispatcher: Dispatcher,
    dispatcher_task: Mutex<Option<JoinHandle<()>>>,
    dispatcher_alive: AbortHandle,
    events: Arc<WriterHandle>,
    audit: Arc<AuditLog>,
    clock: Arc<dyn Clock>,
    counts: Arc<Counts>,
    token_keys: Arc<TokenKeyFile>,
    simulating: Simulating,
    background: CancellationToken,
}

impl Instance {
    /// Opens the queue and starts everything. Errors are sentences for the administrator. Needs a tokio runtime with
    /// several threads; the metrics recorder and the TLS provider are installed before.
    pub fn start(config: Config) -> Result<Instance, String> {
        let clock: Arc<dyn Clock> = Arc::new(SystemClock);
        let (simulating, simulated, config) = Simulating::start(config, &clock)?;
        let opened = open_queue(&config, &clock)?;
        let queue = opened.queue.clone();
        let token_keys = Arc::new(TokenKeyFile::open(&config, Arc::clone(&clock))?);
        let (events, audit) = open_streams(&config, &queue, &clock)?;
        let quotas = quotas::open(&queue, &clock, Arc::clone(&audit))?;
        let resolver = HickoryResolver::new(&config.dns, Arc::clone(&clock)).map_err(|error| error.to_string())?;
        let resolver = Arc::new(resolver);
        let signing = SigningKeys::open(&config)?;
        let reloadable = build_reloadable(&config, &signing, &resolver, &clock)?;
        let reloadable = Arc::new(ArcSwap::from_pointee(reloadable));
        let reception_settings = Arc::new(ArcSwap::from_pointee(config.reception.clone()));
        let admission = Arc::new(ArcSwap::from_pointee(config.admission.clone()));
        let reputation = reputation::open(&queue, &admission, &audit, &clock)?;
        let suppression: Arc<dyn SuppressionCheck> = Arc::new(Lists::new(queue.clone(), Arc::clone(&admission)));
        let (checks, settings, keys) = (Arc::clone(&suppression), Arc::clone(&reloadable), token_keys.keys());
        let shared = Shared::new(queue.clone(), Arc::clone(&clock), Arc::new(TcpDialer), checks, settings, keys);
        let counts = Arc::clone(&shared.counts);
        let intake = SuppressingIntake::new(&queue, suppression, &reloadable, &counts);
        let desk = feedback::open(&config, &queue, token_keys.keys(), &reloadable.load().rules, signing.own(), &clock);
        let ports = Ports {
            settings: Arc::clone(&reception_settings),
            admission: Arc::clone(&admission),
            quotas: Arc::clone(&quotas),
            authenticator: Authenticator::new(cores()),
            audit: Arc::clone(&audit),
            intake: Arc::new(intake),
            stamp: Arc::new(stamper(&signing, &token_keys, &audit)),
            signing: Arc::new(Signing::new(cores())),
            inbox: Arc::new(feedback::DeskInbox(Arc::clone(&desk.desk))),
        };
        let links = unsubscribe::Links::open(&config.unsubscribe)?;
        let reception = Reception::start(&config.listeners, ports).map_err(|error| error.to_string())?;
        simulating.adopt(simulated, &reception);
        // From here on, what is due may be in flight.
        queue.mark_running().map_err(|error| error.to_string())?;
        let queue::Opened { handoffs, committer, unclean_since, was_clean, .. } = opened;
        let (settings, saved) = (assembly::scheduler_settings(&config), saved(&queue, clock.now())?);
        let (dispatcher, dispatcher_task) =
            Dispatcher::start(shared, settings, handoffs, unclean_since, saved, !was_clean);
        desk.dispatcher.get_or_init(|| dispatcher.clone());
        let background = CancellationToken::new();
        links.serve(desk.desk, &background);
        let instance = Instance {
            config: Mutex::new(config),
            queue,
            committer,
            reception,
            reception_settings,
            admission,
            feedback: desk.settings,
            links,
            quotas,
            reputation: reputation.start(background.clone()),
            signing,
            reloadable,
            resolver,
            dispatcher,
            dispatcher_alive: dispatcher_task.abort_handle(),
            dispatcher_task: Mutex::new(Some(dispatcher_task)),
            events,
            audit,
            clock,
            counts,
            token_keys,
            simulating,
            background,
        };
        instance.start_background();
        Ok(instance)
    }

    fn start_background(&self) {
        let data_dir = self.config().queue.data_dir;
        let watch = monitor::Watch {
            queue: self.queue.clone(),
            dispatcher: self.dispatcher.clone(),
            clock: Arc::clone(&self.clock),
            quotas: Arc::clone(&self.quotas),
            admission: Arc::clone(&self.admission),
            data_dir,
            token_keys: Arc::clone(&self.token_keys),
            stop: self.background.clone(),
            lanes: monitor::LaneGauges::default(),
        };
        tokio::spawn(watch.run());
        let (resolver, audit) = (Arc::clone(&self.resolver), Arc::clone(&self.audit));
        tokio::spawn(self.signing.watch(resolver, audit, self.background.clone()).run());
    }

    /// Serves the admin API on a socket that is already bound.
    pub fn serve_admin(self: &Arc<Self>, server: AdminServer) -> JoinHandle<()> {
        let control = Control::new(
            Arc::downgrade(self),
            self.queue.clone(),
            self.dispatcher.clone(),
            Arc::clone(&self.clock),
            Arc::clone(&self.admission),
            self.reputation.clone(),
        );
        tokio::spawn(server.serve(Arc::new(control), self.background.clone()))
    }

    /// Name and bound address of each listener of the config.
    pub fn local_addrs(&self) -> Vec<(String, SocketAddr)> {
        let all = self.reception.local_addrs().into_iter();
        all.filter(|(name, _)| !is_reports_listener(name) || self.config().simulator.is_none()).collect()
    }

    /// Open client connections.
    pub fn sessions(&self) -> usize {
        self.reception.sessions()
    }

    /// Begins new event and audit files. Returns at once.
    pub fn rotate_files(&self) {
        self.events.rotate();
        self.audit.rotate();
    }

    /// The event files.
    pub fn events(&self) -> &WriterHandle {
        &self.events
    }

    /// Outcomes since the start.
    pub fn counts(&self) -> Tally {
        self.counts.read()
    }

    /// The queue.
    pub fn queue(&self) -> &Queue {
        &self.queue
    }

    /// Routes and rules of this moment.
    pub fn reloadable(&self) -> Arc<Reloadable> {
        self.reloadable.load_full()
    }

    /// What senders used of their limits.
    pub fn quota_report(&self) -> QuotaReport {
        QuotaReport { scopes: quotas::usage(&self.quotas, &self.admission.load()) }
    }

    /// The config in force.
    pub fn config(&self) -> Config {
        self.config.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Why a part that nothing works without has ended; `None` while all live.
    pub fn failure(&self) -> Option<String> {
        if let Some(reason) = self.queue.health().lost() {
            return Some(reason);
        }
        if self.dispatcher_alive.is_finished() {
            return Some("the dispatcher ended".to_owned());
        }
        if self.committer.is_finished() {
            return Some("the committer ended".to_owned());
        }
        if self.links.is_gone() {
            return Some("the answers to links that unsubscribe ended".to_owned());
        }
        if self.reputation.is_gone() {
            return Some("the judge of reputation ended".to_owned());
        }
        if !self.audit.is_running() {
            return Some("the writer of the audit stream ended".to_owned());
        }
        (!self.events.is_running()).then(|| "the event writer ended".to_owned())
    }

    /// Applies a new config, or changes nothing and says why. Keys that need a restart keep their old values; their
    /// names are returned.
    pub async fn reload(&self, new: Config) -> Result<Vec<&'static str>, String> {
        let old = self.config();
        let restart = old.needs_restart(&new);
        let mut new = new;
        new.hostname.clone_from(&old.hostname);
        new.reception.hostname.clone_from(&old.reception.hostname);
        new.delivery.hostname.clone_from(&old.delivery.hostname);
        new.queue.data_dir.clone_from(&old.queue.data_dir);
        (new.queue.ready_max, new.queue.body_cache_bytes) = (old.queue.ready_max, old.queue.body_cache_bytes);
        let simulated = self.simulating.prepare(&mut new)?;
        let reloadable = build_reloadable(&new, &self.signing, &self.resolver, &self.clock)?;
        let (signatures, token_keys, links) = self.prepare_keys(&new).await?;
        self.resolver.reload(&new.dns).map_err(|error| error.to_string())?;
        let applied = self
            .reception
            .reload(&new.listeners)
            .map_err(|error| error.to_string())
            .and_then(|()| self.events.reload(assembly::event_settings(&new)).map_err(|error| error.to_string()))
            .and_then(|()| self.audit.reload(&assembly::audit_settings(&new)).map_err(|error| error.to_string()));
        if let Err(problem) = applied {
            // Back to what was in force a moment ago; these settings worked then.
            let dns = self.resolver.reload(&old.dns).map_err(|error| error.to_string());
            let listeners = self.reception.reload(&old.listeners).map_err(|error| error.to_string());
            let events = self.events.reload(assembly::event_settings(&old)).map_err(|error| error.to_string());
            for error in [dns.err(), listeners.err(), events.err()].into_iter().flatten() {
                tracing::error!(%error, "the old settings could not be restored");
            }
            return Err(problem);
        }
        // Nothing below can fail.
        self.token_keys.adopt(token_keys);
        self.links.adopt(links);
        self.feedback.store(Arc::new(feedback::settings(&new, &reloadable.rules, self.signing.own())));
        self.reloadable.store(Arc::new(reloadable));
        self.simulating.adopt(simulated, &self.reception);
        self.signing.adopt(signatures);
        self.reception_settings.store(Arc::new(new.reception.clone()));
        pauses::changes(&old.admission, &new.admission).into_iter().for_each(|entry| self.audit.note(entry));
        new.admission.pauses = Arc::clone(&self.admission.load().pauses);
        self.admission.store(Arc::new(new.admission.clone()));
        self.queue.reload(&assembly::queue_settings(&new));
        let request = Request::Reload(assembly::scheduler_settings(&new));
        if self.dispatcher.request(request).await.is_err() {
            tracing::error!("delivery has stopped; the new limits take effect at the next start");
        }
        *self.config.lock().unwrap_or_else(PoisonError::into_inner) = new;
        Ok(restart)
    }

    /// Reads the key files of a new config, on a thread that may block.
    async fn prepare_keys(&self, new: &Config) -> Result<(Signatures, Prepared, unsubscribe::Live), String> {
        let (signing, token_keys, new) = (self.signing.clone(), Arc::clone(&self.token_keys), new.clone());
        let prepare =
            move || Ok((signing.prepare(&new)?, token_keys.prepare(&new)?, unsubscribe::Live::load(&new.unsubscribe)?));
        tokio::task::spawn_blocking(prepare).await.map_err(|error| format!("cannot read the keys: {error}"))?
    }

    /// All deferred mail is due now.
    pub async fn flush(&self) -> Result<(), delivery::dispatch::Ended> {
        self.dispatcher.request(Request::Flush).await
    }

    /// Stops where nothing can be written any more: clients are told, deliveries in flight are cut. What became of them
    /// could not be kept; the next start tries them again and marks them.
    pub async fn cut(&self) {
        self.dispatcher_alive.abort();
        self.reception.drain(LAST_REPLIES).await;
    }

    /// Stops: no new mail, what is in flight comes to its end or is due again at the next start. Returns whether all
    /// came to its end within the deadline.
    pub async fn stop(self: Arc<Self>) -> bool {
        let deadline = self.config().shutdown.deadline;
        let patience = deadline.saturating_sub(LAST_WRITES).max(deadline / 2);
        let task = self.dispatcher_task.lock().unwrap_or_else(PoisonError::into_inner).take();
        let dispatched = async {
            let _ = self.dispatcher.request(Request::Drain).await;
            match task {
                // A dispatcher that ended by a bug leaves deliveries in flight: that is no orderly stop.
                Some(task) => tokio::time::timeout(patience, task).await.is_ok_and(|ended| ended.is_ok()),
                None => false,
            }
        };
        let ((), quiet) = tokio::join!(self.reception.drain(patience), dispatched);
        if quiet {
            if let Err(error) = self.queue.mark_clean_stop().await {
                tracing::error!(%error, "the orderly stop could not be noted");
            }
        } else {
            tracing::warn!("deliveries cut at the end of the drain time; they are due again at the next start");
            self.dispatcher_alive.abort();
        }
        self.simulating.stop();
        self.background.cancel();
        self.links.ended().await;
        let (events, audit) = (Arc::clone(&self.events), Arc::clone(&self.audit));
        let stopped = tokio::task::spawn_blocking(move || {
            // Sessions are over: nothing more is noted.
            if !audit.stop(LAST_WRITES) {
                tracing::warn!("the last audit lines could not be written");
            }
            events.stop(LAST_WRITES)
        });
        let stopped = stopped.await.unwrap_or(false);
        if !stopped {
            tracing::warn!("event files do not hold every event yet; the next start goes on where they end");
        }
        quiet && stopped
    }
}

impl Instance {
    /// Ends the committer: blocks until everything is written and synced. Other handles of the queue must be gone, or
    /// this returns without waiting for them.
    pub fn close(self) {
        let Instance { queue, committer, reception, dispatcher, dispatcher_task, .. } = self;
        drop((queue, reception, dispatcher, dispatcher_task));
        for _ in 0..CLOSE_ROUNDS {
            if committer.is_finished() {
                return;
            }
            thread::sleep(CLOSE_PAUSE);
        }
        tracing::warn!("the committer did not end in time; what it has is synced or due again");
    }
}

/// Tokens by the keys in use.
fn mint_of(keys: Arc<ArcSwap<TokenKeys>>) -> Arc<Mint> {
    Arc::new(move |purpose, id, addressee| mint(&keys.load(), purpose, id, addressee))
}

fn stamper(signing: &SigningKeys, token_keys: &TokenKeyFile, audit: &Arc<AuditLog>) -> Stamper {
    Stamper {
        signing: signing.in_force(),
        mint: mint_of(token_keys.keys()),
        lints: Arc::new(Lints::new(Arc::clone(audit))),
    }
}

/// The event files and the audit stream.
fn open_streams(
    config: &Config,
    queue: &Queue,
    clock: &Arc<dyn Clock>,
) -> Result<(Arc<WriterHandle>, Arc<AuditLog>), String> {
    let events = EventWriter::start(queue.outbox(), assembly::event_settings(config), Arc::clone(clock));
    let events = events.map_err(|error| error.to_string())?;
    let audit = AuditLog::start(&assembly::audit_settings(config), Arc::clone(clock));
    Ok((Arc::new(events), Arc::new(audit.map_err(|error| error.to_string())?)))
}

/// Rows of the history that are read at once.
const HISTORY_ROWS: usize = 10_000;

/// Secrets are verified on so many at once.
fn cores() -> usize {
    thread::available_parallelism().map_or(1, usize::from)
}

/// What was kept over the restart: all lanes, as the scheduler knows which ones to forget where there are too many.
fn saved(queue: &Queue, now: Timestamp) -> Result<Saved, String> {
    let text = |error: StoreError| error.to_string();
    let lanes = queue.lanes(usize::MAX).map_err(text)?;
    let today = now.utc_day();
    // Yesterday's say what managed pools need, early in the day; those of days to come are of a clock that was ahead.
    let mut query = HistoryQuery::of_days(today.saturating_sub(1)..=u32::MAX, HISTORY_ROWS);
    let mut history = Vec::new();
    loop {
        let page = queue.history(&query).map_err(text)?;
        history.extend(page.rows);
        query.from = page.next;
        if query.from.is_none() {
            break;
        }
    }
    let lives = queue.source_lives().map_err(text)?;
    Ok(Saved { lanes: lanes.into_iter().filter_map(delivery::lanes::saved).collect(), history, lives })
}

fn open_queue(config: &Config, clock: &Arc<dyn Clock>) -> Result<queue::Opened, String> {
    let directory = config.queue.data_dir.join(queue::recover::STORE);
    make_private(&config.queue.data_dir)?;
    let store = RocksStore::open(&directory, &assembly::rocks_settings(config)).map_err(|error| error.to_string())?;
    let settings = assembly::queue_settings(config);
    let opened = Queue::open(Arc::new(store), &settings, Arc::clone(clock), queue::random_seed());
    let opened = opened.map_err(|error| error.to_string())?;
    if !opened.was_clean {
        tracing::warn!("the last stop was not orderly; what was due then may have been sent and is marked so");
    }
    if opened.swept_parts > 0 {
        tracing::info!(parts = opened.swept_parts, "removed parts of messages that were never accepted");
    }
    let messages = opened.queue.health().messages();
    tracing::info!(messages, data_dir = %config.queue.data_dir.display(), "queue is open");
    Ok(opened)
}

/// Mail is private: the data directory is for its owner alone.
fn make_private(directory: &Path) -> Result<(), String> {
    use std::os::unix::fs::DirBuilderExt;
    std::fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(directory)
        .map_err(|error| format!("cannot make data_dir {}: {error}", directory.display()))
}

fn build_reloadable(
    config: &Config,
    signing: &SigningKeys,
    resolver: &Arc<HickoryResolver>,
    clock: &Arc<dyn Clock>,
) -> Result<Reloadable, String> {
    let own: Vec<IpAddr> = config.listeners.iter().map(|listener| listener.address.ip()).collect();
    let own: Vec<IpAddr> = own.into_iter().filter(|address| !address.is_unspecified()).collect();
    let resolver = Arc::clone(resolver) as Arc<dyn crate::net::Resolver>;
    assembly::reloadable(config, &own, signing.own(), resolver, Arc::clone(clock), queue::random_seed())
}
