//! May this client send this, and as what? Today: relay for configured networks. Credentials, identities, configuration
//! sets, suppression and quotas come behind the same function.

pub mod directory;
pub mod identity;
pub mod suppression;

use std::net::IpAddr;
use std::time::Duration;

use ipnet::IpNet;

/// Who may relay.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Clients in these networks may relay without credentials.
    pub networks: Vec<IpNet>,
    /// How long a message may be retried before it bounces.
    pub lifetime: Duration,
}

/// What is known of a client when it says MAIL.
#[derive(Clone, Copy, Debug)]
pub struct Client<'a> {
    /// Its address; IPv4-mapped IPv6 already unmapped.
    pub address: IpAddr,
    /// The credential it proved, once AUTH exists.
    pub credential: Option<&'a str>,
}

/// As what a client sends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Grant {
    /// `callerIdentity` in events: the credential, or `network`.
    pub caller: String,
    /// How long its messages live.
    pub lifetime: Duration,
}

/// Why a client may not relay; reply 530 5.7.0 or 554 5.7.1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Denial {
    /// Not in a relay network, and no credential.
    NotARelayClient,
}

impl Settings {
    /// Decides once a transaction, at MAIL.
    pub fn admit(&self, client: Client<'_>) -> Result<Grant, Denial> {
        if let Some(name) = client.credential {
            return Ok(Grant { caller: name.to_owned(), lifetime: self.lifetime });
        }
        if self.networks.iter().any(|network| network.contains(&client.address)) {
            return Ok(Grant { caller: "network".to_owned(), lifetime: self.lifetime });
        }
        Err(Denial::NotARelayClient)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_listed_networks_may_relay() {
        let settings = Settings {
            networks: vec!["10.0.0.0/8".parse().unwrap(), "::1/128".parse().unwrap()],
            lifetime: Duration::from_secs(60),
        };
        let admit = |address: &str| settings.admit(Client { address: address.parse().unwrap(), credential: None });
        assert!(admit("10.1.2.3").is_ok());
        assert!(admit("::1").is_ok());
        assert_eq!(admit("11.0.0.1"), Err(Denial::NotARelayClient));
    }
}
