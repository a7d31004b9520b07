//! Whether the queue keeps its promises right now, in atomics that every session reads.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use super::committer::Size;
use super::store::StoreError;
use crate::events::metric;

/// Shared between the committer, intake, the admin API and the daemon.
#[derive(Default)]
pub struct Health {
    store_failed: AtomicBool,
    store_lost: AtomicBool,
    reason: Mutex<Option<String>>,
    messages: AtomicU64,
    jobs: AtomicU64,
    accepted: AtomicU64,
    free_bytes: AtomicU64,
}

impl Health {
    /// Healthy, with nothing known of the disk yet.
    pub(super) fn new(size: Size) -> Self {
        let health = Self::default();
        health.set_size(size);
        health.free_bytes.store(u64::MAX, Ordering::Relaxed);
        metrics::gauge!(metric::HEALTHY).set(1.0);
        health
    }

    /// Why the store is not to be trusted; `None` while it is.
    pub fn failure(&self) -> Option<String> {
        if !self.store_failed.load(Ordering::Acquire) {
            return None;
        }
        self.reason.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Why this process must end: a write failed in a way that no later write can mend. Only a new process, which reads
    /// what is on the disk, knows again what is safe. `None` while it may go on.
    pub fn lost(&self) -> Option<String> {
        self.store_lost.load(Ordering::Acquire).then(|| {
            let reason = self.failure().unwrap_or_default();
            format!(
                "the queue could not be written ({reason}); what is on the disk is known only after a new start: \
                 nothing that was answered 250 is lost, what was being delivered is tried again and marked ambiguous"
            )
        })
    }

    /// Messages in the queue.
    pub fn messages(&self) -> u64 {
        self.messages.load(Ordering::Relaxed)
    }

    /// Jobs in the queue: a message and a destination domain each.
    pub fn jobs(&self) -> u64 {
        self.jobs.load(Ordering::Relaxed)
    }

    /// Messages taken over since the start, notifications included.
    pub fn accepted(&self) -> u64 {
        self.accepted.load(Ordering::Relaxed)
    }

    pub(super) fn add_accepted(&self, messages: u64) {
        self.accepted.fetch_add(messages, Ordering::Relaxed);
    }

    /// Free bytes on the queue's file system, as last measured; `u64::MAX` before the first measure.
    pub fn free_bytes(&self) -> u64 {
        self.free_bytes.load(Ordering::Relaxed)
    }

    /// Notes a measure of the file system.
    pub fn set_free_bytes(&self, bytes: u64) {
        self.free_bytes.store(bytes, Ordering::Relaxed);
        metrics::gauge!(metric::QUEUE_FREE_BYTES).set(bytes as f64);
    }

    pub(super) fn set_size(&self, size: Size) {
        self.messages.store(size.messages, Ordering::Relaxed);
        self.jobs.store(size.jobs, Ordering::Relaxed);
        metrics::gauge!(metric::QUEUE_MESSAGES).set(size.messages as f64);
        metrics::gauge!(metric::QUEUE_DELIVERIES).set(size.jobs as f64);
    }

    pub(super) fn store_failed(&self, error: &StoreError) {
        *self.reason.lock().unwrap_or_else(PoisonError::into_inner) = Some(error.to_string());
        if !self.store_failed.swap(true, Ordering::AcqRel) {
            tracing::error!(%error, "the queue cannot be written: mail is refused with 451 until it can");
            metrics::gauge!(metric::HEALTHY).set(0.0);
        }
    }

    pub(super) fn store_lost(&self, error: &StoreError) {
        if !self.store_lost.swap(true, Ordering::AcqRel) {
            tracing::error!(%error, "a write to the queue failed; the daemon must end, and reads what is there when it starts again");
        }
    }

    pub(super) fn store_works(&self) {
        if self.store_lost.load(Ordering::Acquire) {
            return;
        }
        if self.store_failed.load(Ordering::Relaxed) && self.store_failed.swap(false, Ordering::AcqRel) {
            tracing::warn!("the queue can be written again");
            metrics::gauge!(metric::HEALTHY).set(1.0);
        }
    }
}
