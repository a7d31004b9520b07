//! Listeners and sessions: the server's side of SMTP.
//!
//! A listener accepts connections and counts them against the limits; each session is a task that drives
//! [`crate::smtp::server`] over a stream, decides at MAIL by `admission`, has the header block stamped ([`Stamp`]), and hands the message
//! to the queue ([`Intake`]). Promises: 250 is sent only after [`Intake::accept`] returned; a reply goes out before the
//! session waits for its client, all replies to a pipelined group in one write; a session that panics ends alone; memory
//! is bounded by the limits of connections (a few KiB each, up to 80 KiB while a message arrives) and by
//! `memory_bytes_max` for message data.
//!
//! Bodies above [`SPOOL_PART_BYTES`](crate::queue::intake::SPOOL_PART_BYTES) are spooled in parts while they arrive,
//! and discarded where the message does not end well.

mod assembly;
mod connections;
mod facts;
mod handshakes;
mod inbox;
mod listener;
mod memory;
mod session;
pub mod settings;
mod signing;
mod stamp;
mod wire;

#[cfg(test)]
mod tests;

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwap;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use self::connections::Connections;
use self::handshakes::HandshakeGate;
use self::listener::{Listener, ListenerSpec};
use self::memory::MemoryBudget;
use self::settings::{ListenerSettings, Settings};
use crate::admission::Directory;
use crate::admission::authenticate::Authenticator;
use crate::admission::quota::Quotas;
use crate::events::audit::AuditLog;
use crate::events::metric;
use crate::net::BoxStream;
use crate::queue::Intake;

pub use assembly::{local_error, reply, reply_to};
pub use inbox::{Inbox, NoInbox};
pub use listener::ListenError;
pub use signing::Signing;
pub use stamp::{Stamp, StampContext, StampedHeader, TlsInfo};

/// What sessions work with. Settings are read at the start of a session and at each MAIL.
#[derive(Clone)]
pub struct Ports {
    /// Limits and behaviour.
    pub settings: Arc<ArcSwap<Settings>>,
    /// Who may send, as whom.
    pub admission: Arc<ArcSwap<Directory>>,
    /// What senders used of their limits.
    pub quotas: Arc<Quotas>,
    /// Says whether a login is right.
    pub authenticator: Arc<Authenticator>,
    /// Where logins are noted.
    pub audit: Arc<AuditLog>,
    /// Takes the messages.
    pub intake: Arc<dyn Intake>,
    /// Completes their header blocks.
    pub stamp: Arc<dyn Stamp>,
    /// Signs them.
    pub signing: Arc<Signing>,
    /// Takes what comes home.
    pub inbox: Arc<dyn Inbox>,
}

/// What all sessions share.
struct Shared {
    ports: Ports,
    connections: Arc<Connections>,
    handshakes: Arc<HandshakeGate>,
    metrics: Metrics,
    /// Sessions and accept loops.
    tasks: TaskTracker,
    /// No new sessions; idle ones end.
    draining: CancellationToken,
    /// All sessions end now.
    cut: CancellationToken,
}

struct Metrics {
    messages: metrics::Counter,
    recipients: metrics::Counter,
    accept_seconds: metrics::Histogram,
}

/// All listeners and their sessions.
pub struct Reception {
    shared: Arc<Shared>,
    listeners: Mutex<Vec<Listener>>,
}

impl Reception {
    /// Binds all listeners and begins to accept. All or nothing: on an error none listens. Needs a tokio runtime; a
    /// metrics recorder must be installed before.
    pub fn start(listeners: &[ListenerSettings], ports: Ports) -> Result<Self, ListenError> {
        let settings = ports.settings.load();
        let memory = MemoryBudget::new(settings.memory_bytes_max);
        drop(settings);
        let metrics = Metrics {
            messages: metrics::counter!(metric::MESSAGES_ACCEPTED),
            recipients: metrics::counter!(metric::RECIPIENTS_ACCEPTED),
            accept_seconds: metrics::histogram!(metric::ACCEPT_SECONDS),
        };
        let shared = Arc::new(Shared {
            ports,
            connections: Arc::new(Connections::new(memory)),
            handshakes: HandshakeGate::new(),
            metrics,
            tasks: TaskTracker::new(),
            draining: CancellationToken::new(),
            cut: CancellationToken::new(),
        });
        let reception = Self { shared, listeners: Mutex::default() };
        reception.reload(listeners)?;
        Ok(reception)
    }

    /// Applies a new set of listeners: binds those that are new, closes those that are gone, and reads the certificates
    /// of all again. A listener stays open if its address is the same (port 0: its name too). All or nothing: on an
    /// error everything stays as it was. Sessions go on in any case, with the certificate they began with.
    pub fn reload(&self, wanted: &[ListenerSettings]) -> Result<(), ListenError> {
        let mut listeners = self.lock();
        let mut specs = Vec::with_capacity(wanted.len());
        for settings in wanted {
            let spec = Arc::new(ListenerSpec::load(settings)?);
            let is_same = |listener: &Listener| listener.serves(settings);
            let bound = if listeners.iter().any(is_same) { None } else { Some(listener::bind(settings)?) };
            specs.push((settings, spec, bound));
        }
        // Nothing below can fail.
        let mut next = Vec::with_capacity(wanted.len());
        for (settings, spec, bound) in specs {
            match bound {
                Some((socket, local)) => {
                    next.push(Listener::open(settings, spec, socket, local, Arc::clone(&self.shared)));
                }
                None => {
                    if let Some(index) = listeners.iter().position(|listener| listener.serves(settings)) {
                        let mut kept = listeners.swap_remove(index);
                        kept.set_spec(settings, spec);
                        next.push(kept);
                    }
                }
            }
        }
        // Those that are left close when they are dropped.
        *listeners = next;
        Ok(())
    }

    /// Name and bound address of each listener: with port 0 in the settings, the port that the system chose.
    pub fn local_addrs(&self) -> Vec<(String, SocketAddr)> {
        self.lock().iter().map(|listener| (listener.name().to_owned(), listener.local_addr())).collect()
    }

    /// Open client connections.
    pub fn sessions(&self) -> usize {
        self.shared.connections.count()
    }

    /// Serves one connection that came by another way than a listener (in-memory streams of a simulation), as the
    /// listener `name`, or in clear where there is none. Above the connection limits it gets its 421.
    pub fn serve(&self, name: &str, stream: BoxStream, peer: SocketAddr) {
        let spec = self.lock().iter().find(|listener| listener.name() == name).map(Listener::spec);
        let spec = spec.unwrap_or_else(|| Arc::new(ListenerSpec::plain(name)));
        listener::serve_stream(&self.shared, spec, stream, peer);
    }

    /// Stops: listeners close, sessions that wait for a command get 421 4.3.2, those that send a message may end it,
    /// until `deadline` has passed; then they are cut. Returns when none is left. Messages whose commit is under way
    /// are committed or not, without a reply, as after a lost connection.
    pub async fn drain(&self, deadline: Duration) {
        self.lock().clear();
        self.shared.draining.cancel();
        self.shared.tasks.close();
        if tokio::time::timeout(deadline, self.shared.tasks.wait()).await.is_err() {
            tracing::warn!(sessions = self.sessions(), "sessions cut at the end of the drain time");
            self.shared.cut.cancel();
            self.shared.tasks.wait().await;
        }
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Listener>> {
        self.listeners.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
