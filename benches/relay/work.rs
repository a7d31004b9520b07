//! One run: a server with an empty queue, the sink, the generator, and what was measured between the first submission and
//! the last receipt.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use rustix::process::Signal;
use tokio::time::{Instant, sleep, timeout};

use crate::child::Child;
use crate::dns;
use crate::failure::{Context, Failure, Result};
use crate::hostile::{Hostile, Targets};
use crate::ledger::{Ledger, percentile};
use crate::load::{self, Destinations, Plan};
use crate::login::Login;
use crate::options::{Generator, Options, Server, Work};
use crate::reports::{self, BesideReports};
use crate::server::{self, Connections, Running};
use crate::sink::{self, Sink};
use crate::usage::{self, MemoryWatch};

/// Between the last receipt and the last look at CPU time, so that what follows a delivery (removal from the queue, events,
/// log) counts.
pub(crate) const SETTLE: Duration = Duration::from_secs(1);
/// Connections of posthaste where the work sets none: its default in all, Postfix's default to one destination.
const CONNECTIONS: Connections = Connections { all: 1_000, site: 20 };
/// Messages of the run without a server.
const BASELINE_MESSAGES: u32 = 20_000;
/// Messages a second of `idle`.
const IDLE_RATE: u32 = 20;
/// `large` has messages this many times as large, and this many fewer of them.
const LARGE: (u32, u32) = (10, 5);

/// What a run showed.
#[derive(Clone, Debug)]
pub(crate) struct Figures {
    pub(crate) messages: u32,
    pub(crate) received: u32,
    pub(crate) repeated: u32,
    pub(crate) refused: u32,
    /// Messages a second from the first submission to the last receipt.
    pub(crate) rate: f64,
    /// Messages a second from the first submission to the last acceptance.
    pub(crate) accept_rate: f64,
    /// The same for the first and the last tenth of the acceptances.
    pub(crate) accept_rate_ends: (f64, f64),
    /// CPU seconds of the server for 1,000 messages.
    pub(crate) cpu: f64,
    /// CPU seconds of generator and sink for 1,000 messages.
    pub(crate) cpu_ours: f64,
    pub(crate) memory_mib: f64,
    pub(crate) processes: u64,
    pub(crate) p50: Option<Duration>,
    pub(crate) p99: Option<Duration>,
    pub(crate) stop: Duration,
    /// `dead` only: from the start of a server with that queue to the first delivery elsewhere.
    pub(crate) restart: Option<Duration>,
    /// `hostile` only; the other figures are those of the run before the hostile clients came, memory aside.
    pub(crate) beside_hostile: Option<BesideHostile>,
    /// `signed-rsa` and `signed-ed25519` only: CPU seconds for 1,000 that the signatures alone cost.
    pub(crate) signatures_cpu: Option<f64>,
    /// The same: of unsigned messages at the same pace.
    pub(crate) bare_cpu: Option<f64>,
    /// `login` only; the other figures are those of the run without, memory aside.
    pub(crate) logins: Option<Logins>,
    /// `reports` only; the other figures are those of the run before the reports came, memory aside.
    pub(crate) beside_reports: Option<BesideReports>,
}

/// What the same work showed with clients that log in under TLS.
#[derive(Clone, Debug)]
pub(crate) struct Logins {
    /// Messages a second on kept connections, and CPU seconds of the server for 1,000.
    pub(crate) kept_rate: f64,
    pub(crate) kept_cpu: f64,
    /// The same with a connection for each message.
    pub(crate) new_rate: f64,
    pub(crate) new_cpu: f64,
}

/// What the same work showed beside hostile clients.
#[derive(Clone, Debug)]
pub(crate) struct BesideHostile {
    /// Connections that were still held at the end.
    pub(crate) held: usize,
    /// Messages a second beside them.
    pub(crate) held_rate: f64,
    /// Messages a second beside them and the storm.
    pub(crate) storm_rate: f64,
    pub(crate) handshakes_per_second: f64,
}

/// Makes runs.
pub(crate) struct Bench<'a> {
    pub(crate) options: &'a Options,
    pub(crate) directory: &'a Path,
    /// posthaste.
    pub(crate) binary: PathBuf,
}

impl Bench<'_> {
    /// Generator and sink alone: what the machine gives when no server is in between.
    pub(crate) async fn baseline(&self) -> Result<Figures> {
        let ledger = Arc::new(Ledger::new(BASELINE_MESSAGES));
        let _sink = Sink::start(Arc::clone(&ledger), Duration::ZERO)?;
        let mut plan = self.plan(Work::One, None);
        plan.server = ([127, 0, 0, 1], sink::PORT).into();
        let before = usage::cpu_seconds_own();
        load::submit(plan, Arc::clone(&ledger)).await?;
        let ours = usage::cpu_seconds_own() - before;
        Ok(Figures { cpu_ours: for_1000(ours, BASELINE_MESSAGES), ..figures(&ledger) })
    }

    /// `work` through `server`; `rate` is set for `half`.
    pub(crate) async fn run(&self, server: Server, work: Work, rate: Option<u32>) -> Result<Figures> {
        let directory = self.directory.join(format!("{server:?}-{work:?}").to_lowercase());
        server::make_directory(&directory)?;
        let running = self.start(server, work, &directory).await?;
        let root = running.root();
        sleep(SETTLE).await;
        let profile = self.profile(server, root)?;
        let latency = if work == Work::SlowMx { self.options.mx_latency() } else { Duration::ZERO };
        let cpu_before = usage::cpu_seconds(root)?;
        let ours_before = usage::cpu_seconds_own();
        let memory = MemoryWatch::start(root);
        let ledger = Arc::new(Ledger::new(self.messages(server, work)));
        let sink = Sink::start(Arc::clone(&ledger), latency)?;
        self.drive(&running, work, rate, &ledger).await?;
        sleep(SETTLE).await;
        let messages = ledger.messages();
        let mut figures = figures(&ledger);
        figures.cpu_ours = for_1000(usage::cpu_seconds_own() - ours_before, messages);
        figures.cpu = for_1000(usage::cpu_seconds(root)? - cpu_before, messages);
        drop(sink);
        if work == Work::Hostile {
            figures.beside_hostile = Some(self.beside_hostile(&running).await?);
        }
        if work == Work::Login {
            figures.logins = Some(self.logins(&running, &directory).await?);
        }
        if work == Work::Reports {
            figures.beside_reports = Some(reports::measure(self, &running, &directory).await?);
        }
        figures.memory_mib = memory.peak_mib();
        figures.processes = memory.processes();
        drop(memory);
        if let Some(profile) = profile {
            let id = profile.id()?;
            profile.stop(id, Signal::INT).await?;
        }
        figures.stop = running.stop().await?;
        if work == Work::Dead {
            figures.restart = Some(self.restart(server, &directory).await?);
        }
        if !self.options.keep {
            fs::remove_dir_all(&directory).context(|| format!("{}", directory.display()))?;
        }
        Ok(figures)
    }

    /// Submits and waits for the last receipt, or the end of the time.
    pub(crate) async fn drive(
        &self,
        running: &Running,
        work: Work,
        rate: Option<u32>,
        ledger: &Arc<Ledger>,
    ) -> Result<()> {
        let plan = Plan { server: running.address, ..self.plan(work, rate) };
        let submit = async {
            match self.options.load {
                Generator::Own => load::submit(plan, Arc::clone(ledger)).await,
                Generator::SmtpSource => {
                    load::submit_by_smtp_source(&plan, ledger, &self.directory.join("smtp-source.log")).await
                }
            }?;
            if work != Work::Dead {
                ledger.complete().await;
            }
            Ok(())
        };
        // Beyond the time the figures show how many came.
        timeout(self.options.time_max(), submit).await.unwrap_or(Ok(()))
    }

    /// The work twice more: while connections are held, and with a storm of handshakes besides.
    async fn beside_hostile(&self, running: &Running) -> Result<BesideHostile> {
        let targets = Targets { clear: running.address, implicit: server::IMPLICIT_TLS.into() };
        let mut hostile = Hostile::hold(targets, self.options.hostile_connections).await?;
        let held_rate = self.rate_now(running).await?;
        let held = hostile.held();
        hostile.storm()?;
        let begin = Instant::now();
        let storm_rate = self.rate_now(running).await?;
        let handshakes = u32::try_from(hostile.handshakes()).unwrap_or(u32::MAX);
        let handshakes_per_second = f64::from(handshakes) / begin.elapsed().as_secs_f64();
        Ok(BesideHostile { held, held_rate, storm_rate, handshakes_per_second })
    }

    /// Messages a second of the work of `one`, through a server that runs.
    async fn rate_now(&self, running: &Running) -> Result<f64> {
        let ledger = Arc::new(Ledger::new(self.messages(Server::Posthaste, Work::One)));
        let _sink = Sink::start(Arc::clone(&ledger), Duration::ZERO)?;
        self.drive(running, Work::One, None, &ledger).await?;
        Ok(figures(&ledger).rate)
    }

    /// The work twice more: logged in, on kept connections and on new ones.
    async fn logins(&self, running: &Running, directory: &Path) -> Result<Logins> {
        let login = Arc::new(Login::new(directory)?);
        let (kept_rate, kept_cpu) = self.login_now(running, &login, self.options.messages_per_connection).await?;
        let (new_rate, new_cpu) = self.login_now(running, &login, 1).await?;
        Ok(Logins { kept_rate, kept_cpu, new_rate, new_cpu })
    }

    /// Messages a second and CPU seconds for 1,000.
    async fn login_now(&self, running: &Running, login: &Arc<Login>, per_connection: u32) -> Result<(f64, f64)> {
        // The sink of the run before has its port until its tasks have ended.
        sleep(SETTLE).await;
        let messages = self.messages(Server::Posthaste, Work::One);
        let ledger = Arc::new(Ledger::new(messages));
        let _sink = Sink::start(Arc::clone(&ledger), Duration::ZERO)?;
        let before = usage::cpu_seconds(running.root())?;
        let login = Some(Arc::clone(login));
        let server = server::IMPLICIT_TLS.into();
        let plan = Plan { server, login, per_connection, ..self.plan(Work::One, None) };
        let submit = async {
            load::submit(plan, Arc::clone(&ledger)).await?;
            ledger.complete().await;
            Ok(())
        };
        timeout(self.options.time_max(), submit).await.unwrap_or(Ok(()))?;
        sleep(SETTLE).await;
        let cpu = usage::cpu_seconds(running.root())? - before;
        Ok((figures(&ledger).rate, for_1000(cpu, messages)))
    }

    /// Starts a server on the queue of `dead` and waits for the delivery of a new message to a live destination.
    async fn restart(&self, server: Server, directory: &Path) -> Result<Duration> {
        let ledger = Arc::new(Ledger::new(1));
        let _sink = Sink::start(Arc::clone(&ledger), Duration::ZERO)?;
        let running = self.start(server, Work::Dead, directory).await?;
        let plan = Plan { server: running.address, ..self.plan(Work::One, None) };
        load::submit(plan, Arc::clone(&ledger)).await?;
        timeout(self.options.time_max(), ledger.complete())
            .await
            .map_err(|_| Failure::new("after the restart the new message was not delivered"))?;
        let received = ledger.received().first().copied().unwrap_or_default();
        running.stop().await?;
        Ok(received)
    }

    async fn start(&self, server: Server, work: Work, directory: &Path) -> Result<Running> {
        let slow = self.options.slow_connections;
        let connections = if work == Work::SlowMx { Connections { all: slow, site: slow } } else { CONNECTIONS };
        match server {
            Server::Postfix => server::postfix(directory, self.options.keep).await,
            Server::Posthaste => {
                let more = match work {
                    Work::Hostile => server::More::Hostile(self.options.hostile_connections),
                    Work::Login => server::More::Logins,
                    Work::Reports => server::More::Reports,
                    Work::SignedRsa | Work::SignedEd25519 => server::More::Keys(work),
                    _ => server::More::Nothing,
                };
                server::posthaste(&self.binary, directory, connections, more).await
            }
        }
    }

    /// The profiler, if there is one and it is wanted.
    fn profile(&self, server: Server, root: u32) -> Result<Option<Child>> {
        let Some(command) = self.options.profile.as_ref().filter(|_| server == Server::Posthaste) else {
            return Ok(None);
        };
        let arguments = ["-c".to_owned(), format!("exec {command} {root}")];
        Child::start(Path::new("sh"), &arguments, &self.directory.join("profile.log"), "dash").map(Some)
    }

    /// How many messages.
    pub(crate) fn messages(&self, server: Server, work: Work) -> u32 {
        let all = match server {
            Server::Postfix => self.options.postfix_messages,
            Server::Posthaste => self.options.messages,
        };
        match work {
            Work::Idle => self.options.idle_messages,
            Work::Large => (all / LARGE.1).max(1),
            _ => all,
        }
    }

    /// What to submit.
    pub(crate) fn plan(&self, work: Work, rate: Option<u32>) -> Plan {
        let options = self.options;
        let to = match work {
            Work::Dead => Destinations::One(dns::DEAD),
            Work::Many | Work::SlowMx | Work::Half => Destinations::Many(options.destinations),
            _ => Destinations::One(dns::ONE),
        };
        let size = if work == Work::Large { options.size.saturating_mul(LARGE.0) } else { options.size };
        Plan {
            server: ([0, 0, 0, 0], 0).into(),
            login: None,
            to,
            size: usize::try_from(size).unwrap_or(usize::MAX),
            sessions: if work == Work::Idle { 1 } else { options.sessions },
            per_connection: options.messages_per_connection,
            rate: if work == Work::Idle { Some(IDLE_RATE) } else { rate },
        }
    }
}

/// What the ledger tells; the rest is zero.
pub(crate) fn figures(ledger: &Ledger) -> Figures {
    let (accepted, received, latencies) = (ledger.accepted(), ledger.received(), ledger.latencies());
    let tenth = accepted.len() / 10;
    let first = rate(tenth, accepted.get(tenth.saturating_sub(1)).copied());
    let last_span = accepted.last().zip(accepted.get((accepted.len() - tenth).saturating_sub(1)));
    let last = rate(tenth, last_span.map(|(end, begin)| end.saturating_sub(*begin)));
    Figures {
        messages: ledger.messages(),
        received: ledger.received_count(),
        repeated: ledger.repeated.load(Ordering::Relaxed),
        refused: ledger.refused.load(Ordering::Relaxed),
        rate: rate(received.len(), received.last().copied()),
        accept_rate: rate(accepted.len(), accepted.last().copied()),
        accept_rate_ends: (first, last),
        cpu: 0.0,
        cpu_ours: 0.0,
        memory_mib: 0.0,
        processes: 0,
        p50: percentile(&latencies, 50),
        p99: percentile(&latencies, 99),
        stop: Duration::ZERO,
        restart: None,
        beside_hostile: None,
        logins: None,
        beside_reports: None,
        signatures_cpu: None,
        bare_cpu: None,
    }
}

/// Messages a second.
fn rate(messages: usize, span: Option<Duration>) -> f64 {
    let messages = f64::from(u32::try_from(messages).unwrap_or(u32::MAX));
    span.filter(|span| !span.is_zero()).map_or(0.0, |span| messages / span.as_secs_f64())
}

/// `seconds` for `messages` in seconds for 1,000.
pub(crate) fn for_1000(seconds: f64, messages: u32) -> f64 {
    seconds * 1_000.0 / f64::from(messages.max(1))
}
