//! Settles jobs without a connection: expired, cancelled, held, released, without a route; and sets aside what cannot be
//! read, so that one damaged record stops nothing else.

use std::sync::Arc;

use tokio::sync::mpsc;

use super::dispatch::Input;
use super::shared::Shared;
use crate::events::metric;
use crate::policy::{BounceClass, BounceType, Disposition, Fault, Rules};
use crate::queue::store::StoreError;
use crate::queue::{
    self, DueEntry, DueJob, Intake, JobKey, LoadError, Next, Queue, RecipientHeaders, RecipientState, Settlement,
    StoredBody, StoredMessage,
};
use crate::scheduler::settlement::{self, Attempt, AttemptKind, Decided, Fate, Words};
use crate::scheduler::{Lease, Payload, Settled, Verdict};
use crate::types::{EnhancedStatus, Reply, ReplyCode, Stage, Timestamp};

/// Settles one job. Returns when the settlement is on its way to the committer.
pub(super) async fn settle(shared: &Arc<Shared>, lease: Lease, verdict: Verdict, inputs: &mpsc::Sender<Input>) {
    let Some((lease, payload)) = load(shared, lease, inputs).await else { return };
    let message = &*payload.message;
    match verdict {
        Verdict::Hold(reason) => hold(shared, &lease, message, reason, inputs).await,
        Verdict::Release => {
            release(shared, &lease, message, inputs).await;
        }
        verdict => decide(shared, &lease, &payload, &verdict, inputs).await,
    }
}

/// The message of a lease: from memory, or from the queue. `None`: gone or set aside, and settled.
pub(super) async fn load(
    shared: &Arc<Shared>,
    mut lease: Lease,
    inputs: &mpsc::Sender<Input>,
) -> Option<(Lease, Payload)> {
    if let Some(payload) = lease.payload.take() {
        return Some((lease, payload));
    }
    let (key, due_at, unverified) = (lease.key, lease.due_at, lease.unverified);
    let read = shared.queue.reading(move |queue| read(queue, key, due_at, unverified)).await;
    let id = lease.key.id;
    let problem = match read {
        Ok(Ok(Found::Message(payload))) => return Some((lease, payload)),
        Ok(Ok(Found::NotAsSeen)) => {
            // An operator's command came late: the job has moved on, and nothing is to be done.
            let _ = inputs.send(Input::Gone(lease.key)).await;
            return None;
        }
        Ok(Ok(Found::NothingPending)) => {
            tracing::warn!(message_id = %id, group = lease.key.group, "a due key without anything to deliver is removed");
            move_to(shared, &lease, Next::Gone, Settled::Out, inputs).await;
            return None;
        }
        Ok(Err(LoadError::Damaged(what))) => what,
        Ok(Err(LoadError::Store(error))) => {
            postpone(shared, vec![lease.key], &error, inputs).await;
            return None;
        }
        Err(error) => format!("reading it failed: {error}"),
    };
    tracing::error!(message_id = %id, group = lease.key.group, %problem, "message is set aside as held");
    metrics::counter!(metric::DAMAGED_RECORDS, "record" => "message").increment(1);
    let entry = DueEntry { attempts: lease.attempts, ..DueEntry::default() };
    let due_at = lease.due_at.unwrap_or(Timestamp::EPOCH);
    move_to(shared, &lease, Next::Held { due_at, entry, reason: problem }, Settled::Out, inputs).await;
    None
}

/// The store does not answer: again in a minute. Nothing is written: after a restart the jobs are due as before.
pub(super) async fn postpone(shared: &Shared, keys: Vec<JobKey>, error: &StoreError, inputs: &mpsc::Sender<Input>) {
    let at = shared.clock.now().plus(std::time::Duration::from_secs(60));
    for key in keys {
        tracing::error!(message_id = %key.id, %error, "the queue cannot be read; tried again in a minute");
        let _ = inputs.send(Input::Postponed { key, at }).await;
    }
}

/// What the queue has for a lease.
enum Found {
    Message(Payload),
    /// The place that the lease names is empty.
    NotAsSeen,
    /// The message is gone, or none of the group's recipients is pending.
    NothingPending,
}

/// Blocks. A held job, and one that an operator's command made, is looked up in its place first: between what the
/// operator saw and now it may have been settled by somebody else.
fn read(queue: &Queue, key: JobKey, due_at: Option<Timestamp>, unverified: bool) -> Result<Found, LoadError> {
    let is_there = match due_at {
        None => queue.hold_of(key)?.is_some(),
        Some(due_at) => !unverified || queue.due_of(due_at, key)?.is_some(),
    };
    if !is_there {
        return Ok(Found::NotAsSeen);
    }
    let Some(message) = queue.load(key.id)? else { return Ok(Found::NothingPending) };
    if message.pending(key.group).next().is_none() {
        return Ok(Found::NothingPending);
    }
    let body = queue.body(&message)?;
    let recipient_headers = RecipientHeaders::default();
    Ok(Found::Message(Payload { message: Arc::new(message), body, recipient_headers }))
}

/// The states of pending recipients, changed.
fn changed(
    message: &StoredMessage,
    group: u16,
    change: impl Fn(RecipientState) -> RecipientState,
) -> Vec<(u32, RecipientState)> {
    let changed = |index| {
        let state = message.states.get(index).cloned().flatten().unwrap_or_default();
        (u32::try_from(index).unwrap_or(u32::MAX), change(state))
    };
    message.pending(group).map(changed).collect()
}

/// What a hold writes: the due time of a job that may have been in flight at an unclean stop says so no more once it is released.
fn held_states(lease: &Lease, message: &StoredMessage) -> Vec<(u32, RecipientState)> {
    if !lease.ambiguous {
        return Vec::new();
    }
    changed(message, lease.key.group, |state| RecipientState { ambiguous: true, ..state })
}

async fn release(shared: &Shared, lease: &Lease, message: &StoredMessage, inputs: &mpsc::Sender<Input>) {
    let at = shared.clock.now();
    let states = changed(message, lease.key.group, |state| RecipientState { next_attempt_ms: at.millis(), ..state });
    let next = Next::Due { at, entry: message.due_entry(lease.key.group, lease.attempts, None) };
    let settlement = Settlement { states, ..Settlement::new(lease.key, lease.due_at, next) };
    let settled = Settled::Due { at, attempts: lease.attempts, source: None, blocked: false };
    commit(shared, settlement, settled, lease.key, inputs).await;
}

async fn hold(shared: &Shared, lease: &Lease, message: &StoredMessage, reason: String, inputs: &mpsc::Sender<Input>) {
    let entry = message.due_entry(lease.key.group, lease.attempts, lease.source.as_ref());
    let due_at = lease.due_at.unwrap_or_else(|| shared.clock.now());
    let next = Next::Held { due_at, entry, reason };
    let settlement =
        Settlement { states: held_states(lease, message), ..Settlement::new(lease.key, lease.due_at, next) };
    commit(shared, settlement, Settled::Out, lease.key, inputs).await;
}

async fn move_to(shared: &Shared, lease: &Lease, next: Next, settled: Settled, inputs: &mpsc::Sender<Input>) {
    let settlement = Settlement::new(lease.key, lease.due_at, next);
    commit(shared, settlement, settled, lease.key, inputs).await;
}

/// Hands a settlement to the committer; the scheduler hears of it when it is written.
pub(super) async fn commit(
    shared: &Shared,
    settlement: Settlement,
    settled: Settled,
    key: JobKey,
    inputs: &mpsc::Sender<Input>,
) {
    let released = match (&settlement.next, settlement.due_at) {
        (Next::Due { at, entry }, None) => Some(DueJob { due_at: *at, key, entry: entry.clone() }),
        _ => None,
    };
    let inputs = inputs.clone();
    let done = move || {
        let input = match released {
            Some(job) => Input::Released(job),
            None => Input::Settled { key, settled },
        };
        queue::tell(&inputs, input);
    };
    shared.queue.settle(settlement, done).await;
}

async fn decide(shared: &Shared, lease: &Lease, payload: &Payload, verdict: &Verdict, inputs: &mpsc::Sender<Input>) {
    let message = &*payload.message;
    let now = shared.clock.now();
    let rules = Arc::clone(&shared.reloadable().rules);
    let fates: Vec<Fate> =
        message.pending(lease.key.group).map(|index| fate(verdict, message, index, now, &rules)).collect();
    let first_part;
    let original: &[u8] = match &payload.body {
        StoredBody::Inline(bytes) => bytes,
        StoredBody::Parts { .. } => {
            let id = lease.key.id;
            let part = shared.queue.reading(move |queue| queue.body_part(id, 0)).await;
            first_part = part.ok().and_then(Result::ok).unwrap_or_default();
            &first_part
        }
    };
    let kind = match verdict {
        Verdict::Routing(_) => AttemptKind::Counts,
        Verdict::Notice(_) => AttemptKind::Notice,
        _ => AttemptKind::Decision,
    };
    let (key, due_at) = (lease.key, lease.due_at);
    let (ambiguous, blocks, source) = (lease.ambiguous, lease.blocks, lease.source.clone());
    let attempt = Attempt { message, key, due_at, now, ambiguous, kind, blocks, source, original };
    let reloadable = shared.reloadable();
    let mut new_id = || shared.queue.new_id();
    let Decided { settlement, settled, tally } =
        settlement::settle(&attempt, &fates, &reloadable.settlement, &mut new_id);
    shared.counts.add(&tally);
    commit(shared, settlement, settled, lease.key, inputs).await;
}

/// A peer's reply as it stands in a recipient's state: `450 4.2.0 text`.
fn parse_reply(text: &str) -> Option<Reply> {
    let (code, rest) = text.split_at_checked(3)?;
    let code = ReplyCode::new(code.parse().ok()?)?;
    let rest = rest.strip_prefix(' ').unwrap_or(rest);
    let (first, remainder) = rest.split_once(' ').unwrap_or((rest, ""));
    match first.parse::<EnhancedStatus>() {
        Ok(status) => Some(Reply::new(code, Some(status), vec![remainder.into()])),
        Err(()) => Some(Reply::new(code, None, vec![rest.into()])),
    }
}

fn fate(verdict: &Verdict, message: &StoredMessage, index: usize, now: Timestamp, rules: &Rules) -> Fate {
    let last_reply = message.states.get(index).and_then(Option::as_ref).map(|state| state.last_reply.clone());
    let local = |rule: &str, class, disposition, (a, b, c), text: String| {
        let mut verdict = Fault::ConnectionLost.verdict();
        (verdict.rule, verdict.class, verdict.disposition) = (rule.into(), class, disposition);
        let status = EnhancedStatus::new(a, b, c).expect("classes 4 and 5 with small numbers only");
        Fate { index, verdict, status, words: Words::Local(text), way: Arc::default() }
    };
    match verdict {
        Verdict::Routing(failure) => settlement::routing_fate(failure, message, index, now),
        Verdict::Notice(reason) => {
            local("site-suspended", BounceClass::Connection, Disposition::Deferred, (4, 4, 1), reason.clone())
        }
        Verdict::Cancelled => {
            let text = "cancelled by the operator".to_owned();
            let mut fate =
                local(settlement::CANCELLED_RULE, BounceClass::Policy, Disposition::Bounced, (5, 7, 0), text);
            fate.verdict.bounce_type = BounceType::Undetermined;
            fate
        }
        Verdict::Expired(reason) => match last_reply.as_deref().and_then(parse_reply) {
            // The stage is not kept; a reply that deferred a recipient came to RCPT or later.
            Some(reply) => {
                let verdict = rules.classify(&reply, Stage::Rcpt, None).expired();
                let status = EnhancedStatus::new(4, 4, 7).expect("class 4");
                Fate { index, verdict, status, words: Words::Reply(reply), way: Arc::default() }
            }
            None => {
                let last = last_reply.filter(|text| !text.is_empty()).or_else(|| reason.clone());
                let text = match last {
                    Some(last) => format!("not delivered before its lifetime ended; last reason: {last}"),
                    None => "not delivered before its lifetime ended".to_owned(),
                };
                local("expired", BounceClass::Expired, Disposition::Bounced, (4, 4, 7), text)
            }
        },
        Verdict::Hold(_) | Verdict::Release => unreachable!("holding and releasing settle no recipient"),
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::queue::{NewBody, testing::new_message};
    use crate::types::MessageId;

    #[test]
    fn a_job_that_is_held_keeps_the_mark_of_an_unclean_stop() {
        let id = MessageId::new(Timestamp::EPOCH, 1);
        let new = new_message(id, 2, NewBody::Inline(Bytes::from_static(b"\r\n")));
        let message = StoredMessage::from_new(&new);
        let lease = |ambiguous| Lease { ambiguous, ..Lease::of(JobKey { id, group: 1 }, Some(Timestamp::EPOCH)) };
        assert_eq!(held_states(&lease(false), &message), []);
        let [(1, state)] = &held_states(&lease(true), &message)[..] else { panic!("one recipient of the group") };
        assert!(state.ambiguous);
    }
}
