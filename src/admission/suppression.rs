//! Which entries of suppression lists hold mail back.
//!
//! | list | holds mail back |
//! |---|---|
//! | configuration set's | for the reasons of the set's setting, or of the tenant's where the set has none; for unsubscription always |
//! | tenant's | for the same reasons |
//! | global | always |
//!
//! Where several hold, the one nearest to the sender is named: set, tenant, global. So an address on the global list and on
//! the tenant's is told of as the tenant's.

use std::sync::Arc;

use arc_swap::ArcSwap;

use super::directory::Directory;
use crate::net::BoxFuture;
use crate::queue::Queue;
use crate::queue::store::StoreError;
use crate::queue::suppression::{Listed, SuppressionCheck};
use crate::types::{EmailAddress, Suppressed, SuppressionReason, SuppressionReasons, SuppressionTier};

/// What holds mail back of the lists that an address is on.
pub fn decide(listed: Listed, tenant: SuppressionReasons, set: Option<SuppressionReasons>) -> Option<Suppressed> {
    let reasons = set.unwrap_or(tenant);
    let holds = |reason: &SuppressionReason| reasons.has(*reason);
    let own = [(SuppressionTier::Set, listed.set), (SuppressionTier::Tenant, listed.tenant)];
    let own = own.into_iter().filter_map(|(tier, reason)| Some((tier, reason.filter(holds)?)));
    let global = listed.global.map(|reason| (SuppressionTier::Global, reason));
    own.chain(global).next().map(|(tier, reason)| Suppressed { tier, reason })
}

/// What is played by the mailbox of the simulator that is on the global list.
const LISTED_MAILBOX: &str = "suppressionlist";

/// The mailbox of the simulator that is as if on the global list, for a bounce. In the order of the addresses.
fn add_simulated(listed: &mut Vec<(usize, Listed)>, directory: &Directory, addresses: &[&EmailAddress]) {
    let is_listed = |address: &EmailAddress| {
        let name = address.local_part().split('+').next().unwrap_or_default();
        directory.is_simulated(address) && name.eq_ignore_ascii_case(LISTED_MAILBOX)
    };
    for (position, _) in addresses.iter().enumerate().filter(|(_, address)| is_listed(address)) {
        match listed.binary_search_by_key(&position, |(position, _)| *position) {
            Ok(at) => {
                if let Some((_, listed)) = listed.get_mut(at) {
                    listed.global.get_or_insert(SuppressionReason::Bounce);
                }
            }
            Err(at) => {
                let global = Some(SuppressionReason::Bounce);
                listed.insert(at, (position, Listed { global, ..Listed::default() }));
            }
        }
    }
}

/// The lists of the queue, read as the directory says.
pub struct Lists {
    queue: Queue,
    directory: Arc<ArcSwap<Directory>>,
}

impl Lists {
    /// The directory is looked at anew with each check.
    pub fn new(queue: Queue, directory: Arc<ArcSwap<Directory>>) -> Self {
        Self { queue, directory }
    }
}

impl SuppressionCheck for Lists {
    fn is_idle(&self) -> bool {
        !self.queue.has_suppressions() && self.directory.load().simulator.is_none()
    }

    fn check<'a>(
        &'a self,
        tenant: &'a str,
        set: Option<&'a str>,
        addresses: &'a [&'a EmailAddress],
    ) -> BoxFuture<'a, Result<Vec<(usize, Suppressed)>, StoreError>> {
        Box::pin(async move {
            let mut listed = self.queue.listed(tenant, set, addresses).await?;
            let directory = self.directory.load();
            add_simulated(&mut listed, &directory, addresses);
            if listed.is_empty() {
                return Ok(Vec::new());
            }
            // A tenant that a reload took away: what it had is not known any more.
            let of_tenant =
                directory.tenant(tenant).map_or_else(SuppressionReasons::default, |tenant| tenant.suppression);
            let of_set = set.and_then(|set| directory.set(set)).and_then(|set| set.suppression);
            let held = listed.into_iter().filter_map(|(position, listed)| {
                decide(listed, of_tenant, of_set).map(|suppressed| (position, suppressed))
            });
            Ok(held.collect())
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::SuppressionReason::{Bounce, Complaint, Unsubscribe};
    use super::SuppressionTier::{Global, Set, Tenant};
    use super::*;

    const NONE: SuppressionReasons = SuppressionReasons { bounce: false, complaint: false };
    const BOUNCE: SuppressionReasons = SuppressionReasons { bounce: true, complaint: false };
    const COMPLAINT: SuppressionReasons = SuppressionReasons { bounce: false, complaint: true };
    const BOTH: SuppressionReasons = SuppressionReasons { bounce: true, complaint: true };

    /// Global, tenant, set.
    fn listed(reasons: [Option<SuppressionReason>; 3]) -> Listed {
        let [global, tenant, set] = reasons;
        Listed { global, tenant, set }
    }

    #[test]
    fn the_precedence_table() {
        let (b, c, u) = (Some(Bounce), Some(Complaint), Some(Unsubscribe));
        let table = [
            ([None, None, None], BOTH, None, None),
            ([b, None, None], NONE, None, Some((Global, Bounce))),
            ([c, None, None], NONE, Some(NONE), Some((Global, Complaint))),
            ([None, b, None], BOTH, None, Some((Tenant, Bounce))),
            ([None, c, None], BOTH, None, Some((Tenant, Complaint))),
            ([None, b, None], COMPLAINT, None, None),
            ([None, c, None], BOUNCE, None, None),
            ([None, b, None], NONE, None, None),
            // The set's setting takes the tenant's place, in both directions.
            ([None, b, None], BOTH, Some(NONE), None),
            ([None, b, None], BOTH, Some(COMPLAINT), None),
            ([None, c, None], BOTH, Some(COMPLAINT), Some((Tenant, Complaint))),
            ([None, b, None], NONE, Some(BOUNCE), Some((Tenant, Bounce))),
            ([None, None, b], NONE, Some(BOTH), Some((Set, Bounce))),
            ([None, None, b], BOTH, Some(COMPLAINT), None),
            ([None, None, c], BOTH, None, Some((Set, Complaint))),
            // Who unsubscribed is spared whatever the sender says.
            ([None, None, u], NONE, Some(NONE), Some((Set, Unsubscribe))),
            ([None, u, None], NONE, None, Some((Tenant, Unsubscribe))),
            // The nearest that holds is named.
            ([b, b, c], BOTH, None, Some((Set, Complaint))),
            ([b, b, c], BOUNCE, None, Some((Tenant, Bounce))),
            ([b, c, c], BOUNCE, None, Some((Global, Bounce))),
            ([c, b, None], BOTH, Some(NONE), Some((Global, Complaint))),
        ];
        for (reasons, tenant, set, expected) in table {
            let expected = expected.map(|(tier, reason)| Suppressed { tier, reason });
            assert_eq!(decide(listed(reasons), tenant, set), expected, "{reasons:?} {tenant:?} {set:?}");
        }
    }

    #[test]
    fn one_mailbox_of_the_simulator_is_as_if_on_the_global_list_and_no_other_address_is() {
        let mut directory = Directory::relay_only(Vec::new(), std::time::Duration::from_secs(1));
        let addresses: Vec<EmailAddress> = [
            "suppressionlist@else.test",
            "SuppressionList+order.17@simulator.test",
            "success@simulator.test",
            "suppressionlist@below.simulator.test",
            "suppressionlist@simulator.test",
        ]
        .iter()
        .map(|text| EmailAddress::parse(text, false).unwrap())
        .collect();
        let addresses: Vec<&EmailAddress> = addresses.iter().collect();
        // Lists of others hold as ever, in the order of the addresses.
        let known = vec![(2, listed([None, Some(Complaint), None])), (4, listed([None, Some(Bounce), None]))];
        let mut found = known.clone();
        add_simulated(&mut found, &directory, &addresses);
        assert_eq!(found, known, "there is no simulator");
        directory.simulator = Some(crate::types::Domain::parse("simulator.test").unwrap());
        add_simulated(&mut found, &directory, &addresses);
        let global = listed([Some(Bounce), None, None]);
        assert_eq!(found, [(1, global), known[0], (4, listed([Some(Bounce), Some(Bounce), None]))]);
    }

    fn reasons() -> impl Strategy<Value = SuppressionReasons> {
        (any::<bool>(), any::<bool>()).prop_map(|(bounce, complaint)| SuppressionReasons { bounce, complaint })
    }

    fn reason() -> impl Strategy<Value = Option<SuppressionReason>> {
        prop::sample::select(vec![None, Some(Bounce), Some(Complaint), Some(Unsubscribe)])
    }

    proptest! {
        #[test]
        fn what_is_named_is_on_that_list_and_holds(
            on in [reason(), reason(), reason()],
            tenant in reasons(),
            set in prop::option::of(reasons()),
        ) {
            let listed = listed(on);
            let effective = set.unwrap_or(tenant);
            let holds = |reason: Option<SuppressionReason>| match reason {
                None => false,
                Some(Bounce) => effective.bounce,
                Some(Complaint) => effective.complaint,
                Some(Unsubscribe) => true,
            };
            match decide(listed, tenant, set) {
                None => prop_assert!(listed.global.is_none() && !holds(listed.tenant) && !holds(listed.set)),
                Some(Suppressed { tier: Global, reason }) => {
                    prop_assert_eq!(listed.global, Some(reason));
                    prop_assert!(!holds(listed.tenant) && !holds(listed.set));
                }
                Some(Suppressed { tier: Tenant, reason }) => {
                    prop_assert_eq!(listed.tenant, Some(reason));
                    prop_assert!(holds(Some(reason)) && !holds(listed.set));
                }
                Some(Suppressed { tier: Set, reason }) => {
                    prop_assert_eq!(listed.set, Some(reason));
                    prop_assert!(holds(Some(reason)));
                }
            }
        }

        #[test]
        fn the_tenants_setting_does_not_matter_where_the_set_has_one(
            on in [reason(), reason(), reason()],
            tenants in (reasons(), reasons()),
            set in reasons(),
        ) {
            prop_assert_eq!(decide(listed(on), tenants.0, Some(set)), decide(listed(on), tenants.1, Some(set)));
        }
    }
}
