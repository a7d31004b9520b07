//! Moves events from the outbox to the files, one step at a time. The writer's thread calls it; so may a simulation,
//! inline, without a thread.

use std::sync::Arc;
use std::time::Duration;

use super::EventsError;
use crate::events::file::{Sink, Storage};
use crate::events::{EventId, Outbox, OutboxError, OutboxEvent, Settings, metric};
use crate::types::{Clock, Timestamp};

/// Events of one read from the outbox. Full: the next step reads on.
const READ_EVENTS_MAX: usize = 512;
/// Longest wait when there is nothing to do: how soon a file that was moved away, or has reached its age, is noticed.
const IDLE_WAIT_MAX: Duration = Duration::from_secs(1);
/// Waits for wake-ups and time only, not for events.
const NO_EVENT: EventId = EventId::new(u64::MAX - 1);

/// What a step found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// There was something to do; there may be more.
    Worked,
    /// Nothing to do until an event after `after` is committed or `wait` has passed.
    Idle {
        /// The argument for [`Outbox::wait`].
        after: EventId,
        /// The longest wait.
        wait: Duration,
    },
}

/// The state of all streams. Blocking.
pub struct Pump {
    outbox: Arc<dyn Outbox>,
    storage: Arc<dyn Storage>,
    clock: Arc<dyn Clock>,
    sync_interval: Duration,
    sinks: Vec<Sink>,
    /// Where a pump without streams reads on.
    skipped: EventId,
    /// The newest event read.
    newest: EventId,
    consumed: EventId,
    synced_at: Option<Timestamp>,
}

impl Pump {
    /// Recovers every stream. `settings.directory` is only named in messages: `storage` is that directory.
    pub fn open(
        outbox: Arc<dyn Outbox>,
        storage: Arc<dyn Storage>,
        settings: &Settings,
        clock: Arc<dyn Clock>,
    ) -> Result<Self, EventsError> {
        settings.check().map_err(EventsError::Settings)?;
        let consumed = outbox.oldest()?.previous();
        let mut pump = Self {
            outbox,
            storage,
            clock,
            sync_interval: settings.sync_interval,
            sinks: Vec::new(),
            skipped: consumed,
            newest: consumed,
            consumed,
            synced_at: None,
        };
        pump.sinks = pump.open_sinks(settings)?;
        pump.newest = pump.sinks.iter().map(|sink| sink.next().previous()).max().unwrap_or(consumed);
        Ok(pump)
    }

    fn open_sinks(&self, settings: &Settings) -> Result<Vec<Sink>, EventsError> {
        self.storage
            .prepare()
            .map_err(|error| EventsError::File { path: self.storage.directory().to_owned(), error })?;
        let open = |sink: &crate::events::SinkSettings| {
            Sink::open(Arc::clone(&self.storage), sink.clone(), &*self.outbox, self.clock.now())
        };
        settings.sinks.iter().map(open).collect()
    }

    /// Reads once, writes what was read, syncs where it is time.
    pub fn step(&mut self) -> Result<Step, OutboxError> {
        let now = self.clock.now();
        let events = self.read(now)?;
        let is_idle = events.is_empty();
        for sink in &mut self.sinks {
            if sink.wait(now).is_zero() {
                sink.offer(&events, now);
            }
        }
        if let Some(last) = events.last() {
            self.newest = self.newest.max(last.id);
            self.skipped = self.skipped.max(last.id);
        }
        let due = self.sync_wait(now).is_zero();
        if is_idle || due {
            self.tend(now);
        }
        if due {
            self.sync(now)?;
        }
        self.show_pending();
        if !is_idle {
            return Ok(Step::Worked);
        }
        Ok(self.idle(now))
    }

    /// Events from the place of the stream that is furthest behind, among those that can write.
    fn read(&self, now: Timestamp) -> Result<Vec<OutboxEvent>, OutboxError> {
        let behind = self.sinks.iter().filter(|sink| sink.wait(now).is_zero()).map(Sink::next).min();
        match behind {
            Some(from) => self.outbox.read(from, READ_EVENTS_MAX),
            None if self.sinks.is_empty() => self.outbox.read(self.skipped.next(), READ_EVENTS_MAX),
            None => Ok(Vec::new()),
        }
    }

    fn tend(&mut self, now: Timestamp) {
        for sink in &mut self.sinks {
            if sink.wait(now).is_zero() {
                sink.tend(now);
            }
        }
    }

    /// Makes everything written safe, whatever the time, and lets the outbox drop it.
    pub fn sync(&mut self, now: Timestamp) -> Result<(), OutboxError> {
        for sink in &mut self.sinks {
            let has_work = sink.is_dirty() || sink.failure().is_some();
            if has_work && sink.wait(now).is_zero() {
                sink.sync(now);
                self.synced_at = Some(now);
            }
        }
        let through = self.sinks.iter().map(Sink::synced_through).min().unwrap_or(self.skipped);
        if through > self.consumed {
            self.outbox.consumed(through)?;
            // The queue keeps them where its disk is full: then they are given back again at the next look.
            self.consumed = self.outbox.oldest()?.previous().min(through);
        }
        Ok(())
    }

    /// How long until files may be synced again.
    fn sync_wait(&self, now: Timestamp) -> Duration {
        match self.synced_at {
            // A clock that went back must not keep events in the queue.
            Some(synced_at) if synced_at <= now => self.sync_interval.saturating_sub(now.since(synced_at)),
            _ => Duration::ZERO,
        }
    }

    fn idle(&self, now: Timestamp) -> Step {
        let mut wait = IDLE_WAIT_MAX;
        let mut after = NO_EVENT;
        for sink in &self.sinks {
            let outage = sink.wait(now);
            if outage.is_zero() {
                after = after.min(sink.next().previous());
            } else {
                wait = wait.min(outage);
            }
            if sink.is_dirty() && outage.is_zero() {
                wait = wait.min(self.sync_wait(now));
            }
        }
        if self.sinks.is_empty() {
            after = self.skipped;
        }
        Step::Idle { after, wait: wait.max(Duration::from_millis(1)) }
    }

    /// Rotates every stream that holds a line, and opens anew what another program moved.
    pub fn rotate(&mut self) {
        self.sinks.iter_mut().for_each(Sink::ask_rotation);
    }

    /// Takes new settings. `storage` is the directory they name, or `None` where it is the same. On an error everything
    /// stays as it was.
    pub fn reload(&mut self, settings: &Settings, storage: Option<Arc<dyn Storage>>) -> Result<(), EventsError> {
        settings.check().map_err(EventsError::Settings)?;
        let now = self.clock.now();
        self.sync(now)?;
        self.check_changes(settings, storage.is_some())?;
        let mut fresh = Pump {
            outbox: Arc::clone(&self.outbox),
            storage: storage.clone().unwrap_or_else(|| Arc::clone(&self.storage)),
            clock: Arc::clone(&self.clock),
            sync_interval: settings.sync_interval,
            sinks: Vec::new(),
            skipped: self.skipped,
            newest: self.newest,
            consumed: self.consumed,
            synced_at: self.synced_at,
        };
        let is_kept = |name: &str| storage.is_none() && self.sinks.iter().any(|sink| sink.settings().file_name == name);
        let mut to_open = settings.clone();
        to_open.sinks.retain(|sink| !is_kept(&sink.file_name));
        fresh.sinks = fresh.open_sinks(&to_open)?;
        if storage.is_none() {
            for mut sink in self.sinks.drain(..) {
                let wanted = settings.sinks.iter().find(|wanted| wanted.file_name == sink.settings().file_name);
                if let Some(wanted) = wanted {
                    sink.set_settings(wanted.clone());
                    fresh.sinks.push(sink);
                }
            }
        }
        *self = fresh;
        Ok(())
    }

    /// A stream that is dropped or takes other kinds from now on must have nothing left to write again.
    fn check_changes(&self, settings: &Settings, is_moved: bool) -> Result<(), EventsError> {
        for sink in &self.sinks {
            let old = sink.settings();
            let new = settings.sinks.iter().find(|new| new.file_name == old.file_name);
            let stays = !is_moved && new.is_some_and(|new| new.takes_as(old));
            if !stays && (sink.is_dirty() || sink.is_amid_line()) {
                let error = sink.failure().map_or_else(|| "not synced yet".to_owned(), |(error, _)| error.to_owned());
                let error = std::io::Error::other(format!("settings unchanged until it can be written: {error}"));
                return Err(EventsError::File { path: self.storage.directory().join(&old.file_name), error });
            }
        }
        Ok(())
    }

    /// What fails, and since when: the first stream that does.
    pub fn failure(&self) -> Option<(&str, Timestamp)> {
        self.sinks.iter().find_map(Sink::failure)
    }

    /// Events that are committed and not yet safe in every file, as far as known.
    pub fn pending(&self) -> u64 {
        let newest = self.outbox.newest().unwrap_or(self.newest).max(self.newest);
        newest.value() - self.consumed.value()
    }

    fn show_pending(&self) {
        #[allow(clippy::cast_precision_loss, reason = "a gauge needs no more than 52 bits")]
        metrics::gauge!(metric::EVENTS_PENDING).set(self.pending() as f64);
    }
}
