//! For which reasons addresses go on a tenant's suppression list by themselves: what the configuration set of the message says, else
//! what the tenant says, else for both. Plain data, as the config has it.

use std::collections::HashMap;

use crate::types::{SuppressionReason, SuppressionReasons};

/// See the module.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Listing {
    /// Of configuration sets that have a setting of their own.
    pub sets: HashMap<Box<str>, SuppressionReasons>,
    /// Of tenants.
    pub tenants: HashMap<Box<str>, SuppressionReasons>,
}

impl Listing {
    /// Whether an address goes on the list of the tenant of a message of this set (empty: none) for this reason.
    pub fn lists(&self, tenant: &str, set: &str, reason: SuppressionReason) -> bool {
        self.sets.get(set).or_else(|| self.tenants.get(tenant)).copied().unwrap_or_default().has(reason)
    }
}

#[cfg(test)]
mod tests {
    use super::SuppressionReason::{Bounce, Complaint};
    use super::*;

    #[test]
    fn the_set_decides_then_the_tenant_then_both_reasons_count() {
        let bounce = SuppressionReasons { bounce: true, complaint: false };
        let none = SuppressionReasons { bounce: false, complaint: false };
        let listing = Listing {
            sets: HashMap::from([("quiet".into(), none), ("bounces".into(), bounce)]),
            tenants: HashMap::from([("shop".into(), bounce), ("lab".into(), none)]),
        };
        for (tenant, set, expected) in [
            ("shop", "", (true, false)),
            ("shop", "other", (true, false)),
            ("shop", "quiet", (false, false)),
            ("lab", "bounces", (true, false)),
            ("lab", "", (false, false)),
            ("gone", "", (true, true)),
        ] {
            let lists = (listing.lists(tenant, set, Bounce), listing.lists(tenant, set, Complaint));
            assert_eq!(lists, expected, "{tenant} {set}");
        }
    }
}
