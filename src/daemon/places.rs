//! Where each job of a message is right now, in the words of the admin API: no silent wait (design.md, promise 7).

use std::collections::HashMap;

use super::admin::model::{MessageState, RecipientState};
use crate::queue::{DueJob, HeldJob, JobKey, LoadError, Queue, StoredMessage};
use crate::scheduler::Whereabouts;
use crate::types::Timestamp;

/// A job's place.
#[derive(Clone, Debug)]
pub(super) enum Place {
    /// In the scheduler's hands.
    Scheduled(Whereabouts),
    /// Held.
    Held(HeldJob),
}

/// The places of some jobs; what is not in it waits on disk for its due time.
#[derive(Debug, Default)]
pub(super) struct Places(HashMap<JobKey, Place>);

/// What a job does.
#[derive(Clone, Debug)]
pub(super) struct Description {
    pub(super) state: RecipientState,
    pub(super) next_attempt_at: Option<Timestamp>,
    pub(super) waits_for: Option<String>,
}

/// Groups of a message with pending recipients.
pub(super) fn open_groups(message: &StoredMessage) -> impl Iterator<Item = u16> + '_ {
    let groups = 0..u16::try_from(message.domains.len()).unwrap_or(u16::MAX);
    groups.filter(|group| message.pending(*group).next().is_some())
}

/// Its jobs, as the due index has them.
pub(super) fn open_jobs(message: &StoredMessage) -> impl Iterator<Item = DueJob> + '_ {
    open_groups(message).map(|group| DueJob {
        due_at: message.due_at(group),
        key: JobKey { id: message.id, group },
        entry: message.due_entry(group, message.attempts(group), None),
    })
}

impl Places {
    /// Joins what the scheduler knows with the hold entries. Blocks.
    pub(super) fn new(
        queue: &Queue,
        keys: Vec<JobKey>,
        whereabouts: Vec<Option<Whereabouts>>,
    ) -> Result<Self, LoadError> {
        let mut places = HashMap::with_capacity(keys.len());
        for (key, whereabouts) in keys.into_iter().zip(whereabouts) {
            let place = match whereabouts {
                // A held job may look as if it was left on disk.
                Some(Whereabouts::Behind(site)) => Some(match queue.hold_of(key)? {
                    Some(held) => Place::Held(held),
                    None => Place::Scheduled(*site),
                }),
                Some(whereabouts) => Some(Place::Scheduled(whereabouts)),
                None => queue.hold_of(key)?.map(Place::Held),
            };
            places.extend(place.map(|place| (key, place)));
        }
        Ok(Self(places))
    }

    /// The place of a job.
    pub(super) fn get(&self, key: JobKey) -> Option<&Place> {
        self.0.get(&key)
    }

    /// What a job does, and what it waits for.
    pub(super) fn describe(&self, message: &StoredMessage, group: u16, now: Timestamp) -> Description {
        let due_at = message.due_at(group);
        let deferred = |at: Timestamp| Description {
            state: if at <= now { RecipientState::Ready } else { RecipientState::Deferred },
            next_attempt_at: Some(at),
            waits_for: Some(reason(message, group)),
        };
        let waits = |state, next_attempt_at, waits_for: String| Description {
            state,
            next_attempt_at,
            waits_for: Some(waits_for),
        };
        match self.get(JobKey { id: message.id, group }) {
            None => deferred(due_at),
            Some(Place::Held(held)) => {
                let text = if held.reason.is_empty() { "an operator" } else { &held.reason };
                waits(RecipientState::Held, None, format!("held: {text}"))
            }
            Some(Place::Scheduled(whereabouts)) => match whereabouts {
                Whereabouts::InFlight => {
                    Description { state: RecipientState::InFlight, next_attempt_at: None, waits_for: None }
                }
                Whereabouts::Resolving => waits(RecipientState::Ready, None, "DNS answers for its domain".to_owned()),
                Whereabouts::Ready { site, cause, .. } => waits(RecipientState::Ready, cause.until(), format!("{site}: {cause}")),
                Whereabouts::Suspended { site, until, reason } => {
                    waits(RecipientState::Ready, Some(*until), format!("site {site} is down: {reason}"))
                }
                Whereabouts::Waiting(at) => deferred(*at),
                Whereabouts::Behind(_) => deferred(due_at),
            },
        }
    }

    /// The liveliest state of a message's jobs.
    pub(super) fn message_state(&self, message: &StoredMessage, now: Timestamp) -> MessageState {
        let states: Vec<RecipientState> =
            open_groups(message).map(|group| self.describe(message, group, now).state).collect();
        let any = |wanted| states.contains(&wanted);
        if any(RecipientState::InFlight) {
            MessageState::InFlight
        } else if any(RecipientState::Ready) {
            MessageState::Ready
        } else if any(RecipientState::Held) && !any(RecipientState::Deferred) {
            MessageState::Held
        } else {
            MessageState::Deferred
        }
    }

    /// Why the message, or a part of it, is held.
    pub(super) fn held_reason(&self, message: &StoredMessage) -> Option<String> {
        open_groups(message).find_map(|group| match self.get(JobKey { id: message.id, group }) {
            Some(Place::Held(held)) => Some(held.reason.clone()),
            _ => None,
        })
    }
}

fn reason(message: &StoredMessage, group: u16) -> String {
    let state = message.pending(group).find_map(|index| message.states.get(index)?.as_ref());
    match state {
        None => "its turn".to_owned(),
        Some(state) => format!("its next attempt, after {} (rule {})", state.last_reply, state.last_rule),
    }
}
