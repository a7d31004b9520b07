//! What is remembered of a recipient that ends here, for reports that come later.

use super::{Draft, Fate};
use crate::queue::{RecipientOutcome, RecipientState, SentEnd, SentEntry};

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
}
