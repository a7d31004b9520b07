//! What blocks: reads of the store, and words from the committer to a full channel. In the daemon on threads made for that;
//! in a simulation, which has one thread, inline.

use tokio::sync::mpsc;
use tokio::task::JoinError;

use super::Queue;

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
