//! What the outcomes of an attempt mean for the reputation of who sent the mail: docs/REPUTATION.md in code.
//!
//! A recipient counts once, when it ends. Not at all: what a suppression list held back, what an operator cancelled, our own
//! notifications, and domains that are exempt, such as a mailbox simulator's.

use std::sync::Arc;

use super::{Attempt, CANCELLED_RULE, Fate, Way};
use crate::policy::reputation::is_hard;
use crate::queue::{RecipientOutcome, RecipientState, ReputationCharge};
use crate::types::{Domain, Mark, Sender};

/// What counts.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counting {
    /// Mail to these domains does not count.
    pub exempt_domains: Vec<Domain>,
    /// The config has configuration sets; otherwise their names are those that clients think of, and nothing counts for them.
    pub has_sets: bool,
}

impl Counting {
    /// Whether mail to this domain counts.
    pub fn counts(&self, domain: &Domain) -> bool {
        !self.exempt_domains.contains(domain)
    }
}

/// The beginning of names of sites that a provider's rule knows.
const OF_PROVIDER: &str = "provider:";

/// Charges of those recipients that ended. `states` are those that the settlement writes.
pub(super) fn charges(
    attempt: &Attempt<'_>,
    fates: &[Fate],
    states: &[(u32, RecipientState)],
    counting: &Counting,
) -> Vec<ReputationCharge> {
    let origin = &attempt.message.origin;
    let domain = attempt.message.domains.get(usize::from(attempt.key.group));
    // What we write ourselves has no tenant.
    if origin.tenant.is_empty() || !domain.is_some_and(|domain| counting.counts(domain)) {
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
    let site = fate.way.site.as_deref().unwrap_or_default();
    Sender {
        tenant: &origin.tenant,
        credential: &origin.caller,
        identity: &origin.identity,
        configuration_set: if counting.has_sets { &origin.configuration_set } else { "" },
        pool: origin.pool.as_str(),
        source: fate.way.source_name.as_ref().map_or("", |source| source.as_str()),
        provider: site.strip_prefix(OF_PROVIDER).unwrap_or_default(),
    }
}
