//! Where each job of a message is right now, in the words of the admin API: no silent wait (design.md, promise 7).

use std::collections::HashMap;

use super::admin::model::{MessageState, RecipientState};
use crate::queue::{DueJob, HeldJob, JobKey, LoadError, Queue, StoredMessage};
use crate::scheduler::explanation::{Before, Cause};
use crate::scheduler::{SiteName, Whereabouts};
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
    /// When that ends by time alone.
    pub(super) until: Option<Timestamp>,
    /// The rule behind it.
    pub(super) rule: Option<String>,
    /// The reply or failure behind it.
    pub(super) reply: Option<String>,
    /// In whose line it stands.
    pub(super) site: Option<String>,
}

impl Description {
    fn new(state: RecipientState, next_attempt_at: Option<Timestamp>, waits_for: String) -> Self {
        let waits_for = Some(waits_for).filter(|text| !text.is_empty());
        Self { state, next_attempt_at, waits_for, until: next_attempt_at, rule: None, reply: None, site: None }
    }
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
        match self.get(JobKey { id: message.id, group }) {
            None => deferred(message, group, message.due_at(group), now),
            Some(Place::Held(held)) => {
                let text = if held.reason.is_empty() { "an operator" } else { &held.reason };
                Description::new(RecipientState::Held, None, format!("held: {text}"))
            }
            Some(Place::Scheduled(whereabouts)) => scheduled(whereabouts, message, group, now),
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

fn scheduled(whereabouts: &Whereabouts, message: &StoredMessage, group: u16, now: Timestamp) -> Description {
    let ready = |until, text| Description::new(RecipientState::Ready, until, text);
    match whereabouts {
        Whereabouts::InFlight => Description::new(RecipientState::InFlight, None, String::new()),
        Whereabouts::Resolving => ready(None, "DNS answers for its domain".to_owned()),
        Whereabouts::Ready { site, cause, before } => {
            let (rule, reply) = cause.because();
            Description {
                rule: rule.map(str::to_owned),
                reply: reply.map(str::to_owned),
                site: Some(site.to_string()),
                ..ready(cause.until(), line_text(site, cause, *before))
            }
        }
        Whereabouts::Suspended { site, until, reason } => Description {
            reply: Some(reason.clone()),
            site: Some(site.to_string()),
            ..ready(Some(*until), format!("site {site} is down: {reason}"))
        },
        Whereabouts::Waiting(at) => deferred(message, group, *at, now),
        Whereabouts::Behind(inner) => scheduled(inner, message, group, now),
    }
}

fn line_text(site: &SiteName, cause: &Cause, before: Before) -> String {
    match cause {
        Cause::Turn => format!("its turn at {site}: {before}"),
        cause if before == Before::default() => format!("{site}: {cause}"),
        cause => format!("{site}: {cause}; {before}"),
    }
}

/// A job that waits for its time.
fn deferred(message: &StoredMessage, group: u16, at: Timestamp, now: Timestamp) -> Description {
    let state = if at <= now { RecipientState::Ready } else { RecipientState::Deferred };
    let last = message.pending(group).find_map(|index| message.states.get(index)?.as_ref());
    let Some(last) = last else { return Description::new(state, Some(at), "its turn".to_owned()) };
    let text = format!("its next attempt, after {} (rule {})", last.last_reply, last.last_rule);
    let said = |text: &str| Some(text.to_owned()).filter(|text| !text.is_empty());
    Description {
        rule: said(&last.last_rule),
        reply: said(&last.last_reply),
        ..Description::new(state, Some(at), text)
    }
}
