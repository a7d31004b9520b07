//! What mail is sent from and in which order: names of pools and sources, priorities.

use std::borrow::Borrow;
use std::fmt;
use std::sync::Arc;

/// Octets of the name of a pool or source.
const NAME_BYTES_MAX: usize = 64;

/// Defines a name of 1 to 64 octets of `A-Za-z0-9._:-`: cheap to clone, ordered by its text.
macro_rules! name {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(Arc<str>);

        impl $name {
            /// `None` where the text is not 1 to 64 of `A-Za-z0-9._:-`.
            pub fn parse(text: &str) -> Option<Self> {
                is_name(text).then(|| Self(text.into()))
            }

            /// The text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl Borrow<str> for $name {
            fn borrow(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
    };
}

name! {
    /// The name of a pool: a set of sources.
    PoolName
}

name! {
    /// The name of a source: one local address with its EHLO name. An IP address is such a name.
    SourceName
}

impl PoolName {
    /// The pool of all mail for which nothing else is said.
    pub const DEFAULT: &'static str = "default";

    /// The pool of all mail to the mailbox simulator. No pool of a config has this name where there is one.
    pub fn simulator() -> Self {
        Self(SIMULATOR.into())
    }
}

impl Default for PoolName {
    /// [`PoolName::DEFAULT`].
    fn default() -> Self {
        Self(Self::DEFAULT.into())
    }
}

impl SourceName {
    /// The source of the default pool where the config names none: the system chooses the address.
    pub const SYSTEM: &'static str = "system";

    /// What mail to the mailbox simulator leaves from. No source of a config has this name where there is one.
    pub fn simulator() -> Self {
        Self(SIMULATOR.into())
    }

    /// The name of an address of either family.
    pub fn of_address(address: std::net::IpAddr) -> Self {
        Self(address.to_string().into())
    }
}

impl Default for SourceName {
    /// [`SourceName::SYSTEM`].
    fn default() -> Self {
        Self(Self::SYSTEM.into())
    }
}

/// Pool and source of mail to the mailbox simulator.
const SIMULATOR: &str = "simulator";

/// What the name of a provider's site begins with. No host, and no smart host's route, has such a name.
const PROVIDER_SITE: &str = "provider:";

/// The name of a provider's site, as records and events have it.
pub fn site_of_provider(provider: &str) -> String {
    format!("{PROVIDER_SITE}{provider}")
}

/// The provider whose site has this name.
pub fn provider_of_site(site: &str) -> Option<&str> {
    site.strip_prefix(PROVIDER_SITE)
}

fn is_name(text: &str) -> bool {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b':' | b'-');
    (1..=NAME_BYTES_MAX).contains(&text.len()) && text.bytes().all(allowed)
}

/// Which mail of a site goes first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Priority {
    /// Somebody waits for it: codes, receipts.
    High,
    /// Nothing is known of it.
    #[default]
    Normal,
    /// It goes to many.
    Bulk,
}

impl Priority {
    /// All, first ones first.
    pub const ALL: [Priority; 3] = [Priority::High, Priority::Normal, Priority::Bulk];

    /// The number in stored records. 0 is what releases wrote that knew none: normal.
    pub const fn code(self) -> u8 {
        match self {
            Priority::High => 1,
            Priority::Normal => 2,
            Priority::Bulk => 3,
        }
    }

    /// The priority with this number; normal for one that is not known.
    pub const fn from_code(code: u8) -> Self {
        match code {
            1 => Priority::High,
            3 => Priority::Bulk,
            _ => Priority::Normal,
        }
    }

    /// As the config and the header field spell it.
    pub const fn name(self) -> &'static str {
        match self {
            Priority::High => "high",
            Priority::Normal => "normal",
            Priority::Bulk => "bulk",
        }
    }

    /// The priority of this name, in any case.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|priority| priority.name().eq_ignore_ascii_case(name))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_names_and_odd_texts_are_not() {
        assert_eq!(SourceName::of_address("2001:db8::1".parse().unwrap()), SourceName::parse("2001:db8::1").unwrap());
        for text in ["", "a b", "a,b", "ä", &"x".repeat(65)] {
            assert_eq!(PoolName::parse(text), None, "{text:?}");
        }
    }

    #[test]
    fn priorities_keep_their_numbers_and_old_records_are_normal() {
        for priority in Priority::ALL {
            assert_eq!(Priority::from_code(priority.code()), priority);
            assert_eq!(Priority::from_name(priority.name()), Some(priority));
        }
        assert_eq!(Priority::from_code(0), Priority::Normal);
        assert!(Priority::High < Priority::Bulk);
    }
}
