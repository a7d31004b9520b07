//! May this client send this, and as what?
//!
//! Who is who stands in the [`Directory`]. A client is admitted at MAIL ([`admit`]) and what it sends is judged when its header is
//! there ([`authorize`]); both are asked again with the directory in force, so that a reload changes rights at once, in
//! open sessions too. Promises: decisions are pure; every refusal names who, what and which rule, in SES's words where SES has
//! some. Does not: reply, read the message, or count.

pub mod authenticate;
mod authorize;
pub mod directory;
pub mod identity;
pub mod password;
pub mod pauses;
pub mod quota;
pub mod signing;
pub mod suppression;

use std::net::IpAddr;
use std::sync::Arc;

pub use authorize::{Authority, Submission, authorize};
pub use directory::Directory;

use crate::types::{EnhancedStatus, Reply, ReplyCode};
use directory::{Credential, Tenant};

/// A user who has proved a secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Authenticated {
    /// The user name.
    pub user: Arc<str>,
    /// The hash in the config that the secret matched. Once it is not there any more, the proof is void.
    pub secret: Arc<str>,
}

/// What is known of a client when it says MAIL.
#[derive(Clone, Copy, Debug)]
pub struct Client<'a> {
    /// Its address; IPv4-mapped IPv6 already unmapped.
    pub address: IpAddr,
    /// Who it proved to be.
    pub credential: Option<&'a Authenticated>,
}

/// As whom a client sends.
#[derive(Clone, Debug)]
pub struct Grant {
    /// `callerIdentity` in events: the credential's user, or `network`.
    pub caller: Arc<str>,
    /// Whose mail it is.
    pub tenant: Arc<Tenant>,
    /// With which credential; `None` for a relay client.
    pub credential: Option<Arc<Credential>>,
}

/// `callerIdentity` of relay clients.
const NETWORK: &str = "network";

/// Why a client may not send, or not this. [`Denial::reply`] is the answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Denial {
    /// Not in a relay network, and no credential.
    #[error("Authentication required")]
    NotARelayClient,
    /// The credential is gone, or its secret.
    #[error("Authentication Credentials Invalid")]
    Revoked,
    /// A rule forbids it: the client's address, the identities of its credential, a delegation that is none.
    #[error("Access denied: User {user} is not authorized to perform ses:SendRawEmail on resource {resource}")]
    AccessDenied {
        /// Who.
        user: Arc<str>,
        /// What it wanted to send as.
        resource: Box<str>,
    },
    /// These addresses are not of the caller's identities, or, in the sandbox, not of its recipients.
    #[error("Message rejected: Email address is not verified. The following identities failed the check: {}", .0.join(", "))]
    NotVerified(Vec<Box<str>>),
    /// Whose mail must be checked needs an author.
    #[error("Transaction failed: Missing header 'From'.")]
    NoFrom,
    /// The set that was asked for is none, or not for this tenant.
    #[error("Message rejected: Configuration set {0} does not exist")]
    NoSuchSet(Box<str>),
    /// `X-Posthaste-Priority` says something else.
    #[error("Message rejected: X-Posthaste-Priority {0:?} is not high, normal or bulk")]
    NoSuchPriority(Box<str>),
    /// `X-Posthaste-Warmup` says something else than `preferred`.
    #[error("Message rejected: X-Posthaste-Warmup {0:?} is not preferred")]
    NoSuchWarmup(Box<str>),
    /// The operator has stopped it, or its bounces and complaints have. The client keeps the message and tries again.
    #[error("Sending is paused for {0}")]
    Paused(Box<str>),
}

impl Denial {
    /// What the client is told.
    pub fn reply(&self) -> Reply {
        let (code, status) = match self {
            Denial::NotARelayClient => (530, (5, 7, 0)),
            Denial::Revoked => (535, (5, 7, 8)),
            Denial::AccessDenied { .. } | Denial::NotVerified(_) | Denial::NoSuchSet(_) => (554, (5, 7, 1)),
            Denial::NoFrom | Denial::NoSuchPriority(_) | Denial::NoSuchWarmup(_) => (554, (5, 6, 0)),
            Denial::Paused(_) => (454, (4, 7, 0)),
        };
        let code = ReplyCode::new(code).expect("the codes above are reply codes");
        let (class, subject, detail) = status;
        Reply::new(code, EnhancedStatus::new(class, subject, detail), vec![self.to_string().into()])
    }
}

/// Decides once a transaction, at MAIL. `sender` is the reverse-path as written.
pub fn admit(directory: &Directory, client: Client<'_>, sender: &str) -> Result<Grant, Denial> {
    let Some(proved) = client.credential else {
        if !directory.is_relay_client(client.address) {
            return Err(Denial::NotARelayClient);
        }
        let tenant = Arc::clone(&directory.relay.tenant);
        check_sending(directory, &tenant)?;
        return Ok(Grant { caller: NETWORK.into(), tenant, credential: None });
    };
    let known = directory.credential(&proved.user);
    let credential = known.filter(|known| known.secrets.contains(&proved.secret)).ok_or(Denial::Revoked)?;
    if !credential.allows(client.address) {
        return Err(Denial::AccessDenied { user: Arc::clone(&proved.user), resource: sender.into() });
    }
    check_sending(directory, &credential.tenant)?;
    Ok(Grant {
        caller: Arc::clone(&credential.user),
        tenant: Arc::clone(&credential.tenant),
        credential: Some(Arc::clone(credential)),
    })
}

fn check_sending(directory: &Directory, tenant: &Tenant) -> Result<(), Denial> {
    if !directory.sending {
        return Err(Denial::Paused("this server".into()));
    }
    if !tenant.sending || directory.pauses.has_tenant(tenant.name.as_str()) {
        return Err(Denial::Paused(format!("tenant {}", tenant.name).into()));
    }
    Ok(())
}

#[cfg(test)]
pub(crate) mod testing {
    //! Directories for tests of logins.

    use std::sync::Arc;
    use std::time::Duration;

    use super::directory::{Credential, Directory, Quota};

    /// Relays for these networks; nobody can log in.
    pub(crate) fn directory(networks: &[&str]) -> Directory {
        let networks = networks.iter().map(|text| text.parse().unwrap()).collect();
        Directory::relay_only(networks, Duration::from_secs(60))
    }

    /// Adds a user of the relay clients' tenant with these hashes.
    pub(crate) fn add_user(directory: &mut Directory, user: &str, secrets: &[&str], networks: &[&str]) {
        directory.add_credential(Credential {
            user: user.into(),
            secrets: secrets.iter().map(|secret| (*secret).into()).collect(),
            tenant: Arc::clone(&directory.relay.tenant),
            networks: networks.iter().map(|text| text.parse().unwrap()).collect(),
            identities: None,
            configuration_set: None,
            quota: Quota::default(),
        });
    }
}

#[cfg(test)]
mod tests;
