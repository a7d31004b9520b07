//! What happened to each message of a run: when its submission began, when the server said 250, when the sink had it.
//! A message is known by its number, which is in its recipient: `m123@one.bench.test`.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::Instant;

/// The ledger of one run; all times are microseconds since its beginning plus one, 0 is "not yet".
pub(crate) struct Ledger {
    begin: Instant,
    submitted: Box<[AtomicU64]>,
    accepted: Box<[AtomicU64]>,
    received: Box<[AtomicU64]>,
    received_count: AtomicU32,
    /// Copies of a message that had already come.
    pub(crate) repeated: AtomicU32,
    /// Submissions answered 4xx and tried again.
    pub(crate) refused: AtomicU32,
    complete: Notify,
}

impl Ledger {
    /// For `messages` messages; time begins now.
    pub(crate) fn new(messages: u32) -> Self {
        let column = || (0..messages).map(|_| AtomicU64::new(0)).collect();
        Self {
            begin: Instant::now(),
            submitted: column(),
            accepted: column(),
            received: column(),
            received_count: AtomicU32::new(0),
            repeated: AtomicU32::new(0),
            refused: AtomicU32::new(0),
            complete: Notify::new(),
        }
    }

    /// How many messages the run has.
    pub(crate) fn messages(&self) -> u32 {
        u32::try_from(self.received.len()).unwrap_or(u32::MAX)
    }

    /// Message `number` is about to be submitted.
    pub(crate) fn submit(&self, number: u32) {
        self.mark(&self.submitted, number);
    }

    /// The server took responsibility for `number`.
    pub(crate) fn accept(&self, number: u32) {
        self.mark(&self.accepted, number);
    }

    /// The sink has `number`. Numbers go round, since smtp-source counts from 1 to the number of messages.
    pub(crate) fn receive(&self, number: u32) {
        if !self.mark(&self.received, number % self.messages().max(1)) {
            self.repeated.fetch_add(1, Ordering::Relaxed);
            return;
        }
        if self.received_count.fetch_add(1, Ordering::Relaxed) + 1 == self.messages() {
            self.complete.notify_one();
        }
    }

    /// Waits until the sink has all.
    pub(crate) async fn complete(&self) {
        self.complete.notified().await;
    }

    /// Messages that the sink has.
    pub(crate) fn received_count(&self) -> u32 {
        self.received_count.load(Ordering::Relaxed)
    }

    /// Moments of acceptance, in order.
    pub(crate) fn accepted(&self) -> Vec<Duration> {
        moments(&self.accepted)
    }

    /// Moments of receipt, in order.
    pub(crate) fn received(&self) -> Vec<Duration> {
        moments(&self.received)
    }

    /// Times from the beginning of submission to receipt, in order; empty where the generator does not say.
    pub(crate) fn latencies(&self) -> Vec<Duration> {
        let mut all: Vec<Duration> = self
            .submitted
            .iter()
            .zip(&self.received)
            .map(|(from, to)| (from.load(Ordering::Relaxed), to.load(Ordering::Relaxed)))
            .filter(|(from, to)| *from > 0 && *to > 0)
            .map(|(from, to)| Duration::from_micros(to.saturating_sub(from)))
            .collect();
        all.sort_unstable();
        all
    }

    /// Notes the time for `number`; false if there was one, or the number is not of this run.
    fn mark(&self, column: &[AtomicU64], number: u32) -> bool {
        let micros = u64::try_from(self.begin.elapsed().as_micros()).unwrap_or(u64::MAX);
        let cell = usize::try_from(number).ok().and_then(|at| column.get(at));
        cell.is_some_and(|cell| cell.compare_exchange(0, micros + 1, Ordering::Relaxed, Ordering::Relaxed).is_ok())
    }
}

/// The moments that are set, in order.
fn moments(column: &[AtomicU64]) -> Vec<Duration> {
    let mut all: Vec<Duration> = column
        .iter()
        .map(|cell| cell.load(Ordering::Relaxed))
        .filter(|micros| *micros > 0)
        .map(|micros| Duration::from_micros(micros - 1))
        .collect();
    all.sort_unstable();
    all
}

/// The value that `percent` of `sorted` do not exceed; none of none.
pub(crate) fn percentile(sorted: &[Duration], percent: usize) -> Option<Duration> {
    let at = (sorted.len() * percent).div_ceil(100).saturating_sub(1);
    sorted.get(at).copied()
}
