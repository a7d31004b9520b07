//! Why, and by which list, mail to an address is held back.

use std::fmt;

use super::BounceKind;

/// Why an address is on a suppression list.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum SuppressionReason {
    /// Mail to it bounced for good.
    Bounce,
    /// Its owner complained.
    Complaint,
    /// Its owner wants no more of this kind.
    Unsubscribe,
}

impl SuppressionReason {
    /// All of them.
    pub const ALL: [SuppressionReason; 3] =
        [SuppressionReason::Bounce, SuppressionReason::Complaint, SuppressionReason::Unsubscribe];

    /// As SES spells it; the last one is ours.
    pub const fn name(self) -> &'static str {
        match self {
            SuppressionReason::Bounce => "BOUNCE",
            SuppressionReason::Complaint => "COMPLAINT",
            SuppressionReason::Unsubscribe => "UNSUBSCRIBE",
        }
    }

    /// As metrics and the command line spell it.
    pub const fn label(self) -> &'static str {
        match self {
            SuppressionReason::Bounce => "bounce",
            SuppressionReason::Complaint => "complaint",
            SuppressionReason::Unsubscribe => "unsubscribe",
        }
    }

    /// Reads [`SuppressionReason::name`], in letters of any case.
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|reason| reason.name().eq_ignore_ascii_case(text))
    }
}

impl fmt::Display for SuppressionReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// The reasons that count for somebody: for which mail is held back, and for which addresses go on the list by themselves. Whoever
/// unsubscribed counts always: that is not the sender's to choose.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SuppressionReasons {
    /// Addresses that bounced for good.
    pub bounce: bool,
    /// Addresses whose owner complained.
    pub complaint: bool,
}

impl Default for SuppressionReasons {
    /// Both.
    fn default() -> Self {
        Self { bounce: true, complaint: true }
    }
}

impl SuppressionReasons {
    /// Whether this one counts.
    pub const fn has(self, reason: SuppressionReason) -> bool {
        match reason {
            SuppressionReason::Bounce => self.bounce,
            SuppressionReason::Complaint => self.complaint,
            SuppressionReason::Unsubscribe => true,
        }
    }
}

/// Whose list it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum SuppressionTier {
    /// The operator's, for all mail.
    Global,
    /// A tenant's: what SES calls the account's.
    Tenant,
    /// A configuration set's.
    Set,
}

impl SuppressionTier {
    /// All, the widest first.
    pub const ALL: [SuppressionTier; 3] = [SuppressionTier::Global, SuppressionTier::Tenant, SuppressionTier::Set];

    /// As metrics name it.
    pub const fn name(self) -> &'static str {
        match self {
            SuppressionTier::Global => "global",
            SuppressionTier::Tenant => "tenant",
            SuppressionTier::Set => "configuration_set",
        }
    }

    /// The rule that events of recipients held back by it name.
    pub const fn rule(self) -> &'static str {
        match self {
            SuppressionTier::Global => "suppressed-global",
            SuppressionTier::Tenant => "suppressed-tenant",
            SuppressionTier::Set => "suppressed-configuration-set",
        }
    }
}

/// What holds mail to an address back.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Suppressed {
    /// Whose list.
    pub tier: SuppressionTier,
    /// Why the address is on it.
    pub reason: SuppressionReason,
}

impl Suppressed {
    /// Our own words for it.
    pub const fn text(self) -> &'static str {
        use SuppressionReason::{Bounce, Complaint, Unsubscribe};
        match (self.tier, self.reason) {
            (SuppressionTier::Global, Bounce) => "not sent: the address is on the global suppression list (BOUNCE)",
            (SuppressionTier::Global, Complaint) => {
                "not sent: the address is on the global suppression list (COMPLAINT)"
            }
            (SuppressionTier::Global, Unsubscribe) => {
                "not sent: the address is on the global suppression list (UNSUBSCRIBE)"
            }
            (SuppressionTier::Tenant, Bounce) => "not sent: the address is on the tenant's suppression list (BOUNCE)",
            (SuppressionTier::Tenant, Complaint) => {
                "not sent: the address is on the tenant's suppression list (COMPLAINT)"
            }
            (SuppressionTier::Tenant, Unsubscribe) => {
                "not sent: the address is on the tenant's suppression list (UNSUBSCRIBE)"
            }
            (SuppressionTier::Set, Bounce) => {
                "not sent: the address is on the configuration set's suppression list (BOUNCE)"
            }
            (SuppressionTier::Set, Complaint) => {
                "not sent: the address is on the configuration set's suppression list (COMPLAINT)"
            }
            (SuppressionTier::Set, Unsubscribe) => {
                "not sent: the address is on the configuration set's suppression list (UNSUBSCRIBE)"
            }
        }
    }

    /// It is told of as a complaint: the owner of the address complained to this tenant. An entry of the global list is
    /// always told of as a bounce.
    pub fn is_complaint(self) -> bool {
        self.tier != SuppressionTier::Global && self.reason == SuppressionReason::Complaint
    }

    /// What it is told of as where it is a bounce.
    pub const fn bounce_kind(self) -> BounceKind {
        match (self.tier, self.reason) {
            (SuppressionTier::Global, _) => BounceKind::PermanentSuppressed,
            (_, SuppressionReason::Unsubscribe) => BounceKind::PermanentUnsubscribedRecipient,
            _ => BounceKind::PermanentOnAccountSuppressionList,
        }
    }
}
