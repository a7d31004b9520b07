//! `posthaste run`: the process around an [`Instance`]: config, log, signals, service manager, exit.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio_util::sync::CancellationToken;

use super::admin::AdminServer;
use super::config::Config;
use super::instance::Instance;
use super::logging::{self, LogHandle};
use super::metrics_exporter::MetricsServer;
use super::notify;

/// How often the parts that nothing works without are looked at.
const ALIVE_EVERY: Duration = Duration::from_millis(500);

/// Runs the daemon until SIGTERM. `Err` says why it could not start, or why it stopped by itself.
pub fn run(config_path: &Path) -> Result<(), String> {
    let config = Config::load(config_path).map_err(|errors| errors.to_string())?;
    let log = logging::init(config.log).map_err(|error| error.to_string())?;
    install_tls_provider();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .thread_name("posthaste")
        .build()
        .map_err(|error| format!("cannot start the runtime: {error}"))?;
    let result = runtime.block_on(serve(config, config_path, &log));
    // Blocking reads of a store that hangs must not keep a stopped daemon alive.
    runtime.shutdown_timeout(Duration::from_secs(1));
    result
}

/// All TLS of this process goes through AWS-LC. An error means that a test did it before.
pub fn install_tls_provider() {
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
}

async fn serve(config: Config, config_path: &Path, log: &LogHandle) -> Result<(), String> {
    let mut signals = Signals::new()?;
    let background = CancellationToken::new();
    // The recorder must be there before the first metric.
    if let Some(address) = config.metrics.address {
        let server = MetricsServer::start(address).await.map_err(|error| error.to_string())?;
        tokio::spawn(server.serve(background.clone()));
    }
    warn(&config);
    let admin = AdminServer::bind(&config.admin).map_err(|error| error.to_string())?;
    let instance = Arc::new(Instance::start(config)?);
    let admin = instance.serve_admin(admin);
    let alive = Arc::downgrade(&instance);
    let is_alive = move || alive.upgrade().is_none_or(|instance| instance.failure().is_none());
    let watchdog = tokio::spawn(notify::watchdog(is_alive, background.clone()));
    notify::ready("accepting mail");
    tracing::info!(version = env!("CARGO_PKG_VERSION"), "ready");
    let ended = until_stopped(&instance, &mut signals, config_path, log).await;
    if instance.queue().health().lost().is_some() {
        notify::stopping("the queue cannot be written");
        instance.cut().await;
        return ended;
    }
    notify::stopping("draining");
    tracing::info!("stopping: no new mail, deliveries in flight are ended");
    let stopping = Arc::clone(&instance).stop();
    let quiet = tokio::select! {
        quiet = stopping => quiet,
        () = signals.terminated() => {
            tracing::warn!("a second signal: deliveries in flight are cut; they are due again at the next start");
            return ended;
        }
    };
    background.cancel();
    admin.abort();
    watchdog.abort();
    // Not awaited: they hold nothing but a handle of the instance.
    close_queue(instance);
    tracing::info!(quiet, "stopped");
    ended
}

/// The committer syncs what is left once the last handle of the queue is gone.
fn close_queue(instance: Arc<Instance>) {
    if let Some(instance) = Arc::into_inner(instance) {
        instance.close();
    }
}

async fn until_stopped(
    instance: &Arc<Instance>,
    signals: &mut Signals,
    config_path: &Path,
    log: &LogHandle,
) -> Result<(), String> {
    loop {
        tokio::select! {
            _ = signals.terminate.recv() => return Ok(()),
            _ = signals.interrupt.recv() => return Ok(()),
            _ = signals.hangup.recv() => reload(instance, config_path, log).await,
            _ = signals.rotate.recv() => {
                tracing::info!("event and audit files are rotated (SIGUSR1)");
                instance.rotate_files();
            }
            _ = signals.flush.recv() => {
                tracing::info!("all deferred mail is due now (SIGUSR2)");
                if let Err(error) = instance.flush().await {
                    tracing::error!(%error, "nothing is made due");
                }
            }
            () = tokio::time::sleep(ALIVE_EVERY) => {
                if let Some(failure) = instance.failure() {
                    tracing::error!(failure, "a part that nothing works without has ended; the daemon stops");
                    return Err(failure);
                }
            }
        }
    }
}

async fn reload(instance: &Instance, config_path: &Path, log: &LogHandle) {
    notify::reloading();
    let path = config_path.to_owned();
    let loaded = tokio::task::spawn_blocking(move || Config::load(&path)).await;
    let outcome = match loaded {
        Ok(Ok(config)) => {
            let level = config.log.level;
            warn(&config);
            instance.reload(config).await.map(|restart| (restart, level))
        }
        Ok(Err(errors)) => Err(errors.to_string()),
        Err(error) => Err(error.to_string()),
    };
    match outcome {
        Ok((restart, level)) => {
            log.set_level(level);
            if !restart.is_empty() {
                tracing::warn!(keys = restart.join(", "), "these keys take effect at the next start");
            }
            tracing::info!("config reloaded");
        }
        // One line of log for each reason, all on one event.
        Err(reason) => tracing::error!(reason = reason.trim_end(), "config not reloaded, the old one stays in force"),
    }
    notify::ready("accepting mail");
}

fn warn(config: &Config) {
    for warning in &config.warnings {
        tracing::warn!(%warning, "config");
    }
}

struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hangup: Signal,
    rotate: Signal,
    flush: Signal,
}

impl Signals {
    /// SIGTERM or SIGINT.
    async fn terminated(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }

    fn new() -> Result<Self, String> {
        let listen = |kind| signal(kind).map_err(|error| format!("cannot listen for signals: {error}"));
        Ok(Self {
            terminate: listen(SignalKind::terminate())?,
            interrupt: listen(SignalKind::interrupt())?,
            hangup: listen(SignalKind::hangup())?,
            rotate: listen(SignalKind::user_defined1())?,
            flush: listen(SignalKind::user_defined2())?,
        })
    }
}
