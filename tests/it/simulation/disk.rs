//! The queue's disk: the model store behind the world's power switch, with times at which it does not write.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use posthaste::queue::model::ModelStore;
use posthaste::queue::store::{Change, Family, Record, Store, StoreError, StoreErrorKind};
use posthaste::types::{Clock, Timestamp};
use tokio::sync::Notify;

use super::ledger::Ledger;
use super::plan::StopKind;
use super::world::{Power, WorldClock};

pub(super) struct Disk {
    store: ModelStore,
    power: Arc<Power>,
    ledger: Arc<Mutex<Ledger>>,
    clock: Arc<WorldClock>,
    outages: Vec<(Timestamp, Timestamp)>,
    /// Rings with each write: the event writer may have something to look at.
    pub(super) written: Notify,
}

impl Disk {
    pub(super) fn new(
        power: Arc<Power>,
        ledger: Arc<Mutex<Ledger>>,
        clock: Arc<WorldClock>,
        outages: Vec<(Timestamp, Timestamp)>,
    ) -> Self {
        Self { store: ModelStore::new(), power, ledger, clock, outages, written: Notify::new() }
    }

    pub(super) fn store(&self) -> &ModelStore {
        &self.store
    }

    /// What a stop leaves of what was written.
    pub(super) fn survive(&self, kind: StopKind) {
        match kind {
            StopKind::Orderly | StopKind::Kill => {}
            StopKind::Power | StopKind::PowerReordered => self.store.crash(),
            StopKind::PowerWithGarbage => self.store.crash_keeping(self.store.unsynced() / 2),
        }
        self.ledger.lock().unwrap().reload(self.store.dump(Family::Due), self.store.dump(Family::Counter));
    }

    /// Whether it does not write now.
    pub(super) fn is_out(&self) -> bool {
        let now = self.clock.now();
        self.outages.iter().any(|(from, to)| *from <= now && now < *to)
    }

    /// Since when it has not written, up to a while ago; `stopped_at` where it has.
    pub(super) fn last_outage_from(&self, stopped_at: Timestamp) -> Timestamp {
        // Outages are by the daemon's clock, which is hours off at most where somebody sets it.
        let now = self.clock.now();
        let over = |to: Timestamp| now.since(to) > Duration::from_secs(10);
        let found = self.outages.iter().find(|(from, to)| *from <= now && !over(*to));
        found.map_or(stopped_at, |(from, _)| stopped_at.minus(now.since(*from)))
    }

    fn check(&self) -> Result<(), StoreError> {
        if self.power.is_cut() {
            return Err(StoreError::new(StoreErrorKind::Failed, "the power is off"));
        }
        Ok(())
    }
}

impl Store for Disk {
    fn write(&self, changes: &[Change], sync: bool) -> Result<(), StoreError> {
        self.check()?;
        if self.is_out() {
            return Err(StoreError::new(StoreErrorKind::Full, "the disk is full"));
        }
        // One step before it, one between write and sync, one after it: each may be the last.
        if !self.power.step() {
            return self.check();
        }
        self.store.write(changes, false)?;
        self.ledger.lock().unwrap().written(changes);
        if sync {
            if !self.power.step() {
                return self.check();
            }
            self.store.sync()?;
        }
        self.written.notify_one();
        self.power.step();
        Ok(())
    }

    fn sync(&self) -> Result<(), StoreError> {
        self.write(&[], true)
    }

    fn get(&self, family: Family, key: &[u8]) -> Result<Option<Bytes>, StoreError> {
        self.check()?;
        self.store.get(family, key)
    }

    fn scan(&self, family: Family, from: &[u8], to: &[u8], limit: usize) -> Result<Vec<Record>, StoreError> {
        self.check()?;
        self.store.scan(family, from, to, limit)
    }

    fn last(&self, family: Family) -> Result<Option<Record>, StoreError> {
        self.check()?;
        self.store.last(family)
    }

    fn set_aside(&self, name: &str, bytes: &[u8]) -> Result<String, StoreError> {
        self.check()?;
        self.store.set_aside(name, bytes)
    }
}
