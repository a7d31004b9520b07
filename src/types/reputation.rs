//! Whose reputation mail counts for, and what is counted.
//!
//! A scope is the server or something that the config names; so there are as many as the config has names. What a sender
//! does to its mailbox providers is counted by *mark*, hour and scope.

use std::fmt;
use std::sync::Arc;

use super::Timestamp;

/// What a scope is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ScopeKind {
    /// All mail.
    Server,
    /// One tenant's.
    Tenant,
    /// One configuration set's.
    ConfigurationSet,
    /// One credential's; relay clients share `network`.
    Credential,
    /// One identity's.
    Identity,
    /// One pool's.
    Pool,
    /// One source's.
    Source,
    /// What goes to one mailbox provider.
    Provider,
    /// What one tenant sends by one configuration set, `TENANT/SET`: tells which of the two is at fault. Not shown.
    TenantSet,
}

impl ScopeKind {
    /// All.
    pub const ALL: [ScopeKind; 9] = [
        ScopeKind::Server,
        ScopeKind::Tenant,
        ScopeKind::ConfigurationSet,
        ScopeKind::Credential,
        ScopeKind::Identity,
        ScopeKind::Pool,
        ScopeKind::Source,
        ScopeKind::Provider,
        ScopeKind::TenantSet,
    ];

    /// As events, labels and the command line spell it.
    pub const fn name(self) -> &'static str {
        match self {
            ScopeKind::Server => "server",
            ScopeKind::Tenant => "tenant",
            ScopeKind::ConfigurationSet => "configuration_set",
            ScopeKind::Credential => "credential",
            ScopeKind::Identity => "identity",
            ScopeKind::Pool => "pool",
            ScopeKind::Source => "source",
            ScopeKind::Provider => "provider",
            ScopeKind::TenantSet => "tenant_set",
        }
    }

    /// The kind of that name.
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.name() == name)
    }

    /// Whether its sending can be paused: new mail of it is refused.
    pub const fn is_pausable(self) -> bool {
        matches!(self, ScopeKind::Tenant | ScopeKind::ConfigurationSet)
    }
}

/// A scope: kind and name. Cheap to clone.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ReputationScope {
    /// What it is.
    pub kind: ScopeKind,
    /// Its name within its kind; empty for the server.
    pub name: Arc<str>,
}

impl ReputationScope {
    /// The scope of that kind and name.
    pub fn new(kind: ScopeKind, name: &str) -> Self {
        Self { kind, name: name.into() }
    }

    /// From the text that [`fmt::Display`] gives.
    pub fn parse(text: &str) -> Option<Self> {
        let (kind, name) = text.split_once('/').unwrap_or((text, ""));
        let kind = ScopeKind::parse(kind)?;
        ((kind == ScopeKind::Server) == name.is_empty()).then(|| Self::new(kind, name))
    }
}

impl fmt::Display for ReputationScope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.kind.name())?;
        if self.name.is_empty() { Ok(()) } else { write!(f, "/{}", self.name) }
    }
}

/// What is counted of a recipient. The numbers are in stored keys: none gets another meaning.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Mark {
    /// A host took the mail.
    Delivered = 2,
    /// A host refused the address for good.
    HardBounce = 3,
    /// It ended otherwise: refused for the message or the sender, or out of time.
    OtherBounce = 4,
    /// A report said, after the delivery, that the address does not exist.
    LateBounce = 5,
    /// The recipient complained.
    Complaint = 6,
}

impl Mark {
    /// All.
    pub const ALL: [Mark; 5] =
        [Mark::Delivered, Mark::HardBounce, Mark::OtherBounce, Mark::LateBounce, Mark::Complaint];

    /// The number in keys.
    pub const fn code(self) -> u8 {
        self as u8
    }

    /// The mark with this number.
    pub fn from_code(code: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|mark| mark.code() == code)
    }
}

/// An hour of Unix time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Hour(u32);

impl Hour {
    /// The hour of a time; the last one for all that are beyond.
    pub fn of(time: Timestamp) -> Self {
        Self::from_number(time.seconds() / 3_600)
    }

    /// An hour from its number; the last one for all that are beyond.
    pub fn from_number(number: u64) -> Self {
        Self(u32::try_from(number).unwrap_or(u32::MAX))
    }

    /// Hours since the Unix epoch.
    pub fn number(self) -> u64 {
        self.0.into()
    }

    /// So many hours later.
    #[must_use]
    pub fn plus(self, hours: u32) -> Self {
        Self(self.0.saturating_add(hours))
    }

    /// When it begins.
    pub fn start(self) -> Timestamp {
        Timestamp::from_millis(self.number() * 3_600_000)
    }
}

/// Who sent a mail, by what way, and to whose hosts: names of the config. What is empty is not known, or not there.
#[derive(Clone, Copy, Debug, Default)]
pub struct Sender<'a> {
    /// The tenant.
    pub tenant: &'a str,
    /// `callerIdentity`: the user of the credential, or `network`.
    pub credential: &'a str,
    /// The identity of the author.
    pub identity: &'a str,
    /// The configuration set. Only one that the config has: where it has none, their names are chosen by clients, and there
    /// would be no end of scopes.
    pub configuration_set: &'a str,
    /// The pool.
    pub pool: &'a str,
    /// The source.
    pub source: &'a str,
    /// The provider whose rule knows the site.
    pub provider: &'a str,
}

impl Sender<'_> {
    /// All scopes that its mail counts for.
    pub fn scopes(&self) -> Scopes {
        let names = [
            (ScopeKind::Tenant, self.tenant),
            (ScopeKind::Credential, self.credential),
            (ScopeKind::Identity, self.identity),
            (ScopeKind::ConfigurationSet, self.configuration_set),
            (ScopeKind::Pool, self.pool),
            (ScopeKind::Source, self.source),
            (ScopeKind::Provider, self.provider),
        ];
        let mut text = String::with_capacity(256);
        text.push_str(ScopeKind::Server.name());
        for (kind, name) in names.into_iter().filter(|(_, name)| is_name(name)) {
            push(&mut text, &[kind.name(), "/", name]);
        }
        if is_name(self.tenant) && is_name(self.configuration_set) {
            push(&mut text, &[ScopeKind::TenantSet.name(), "/", self.tenant, "/", self.configuration_set]);
        }
        Scopes(text.into())
    }
}

/// The separator must not be in a name. None of the config has one.
fn is_name(name: &str) -> bool {
    !name.is_empty() && !name.contains('\n')
}

fn push(text: &mut String, parts: &[&str]) {
    text.push('\n');
    parts.iter().for_each(|part| text.push_str(part));
}

/// The scopes that a mail counts for, in one piece of memory.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Scopes(Box<str>);

impl Scopes {
    /// The texts of the scopes, as [`ReputationScope::parse`] reads them.
    pub fn iter(&self) -> impl Iterator<Item = &str> {
        self.0.split('\n')
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mail_counts_for_each_that_is_named_and_for_the_server() {
        let sender = Sender {
            tenant: "shop",
            credential: "shop-1",
            identity: "shop.example",
            configuration_set: "news",
            pool: "default",
            source: "192.0.2.7",
            provider: "google",
        };
        let scopes = sender.scopes();
        let texts: Vec<_> = scopes.iter().collect();
        let expected = [
            "server",
            "tenant/shop",
            "credential/shop-1",
            "identity/shop.example",
            "configuration_set/news",
            "pool/default",
            "source/192.0.2.7",
            "provider/google",
            "tenant_set/shop/news",
        ];
        assert_eq!(texts, expected);
        let unknown = Sender { tenant: "a\nserver", pool: "b", ..Sender::default() };
        assert_eq!(unknown.scopes().iter().collect::<Vec<_>>(), ["server", "pool/b"]);
    }

    #[test]
    fn scopes_are_read_back_from_their_texts() {
        for kind in ScopeKind::ALL {
            let name = if kind == ScopeKind::Server { "" } else { "a/b" };
            let scope = ReputationScope::new(kind, name);
            assert_eq!(ReputationScope::parse(&scope.to_string()), Some(scope));
        }
        for text in ["", "tenant", "tenant/", "server/a", "other/a"] {
            assert_eq!(ReputationScope::parse(text), None, "{text}");
        }
    }

    #[test]
    fn codes_of_marks_never_change() {
        assert_eq!(Mark::ALL.map(Mark::code), [2, 3, 4, 5, 6]);
        assert_eq!(Mark::from_code(6), Some(Mark::Complaint));
        assert_eq!(Mark::from_code(1), None, "quotas have it");
    }
}
