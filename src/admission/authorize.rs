//! What an admitted client may send as, and under which configuration set.

use std::sync::Arc;
use std::time::Duration;

use super::directory::{ConfigurationSet, Directory, Senders, Tenant};
use super::identity::{Identity, IdentityName};
use super::{Denial, Grant};
use crate::message::{Claim, Claims, Control};
use crate::queue::ReturnPath;
use crate::types::{EmailAddress, Envelope, PoolName, Priority};

/// A message as far as admission judges it.
#[derive(Clone, Copy, Debug)]
pub struct Submission<'a> {
    /// MAIL and RCPT.
    pub envelope: &'a Envelope,
    /// Whom it says it is from.
    pub claims: &'a Claims,
    /// What its control fields ask for.
    pub control: &'a Control,
}

/// As what a message is sent.
#[derive(Clone, Debug)]
pub struct Authority {
    /// Whose it is.
    pub tenant: Arc<Tenant>,
    /// The identity of its author; `None` where none of the tenant (or delegated to it) covers it, or it has no readable author.
    pub identity: Option<Arc<Identity>>,
    /// How it is sent, where a configuration set says so.
    pub set: Option<Arc<ConfigurationSet>>,
    /// Its configuration set as a tag: also where no set is configured.
    pub set_name: Option<Box<str>>,
    /// How long it may be retried.
    pub lifetime: Duration,
    /// What hosts see as its reverse-path, where that is not the submitted one.
    pub return_path: Option<ReturnPath>,
    /// The pool that it goes out by.
    pub pool: PoolName,
    /// Its place in the lines of its sites.
    pub priority: Priority,
    /// It goes by a source that warms up, where one has room.
    pub prefers_warming: bool,
    /// Its configuration set warms up.
    pub set_warms_up: bool,
}

impl Authority {
    /// That of a message of which nothing is known but who sent it.
    pub fn plain(directory: &Directory, grant: &Grant) -> Self {
        let tenant = Arc::clone(&grant.tenant);
        let (lifetime, return_path) = (directory.lifetime, directory.return_path(None, None));
        let (pool, priority) = way(&tenant, None, None);
        Self {
            tenant,
            identity: None,
            set: None,
            set_name: None,
            lifetime,
            return_path,
            pool,
            priority,
            prefers_warming: false,
            set_warms_up: false,
        }
    }
}

/// Decides once a message, when its header is there.
pub fn authorize(directory: &Directory, grant: &Grant, submission: Submission<'_>) -> Result<Authority, Denial> {
    let identity = match grant.tenant.senders {
        Senders::Identities => check_senders(directory, grant, submission)?,
        // It may send as anybody, but what goes with another tenant's identity (signature, return path) stays with that.
        Senders::Any => author(submission.claims)
            .and_then(|author| directory.identity_of(author))
            .filter(|identity| identity.tenant == grant.tenant.name)
            .cloned(),
    };
    check_recipients(directory, grant, submission.envelope)?;
    let (set, set_name) = configuration_set(directory, grant, identity.as_deref(), submission.control)?;
    let lifetime = set.as_ref().and_then(|set| set.lifetime).unwrap_or(directory.lifetime).min(directory.lifetime);
    let return_path = directory.return_path(identity.as_deref(), set.as_deref());
    let asked = submission.control.priority.clone().transpose().map_err(|text| Denial::NoSuchPriority(text.into()))?;
    let (pool, priority) = way(&grant.tenant, set.as_deref(), asked);
    let warmup = submission.control.warmup.clone().transpose().map_err(|text| Denial::NoSuchWarmup(text.into()))?;
    let (tenant, set_warms_up) = (Arc::clone(&grant.tenant), set.as_ref().is_some_and(|set| set.warmup.is_some()));
    Ok(Authority {
        tenant,
        identity,
        set,
        set_name,
        lifetime,
        return_path,
        pool,
        priority,
        prefers_warming: warmup.is_some(),
        set_warms_up,
    })
}

/// By message, configuration set, tenant, default: the first that says something.
fn way(tenant: &Tenant, set: Option<&ConfigurationSet>, asked: Option<Priority>) -> (PoolName, Priority) {
    let of_set = |set: &ConfigurationSet| set.way.priority.or(set.is_bulk.then_some(Priority::Bulk));
    let priority = asked.or(set.and_then(of_set)).or(tenant.way.priority);
    let pool = set.and_then(|set| set.way.pool.clone()).or_else(|| tenant.way.pool.clone());
    (pool.unwrap_or_default(), priority.unwrap_or_default())
}

fn author(claims: &Claims) -> Option<&EmailAddress> {
    claims.from.first()?.as_ref().ok()
}

/// Every one of envelope sender, From, Sender and Return-Path must be the caller's. Returns the identity of the author.
fn check_senders(
    directory: &Directory,
    grant: &Grant,
    submission: Submission<'_>,
) -> Result<Option<Arc<Identity>>, Denial> {
    let Submission { envelope, claims, control } = submission;
    if claims.from.is_empty() {
        return Err(Denial::NoFrom);
    }
    let source = delegation(directory, grant, control.source_arn.as_deref())?;
    // Where only the source is named, it stands for the others too, as in SES.
    let of_from = delegation(directory, grant, control.from_arn.as_deref())?.or(source);
    let of_path = delegation(directory, grant, control.return_path_arn.as_deref())?.or(source);
    let mut check = Check { directory, grant, failed: Vec::new(), forbidden: None };
    // The null reverse-path of notifications is nobody's.
    if let Some(mailbox) = envelope.reverse_path.mailbox() {
        check.address(mailbox, source);
    }
    let author = check.claim(claims.from.first(), of_from);
    for claim in claims.from.iter().skip(1).chain(&claims.sender) {
        check.claim(Some(claim), of_from);
    }
    for claim in &claims.return_path {
        check.claim(Some(claim), of_path);
    }
    if !check.failed.is_empty() {
        return Err(Denial::NotVerified(check.failed));
    }
    if let Some(resource) = check.forbidden {
        return Err(Denial::AccessDenied { user: Arc::clone(&grant.caller), resource });
    }
    Ok(author)
}

/// The identity that an ARN (`arn:aws:ses:region:account:identity/name`) or a bare name asks for, if the caller may.
fn delegation<'a>(
    directory: &'a Directory,
    grant: &Grant,
    arn: Option<&str>,
) -> Result<Option<&'a Arc<Identity>>, Denial> {
    let Some(arn) = arn else { return Ok(None) };
    let name = arn.rsplit_once("identity/").map_or(arn, |(_, name)| name).trim();
    let denied = || Denial::AccessDenied { user: Arc::clone(&grant.caller), resource: name.into() };
    let identity = IdentityName::parse(name).and_then(|name| directory.identity(&name)).ok_or_else(denied)?;
    let is_own = identity.tenant == grant.tenant.name && is_allowed(grant, &identity.name);
    let is_delegate = grant.credential.as_ref().is_some_and(|own| identity.delegates.contains(&own.user));
    if is_own || is_delegate { Ok(Some(identity)) } else { Err(denied()) }
}

/// Whether the credential is not limited to other identities.
fn is_allowed(grant: &Grant, name: &IdentityName) -> bool {
    let limits = grant.credential.as_ref().and_then(|credential| credential.identities.as_ref());
    limits.is_none_or(|limits| limits.iter().any(|limit| limit.includes(name)))
}

/// Gathers what fails, so that the reply can name all of it.
struct Check<'a> {
    directory: &'a Directory,
    grant: &'a Grant,
    failed: Vec<Box<str>>,
    /// An address of the tenant that this credential may not use.
    forbidden: Option<Box<str>>,
}

impl Check<'_> {
    fn claim(&mut self, claim: Option<&Claim>, delegated: Option<&Arc<Identity>>) -> Option<Arc<Identity>> {
        match claim? {
            Ok(address) => self.address(address, delegated),
            Err(text) => {
                self.fail(text);
                None
            }
        }
    }

    fn address(&mut self, address: &EmailAddress, delegated: Option<&Arc<Identity>>) -> Option<Arc<Identity>> {
        if let Some(identity) = delegated.filter(|identity| identity.name.covers(address)) {
            return Some(Arc::clone(identity));
        }
        let found = self.directory.identity_of(address);
        let Some(identity) = found.filter(|identity| identity.tenant == self.grant.tenant.name) else {
            self.fail(address.as_str());
            return None;
        };
        if !is_allowed(self.grant, &IdentityName::of(address)) {
            self.forbidden.get_or_insert_with(|| address.as_str().into());
        }
        Some(Arc::clone(identity))
    }

    fn fail(&mut self, text: &str) {
        if !self.failed.iter().any(|known| **known == *text) {
            self.failed.push(text.into());
        }
    }
}

/// In the sandbox, every recipient must be listed, or one of the simulator's.
fn check_recipients(directory: &Directory, grant: &Grant, envelope: &Envelope) -> Result<(), Denial> {
    let Some(allowed) = &grant.tenant.sandbox else { return Ok(()) };
    let strangers = envelope.recipients.iter().map(|recipient| &recipient.address);
    let strangers: Vec<Box<str>> = strangers
        .filter(|address| !directory.is_simulated(address) && !allowed.iter().any(|name| name.covers(address)))
        .map(|address| address.as_str().into())
        .collect();
    if strangers.is_empty() { Ok(()) } else { Err(Denial::NotVerified(strangers)) }
}

/// By header, credential, identity, default: the first that names one.
#[expect(clippy::type_complexity, reason = "the set and its name, once")]
fn configuration_set(
    directory: &Directory,
    grant: &Grant,
    identity: Option<&Identity>,
    control: &Control,
) -> Result<(Option<Arc<ConfigurationSet>>, Option<Box<str>>), Denial> {
    let of_credential = grant.credential.as_ref().and_then(|credential| credential.configuration_set.as_ref());
    let of_identity = identity.and_then(|identity| identity.configuration_set.as_ref());
    let chosen = of_credential.or(of_identity).or(directory.configuration_set.as_ref());
    let asked = control.configuration_set.as_deref();
    let Some(name) = asked.or(chosen.map(super::directory::Name::as_str)) else {
        return Ok((None, None));
    };
    if !directory.has_sets() {
        return Ok((None, Some(name.into())));
    }
    let no_such_set = || Denial::NoSuchSet(name.into());
    let set = directory.set(name).filter(|set| set.is_for(&grant.tenant.name)).ok_or_else(no_such_set)?;
    if !set.sending || directory.pauses.has_set(name) {
        return Err(Denial::Paused(format!("configuration set {}", set.name).into()));
    }
    Ok((Some(Arc::clone(set)), Some(name.into())))
}
