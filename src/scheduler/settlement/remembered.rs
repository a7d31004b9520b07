//! What is remembered of a recipient that ends here: for reports that come later, and for mail to it that comes later.

use std::collections::BTreeSet;

use super::{Draft, Fate};
use crate::events::EventLine;
use crate::policy::Verdict;
use crate::queue::suppression::SuppressionEntry;
use crate::queue::telling::Telling;
use crate::queue::{RecipientOutcome, RecipientState, SentEnd, SentEntry};
use crate::types::SuppressionReason;

impl Draft<'_, '_> {
    /// Not of a recipient that no attempt was made for: nothing can come back.
    pub(super) fn remember(&mut self, fate: &Fate, state: &RecipientState) {
        if state.outcome == RecipientOutcome::Pending || state.attempts == 0 {
            return;
        }
        let end = SentEnd {
            index: fate.index,
            outcome: state.outcome,
            at: self.attempt.now,
            source: fate.way.source_name.as_ref(),
            site: fate.way.site.as_deref(),
        };
        self.settlement.sent.extend(SentEntry::of(self.attempt.message, &end));
    }

    /// Where an attempt was made before, its host may have reported by now what ends here.
    pub(super) fn tell_bounce(&mut self, index: usize, event: EventLine) {
        match u16::try_from(index) {
            Ok(index) if self.was_tried => {
                let telling = Telling { recipients: vec![index], events: vec![event], ..Telling::default() };
                self.settlement.tellings.push(telling);
            }
            _ => self.settlement.events.push(event),
        }
    }

    /// The notification of failures, the first one, where all of them may have been reported.
    pub(super) fn tell_failures_once(&mut self) {
        let may_be_known: BTreeSet<u16> =
            self.settlement.tellings.iter().flat_map(|telling| &telling.recipients).copied().collect();
        let failed: Vec<u16> = self.told.failed().filter_map(|index| u16::try_from(index).ok()).collect();
        let notifications = &mut self.settlement.notifications;
        if notifications.is_empty() || failed.is_empty() || !failed.iter().all(|index| may_be_known.contains(index)) {
            return;
        }
        let notifications = vec![notifications.remove(0)];
        self.settlement.tellings.push(Telling { recipients: failed, notifications, ..Telling::default() });
    }

    /// An address where nobody is goes on the list of its tenant, where that wants it. Not where mail does not count.
    pub(super) fn list(&mut self, fate: &Fate, verdict: &Verdict, state: &RecipientState) {
        let message = self.attempt.message;
        let (tenant, set) = (&message.origin.tenant, &message.origin.configuration_set);
        let is_told = state.outcome == RecipientOutcome::Bounced && fate.as_suppressed().is_none();
        if !is_told || !verdict.says_nobody_is_there() {
            return;
        }
        let Some(recipient) = message.envelope.recipients.get(fate.index) else { return };
        let is_wanted = self.settings.listing.lists(tenant, set, SuppressionReason::Bounce);
        if is_wanted && self.settings.counting.counts(tenant, recipient.address.domain()) {
            let (reason, by, now) = (SuppressionReason::Bounce, ("bounce", message.id), self.attempt.now);
            let entry = SuppressionEntry::of_tenant(tenant, &recipient.address, reason, by, now);
            self.settlement.suppress.push(entry);
        }
    }
}
