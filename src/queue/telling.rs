//! What a settlement tells of recipients that bounced, unless a report told it before.
//!
//! A host can take a message, or put it off, and send a report on it, while its recipient is still in the queue here: its reply was lost, or
//! it says one thing and does another. The report is told at once, and leaves a mark beside the recipient ([`super::feedback`]). When the
//! recipient ends by a bounce later, nobody is to hear of it again. Whether there is a mark the committer sees when it makes the batch: of
//! what came first, also within one batch. It asks only where an attempt had been made before this one; what ends at its first attempt
//! costs nothing, and its own bounce keeps a report in the same batch from being told (`Bounces::claims`).

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use super::committer::Transaction;
use super::feedback::is_there;
use super::intake::NewMessage;
use super::reputation::ReputationCharge;
use super::store::{Family, Key, Store, StoreError};
use crate::events::EventLine;

/// See the module.
#[derive(Debug, Default)]
pub struct Telling {
    /// Positions in the envelope: nothing of it is told where the bounces of all of these were.
    pub recipients: Vec<u16>,
    /// The events that tell of it.
    pub events: Vec<EventLine>,
    /// Messages that it causes.
    pub notifications: Vec<NewMessage>,
    /// What it means for the reputation of who sent it.
    pub marks: Vec<ReputationCharge>,
}

/// What a transaction tells of recipients that bounce by it.
#[derive(Default)]
pub(super) struct Bounces {
    /// Of those that were tried before: told unless it was told; merged into the rest when the batch is made.
    pub(super) tellings: Vec<Prepared>,
    /// Marks that need not be written, since the outcome says the same.
    pub(super) claims: Vec<Key>,
}

/// The same as records, for the committer.
pub(super) struct Prepared {
    /// The marks of these recipients.
    pub(super) about: Vec<Key>,
    /// Its records, events and numbers.
    pub(super) rest: Box<Transaction>,
    /// For whoever hands its messages on: filled in when the batch is made.
    pub(super) is_known: Arc<AtomicBool>,
}

/// Puts into a transaction what is to be told by it. `seen`: marks of those before it in the batch. An error leaves it as it was.
pub(super) fn merge(
    transaction: &mut Transaction,
    seen: &mut BTreeSet<(Family, Key)>,
    store: &dyn Store,
) -> Result<(), StoreError> {
    let Some(bounces) = &mut transaction.bounces else { return Ok(()) };
    for prepared in &bounces.tellings {
        let mut is_known = true;
        for key in &prepared.about {
            is_known &= seen.contains(&(Family::Sent, *key)) || is_there(store, Family::Sent, key)?;
        }
        prepared.is_known.store(is_known, Ordering::Relaxed);
    }
    seen.extend(bounces.claims.iter().map(|key| (Family::Sent, *key)));
    for prepared in std::mem::take(&mut bounces.tellings) {
        if prepared.is_known.load(Ordering::Relaxed) {
            continue;
        }
        let rest = *prepared.rest;
        transaction.changes.extend(rest.changes);
        transaction.events.extend(rest.events);
        transaction.marks.extend(rest.marks);
        transaction.accepts += rest.accepts;
        transaction.kept += rest.kept;
        transaction.new_jobs += rest.new_jobs;
        transaction.sync |= rest.sync;
    }
    Ok(())
}

impl Bounces {
    /// Octets, for the bounds of a batch.
    pub(super) fn bytes(&self) -> usize {
        self.tellings.iter().map(|prepared| prepared.rest.bytes()).sum()
    }
}
