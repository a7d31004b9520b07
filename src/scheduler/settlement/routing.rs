//! What becomes of recipients whose domain has no route.

use std::sync::Arc;

use super::{Fate, NXDOMAIN_SECOND_LOOK, Words};
use crate::policy::{Disposition, Fault, RetryKind};
use crate::queue::StoredMessage;
use crate::scheduler::{RoutingFailure, RoutingFailureKind};
use crate::types::Timestamp;

/// The fate of a recipient whose domain has no route. NXDOMAIN bounces at a second look, some time after the first.
pub fn routing_fate(failure: &RoutingFailure, message: &StoredMessage, index: usize, now: Timestamp) -> Fate {
    let state = message.states.get(index).and_then(Option::as_ref);
    let looked_before = state.is_some_and(|state| {
        let since = now.since(Timestamp::from_millis(state.last_attempt_ms));
        state.last_rule == failure.rule && since >= NXDOMAIN_SECOND_LOOK
    });
    let mut verdict = match failure.kind {
        RoutingFailureKind::Permanent => Fault::NoAddress.verdict(),
        RoutingFailureKind::NoSuchDomain => Fault::NoSuchDomain.verdict(),
        RoutingFailureKind::Temporary => Fault::DnsFailed.verdict(),
    };
    verdict.rule = failure.rule.into();
    if failure.kind == RoutingFailureKind::NoSuchDomain && !looked_before {
        verdict.disposition = Disposition::Deferred;
        verdict.retry = RetryKind::Normal;
        verdict.retry_after = Some(NXDOMAIN_SECOND_LOOK);
    }
    let words = Words::Local(failure.text.clone());
    Fate { index, verdict, status: failure.status, words, way: Arc::default() }
}
