//! Tells of mail that is sent and that receivers will not like: lines of the type `lint` in the audit stream.
//!
//! Each fault of each sender is told of once an hour, with how many messages had it since; so a campaign of a million messages is
//! a line an hour.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use crate::admission::Authority;
use crate::events::audit::{AuditEntry, AuditLog};
use crate::policy::bounded::Bounded;
use crate::types::{Domain, MessageId, Timestamp};

/// Faults that are remembered. Full: those told of more than an hour ago are forgotten; with none such, new ones are not told of.
pub const LINTS_MAX: usize = 4_096;
/// Between two lines of the same fault.
const EVERY: Duration = Duration::from_secs(3_600);

/// One for the process.
pub struct Lints {
    audit: Arc<AuditLog>,
    told: Mutex<Bounded<Fault, Told>>,
}

/// What is wrong, and whose mail it is.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Fault {
    name: &'static str,
    tenant: Box<str>,
    configuration_set: Option<Box<str>>,
    domain: Option<Domain>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Told {
    at: Timestamp,
    /// Since then.
    messages: u64,
    /// It was told of at all.
    is_told: bool,
}

impl Lints {
    /// Tells this audit stream.
    pub fn new(audit: Arc<AuditLog>) -> Self {
        Self { audit, told: Mutex::new(Bounded::new(LINTS_MAX)) }
    }

    /// Bulk mail that offers no one-click unsubscription: Gmail and Yahoo want it of who sends 5,000 a day.
    pub(super) fn one_click_missing(&self, id: MessageId, authority: &Authority, now: Timestamp) {
        self.note(id, Fault::of("one-click-missing", authority, None), now);
    }

    /// No signature of ours is aligned with the author's domain (RFC 7489 §3.1.1).
    pub(super) fn unsigned(&self, id: MessageId, author: &Domain, authority: &Authority, now: Timestamp) {
        self.note(id, Fault::of("unsigned", authority, Some(author.clone())), now);
    }

    fn note(&self, id: MessageId, fault: Fault, now: Timestamp) {
        let Some(messages) = self.count(&fault, now) else { return };
        let entry = AuditEntry::new("lint")
            .text("lint", fault.name)
            .text("tenant", fault.tenant)
            .optional("configuration_set", fault.configuration_set.as_deref())
            .optional("domain", fault.domain.as_ref().map(Domain::as_str))
            .text("message_id", id.to_string())
            .number("messages", messages);
        self.audit.note(entry);
    }

    /// Messages with the fault since it was told of last, this one included; `None`: it is not yet time to tell, or no room.
    fn count(&self, fault: &Fault, now: Timestamp) -> Option<u64> {
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        let is_fresh = |known: &Told| now.since(known.at) < EVERY;
        let known = told.entry(fault.clone(), now.millis().saturating_mul(1_000), is_fresh)?;
        known.messages += 1;
        if known.is_told && is_fresh(known) {
            return None;
        }
        Some(std::mem::replace(known, Told { at: now, messages: 0, is_told: true }).messages)
    }
}

impl Fault {
    fn of(name: &'static str, authority: &Authority, domain: Option<Domain>) -> Self {
        let tenant = authority.tenant.name.as_str().into();
        Self { name, tenant, configuration_set: authority.set_name.clone(), domain }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::SystemClock;

    #[test]
    fn a_fault_is_told_of_once_an_hour_with_its_count_and_the_table_is_bounded() {
        let lints = Lints::new(Arc::new(AuditLog::off(Arc::new(SystemClock))));
        let fault = |number: usize| Fault {
            name: "unsigned",
            tenant: number.to_string().into(),
            configuration_set: None,
            domain: None,
        };
        let at = |seconds: u64| Timestamp::from_millis(seconds * 1_000);
        assert_eq!(lints.count(&fault(0), at(0)), Some(1));
        assert_eq!(lints.count(&fault(1), at(1)), Some(1));
        assert_eq!(lints.count(&fault(0), at(10)), None);
        assert_eq!(lints.count(&fault(0), at(3_599)), None);
        assert_eq!(lints.count(&fault(0), at(3_600)), Some(3));
        assert_eq!(lints.count(&fault(0), at(3_601)), None);
        for number in 0..2 * LINTS_MAX {
            lints.count(&fault(number), at(4_000));
            assert!(lints.told.lock().unwrap().values().len() <= LINTS_MAX);
        }
    }
}
