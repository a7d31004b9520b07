//! Identities: the domains and addresses that a tenant may send as.
//!
//! A domain covers all its addresses and those of its subdomains; of several that cover an address, the most specific one
//! counts: the address itself, then its domain, then the parents from below. Local parts are compared without regard to
//! ASCII case: the owner of a domain knows no two of its addresses that differ in case only.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

use super::directory::Name;
use crate::types::{Domain, EmailAddress};

/// A domain, or one address.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum IdentityName {
    /// All addresses of this domain and its subdomains.
    Domain(Domain),
    /// This address; the local part in lower case.
    Address(Arc<str>, Domain),
}

impl IdentityName {
    /// A domain or an address; `None` where the text is neither.
    pub fn parse(text: &str) -> Option<Self> {
        if text.contains('@') {
            EmailAddress::parse(text, true).ok().map(|address| Self::of(&address))
        } else {
            Domain::parse(text).ok().map(Self::Domain)
        }
    }

    /// The name of exactly this address.
    pub fn of(address: &EmailAddress) -> Self {
        Self::Address(address.local_part().to_ascii_lowercase().into(), address.domain().clone())
    }

    /// Whether it covers `address`.
    pub fn covers(&self, address: &EmailAddress) -> bool {
        match self {
            IdentityName::Domain(own) => address.domain().with_parents().any(|parent| parent == own.as_str()),
            IdentityName::Address(local, domain) => {
                domain == address.domain() && local.eq_ignore_ascii_case(address.local_part())
            }
        }
    }

    /// The domain, or that of the address.
    pub fn domain(&self) -> &Domain {
        match self {
            IdentityName::Domain(domain) | IdentityName::Address(_, domain) => domain,
        }
    }

    /// Whether all that `other` covers is covered by this one.
    pub fn includes(&self, other: &IdentityName) -> bool {
        match (self, other) {
            (IdentityName::Address(..), _) => self == other,
            (IdentityName::Domain(own), IdentityName::Domain(domain) | IdentityName::Address(_, domain)) => {
                domain.with_parents().any(|parent| parent == own.as_str())
            }
        }
    }
}

impl fmt::Display for IdentityName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            IdentityName::Domain(domain) => f.write_str(domain.as_str()),
            IdentityName::Address(local, domain) => write!(f, "{local}@{domain}"),
        }
    }
}

impl fmt::Debug for IdentityName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// An identity and what goes with it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// The domain or address.
    pub name: IdentityName,
    /// Whose it is.
    pub tenant: Name,
    /// For messages from it that name none.
    pub configuration_set: Option<Name>,
    /// The domain of the reverse-path that hosts see: a subdomain of its domain.
    pub mail_from: Option<Domain>,
    /// Whether bounces and complaints are mailed to the sender; `None`: as those of the domain above it, else as for all.
    pub forward_feedback: Option<bool>,
    /// User names that may send as it besides the tenant's own, where they name it (`X-SES-SOURCE-ARN` and its like).
    pub delegates: Vec<Arc<str>>,
}

/// Identities by name.
#[derive(Clone, Debug, Default)]
pub(super) struct Identities {
    domains: HashMap<Domain, Arc<Identity>>,
    addresses: HashMap<IdentityName, Arc<Identity>>,
}

impl Identities {
    /// Adds one; one of the same name goes.
    pub(super) fn add(&mut self, identity: Identity) {
        match identity.name.clone() {
            IdentityName::Domain(domain) => self.domains.insert(domain, Arc::new(identity)),
            name @ IdentityName::Address(..) => self.addresses.insert(name, Arc::new(identity)),
        };
    }

    /// That of exactly this name.
    pub(super) fn named(&self, name: &IdentityName) -> Option<&Arc<Identity>> {
        match name {
            IdentityName::Domain(domain) => self.domains.get(domain),
            IdentityName::Address(..) => self.addresses.get(name),
        }
    }

    /// The most specific one that covers an address, whoever owns it.
    pub(super) fn of(&self, address: &EmailAddress) -> Option<&Arc<Identity>> {
        let exact = || self.addresses.get(&IdentityName::of(address));
        let exact = if self.addresses.is_empty() { None } else { exact() };
        exact.or_else(|| self.of_domain(address.domain()))
    }

    /// The domain identity that covers a domain: itself, or the nearest parent.
    pub(super) fn of_domain(&self, domain: &Domain) -> Option<&Arc<Identity>> {
        domain.with_parents().find_map(|name| self.domains.get(name))
    }

    /// The MAIL FROM domain of an identity: its own, or that of the nearest domain above it that its tenant owns.
    pub(super) fn mail_from<'a>(&'a self, identity: &'a Identity) -> Option<&'a Domain> {
        let inherited = || self.above(identity).find_map(|above| above.mail_from.as_ref());
        identity.mail_from.as_ref().or_else(inherited)
    }

    /// Whether its feedback is forwarded, likewise.
    pub(super) fn forward_feedback(&self, identity: &Identity) -> Option<bool> {
        identity.forward_feedback.or_else(|| self.above(identity).find_map(|above| above.forward_feedback))
    }

    /// The domains from that of the identity up, as far as its tenant owns them.
    fn above<'a>(&'a self, identity: &'a Identity) -> impl Iterator<Item = &'a Arc<Identity>> {
        let above = identity.name.domain().with_parents().filter_map(|parent| self.domains.get(parent));
        above.filter(|above| above.tenant == identity.tenant)
    }

    /// All of them, in no order.
    pub(super) fn iter(&self) -> impl Iterator<Item = &Arc<Identity>> {
        self.domains.values().chain(self.addresses.values())
    }

    /// How many.
    pub(super) fn count(&self) -> usize {
        self.domains.len() + self.addresses.len()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn address(text: &str) -> EmailAddress {
        EmailAddress::parse(text, true).unwrap()
    }

    fn name(text: &str) -> IdentityName {
        IdentityName::parse(text).unwrap()
    }

    #[test]
    fn the_most_specific_identity_counts() {
        let mut names = vec!["news@a.b.test", "a.b.test", "b.test", "test"];
        while !names.is_empty() {
            let mut identities = Identities::default();
            for text in &names {
                let tenant = Name::parse("shop").unwrap();
                identities.add(Identity {
                    name: name(text),
                    tenant,
                    configuration_set: None,
                    mail_from: None,
                    forward_feedback: None,
                    delegates: Vec::new(),
                });
            }
            let found = identities.of(&address("News@a.b.Test")).map(|identity| identity.name.to_string());
            assert_eq!(found.as_deref(), Some(names.remove(0)));
        }
        assert_eq!(Identities::default().of(&address("news@a.b.test")), None);
    }

    #[test]
    fn a_domain_covers_its_addresses_and_subdomains_and_nothing_that_only_ends_like_it() {
        for (identity, sender, covered) in [
            ("shop.test", "a@shop.test", true),
            ("Shop.TEST", "a@news.shop.test", true),
            ("shop.test", "a@workshop.test", false),
            ("shop.test", "a@shop.test.evil.test", false),
            ("shop.test", "a@test", false),
            ("news.shop.test", "a@shop.test", false),
            ("a@shop.test", "A@SHOP.test", true),
            ("a@shop.test", "a@news.shop.test", false),
            ("a@shop.test", "a+x@shop.test", false),
            ("b\u{fc}cher.test", "a@xn--bcher-kva.test", true),
        ] {
            assert_eq!(name(identity).covers(&address(sender)), covered, "{identity} {sender}");
        }
    }

    #[test]
    fn what_is_neither_a_domain_nor_an_address_is_no_identity() {
        for text in ["", "@shop.test", "a@", "shop test", "*.shop.test", "a@b@", "[192.0.2.1]"] {
            assert_eq!(IdentityName::parse(text), None, "{text}");
        }
    }

    proptest! {
        #[test]
        fn an_identity_covers_what_it_includes_and_only_that(
            labels in prop::collection::vec("[a-c]{1,2}", 1..5), own in 0_usize..5, local in "[a-z]{1,3}", other in "[a-c]{1,2}(\\.[a-c]{1,2}){0,3}"
        ) {
            let domain = labels.join(".");
            let parent = labels[own.min(labels.len() - 1)..].join(".");
            let sender = address(&format!("{local}@{domain}"));
            prop_assert!(name(&parent).covers(&sender));
            prop_assert!(name(&parent).includes(&name(&domain)));
            let is_parent = domain == other || domain.ends_with(&format!(".{other}"));
            prop_assert_eq!(name(&other).covers(&sender), is_parent);
            prop_assert_eq!(name(&other).includes(&IdentityName::of(&sender)), is_parent);
        }
    }
}
