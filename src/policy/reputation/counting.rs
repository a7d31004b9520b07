//! What counts for reputation at all: the same for what a session ends with and for what comes home later.

use crate::types::Domain;

/// See the module.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counting {
    /// Mail to these domains does not count.
    pub exempt_domains: Vec<Domain>,
    /// The config has configuration sets; otherwise their names are those that clients think of, and nothing counts for them.
    pub has_sets: bool,
}

impl Counting {
    /// Whether mail of this tenant to this domain counts. What we write ourselves has no tenant.
    pub fn counts(&self, tenant: &str, domain: &Domain) -> bool {
        !tenant.is_empty() && !self.exempt_domains.contains(domain)
    }

    /// The configuration set that it counts for; empty: none.
    pub fn set<'a>(&self, name: &'a str) -> &'a str {
        if self.has_sets { name } else { "" }
    }
}
