//! From the validated config to the settings that each module takes.

use std::collections::HashMap;
use std::net::IpAddr;
use std::path::Path;
use std::sync::Arc;

use arc_swap::ArcSwap;
use zeroize::Zeroizing;

use super::config::{Config, EventFileSettings};
use crate::delivery::route::Router;
use crate::delivery::session::{Credentials, Secret};
use crate::delivery::settings::Login;
use crate::delivery::shared::Reloadable;
use crate::delivery::sources::Outlets;
use crate::events;
use crate::events::audit::AuditSettings;
use crate::message::dkim::Signer;
use crate::net::Resolver;
use crate::net::egress::{PROXY_LOGIN_BYTES_MAX, ProxyLogin};
use crate::net::tls_client::TlsClient;
use crate::policy::limits::{LaneLimits, Rates};
use crate::policy::retry;
use crate::queue;
use crate::queue::rocks::RocksSettings;
use crate::scheduler;
use crate::scheduler::settlement::SettlementSettings;
use crate::types::Clock;

/// Events that may wait for the files before intake answers 452: an unread outbox must not fill the disk.
const EVENTS_PENDING_MAX: u64 = 10_000_000;

/// Limits of the queue.
pub(super) fn queue_settings(config: &Config) -> queue::Settings {
    queue::Settings {
        messages_max: config.queue.messages_max,
        free_space_reserve_bytes: config.queue.free_space_reserve_bytes,
        events_pending_max: EVENTS_PENDING_MAX,
        sent_retention: config.feedback.sent_retention,
    }
}

/// Tuning of RocksDB.
pub(super) fn rocks_settings(config: &Config) -> RocksSettings {
    RocksSettings {
        memtable_bytes: config.queue.memtable_bytes,
        wal_bytes_max: config.queue.wal_bytes_max,
        ..RocksSettings::default()
    }
}

/// Limits of the scheduler.
pub(super) fn scheduler_settings(config: &Config) -> scheduler::Settings {
    scheduler::Settings {
        jobs_max: config.queue.ready_max,
        body_cache_bytes: config.queue.body_cache_bytes,
        connections_max: config.delivery.connections_max,
        limits: LaneLimits {
            connections: u32::try_from(config.delivery.connections_per_site_max).unwrap_or(u32::MAX),
            connections_total: None,
            messages_per_connection: config.delivery.messages_per_connection_max,
            rates: Rates::default(),
        },
        providers: Arc::clone(&config.rules.providers),
        pools: Arc::clone(&config.delivery.pools),
        warmup: Arc::clone(&config.delivery.warmup),
        lanes_max: config.delivery.lanes_max,
        recipients_per_transaction_max: config.delivery.recipients_per_transaction_max,
        delay_notices: config.retry.delay_notices.clone(),
    }
}

/// Event files.
pub(super) fn event_settings(config: &Config) -> events::Settings {
    events::Settings {
        directory: config.events.directory.clone(),
        sinks: config.events.files.iter().map(sink_settings).collect(),
        ..events::Settings::default()
    }
}

/// The audit stream, beside the event files.
pub(super) fn audit_settings(config: &Config) -> AuditSettings {
    let file = config.audit.enabled.then(|| sink_settings(&config.audit.file));
    AuditSettings { directory: config.events.directory.clone(), file }
}

fn sink_settings(file: &EventFileSettings) -> events::SinkSettings {
    events::SinkSettings {
        file_name: format!("{}.jsonl", file.name),
        kinds: file.types.clone(),
        sets: file.sets.clone(),
        rotate_bytes: Some(file.rotate_size_bytes),
        rotate_age: Some(file.rotate_age),
        keep_files: Some(file.keep_files),
        keep_age: Some(file.keep_age),
    }
}

/// Who signs what this server has to say itself.
pub(super) type OwnSigners = Arc<ArcSwap<Vec<Arc<Signer>>>>;

/// Everything of delivery that a reload replaces. The error names what to mend.
pub(super) fn reloadable(
    config: &Config,
    own_addresses: &[IpAddr],
    own_signers: OwnSigners,
    resolver: Arc<dyn Resolver>,
    clock: Arc<dyn Clock>,
    seed: u64,
) -> Result<Reloadable, String> {
    let hostname = config.hostname.to_string();
    let outlets = outlets(config)?;
    let mut logins = HashMap::new();
    for login in config.delivery.routes.iter().filter_map(|route| route.login.as_ref()) {
        logins.insert(login.clone(), credentials(login)?);
    }
    let tls = TlsClient::new(&[]).map_err(|error| error.to_string())?;
    Ok(Reloadable {
        router: Router::new(&config.delivery, own_addresses, resolver, clock, seed),
        settings: config.delivery.clone(),
        rules: Arc::clone(&config.rules.replies),
        providers: Arc::clone(&config.rules.providers),
        settlement: SettlementSettings {
            hostname,
            retry: retry_settings(config),
            mail_bounces: Arc::new(config.mailed_bounces()),
            notification_lifetime: config.queue.lifetime,
            signers: own_signers,
            counting: config.counting(),
            listing: Arc::new(config.listing()),
        },
        tls,
        outlets,
        logins,
    })
}

fn retry_settings(config: &Config) -> retry::Settings {
    retry::Settings {
        steps: config.retry.steps.clone(),
        jitter_percent: config.retry.jitter_percent,
        delay_notices: config.retry.delay_notices.clone(),
        mailbox_full_lifetime: config.retry.mailbox_full_lifetime,
        ..retry::Settings::default()
    }
}

/// User name, and the first line of the password file.
fn credentials(login: &Login) -> Result<Credentials, String> {
    let path = login.password_file.display();
    let text = read_password(&login.password_file).map_err(|error| format!("password_file {path}: {error}"))?;
    Credentials::new(&login.user, text)
        .map_err(|error| format!("user {:?} with password_file {path}: {error}", login.user))
}

/// What a connection from each source needs. Reads the passwords of proxies; the error names source and file.
pub fn outlets(config: &Config) -> Result<Outlets, String> {
    Outlets::new(&config.delivery, proxy_login)
}

/// The same at a proxy.
fn proxy_login(login: &Login) -> Result<ProxyLogin, String> {
    let path = login.password_file.display();
    let text = std::fs::read_to_string(&login.password_file).map(Zeroizing::new);
    let text = text.map_err(|error| format!("socks5_password_file {path}: {error}"))?;
    let password = Zeroizing::new(text.lines().next().unwrap_or_default().to_owned());
    let limit = PROXY_LOGIN_BYTES_MAX;
    ProxyLogin::new(&login.user, password)
        .ok_or_else(|| format!("socks5_password_file {path}: the password is empty or longer than {limit} octets"))
}

fn read_password(path: &Path) -> std::io::Result<Secret> {
    let text = std::fs::read_to_string(path)?;
    Ok(Secret::new(text.lines().next().unwrap_or_default()))
}
