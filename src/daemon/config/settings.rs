//! Settings whose owners do not declare them yet: queue, retry, events, notices, and the daemon's own.
//!
//! Every default here is the default of `config.toml.example`.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use ipnet::IpNet;

use crate::events::EventKind;
use crate::policy::mailing::MailRule;
use crate::reception::settings::CertificateFiles;
use crate::types::EmailAddress;

const HOUR: u64 = 3_600;
const DAY: u64 = 24 * HOUR;

/// The queue on disk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct QueueSettings {
    /// Holds the database; made where it is missing, mode 0700.
    pub data_dir: PathBuf,
    /// A message that cannot be delivered bounces at this age.
    pub lifetime: Duration,
    /// Below this much free space intake answers 452 4.3.1; delivery goes on.
    pub free_space_reserve_bytes: u64,
    /// Messages kept. Above: 452 4.3.1.
    pub messages_max: u64,
    /// Deliveries kept in memory; more wait on disk and are paged in.
    pub ready_max: usize,
    /// Octets of messages kept in memory between accept and first attempt. Full: read back from disk.
    pub body_cache_bytes: usize,
    /// RocksDB write buffer of bodies: at least twice the bytes in flight saves a second write of short-lived mail.
    pub memtable_bytes: usize,
    /// RocksDB's write-ahead log; bounds the time of recovery.
    pub wal_bytes_max: u64,
}

impl Default for QueueSettings {
    fn default() -> Self {
        Self {
            data_dir: PathBuf::from("/var/lib/posthaste"),
            lifetime: Duration::from_secs(4 * DAY),
            free_space_reserve_bytes: 1 << 30,
            messages_max: 10_000_000,
            ready_max: 1_000_000,
            body_cache_bytes: 64 << 20,
            memtable_bytes: 64 << 20,
            wal_bytes_max: 256 << 20,
        }
    }
}

/// Where recipients unsubscribe.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnsubscribeSettings {
    /// What links begin with that have a token behind them, for bulk sets that have none of their own.
    pub url: Option<Arc<str>>,
    /// Where their requests come; `None`: nobody here answers them.
    pub address: Option<SocketAddr>,
    /// Of its own; `None`: a proxy before it speaks TLS.
    pub tls: Option<CertificateFiles>,
    /// Who opens a link is sent there, the token behind it; `None`: sees a page of ours.
    pub page: Option<Arc<str>>,
    /// Whether messages of bulk sets offer it by mail, too.
    pub mail: bool,
    /// Proxies before it, besides those at private addresses: their connections are those of many.
    pub proxies: Vec<IpNet>,
}

impl Default for UnsubscribeSettings {
    fn default() -> Self {
        Self { url: None, address: None, tls: None, page: None, mail: true, proxies: Vec::new() }
    }
}

/// The keys of return paths and unsubscribe links.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReturnPathSettings {
    /// Holds the keys; `None`: `token-keys` in the data directory.
    pub key_file: Option<PathBuf>,
    /// A new key is made when the newest is older.
    pub key_age_max: Duration,
    /// How long a token counts after its message was accepted.
    pub token_lifetime: Duration,
}

impl Default for ReturnPathSettings {
    fn default() -> Self {
        Self {
            key_file: None,
            key_age_max: Duration::from_secs(180 * DAY),
            token_lifetime: Duration::from_secs(60 * DAY),
        }
    }
}

/// Mail that comes home.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FeedbackSettings {
    /// Where feedback loops send their reports.
    pub complaints: Vec<EmailAddress>,
    /// `rua` of DMARC records.
    pub dmarc_reports: Vec<EmailAddress>,
    /// `rua` of TLS-RPT records.
    pub tls_reports: Vec<EmailAddress>,
    /// How long a recipient is remembered after its message was accepted; zero: not at all.
    pub sent_retention: Duration,
}

impl Default for FeedbackSettings {
    fn default() -> Self {
        Self {
            complaints: Vec::new(),
            dmarc_reports: Vec::new(),
            tls_reports: Vec::new(),
            sent_retention: Duration::from_secs(30 * DAY),
        }
    }
}

impl FeedbackSettings {
    /// Whether any address takes reports of receivers.
    pub fn takes_reports(&self) -> bool {
        !self.dmarc_reports.is_empty() || !self.tls_reports.is_empty()
    }
}

/// When a deferred recipient is tried again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RetrySettings {
    /// Waiting time after the first, second, … failed attempt; the last one repeats. Ascending, at least one.
    pub steps: Vec<Duration>,
    /// Each wait is stretched or shortened by up to this share, fixed for a message and an attempt.
    pub jitter_percent: u8,
    /// Ages at which a message that still waits causes a `DeliveryDelay` event. Ascending; empty: none.
    pub delay_notices: Vec<Duration>,
    /// A recipient whose mailbox is full bounces at this age, where it is shorter than the lifetime.
    pub mailbox_full_lifetime: Duration,
}

impl Default for RetrySettings {
    fn default() -> Self {
        let minutes = [1, 5, 10, 20, 40, 60, 120, 240];
        Self {
            steps: minutes.into_iter().map(|count| Duration::from_secs(count * 60)).collect(),
            jitter_percent: 15,
            delay_notices: vec![Duration::from_secs(HOUR), Duration::from_secs(4 * HOUR), Duration::from_secs(DAY)],
            mailbox_full_lifetime: Duration::from_secs(DAY),
        }
    }
}

/// Event files.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EventsSettings {
    /// Holds all event files.
    pub directory: PathBuf,
    /// The streams; each takes some kinds. Empty: no events are written.
    pub files: Vec<EventFileSettings>,
}

impl Default for EventsSettings {
    fn default() -> Self {
        Self { directory: PathBuf::from("/var/log/posthaste"), files: vec![EventFileSettings::default()] }
    }
}

/// One stream of event files: `NAME.jsonl` and its rotated predecessors.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EventFileSettings {
    /// File name without `.jsonl`: lower-case letters, digits, `-`, `_`.
    pub name: String,
    /// Kinds it takes, in the order of [`EventKind::ALL`].
    pub types: Vec<EventKind>,
    /// Configuration sets whose messages it tells of; empty: all messages.
    pub sets: Vec<String>,
    /// Rotated when it reaches this size, at the end of a line.
    pub rotate_size_bytes: u64,
    /// Rotated at this age.
    pub rotate_age: Duration,
    /// Rotated files kept.
    pub keep_files: usize,
    /// Rotated files older than this are removed.
    pub keep_age: Duration,
}

impl Default for EventFileSettings {
    fn default() -> Self {
        Self {
            name: "events".to_owned(),
            types: EventKind::ALL.into_iter().filter(|kind| kind.is_taken_unnamed()).collect(),
            sets: Vec::new(),
            rotate_size_bytes: 256 << 20,
            rotate_age: Duration::from_secs(DAY),
            keep_files: 60,
            keep_age: Duration::from_secs(30 * DAY),
        }
    }
}

impl EventFileSettings {
    /// The stream of reports of receivers where the config names none: at most 2 GiB, however much strangers send.
    pub fn of_reports() -> Self {
        let types = vec![EventKind::Report];
        Self { name: "reports".to_owned(), types, rotate_size_bytes: 64 << 20, keep_files: 32, ..Self::default() }
    }

    /// Whether rows of reports go there: they are of no configuration set.
    pub fn takes_reports(&self) -> bool {
        self.types.contains(&EventKind::Report) && self.sets.is_empty()
    }
}

/// The audit stream: `NAME.jsonl` in the directory of the event files. Of the file's settings, `types` means nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AuditStreamSettings {
    /// Whether it is written.
    pub enabled: bool,
    /// Name, rotation and retention.
    pub file: EventFileSettings,
}

impl Default for AuditStreamSettings {
    fn default() -> Self {
        let file = EventFileSettings { name: "audit".to_owned(), types: Vec::new(), ..EventFileSettings::default() };
        Self { enabled: true, file }
    }
}

/// What is mailed to envelope senders. A null sender never gets anything.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DsnSettings {
    /// Bounces without NOTIFY. In the session, an explicit NOTIFY (RFC 3461) is always honoured.
    pub bounce_messages: MailRule,
    /// Complaints.
    pub complaint_messages: MailRule,
}

/// The Prometheus listener.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MetricsSettings {
    /// `None`: no metrics are kept.
    pub address: Option<SocketAddr>,
}

/// The admin socket.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AdminSettings {
    /// Path of the Unix socket.
    pub socket: PathBuf,
    /// Group that may use it, besides root and the daemon's own user: a name of /etc/group, or a number.
    pub group: Option<String>,
    /// Permission bits: 0o600 or 0o660.
    pub mode: u32,
}

/// Where the admin socket is unless the config says otherwise.
pub const DEFAULT_SOCKET: &str = "/run/posthaste/admin.sock";

impl Default for AdminSettings {
    fn default() -> Self {
        Self { socket: PathBuf::from(DEFAULT_SOCKET), group: None, mode: 0o660 }
    }
}

/// What the log shows, and how.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LogSettings {
    /// The least important line that is shown.
    pub level: LogLevel,
    /// Text for people, or JSON for shippers.
    pub format: LogFormat,
}

/// Importance of a log line.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LogLevel {
    /// An operator must act.
    Error,
    /// We coped, look.
    Warn,
    /// Lifecycle.
    #[default]
    Info,
    /// The story of each session.
    Debug,
    /// Everything.
    Trace,
}

/// How a log line looks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LogFormat {
    /// One readable line.
    #[default]
    Text,
    /// One JSON object a line.
    Json,
}

/// How the daemon stops.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ShutdownSettings {
    /// After SIGTERM, sessions and deliveries under way have this long; then they are cut off. Nothing is lost, but a
    /// delivery cut off after its final dot may be repeated.
    pub deadline: Duration,
}

impl Default for ShutdownSettings {
    fn default() -> Self {
        Self { deadline: Duration::from_secs(30) }
    }
}
