//! Waiting: on a value that threads change, or for what has to be asked for again and again.

use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::thread;
use std::time::{Duration, Instant};

use super::PATIENCE;

/// Shared by its clones.
#[derive(Debug, Default)]
pub(crate) struct Watched<T>(Arc<(Mutex<T>, Condvar)>);

impl<T> Clone for Watched<T> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<T> Watched<T> {
    pub(crate) fn new(value: T) -> Self {
        Self(Arc::new((Mutex::new(value), Condvar::new())))
    }

    /// A test that panics with the lock held must not hide its reason behind a second panic.
    pub(crate) fn lock(&self) -> MutexGuard<'_, T> {
        self.0.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    pub(crate) fn change<R>(&self, change: impl FnOnce(&mut T) -> R) -> R {
        let result = change(&mut self.lock());
        self.0.1.notify_all();
        result
    }

    /// What `look` finds in the value, as soon as it finds something; `None` at the end of `patience`.
    pub(crate) fn wait<R>(&self, patience: Duration, mut look: impl FnMut(&mut T) -> Option<R>) -> Option<R> {
        let deadline = Instant::now() + patience;
        let mut value = self.lock();
        loop {
            if let Some(found) = look(&mut value) {
                return Some(found);
            }
            let left = deadline.checked_duration_since(Instant::now())?;
            let waited = self.0.1.wait_timeout(value, left);
            value = waited.unwrap_or_else(std::sync::PoisonError::into_inner).0;
        }
    }
}

/// Looks again and again until something is found; fails with what `describe` says after [`PATIENCE`].
pub(crate) fn poll<R>(mut look: impl FnMut() -> Option<R>, describe: impl Fn() -> String) -> R {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(Instant::now() < deadline, "{}", describe());
        thread::yield_now();
    }
}

/// The time, to be compared with that of another event.
pub(crate) fn now() -> Instant {
    Instant::now()
}
