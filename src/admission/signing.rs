//! Who signs a message: the keys of the domain it is from, and those of the operator.
//!
//! A domain signs with each of its keys that is in force: one RSA key, one Ed25519 key, or both. A key that is to take another's
//! place (`next`) does so when its record is seen in DNS, and gives the place back when it is seen no more; whoever looks
//! ([`Keyring::pending`], [`Slot::saw`]) is elsewhere. The keys of a domain serve its subdomains too, where these have none of
//! their own, as DKIM is inherited in SES: such a signature is aligned (RFC 7489 §3.1.1).
//!
//! Promises: a message is never signed as a domain that is another tenant's identity.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use super::directory::Directory;
use crate::message::dkim::{Algorithm, Signer};
use crate::types::{Domain, EmailAddress};

/// Octets of the sender id in `Feedback-ID`, as Gmail wants it.
pub const SENDER_ID_BYTES: std::ops::RangeInclusive<usize> = 5..=15;

/// `[signing]` and `[[dkim]]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Signs every message besides the domain that it is from.
    pub operator_domain: Option<Domain>,
    /// Last part of `Feedback-ID`; `None`: no such field is added.
    pub sender_id: Option<Box<str>>,
    /// Where each message asks for complaints (RFC 9477); `None`: it does not.
    pub cfbl_address: Option<EmailAddress>,
    /// How often the records of next keys are looked for.
    pub check_interval: Duration,
    /// The keys.
    pub keys: Vec<KeySettings>,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            operator_domain: None,
            sender_id: None,
            cfbl_address: None,
            check_interval: Duration::from_secs(600),
            keys: Vec::new(),
        }
    }
}

/// One key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeySettings {
    /// `d=`.
    pub domain: Domain,
    /// `s=`.
    pub selector: Domain,
    /// PEM.
    pub key_file: PathBuf,
    /// In force, or to come.
    pub state: KeyState,
}

/// Whether a key is in force.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyState {
    /// It signs.
    Current,
    /// It signs in place of the current one from when its record is seen in DNS.
    Next,
}

/// The key in force of one domain and algorithm, and the one that takes its place.
#[derive(Debug)]
pub struct Slot {
    current: Option<Arc<Signer>>,
    next: Option<Arc<Signer>>,
    next_is_visible: AtomicBool,
}

impl Slot {
    /// The key that waits for its record, or has seen it.
    pub fn next(&self) -> Option<&Arc<Signer>> {
        self.next.as_ref()
    }

    /// Takes notice of whether the record of the next key is in DNS. Returns whether that changes who signs.
    pub fn saw(&self, visible: bool) -> bool {
        self.next_is_visible.swap(visible, Ordering::Relaxed) != visible
    }

    /// Who signs.
    pub fn in_force(&self) -> Option<&Arc<Signer>> {
        let next = self.next.as_ref().filter(|_| self.next_is_visible.load(Ordering::Relaxed));
        next.or(self.current.as_ref())
    }
}

/// Why a set of keys cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KeyringError {
    /// One algorithm, one place.
    #[error(
        "{domain} has two keys of the kind {algorithm} with state = \"{state}\": {first} and {second}. Leave one of them"
    )]
    Doubled {
        /// Whose.
        domain: Domain,
        /// `rsa` or `ed25519`.
        algorithm: &'static str,
        /// As in the config.
        state: &'static str,
        /// Selector.
        first: Domain,
        /// Selector.
        second: Domain,
    },
    /// `operator_domain` without a key.
    #[error("operator_domain {0} has no [[dkim]] key. Make one with `posthaste dkim generate --domain {0}`")]
    OperatorWithoutKey(Domain),
}

/// All keys, by domain.
#[derive(Debug, Default)]
pub struct Keyring {
    domains: HashMap<Domain, Vec<Slot>>,
    operator: Option<Domain>,
}

impl Keyring {
    /// A ring of these keys. What `old` has seen in DNS stays seen.
    pub fn new(
        keys: Vec<(Signer, KeyState)>,
        operator: Option<Domain>,
        old: Option<&Keyring>,
    ) -> Result<Keyring, KeyringError> {
        let mut ring = Keyring { domains: HashMap::new(), operator };
        for (signer, state) in keys {
            ring.add(Arc::new(signer), state, old)?;
        }
        match &ring.operator {
            Some(domain) if !ring.domains.contains_key(domain) => Err(KeyringError::OperatorWithoutKey(domain.clone())),
            _ => Ok(ring),
        }
    }

    fn add(&mut self, signer: Arc<Signer>, state: KeyState, old: Option<&Keyring>) -> Result<(), KeyringError> {
        let algorithm = signer.key.algorithm();
        let of_algorithm =
            |slot: &Slot| slot.current.iter().chain(&slot.next).any(|other| other.key.algorithm() == algorithm);
        let slots = self.domains.entry(signer.domain.clone()).or_default();
        let at = slots.iter().position(of_algorithm).unwrap_or(slots.len());
        if at == slots.len() {
            slots.push(Slot { current: None, next: None, next_is_visible: AtomicBool::new(false) });
        }
        let Some(slot) = slots.get_mut(at) else { return Ok(()) };
        let (place, name) = match state {
            KeyState::Current => (&mut slot.current, "current"),
            KeyState::Next => (&mut slot.next, "next"),
        };
        if let Some(first) = place {
            let (first, second) = (first.selector.clone(), signer.selector.clone());
            let domain = signer.domain.clone();
            return Err(KeyringError::Doubled { domain, algorithm: algorithm.name(), state: name, first, second });
        }
        if state == KeyState::Next {
            *slot.next_is_visible.get_mut() = old.is_some_and(|old| old.has_seen(&signer));
        }
        *place = Some(signer);
        // RSA first: what verifies only one signature takes the first.
        slots.sort_by_key(|slot| slot.current.iter().chain(&slot.next).any(|s| s.key.algorithm() != Algorithm::Rsa));
        Ok(())
    }

    /// Whether the record of this next key was seen.
    fn has_seen(&self, signer: &Signer) -> bool {
        let slots = self.domains.get(&signer.domain).into_iter().flatten();
        let same = |slot: &&Slot| {
            let next = slot.next.as_ref();
            next.is_some_and(|n| n.selector == signer.selector && n.key.public() == signer.key.public())
        };
        slots.into_iter().find(same).is_some_and(|slot| slot.next_is_visible.load(Ordering::Relaxed))
    }

    /// Those who sign what is from `from` and is sent by `tenant`: first the keys of the domain, aligned with it, then those of
    /// the operator. Their order is that of the signature fields.
    pub fn signers(&self, from: &Domain, tenant: &str, directory: &Directory) -> Vec<Arc<Signer>> {
        self.of(self.author(from, tenant, directory))
    }

    /// Those who sign what has no author that can be read: the operator.
    pub fn operator_signers(&self) -> Vec<Arc<Signer>> {
        self.of(None)
    }

    /// Who signs for the author's domain, and for the operator's.
    fn of(&self, author: Option<&Domain>) -> Vec<Arc<Signer>> {
        let operator = self.operator.as_ref().filter(|domain| author != Some(*domain));
        let slots = [author, operator].into_iter().flatten().filter_map(|domain| self.domains.get(domain)).flatten();
        slots.filter_map(Slot::in_force).cloned().collect()
    }

    /// The domain itself, or its nearest parent with keys.
    fn nearest(&self, domain: &Domain) -> Option<&Domain> {
        let (found, _) = domain.with_parents().find_map(|parent| self.domains.get_key_value(parent))?;
        Some(found)
    }

    /// Those who sign what this server has to say itself, as `hostname`.
    pub fn own_signers(&self, hostname: &Domain) -> Vec<Arc<Signer>> {
        self.of(self.nearest(hostname))
    }

    /// The domain that signs for `from`, if it is no identity of another tenant.
    fn author(&self, from: &Domain, tenant: &str, directory: &Directory) -> Option<&Domain> {
        let domain = self.nearest(from)?;
        let owner = directory.identity_of_domain(domain);
        owner.is_none_or(|owner| owner.tenant.as_str() == tenant).then_some(domain)
    }

    /// Slots with a next key: their records are to be looked for.
    pub fn pending(&self) -> impl Iterator<Item = &Slot> {
        self.domains.values().flatten().filter(|slot| slot.next.is_some())
    }

    /// Whether nobody signs.
    pub fn is_empty(&self) -> bool {
        self.domains.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::admission::directory::Name;
    use crate::admission::identity::{Identity, IdentityName};
    use crate::message::dkim::Key;

    fn domain(text: &str) -> Domain {
        Domain::parse(text).unwrap()
    }

    fn key(kind: &str, owner: &str, selector: &str) -> Signer {
        let path = format!("{}/tests/data/dkim/{kind}.pem", env!("CARGO_MANIFEST_DIR"));
        let key = Key::from_pem(&std::fs::read(path).unwrap()).unwrap();
        Signer { domain: domain(owner), selector: domain(selector), key: Arc::new(key) }
    }

    fn rsa(owner: &str, selector: &str) -> Signer {
        key("rsa2048", owner, selector)
    }

    fn ed(owner: &str, selector: &str) -> Signer {
        key("ed25519", owner, selector)
    }

    fn directory(identities: &[(&str, &str)]) -> Directory {
        let mut directory = Directory::relay_only(Vec::new(), Duration::from_secs(60));
        for (name, tenant) in identities {
            directory.add_identity(Identity {
                name: IdentityName::parse(name).unwrap(),
                tenant: Name::parse(tenant).unwrap(),
                configuration_set: None,
                forward_feedback: None,
                delegates: Vec::new(),
                mail_from: None,
            });
        }
        directory
    }

    /// `d/s` of those who sign.
    fn signers(ring: &Keyring, from: &str, tenant: &str, directory: &Directory) -> Vec<String> {
        let signers = ring.signers(&domain(from), tenant, directory);
        signers.iter().map(|signer| format!("{}/{}", signer.domain, signer.selector)).collect()
    }

    use KeyState::{Current, Next};

    #[test]
    fn the_nearest_domain_with_keys_signs_and_the_operator_besides() {
        let keys = vec![
            (ed("a.test", "e"), Current),
            (rsa("a.test", "r"), Current),
            (rsa("below.a.test", "b"), Current),
            (rsa("op.test", "o"), Current),
        ];
        let ring = Keyring::new(keys, Some(domain("op.test")), None).unwrap();
        let nobody = directory(&[]);
        for (from, expected) in [
            ("a.test", &["a.test/r", "a.test/e", "op.test/o"][..]),
            ("x.a.test", &["a.test/r", "a.test/e", "op.test/o"]),
            ("x.below.a.test", &["below.a.test/b", "op.test/o"]),
            ("nota.test", &["op.test/o"]),
            ("op.test", &["op.test/o"]),
        ] {
            assert_eq!(signers(&ring, from, "local", &nobody), expected, "{from}");
        }
        assert!(Keyring::default().is_empty() && !ring.is_empty());
        let own = ring.own_signers(&domain("mx.a.test"));
        assert_eq!(own.len(), 3);
    }

    #[test]
    fn no_key_serves_another_tenant() {
        let ring = Keyring::new(vec![(rsa("a.test", "r"), Current)], None, None).unwrap();
        let owned = directory(&[("a.test", "owner"), ("guest.a.test", "guest"), ("x@a.test", "guest")]);
        for (from, tenant, signed) in [
            ("a.test", "owner", true),
            ("deep.a.test", "owner", true),
            ("guest.a.test", "guest", false),
            // An address identity owns no domain.
            ("a.test", "guest", false),
        ] {
            assert_eq!(!signers(&ring, from, tenant, &owned).is_empty(), signed, "{from} of {tenant}");
        }
    }

    #[test]
    fn a_next_key_signs_while_it_is_seen_and_a_reload_remembers_that() {
        let keys = || vec![(rsa("a.test", "old"), Current), (rsa("a.test", "new"), Next), (ed("a.test", "e"), Next)];
        let ring = Keyring::new(keys(), None, None).unwrap();
        let nobody = directory(&[]);
        let now = |ring: &Keyring| signers(ring, "a.test", "local", &nobody);
        assert_eq!(now(&ring), ["a.test/old"]);
        assert_eq!(ring.pending().count(), 2);
        for slot in ring.pending() {
            assert!(!slot.saw(false));
            assert!(slot.saw(true) && !slot.saw(true));
        }
        assert_eq!(now(&ring), ["a.test/new", "a.test/e"]);
        let again = Keyring::new(keys(), None, Some(&ring)).unwrap();
        assert_eq!(now(&again), ["a.test/new", "a.test/e"]);
        // Another key under the same selector was not seen.
        let other = vec![(rsa("a.test", "old"), Current), (rsa("a.test", "newer"), Next)];
        assert_eq!(now(&Keyring::new(other, None, Some(&ring)).unwrap()), ["a.test/old"]);
        assert!(ring.pending().all(|slot| slot.saw(false)));
        assert_eq!(now(&ring), ["a.test/old"]);
    }

    #[test]
    fn one_place_has_one_key_and_the_operator_has_one() {
        let doubled = vec![(rsa("a.test", "r1"), Current), (rsa("a.test", "r2"), Current)];
        let error = Keyring::new(doubled, None, None).unwrap_err().to_string();
        assert!(error.contains("a.test") && error.contains("r1 and r2") && error.contains("current"), "{error}");
        let doubled = vec![(ed("a.test", "e1"), Next), (ed("a.test", "e2"), Next)];
        assert!(Keyring::new(doubled, None, None).unwrap_err().to_string().contains("\"next\""));
        let error = Keyring::new(vec![(rsa("a.test", "r"), Current)], Some(domain("op.test")), None).unwrap_err();
        assert_eq!(error, KeyringError::OperatorWithoutKey(domain("op.test")));
    }
}
