//! Brings reports home: one after the other, by SMTP, to the listener for feedback of this daemon and nowhere else.
//!
//! Each waits for a moment, so that what it speaks of is settled by then. One that is refused for now is tried again some times;
//! one that is refused for good, or still waits when the daemon stops, is dropped, and the log says so.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use mail_send::SmtpClientBuilder;
use mail_send::smtp::message::Message;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep, sleep_until};
use tokio_util::sync::CancellationToken;

use super::report::{self, Subject};
use crate::types::{Clock, Domain, MessageId};

/// Reports that wait. Full: the message is not taken for now (452 4.3.1).
pub(super) const REPORTS_MAX: usize = 1_024;
/// How long a report waits at first: the delivery that it speaks of is settled in milliseconds.
const DELAY: Duration = Duration::from_secs(1);
/// How often a report is tried.
const TRIES_MAX: u32 = 5;
/// Between two tries.
const PAUSE: Duration = Duration::from_secs(1);
/// For each step of a session.
const TIMEOUT: Duration = Duration::from_secs(30);

/// A report that waits for its time.
pub(super) struct Waiting {
    at: Instant,
    subject: Subject,
}

impl Waiting {
    /// Of a message that is taken now.
    pub(super) fn new(subject: Subject) -> Self {
        Self { at: Instant::now() + DELAY, subject }
    }
}

/// Who brings them.
pub(super) struct Post {
    pub(super) host: Domain,
    pub(super) clock: Arc<dyn Clock>,
    /// Where they go, once that is known.
    pub(super) home: Arc<OnceLock<SocketAddr>>,
    pub(super) written: AtomicU64,
}

impl Post {
    /// Until `stop`. A report that is under way is cut.
    pub(super) async fn run(self, mut waiting: mpsc::Receiver<Waiting>, stop: CancellationToken) {
        let ended = stop.run_until_cancelled(async {
            while let Some(next) = waiting.recv().await {
                sleep_until(next.at).await;
                self.bring(&next.subject).await;
            }
        });
        ended.await;
        if !waiting.is_empty() {
            tracing::info!(reports = waiting.len(), "the simulator stops; what it has not reported is dropped");
        }
    }

    async fn bring(&self, subject: &Subject) {
        let id = MessageId::new(self.clock.now(), self.written.fetch_add(1, Ordering::Relaxed).into());
        let octets = report::write(subject, &self.host, id);
        let mut problem = String::new();
        for number in 0..TRIES_MAX {
            if number > 0 {
                sleep(PAUSE).await;
            }
            match self.send(subject, &octets).await {
                Ok(()) => return,
                Err(error) => problem = error,
            }
        }
        tracing::warn!(kind = ?subject.kind, problem, "a report of the simulator did not come home; it is dropped");
    }

    async fn send(&self, subject: &Subject, octets: &[u8]) -> Result<(), String> {
        let home = self.home.get().ok_or("there is no listener for it")?;
        let text = |error: mail_send::Error| error.to_string();
        let client = SmtpClientBuilder::new(home.ip().to_string(), home.port())?;
        let client = client.helo_host(self.host.as_str()).timeout(TIMEOUT);
        let mut client = client.connect_plain().await.map_err(text)?;
        // The null path: nobody answers a report (RFC 5321 §4.5.5, RFC 3834 §3.3).
        client.send(Message::new("", [subject.return_path.as_str()], octets)).await.map_err(text)?;
        // It was taken: how the session ends does not matter.
        drop(client.quit().await);
        Ok(())
    }
}
