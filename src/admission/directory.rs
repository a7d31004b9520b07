//! Who is who: tenants, credentials, identities and configuration sets, as the config describes them.
//!
//! A directory does not change; a reload puts a new one in its place. Promises: what refers to something (a credential to its
//! tenant, an identity to its configuration set) finds it: the config reader has looked. Lookups cost a hash or two,
//! however many entries there are.

use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use ipnet::IpNet;

use super::identity::{Identities, Identity, IdentityName};
use super::pauses::Pauses;
use crate::policy::reputation;
use crate::policy::warmup::Plan;
use crate::queue::{Granularity, ReturnPath};
use crate::types::{Domain, EmailAddress, PoolName, Priority, SuppressionReasons};

/// Octets of the name of a tenant or a configuration set, as SES limits the latter.
pub const NAME_BYTES_MAX: usize = 64;

/// The tenant of relay clients, where the config names none.
pub const LOCAL_TENANT: &str = "local";

/// The name of a tenant or a configuration set: 1 to 64 of `A-Za-z0-9_-`. Cheap to clone.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Name(Arc<str>);

impl Name {
    /// `None` where the text is not such a name.
    pub fn parse(text: &str) -> Option<Self> {
        let allowed = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-');
        let fits = (1..=NAME_BYTES_MAX).contains(&text.len()) && text.bytes().all(allowed);
        fits.then(|| Self(text.into()))
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl std::fmt::Display for Name {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

/// Limits of sending, in envelope recipients. `None`: no limit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Quota {
    /// In any 24 hours.
    pub per_day: Option<u64>,
    /// In a second.
    pub per_second: Option<u32>,
}

/// By which pool and with which priority messages go out. `None`: what the next one says (set, then tenant, then default).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Way {
    /// The pool.
    pub pool: Option<PoolName>,
    /// The priority.
    pub priority: Option<Priority>,
}

/// Which addresses a tenant may send as.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Senders {
    /// Those of its identities.
    Identities,
    /// All: for applications that are trusted as such.
    Any,
}

/// One customer, department or application with its own rights, limits and lists.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tenant {
    /// Its name.
    pub name: Name,
    /// Which addresses it may send as.
    pub senders: Senders,
    /// Whether it may send at all.
    pub sending: bool,
    /// Its limits.
    pub quota: Quota,
    /// Only to these (and 200 in 24 hours, 1 a second, unless `quota` says less): SES's sandbox.
    pub sandbox: Option<Vec<IdentityName>>,
    /// What of the suppression lists holds for it, where a configuration set does not say otherwise.
    pub suppression: SuppressionReasons,
    /// How its messages go out, where a configuration set does not say otherwise.
    pub way: Way,
}

/// A user name that may submit mail.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Credential {
    /// The user name.
    pub user: Arc<str>,
    /// Hashes of the secrets that are accepted, in PHC form: one, or two while one takes the other's place.
    pub secrets: Vec<Arc<str>>,
    /// Whose it is.
    pub tenant: Arc<Tenant>,
    /// Where it may be used; empty: anywhere.
    pub networks: Vec<IpNet>,
    /// What it may send as, within the tenant's identities; `None`: all of these.
    pub identities: Option<Vec<IdentityName>>,
    /// For messages that name none.
    pub configuration_set: Option<Name>,
    /// Its limits.
    pub quota: Quota,
}

/// How messages of one kind are sent, counted and told of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigurationSet {
    /// Its name.
    pub name: Name,
    /// Who may use it; empty: all tenants.
    pub tenants: Vec<Name>,
    /// Whether it sends.
    pub sending: bool,
    /// Whether delivery needs TLS; the certificate of the host is not checked for it, as in SES.
    pub tls_required: bool,
    /// How long delivery may take, where it is not the queue's lifetime.
    pub lifetime: Option<Duration>,
    /// What of the suppression lists holds, in place of the tenant's setting.
    pub suppression: Option<SuppressionReasons>,
    /// For whom a return path is, where there is one.
    pub return_path: Granularity,
    /// Tags of each message that does not set them itself.
    pub tags: Vec<(String, String)>,
    /// Its limits.
    pub quota: Quota,
    /// Its messages go to many: each must offer one-click unsubscription (RFC 8058).
    pub is_bulk: bool,
    /// Where one-click unsubscription is posted to, without the token; added to messages that offer none.
    pub unsubscribe_url: Option<Arc<str>>,
    /// How its messages go out. Bulk mail without a priority here goes as bulk.
    pub way: Way,
    /// The plan by which it warms up at each site.
    pub warmup: Option<Arc<Plan>>,
}

/// Clients that need no credential.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Relay {
    /// Where they are.
    pub networks: Vec<IpNet>,
    /// As whom they send.
    pub tenant: Arc<Tenant>,
}

/// See the module.
#[derive(Clone, Debug)]
pub struct Directory {
    /// Clients without credentials.
    pub relay: Relay,
    /// Limits of all together.
    pub quota: Quota,
    /// Whether anything is sent at all.
    pub sending: bool,
    /// For messages for which nothing else chose one.
    pub configuration_set: Option<Name>,
    /// How long a message may be retried before it bounces.
    pub lifetime: Duration,
    /// Which rates of bounces and complaints are too high.
    pub reputation: Arc<reputation::Settings>,
    /// Who is paused for them. The same in each directory that takes another one's place.
    pub pauses: Arc<Pauses>,
    /// The domain of return paths where the identity has none.
    pub return_path_domain: Option<Domain>,
    /// Whether messages of bulk sets offer unsubscription by mail, to the domain of their return path.
    pub unsubscribes_by_mail: bool,
    /// The domain of the mailbox simulator: mail to it counts in no quota, and the sandbox lets it pass.
    pub simulator: Option<Domain>,
    tenants: HashMap<Name, Arc<Tenant>>,
    credentials: HashMap<Arc<str>, Arc<Credential>>,
    identities: Identities,
    sets: HashMap<Name, Arc<ConfigurationSet>>,
}

impl Directory {
    /// A directory of nobody but the relay clients.
    pub fn new(relay: Relay, lifetime: Duration) -> Self {
        let tenants = HashMap::from([(relay.tenant.name.clone(), Arc::clone(&relay.tenant))]);
        Self {
            relay,
            quota: Quota::default(),
            sending: true,
            configuration_set: None,
            lifetime,
            reputation: Arc::default(),
            pauses: Arc::default(),
            return_path_domain: None,
            unsubscribes_by_mail: false,
            simulator: None,
            tenants,
            credentials: HashMap::new(),
            identities: Identities::default(),
            sets: HashMap::new(),
        }
    }

    /// A directory of relay clients that may send as anybody: where nothing else is configured.
    pub fn relay_only(networks: Vec<IpNet>, lifetime: Duration) -> Self {
        let name = Name::parse(LOCAL_TENANT).expect("a constant name");
        let tenant = Tenant {
            name,
            senders: Senders::Any,
            sending: true,
            quota: Quota::default(),
            sandbox: None,
            suppression: SuppressionReasons::default(),
            way: Way::default(),
        };
        Self::new(Relay { networks, tenant: Arc::new(tenant) }, lifetime)
    }

    /// Adds a tenant; one of the same name goes.
    pub fn add_tenant(&mut self, tenant: Arc<Tenant>) {
        self.tenants.insert(tenant.name.clone(), tenant);
    }

    /// Adds a credential; one of the same user goes.
    pub fn add_credential(&mut self, credential: Credential) {
        self.credentials.insert(Arc::clone(&credential.user), Arc::new(credential));
    }

    /// Adds an identity; one of the same name goes.
    pub fn add_identity(&mut self, identity: Identity) {
        self.identities.add(identity);
    }

    /// Adds a configuration set; one of the same name goes.
    pub fn add_set(&mut self, set: ConfigurationSet) {
        self.sets.insert(set.name.clone(), Arc::new(set));
    }

    /// The tenant of that name.
    pub fn tenant(&self, name: &str) -> Option<&Arc<Tenant>> {
        Name::parse(name).and_then(|name| self.tenants.get(&name))
    }

    /// The credential of that user name, to the letter.
    pub fn credential(&self, user: &str) -> Option<&Arc<Credential>> {
        self.credentials.get(user)
    }

    /// The identity of exactly that name.
    pub fn identity(&self, name: &IdentityName) -> Option<&Arc<Identity>> {
        self.identities.named(name)
    }

    /// The identity that counts for an address, whoever owns it: the most specific one that covers it.
    pub fn identity_of(&self, address: &EmailAddress) -> Option<&Arc<Identity>> {
        self.identities.of(address)
    }

    /// Whether bounces and complaints of messages of this identity are mailed to their sender, where it or a domain above it says so.
    pub fn forwards_feedback(&self, identity: &Identity) -> Option<bool> {
        self.identities.forward_feedback(identity)
    }

    /// What hosts see as the reverse-path of messages of this identity and set; `None`: what was submitted.
    pub fn return_path(&self, identity: Option<&Identity>, set: Option<&ConfigurationSet>) -> Option<ReturnPath> {
        let of_identity = identity.and_then(|identity| self.identities.mail_from(identity));
        let domain = of_identity.or(self.return_path_domain.as_ref())?.clone();
        Some(ReturnPath { domain, granularity: set.map(|set| set.return_path).unwrap_or_default() })
    }

    /// The domain identity that covers a domain, whoever owns it: itself, or the nearest parent.
    pub fn identity_of_domain(&self, domain: &Domain) -> Option<&Arc<Identity>> {
        self.identities.of_domain(domain)
    }

    /// The configuration set of that name.
    pub fn set(&self, name: &str) -> Option<&Arc<ConfigurationSet>> {
        Name::parse(name).and_then(|name| self.sets.get(&name))
    }

    /// Whether there is any configuration set. Without one their names are tags and nothing more.
    pub fn has_sets(&self) -> bool {
        !self.sets.is_empty()
    }

    /// Whether anybody can log in.
    pub fn has_credentials(&self) -> bool {
        !self.credentials.is_empty()
    }

    /// All tenants, in no order.
    pub fn tenants(&self) -> impl Iterator<Item = &Arc<Tenant>> {
        self.tenants.values()
    }

    /// All credentials, in no order.
    pub fn credentials(&self) -> impl Iterator<Item = &Arc<Credential>> {
        self.credentials.values()
    }

    /// All identities, in no order.
    pub fn identities(&self) -> impl Iterator<Item = &Arc<Identity>> {
        self.identities.iter()
    }

    /// How many identities there are.
    pub fn identities_count(&self) -> usize {
        self.identities.count()
    }

    /// The plans of those sets that warm up.
    pub fn warmups(&self) -> BTreeMap<Box<str>, Arc<Plan>> {
        let plan = |set: &Arc<ConfigurationSet>| Some((set.name.as_str().into(), set.warmup.clone()?));
        self.sets.values().filter_map(plan).collect()
    }

    /// All configuration sets, in no order.
    pub fn sets(&self) -> impl Iterator<Item = &Arc<ConfigurationSet>> {
        self.sets.values()
    }

    /// Whether it is a mailbox of the simulator.
    pub fn is_simulated(&self, address: &EmailAddress) -> bool {
        self.simulator.as_ref() == Some(address.domain())
    }

    /// Whether a client at this address needs no credential.
    pub fn is_relay_client(&self, address: IpAddr) -> bool {
        self.relay.networks.iter().any(|network| network.contains(&address))
    }
}

impl Credential {
    /// Whether it may be used from this address.
    pub fn allows(&self, address: IpAddr) -> bool {
        self.networks.is_empty() || self.networks.iter().any(|network| network.contains(&address))
    }
}

impl ConfigurationSet {
    /// Whether this tenant may use it.
    pub fn is_for(&self, tenant: &Name) -> bool {
        self.tenants.is_empty() || self.tenants.contains(tenant)
    }
}
