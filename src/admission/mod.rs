//! May this client send this, and as what? Credentials and relay networks; identities, configuration sets, suppression and
//! quotas come behind the same function.

pub mod authenticate;
pub mod directory;
pub mod identity;
pub mod password;

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

pub use directory::Directory;

/// Proof of a login, as a session keeps it. Admission holds it against the directory of the day at each MAIL, so that what a
/// reload revoked is revoked in open sessions too.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Authenticated {
    /// The user name.
    pub user: Arc<str>,
    /// The hash (PHC form) that the secret matched.
    pub secret: Arc<str>,
}

/// What is known of a client when it says MAIL.
#[derive(Clone, Copy, Debug)]
pub struct Client<'a> {
    /// Its address; IPv4-mapped IPv6 already unmapped.
    pub address: IpAddr,
    /// The credential it proved.
    pub credential: Option<&'a Authenticated>,
}

/// As what a client sends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Grant {
    /// `callerIdentity` in events: the user name, or `network`.
    pub caller: String,
    /// How long its messages live.
    pub lifetime: Duration,
}

/// Why a client may not send.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Denial {
    /// Not in a relay network, and no credential: 530 5.7.0.
    NotARelayClient,
    /// Its credential, or the secret it proved, is no longer in the directory: 535 5.7.8, and the login is over.
    Revoked,
    /// Its credential may not be used from this address: 554 5.7.1 with [`access_denied`].
    OutsideNetworks,
}

impl Directory {
    /// Decides once a transaction, at MAIL.
    pub fn admit(&self, client: Client<'_>) -> Result<Grant, Denial> {
        if let Some(proof) = client.credential {
            let known = self.credential(&proof.user).filter(|credential| credential.secrets.contains(&proof.secret));
            let credential = known.ok_or(Denial::Revoked)?;
            if !credential.allows(client.address) {
                return Err(Denial::OutsideNetworks);
            }
            return Ok(Grant { caller: credential.user.to_string(), lifetime: self.lifetime });
        }
        if self.is_relay_client(client.address) {
            return Ok(Grant { caller: "network".to_owned(), lifetime: self.lifetime });
        }
        Err(Denial::NotARelayClient)
    }
}

/// The text of a 554 5.7.1 for who is known and not allowed, as SES words it. `resource` is what was to be sent as.
pub fn access_denied(user: &str, resource: &str) -> String {
    format!("Access denied: User {user} is not authorized to perform ses:SendRawEmail on resource {resource}")
}

#[cfg(test)]
pub(crate) mod testing {
    //! Directories for tests.

    use std::sync::Arc;
    use std::time::Duration;

    use super::directory::{Credential, Directory, Name, Quota, Relay, Tenant};

    /// Relays for these networks; nobody can log in.
    pub(crate) fn directory(networks: &[&str]) -> Directory {
        let tenant = Arc::new(Tenant::trusted(Name::parse("default").unwrap()));
        let networks = networks.iter().map(|text| text.parse().unwrap()).collect();
        Directory::new(Relay { networks, tenant }, Duration::from_secs(60))
    }

    /// Adds a user of the default tenant with these hashes.
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
mod tests {
    use super::*;

    #[test]
    fn only_listed_networks_may_relay() {
        let directory = testing::directory(&["10.0.0.0/8", "::1/128"]);
        let admit = |address: &str| directory.admit(Client { address: address.parse().unwrap(), credential: None });
        assert!(admit("10.1.2.3").is_ok());
        assert!(admit("::1").is_ok());
        assert_eq!(admit("11.0.0.1"), Err(Denial::NotARelayClient));
    }

    #[test]
    fn a_login_is_worth_what_the_directory_of_the_day_says() {
        let mut directory = testing::directory(&[]);
        testing::add_user(&mut directory, "app", &["hash-1", "hash-2"], &["192.0.2.0/24"]);
        let admit = |user: &str, secret: &str, address: &str| {
            let proof = Authenticated { user: user.into(), secret: secret.into() };
            let client = Client { address: address.parse().unwrap(), credential: Some(&proof) };
            directory.admit(client).map(|grant| grant.caller)
        };
        assert_eq!(admit("app", "hash-1", "192.0.2.1"), Ok("app".to_owned()));
        assert_eq!(admit("app", "hash-2", "192.0.2.1"), Ok("app".to_owned()));
        assert_eq!(admit("app", "hash-0", "192.0.2.1"), Err(Denial::Revoked), "a secret that was rotated out");
        assert_eq!(admit("gone", "hash-1", "192.0.2.1"), Err(Denial::Revoked));
        assert_eq!(admit("app", "hash-1", "198.51.100.1"), Err(Denial::OutsideNetworks));
    }
}
