//! The committer as a task, without a thread of its own.
//!
//! For a simulation on one thread and a paused clock: there a thread that answers later would make two runs of one seed
//! differ. It is the same committer, step by step; only the waiting is another. The daemon never uses this.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::Instant;

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
