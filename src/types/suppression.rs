//! Why, and by which list, mail to an address is held back.

use std::fmt;

/// Why an address is on a suppression list.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum SuppressionReason {
    /// Mail to it bounced for good.
    Bounce,
    /// Its owner complained.
    Complaint,
}

impl SuppressionReason {
    /// Both.
    pub const ALL: [SuppressionReason; 2] = [SuppressionReason::Bounce, SuppressionReason::Complaint];

    /// As SES spells it.
    pub const fn name(self) -> &'static str {
        match self {
            SuppressionReason::Bounce => "BOUNCE",
            SuppressionReason::Complaint => "COMPLAINT",
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

impl fmt::Display for Suppressed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let list = match self.tier {
            SuppressionTier::Global => "the global suppression list",
            SuppressionTier::Tenant => "the tenant's suppression list",
            SuppressionTier::Set => "the configuration set's suppression list",
        };
        write!(f, "not sent: the address is on {list} ({})", self.reason)
    }
}
