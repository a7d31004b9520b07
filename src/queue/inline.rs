//! The queue without threads of its own: the committer as a task, reads on the caller's own.
//!
//! For a simulation on one thread and a paused clock: there a thread that answers later would make two runs of one seed
//! differ. It is the same committer, step by step; only the waiting is another. The daemon never uses this.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Notify, mpsc};
use tokio::task::JoinError;
use tokio::time::Instant;

use super::Queue;
use super::committer::{After, Committer, RETRY_AFTER, Wake};

/// A committer that a task runs.
pub struct InlineCommitter {
    committer: Committer,
    /// Rings with each transaction, and when the last handle of the queue is dropped.
    bell: Arc<Notify>,
}

impl InlineCommitter {
    pub(super) fn new(committer: Committer, bell: Arc<Notify>) -> Self {
        Self { committer, bell }
    }

    /// Commits until all handles are gone. A batch is written `disk` after its first transaction came, as if the disk
    /// had been busy with the one before: what comes meanwhile joins it.
    pub async fn run(mut self, disk: Duration) {
        loop {
            let wake = self.wait().await;
            if matches!(wake, Wake::Transaction(_)) && !disk.is_zero() {
                tokio::time::sleep(disk).await;
            }
            match self.committer.step(wake) {
                After::GoOn => tokio::task::yield_now().await,
                After::Pause => tokio::time::sleep(RETRY_AFTER).await,
                After::End => return,
            }
        }
    }

    async fn wait(&mut self) -> Wake {
        let deadline = self.committer.patience().map(|patience| Instant::now() + patience);
        loop {
            if let Some(wake) = self.committer.peek() {
                return wake;
            }
            match deadline {
                None => self.bell.notified().await,
                Some(deadline) => {
                    if tokio::time::timeout_at(deadline, self.bell.notified()).await.is_err() {
                        return self.committer.out_of_patience();
                    }
                }
            }
        }
    }
}

impl Queue {
    /// Runs a read that blocks where it holds up nobody: on a thread for such, or inline in a simulation. An error means
    /// that it panicked.
    pub async fn reading<T: Send + 'static>(
        &self,
        read: impl FnOnce(&Queue) -> T + Send + 'static,
    ) -> Result<T, JoinError> {
        let queue = self.clone();
        if self.0.bell.is_none() {
            return tokio::task::spawn_blocking(move || read(&queue)).await;
        }
        tokio::task::yield_now().await;
        Ok(read(&queue))
    }
}

/// Sends from a completion, which runs on the committer's thread or, in a simulation, on its task. Waits for room on the
/// thread. An error means that the receiver has ended: nobody needs to know.
pub fn tell<T>(sender: &mpsc::Sender<T>, value: T) {
    if let Err(mpsc::error::TrySendError::Full(value)) = sender.try_send(value) {
        // Panics on a task: no simulation is as large as these channels.
        let _ = sender.blocking_send(value);
    }
}
