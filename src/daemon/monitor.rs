//! Measures what nobody else would: free space, the age of the oldest message, sizes of the scheduler's tables; and looks at the
//! token keys once an hour.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use tokio_util::sync::CancellationToken;

use super::quotas;
use super::token_keys::TokenKeyFile;
use crate::admission::Directory;
use crate::admission::quota::Quotas;
use crate::delivery::dispatch::Dispatcher;
use crate::events::metric;
use crate::queue::Queue;
use crate::types::Clock;

/// Between two looks at the file system: the reserve must be larger than what is accepted in this time.
const FREE_SPACE_EVERY: Duration = Duration::from_secs(1);
/// Looks at the file system between two refreshes of the other gauges.
const ROUNDS_PER_REFRESH: u32 = 5;

/// See the module.
pub(super) struct Watch {
    pub(super) queue: Queue,
    pub(super) dispatcher: Dispatcher,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) quotas: Arc<Quotas>,
    pub(super) admission: Arc<ArcSwap<Directory>>,
    pub(super) data_dir: PathBuf,
    pub(super) token_keys: Arc<TokenKeyFile>,
    pub(super) stop: CancellationToken,
}

impl Watch {
    /// Runs until it is stopped.
    pub(super) async fn run(self) {
        let mut round = 0_u32;
        loop {
            self.measure_free_space().await;
            self.tend_token_keys().await;
            if round.is_multiple_of(ROUNDS_PER_REFRESH) {
                self.refresh().await;
            }
            round = round.wrapping_add(1);
            tokio::select! {
                () = self.stop.cancelled() => return,
                () = tokio::time::sleep(FREE_SPACE_EVERY) => {}
            }
        }
    }

    async fn measure_free_space(&self) {
        let directory = self.data_dir.clone();
        let measured = tokio::task::spawn_blocking(move || rustix::fs::statvfs(&directory)).await;
        match measured {
            Ok(Ok(stat)) => self.queue.health().set_free_bytes(stat.f_bavail.saturating_mul(stat.f_frsize)),
            Ok(Err(error)) => {
                let directory = self.data_dir.display();
                tracing::error!(%directory, %error, "free space cannot be measured; intake goes by the last measure");
            }
            Err(error) => tracing::error!(%error, "free space measurement failed"),
        }
    }

    async fn tend_token_keys(&self) {
        if !self.token_keys.is_look_due() {
            return;
        }
        let token_keys = Arc::clone(&self.token_keys);
        if let Err(error) = tokio::task::spawn_blocking(move || token_keys.tend()).await {
            tracing::error!(%error, "the token keys could not be looked at");
        }
    }

    async fn refresh(&self) {
        let queue = self.queue.clone();
        let oldest = tokio::task::spawn_blocking(move || queue.messages(None, 1)).await;
        if let Ok(Ok(oldest)) = oldest {
            let now = self.clock.now();
            let age = oldest.first().map_or(Duration::ZERO, |id| now.since(id.accepted_at()));
            metrics::gauge!(metric::QUEUE_OLDEST_AGE).set(age.as_secs_f64());
        }
        if let Ok((totals, _)) = self.dispatcher.report(0).await {
            metrics::gauge!(metric::READY_DELIVERIES).set(totals.ready as f64);
            metrics::gauge!(metric::SITES).set(totals.sites as f64);
            metrics::gauge!(metric::SITES_BEHIND).set(totals.sites_behind as f64);
        }
        quotas::measure(&self.quotas, &self.admission.load());
        metrics::gauge!(metric::EVENTS_PENDING).set(self.queue.outbox().pending() as f64);
    }
}
