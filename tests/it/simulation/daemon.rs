//! The daemon wired a second time: the same parts as in `daemon::instance`, on the ports of a world.

use std::collections::HashMap;
use std::fmt::Write;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use posthaste::admission::Directory;
use posthaste::admission::authenticate::Authenticator;
use posthaste::admission::quota::{Quotas, Scope};
use posthaste::admission::signing::{KeyState, Keyring};
use posthaste::admission::suppression::Lists;
use posthaste::daemon::signing::Signatures;
use posthaste::daemon::stamp::Stamper;
use posthaste::daemon::suppressing::SuppressingIntake;
use posthaste::delivery::dispatch::{Dispatcher, Request, Saved};
use posthaste::delivery::route::Router;
use posthaste::delivery::settings::Settings as DeliverySettings;
use posthaste::delivery::shared::{Reloadable, Shared};
use posthaste::delivery::sources::Outlets;
use posthaste::events::audit::AuditLog;
use posthaste::events::writer::{Pump, Step};
use posthaste::events::{self, EventKind, SinkSettings};
use posthaste::message::dkim::{Key, Signer};
use posthaste::net::tls_client::TlsClient;
use posthaste::policy::limits::{LaneLimits, Span};
use posthaste::policy::mailing::{MailRule, Mailing};
use posthaste::policy::quota::{Minute, WINDOW_MINUTES};
use posthaste::policy::reputation::Counting;
use posthaste::policy::token::{KeyRing, Secret, TokenKeys};
use posthaste::policy::{Providers, Rules, retry};
use posthaste::queue::store::Store;
use posthaste::queue::suppression::SuppressionCheck;
use posthaste::queue::{self, Queue, invariants};
use posthaste::reception::Signing;
use posthaste::reception::settings::Settings as ReceptionSettings;
use posthaste::reception::{self, Reception};
use posthaste::scheduler;
use posthaste::scheduler::settlement::SettlementSettings;
use posthaste::types::{Clock, Domain, Timestamp};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use super::network;
use super::plan::Plan;
use super::world::World;

const HOSTNAME: &str = "mta.posthaste.test";
/// As `[shutdown] deadline`.
const DRAIN: Duration = Duration::from_secs(25);
/// How soon the event writer notices that a file is old: nothing here moves files away.
const TEND_EVERY: Duration = Duration::from_secs(60);

pub(super) struct Daemon {
    pub(super) queue: Queue,
    pub(super) reception: Arc<Reception>,
    dispatcher: Dispatcher,
    dispatcher_task: JoinHandle<()>,
    stop_events: oneshot::Sender<()>,
    events_task: JoinHandle<()>,
}

impl Daemon {
    /// Opens what the last run left, and starts everything. Within the runtime. An error: a violation was noted, or
    /// the power was cut.
    pub(super) async fn start(world: &Arc<World>, run: u64) -> Result<Self, String> {
        let plan = &world.plan;
        let clock: Arc<dyn Clock> = Arc::clone(&world.clock) as _;
        let store: Arc<dyn Store> = Arc::clone(&world.disk) as _;
        let seed = plan.seed.wrapping_mul(1_000).wrapping_add(run);
        let limits = queue::Settings { free_space_reserve_bytes: 0, ..queue::Settings::default() };
        let opened = Queue::open_inline(store, &limits, Arc::clone(&clock), seed).map_err(|error| error.to_string())?;
        world.ledger().started(world.now(), false);
        if let Ok(found) = invariants::violations(world.disk.store()) {
            for violation in found {
                world.ledger().violation(format!("{violation} (at the start of run {run})"));
            }
        }
        let queue = opened.queue;
        // Where there is room and the disk is full all the same, the daemon would end after a while and be started again.
        queue.health().set_free_bytes(0);
        // What is accepted in the very millisecond of the open could not be told from what was due before it.
        tokio::time::sleep(Duration::from_millis(2)).await;
        tokio::spawn(opened.committer.run(plan.disk));
        let storage = Arc::new(world.files.clone());
        let pump = Pump::open(queue.outbox(), storage, &event_settings(plan), Arc::clone(&clock))
            .map_err(|error| error.to_string())?;
        let (stop_events, stopped) = oneshot::channel();
        let events_task = tokio::spawn(write_events(Arc::clone(world), pump, stopped));
        let ports = Arc::new(network::Ports(Arc::clone(world)));
        let reloadable = Arc::new(ArcSwap::from_pointee(reloadable(plan, &ports, &clock, seed)));
        let mut directory = Directory::relay_only(vec!["192.0.2.0/24".parse().unwrap()], plan.lifetime);
        directory.return_path_domain = plan.return_path_domain();
        plan.senders.sets().into_iter().for_each(|set| directory.add_set(set));
        let admission = Arc::new(ArcSwap::from_pointee(directory));
        let suppression: Arc<dyn SuppressionCheck> = Arc::new(Lists::new(queue.clone(), Arc::clone(&admission)));
        let quotas = load_quotas(world, &queue, &clock)?;
        let audit = Arc::new(AuditLog::off(Arc::clone(&clock)));
        let tokens = Arc::new(ArcSwap::from_pointee(token_keys(plan.seed)));
        let mut stamper = Stamper::plain(Arc::new(|_, _, _| String::new()), Arc::clone(&clock));
        stamper.signing = Arc::new(ArcSwap::from_pointee(signatures()));
        let (check, settings) = (Arc::clone(&suppression), Arc::clone(&reloadable));
        let shared = Shared::new(queue.clone(), clock, ports, check, settings, tokens);
        let counts = Arc::clone(&shared.counts);
        let reception_ports = reception::Ports {
            settings: Arc::new(ArcSwap::from_pointee(ReceptionSettings {
                hostname: HOSTNAME.to_owned(),
                ..ReceptionSettings::default()
            })),
            admission,
            quotas,
            authenticator: Authenticator::new(1),
            audit,
            intake: Arc::new(SuppressingIntake { queue: queue.clone(), suppression, reloadable, counts }),
            stamp: Arc::new(stamper),
            signing: Arc::new(Signing::inline()),
            inbox: Arc::new(reception::NoInbox),
        };
        let reception = Arc::new(Reception::start(&[], reception_ports).map_err(|error| error.to_string())?);
        queue.mark_running().map_err(|error| error.to_string())?;
        world.ledger().started(opened.unclean_since.unwrap_or(world.now()), true);
        let lanes = queue.lanes(100_000).map_err(|error| error.to_string())?;
        let lanes = lanes.into_iter().filter_map(posthaste::delivery::lanes::saved).collect();
        let saved = Saved { lanes, ..Saved::default() };
        let (dispatcher, dispatcher_task) = Dispatcher::start(
            shared,
            scheduler_settings(plan),
            opened.handoffs,
            opened.unclean_since,
            saved,
            !opened.was_clean,
        );
        Ok(Self { queue, reception, dispatcher, dispatcher_task, stop_events, events_task })
    }

    /// An orderly stop, as SIGTERM asks for it. Returns whether it was one to the end.
    pub(super) async fn stop(self) -> bool {
        let dispatched = async {
            let _ = self.dispatcher.request(Request::Drain).await;
            tokio::time::timeout(DRAIN, self.dispatcher_task).await.is_ok_and(|ended| ended.is_ok())
        };
        let ((), quiet) = tokio::join!(self.reception.drain(DRAIN), dispatched);
        let noted = quiet && self.queue.mark_clean_stop().await.is_ok();
        let _ = self.stop_events.send(());
        let _ = self.events_task.await;
        noted
    }

    /// Whether something that nothing works without has ended.
    pub(super) fn has_failed(&self) -> bool {
        self.dispatcher_task.is_finished() || self.events_task.is_finished()
    }
}

/// CHARGED: a start finds what was charged before, to the last recipient.
/// Ed25519: its signatures are the same at each run.
fn signatures() -> Signatures {
    let domain = Domain::parse(HOSTNAME).unwrap();
    let key = Key::from_pem(include_bytes!("../../data/dkim/ed25519.pem")).unwrap();
    let signer = Signer { domain: domain.clone(), selector: Domain::parse("s1").unwrap(), key: Arc::new(key) };
    let ring = Keyring::new(vec![(signer, KeyState::Current)], Some(domain), None).unwrap();
    Signatures { keyring: Arc::new(ring), ..Signatures::default() }
}

fn load_quotas(world: &World, queue: &Queue, clock: &Arc<dyn Clock>) -> Result<Arc<Quotas>, String> {
    let quotas = Quotas::new(Arc::clone(clock), Box::new(|_| ()));
    quotas.load(queue).map_err(|error| error.to_string())?;
    let first = Minute::of(world.now()).number() - u64::from(WINDOW_MINUTES);
    let (found, charged) = (quotas.used(&Scope::Server), world.ledger().charged_since(first));
    if found != charged {
        world.ledger().violation(format!("CHARGED: the start finds {found} recipients of {charged} that were charged"));
    }
    Ok(Arc::new(quotas))
}

/// The same in every run of a seed, so that return paths are.
fn token_keys(seed: u64) -> TokenKeys {
    let mut secret = Secret::default();
    secret[..8].copy_from_slice(&seed.to_le_bytes());
    KeyRing::new(Timestamp::EPOCH, secret).to_keys()
}

/// The event writer's loop, on the pump that its thread has.
async fn write_events(world: Arc<World>, mut pump: Pump, mut stopped: oneshot::Receiver<()>) {
    loop {
        let step = match pump.step() {
            Ok(step) => step,
            Err(error) => return events_failed(&world, &error),
        };
        let wait = match step {
            Step::Worked => {
                tokio::task::yield_now().await;
                continue;
            }
            Step::Idle { wait, .. } if wait >= Duration::from_secs(1) => TEND_EVERY,
            Step::Idle { wait, .. } => wait,
        };
        tokio::select! {
            biased;
            _ = &mut stopped => break,
            () = world.disk.written.notified() => {}
            () = tokio::time::sleep(wait) => {}
        }
    }
    let drained = loop {
        match pump.step() {
            Ok(Step::Worked) => {}
            Ok(Step::Idle { .. }) => break pump.sync(world.now()),
            Err(error) => break Err(error),
        }
    };
    if let Err(error) = drained {
        events_failed(&world, &error);
    }
}

fn events_failed(world: &World, error: &events::OutboxError) {
    if !world.power.is_cut() {
        world.ledger().violation(format!("WRITER: the event writer stopped: {error}"));
    }
}

fn event_settings(plan: &Plan) -> events::Settings {
    let sink = |name: &str, kinds| SinkSettings {
        sets: Vec::new(),
        file_name: name.to_owned(),
        kinds,
        rotate_bytes: plan.rotate_bytes,
        rotate_age: None,
        keep_files: None,
        keep_age: None,
    };
    events::Settings {
        directory: "/events".into(),
        sinks: vec![sink("events.jsonl", Vec::new()), sink("bounces.jsonl", vec![EventKind::Bounce])],
        ..events::Settings::default()
    }
}

fn scheduler_settings(plan: &Plan) -> scheduler::Settings {
    scheduler::Settings {
        jobs_max: plan.jobs_max,
        body_cache_bytes: plan.body_cache_bytes,
        connections_max: plan.connections_max,
        limits: LaneLimits {
            connections: u32::try_from(plan.connections_per_site_max).unwrap(),
            messages_per_connection: plan.messages_per_connection_max,
            ..LaneLimits::default()
        },
        providers: providers(plan),
        pools: plan.senders.pools(),
        recipients_per_transaction_max: plan.recipients_per_transaction_max,
        delay_notices: retry_settings().delay_notices,
        ..scheduler::Settings::default()
    }
}

/// The built-in ones, and what the plan tells of others, as an administrator would.
fn providers(plan: &Plan) -> Arc<Providers> {
    let mut text = String::new();
    for provider in plan.providers.iter().filter(|provider| provider.told) {
        let (name, parent) = (provider.kind.rule(), provider.kind.parent());
        writeln!(text, "[[provider]]\nname = \"{name}\"\nmx = [\".{parent}\"]").unwrap();
        writeln!(text, "connections = {}", provider.connections).unwrap();
        writeln!(text, "messages_per_connection = {}", provider.messages_per_connection).unwrap();
        for span in Span::ALL {
            if let Some(limit) = provider.rates.by(span) {
                writeln!(text, "messages_per_{} = {limit}", span.name()).unwrap();
            }
        }
    }
    Arc::new(Providers::with_own(&text, "providers.toml").unwrap())
}

fn retry_settings() -> retry::Settings {
    let minutes = |minutes: u64| Duration::from_secs(60 * minutes);
    retry::Settings { delay_notices: vec![minutes(15), minutes(90)], ..retry::Settings::default() }
}

fn reloadable(plan: &Plan, ports: &Arc<network::Ports>, clock: &Arc<dyn Clock>, seed: u64) -> Reloadable {
    let settings = DeliverySettings {
        hostname: HOSTNAME.to_owned(),
        connections_max: plan.connections_max,
        connections_per_site_max: plan.connections_per_site_max,
        recipients_per_transaction_max: plan.recipients_per_transaction_max,
        messages_per_connection_max: plan.messages_per_connection_max,
        allow_private_addresses: true,
        sources: plan.senders.sources(),
        pools: plan.senders.pools(),
        ..DeliverySettings::default()
    };
    let outlets = Outlets::new(&settings, |_| unreachable!("no proxies here")).unwrap();
    Reloadable {
        rules: Rules::built_in(),
        providers: providers(plan),
        router: Router::new(&settings, &[], Arc::clone(ports) as _, Arc::clone(clock), seed),
        settings,
        settlement: SettlementSettings {
            hostname: HOSTNAME.to_owned(),
            retry: retry_settings(),
            mail_bounces: Arc::new(Mailing::by_rule(if plan.mail_bounces {
                MailRule::Always
            } else {
                MailRule::Never
            })),
            notification_lifetime: plan.lifetime,
            signers: std::sync::Arc::default(),
            counting: Counting { exempt_domains: Vec::new(), has_sets: true },
            listing: Arc::default(),
        },
        tls: TlsClient::new(&[]).unwrap(),
        outlets,
        logins: HashMap::new(),
    }
}
