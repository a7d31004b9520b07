//! What the outcomes of an attempt mean for the reputation of who sent the mail: docs/REPUTATION.md in code.
//!
//! A recipient counts once, when it ends. Not at all: what a suppression list held back, what an operator cancelled, our own
//! notifications, and domains that are exempt, such as a mailbox simulator's.

use std::sync::Arc;

use super::{Attempt, CANCELLED_RULE, Fate, Way};
use crate::policy::reputation::{Counting, is_hard};
use crate::queue::{RecipientOutcome, RecipientState, ReputationCharge};
use crate::types::{Mark, Sender, provider_of_site};

/// Charges of those recipients that ended. `states` are those that the settlement writes.
pub(super) fn charges(
    attempt: &Attempt<'_>,
    fates: &[Fate],
    states: &[(u32, RecipientState)],
    counting: &Counting,
) -> Vec<ReputationCharge> {
    let origin = &attempt.message.origin;
    let domain = attempt.message.domains.get(usize::from(attempt.key.group));
    if !domain.is_some_and(|domain| counting.counts(&origin.tenant, domain)) {
        return Vec::new();
    }
    assert_eq!(fates.len(), states.len(), "a settlement writes a state for each fate, in the same order");
    let mut charges: Vec<ReputationCharge> = Vec::new();
    // Recipients that went the same way one after the other share a charge.
    let mut last: Option<(&Arc<Way>, Mark)> = None;
    for (fate, (_, state)) in fates.iter().zip(states) {
        let Some(mark) = mark(fate, state) else { continue };
        let is_same = last.is_some_and(|(way, of)| Arc::ptr_eq(way, &fate.way) && of == mark);
        match charges.last_mut().filter(|_| is_same) {
            Some(charge) => charge.count += 1,
            None => {
                let scopes = sender(attempt, fate, counting).scopes();
                charges.push(ReputationCharge::new(scopes, mark, attempt.now, 1));
            }
        }
        last = Some((&fate.way, mark));
    }
    charges
}

fn mark(fate: &Fate, state: &RecipientState) -> Option<Mark> {
    if fate.as_suppressed().is_some() || &*fate.verdict.rule == CANCELLED_RULE {
        return None;
    }
    match state.outcome {
        RecipientOutcome::Pending | RecipientOutcome::Cancelled => None,
        RecipientOutcome::Delivered => Some(Mark::Delivered),
        RecipientOutcome::Expired | RecipientOutcome::Bounced => {
            Some(if is_hard(&fate.verdict) { Mark::HardBounce } else { Mark::OtherBounce })
        }
    }
}

fn sender<'a>(attempt: &'a Attempt<'_>, fate: &'a Fate, counting: &Counting) -> Sender<'a> {
    let origin = &attempt.message.origin;
    Sender {
        tenant: &origin.tenant,
        credential: &origin.caller,
        identity: &origin.identity,
        configuration_set: counting.set(&origin.configuration_set),
        pool: origin.pool.as_str(),
        source: fate.way.source_name.as_ref().map_or("", |source| source.as_str()),
        provider: fate.way.site.as_deref().and_then(provider_of_site).unwrap_or_default(),
    }
}
