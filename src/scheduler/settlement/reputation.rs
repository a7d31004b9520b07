//! What the outcomes of an attempt mean for the reputation of who sent the mail: docs/REPUTATION.md in code.
//!
//! A recipient counts once, when it ends. Not at all: what a suppression list held back, what an operator cancelled, our own
//! notifications, and domains that are exempt, such as a mailbox simulator's.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::{Attempt, CANCELLED_RULE, Fate, Way};
use crate::policy::reputation::{Counting, is_hard};
use crate::queue::{RecipientOutcome, RecipientState, ReputationCharge, Settlement};
use crate::types::{Mark, Sender, provider_of_site};

/// Puts the charges of those recipients that ended into the settlement, which has their states: of what reports may have told before, to what
/// tells of it.
pub(super) fn charge(settlement: &mut Settlement, attempt: &Attempt<'_>, fates: &[Fate], counting: &Counting) {
    let Settlement { states, tellings, marks, .. } = settlement;
    assert_eq!(fates.len(), states.len(), "a settlement writes a state for each fate, in the same order");
    let ends = fates.iter().zip(states.iter());
    if tellings.is_empty() {
        *marks = charges(attempt, ends.map(|(fate, (_, state))| (fate, state)), counting);
        return;
    }
    let mut ends: BTreeMap<_, _> = ends.map(|(fate, (index, state))| (*index, (fate, state))).collect();
    for telling in tellings.iter_mut().filter(|telling| telling.notifications.is_empty()) {
        let of_it: Vec<_> = telling.recipients.iter().filter_map(|index| ends.remove(&u32::from(*index))).collect();
        telling.marks = charges(attempt, of_it.into_iter(), counting);
    }
    *marks = charges(attempt, ends.into_values(), counting);
}

fn charges<'a>(
    attempt: &Attempt<'_>,
    ends: impl Iterator<Item = (&'a Fate, &'a RecipientState)>,
    counting: &Counting,
) -> Vec<ReputationCharge> {
    let origin = &attempt.message.origin;
    let domain = attempt.message.domains.get(usize::from(attempt.key.group));
    if !domain.is_some_and(|domain| counting.counts(&origin.tenant, domain)) {
        return Vec::new();
    }
    let mut charges: Vec<ReputationCharge> = Vec::new();
    // Recipients that went the same way one after the other share a charge.
    let mut last: Option<(&Arc<Way>, Mark)> = None;
    for (fate, state) in ends {
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
