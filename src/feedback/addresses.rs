//! Which addresses mail is taken for, at a listener for feedback, and what each of them is for. Pure.
//!
//! Nothing else is taken: what is refused at RCPT is no message yet, so this server neither relays nor sends a bounce for it.
//! A stranger learns of an address only whether it is taken, not why: whoever tries tokens learns nothing.

use std::collections::HashSet;
use std::time::Duration;

use super::report::Addressed;
use crate::policy::token::{Purpose, TokenContent, TokenKeys, verify};
use crate::types::{Domain, EmailAddress, Timestamp};

/// Stands before the token of an address that a request to unsubscribe is mailed to. A local part has 64 octets, the token 56.
pub const UNSUBSCRIBE_PREFIX: &str = "unsub-";
/// RFC 2142 §4 and §5: who receives mail for a domain has these.
const ROLES: [&str; 2] = ["postmaster", "abuse"];

/// As configured.
#[derive(Clone, Debug, Default)]
pub struct Addresses {
    /// Domains of return paths; requests to unsubscribe come to them too.
    pub return_paths: HashSet<Domain>,
    /// Where feedback loops send their reports.
    pub complaints: Vec<EmailAddress>,
    /// `rua` of DMARC records.
    pub dmarc: Vec<EmailAddress>,
    /// `rua` of TLS-RPT records.
    pub tls_rpt: Vec<EmailAddress>,
    /// Our own name: it has a postmaster too.
    pub hostname: Option<Domain>,
    /// How long a token counts.
    pub token_lifetime: Duration,
}

/// An address that mail is taken for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Recognised {
    /// What it is for.
    pub addressed: Addressed,
    /// What its token says, where it has one.
    pub token: Option<TokenContent>,
}

/// Why mail for an address is not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unknown {
    /// 550 5.7.1: it would have to be relayed.
    #[error("Relaying denied: no mail for this domain is taken here")]
    Domain,
    /// 550 5.1.1.
    #[error("No such address here")]
    Address,
}

impl Addresses {
    /// What an address is for.
    pub fn recognise(&self, address: &EmailAddress, keys: &TokenKeys, now: Timestamp) -> Result<Recognised, Unknown> {
        let (local, domain) = (address.local_part(), address.domain());
        let plain = |addressed| Ok(Recognised { addressed, token: None });
        for (addresses, addressed) in [
            (&self.complaints, Addressed::Complaints),
            (&self.dmarc, Addressed::Dmarc),
            (&self.tls_rpt, Addressed::TlsRpt),
        ] {
            if addresses.iter().any(|known| known.is_same_mailbox(address)) {
                return plain(addressed);
            }
        }
        let is_ours = self.is_ours(domain);
        if is_ours && ROLES.iter().any(|role| role.eq_ignore_ascii_case(local)) {
            return plain(Addressed::Postmaster);
        }
        // A token is ours at whatever domain: that of return paths may have been another one when the message was sent.
        let (purpose, addressed, text) = match split_prefix(local) {
            Some(token) => (Purpose::Unsubscribe, Addressed::Unsubscribe, token),
            None => (Purpose::ReturnPath, Addressed::ReturnPath, local),
        };
        match verify(keys, purpose, text, now, self.token_lifetime) {
            Ok(token) => Ok(Recognised { addressed, token: Some(token) }),
            Err(error) => {
                tracing::debug!(%error, "mail for a token that does not count");
                Err(if is_ours { Unknown::Address } else { Unknown::Domain })
            }
        }
    }

    fn is_ours(&self, domain: &Domain) -> bool {
        let of_reports = self.complaints.iter().chain(&self.dmarc).chain(&self.tls_rpt);
        self.return_paths.contains(domain)
            || self.hostname.as_ref() == Some(domain)
            || of_reports.into_iter().any(|address| address.domain() == domain)
    }
}

/// The token behind the prefix of requests to unsubscribe, in any case.
fn split_prefix(local: &str) -> Option<&str> {
    let (prefix, token) = local.split_at_checked(UNSUBSCRIBE_PREFIX.len())?;
    prefix.eq_ignore_ascii_case(UNSUBSCRIBE_PREFIX).then_some(token)
}
