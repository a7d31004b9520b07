//! SPF (RFC 7208) as a receiver evaluates it: by mail-auth, which large receivers run, asking our own servers.
//!
//! Only the first of the configured servers is asked. Does not count records or lookups: who wants to say why a record is
//! wrong reads it.

use std::net::IpAddr;
use std::time::Duration;

use mail_auth::spf::verify::SpfParameters;
use mail_auth::{MessageAuthenticator, SpfResult};

use super::dns::HickoryResolver;
use crate::types::Domain;

/// What a receiver concludes (RFC 7208 §2.6).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SpfVerdict {
    /// The address may send.
    Pass,
    /// It may not.
    Fail,
    /// It probably may not.
    SoftFail,
    /// The record says nothing about it.
    Neutral,
    /// There is no record.
    None,
    /// The record is wrong, or needs more than 10 lookups.
    PermError,
    /// DNS failed.
    TempError,
}

/// Asks for SPF verdicts.
pub struct SpfVerifier {
    mail_auth: MessageAuthenticator,
}

impl SpfVerifier {
    /// One that asks the first server of `resolver`; `None` where it has no server.
    pub fn new(resolver: &HickoryResolver) -> Option<Self> {
        Some(Self { mail_auth: MessageAuthenticator(resolver.first_client()?) })
    }

    /// What a receiver says of mail from `postmaster@domain` that comes from `source`, where the client is called `ehlo`.
    /// [`SpfVerdict::TempError`] after `timeout`.
    pub async fn verdict(&self, source: IpAddr, domain: &Domain, ehlo: &Domain, timeout: Duration) -> SpfVerdict {
        let sender = format!("postmaster@{domain}");
        let parameters = SpfParameters::verify_mail_from(source, ehlo.as_str(), ehlo.as_str(), &sender);
        let Ok(output) = tokio::time::timeout(timeout, self.mail_auth.verify_spf(parameters)).await else {
            return SpfVerdict::TempError;
        };
        match output.result() {
            SpfResult::Pass => SpfVerdict::Pass,
            SpfResult::Fail => SpfVerdict::Fail,
            SpfResult::SoftFail => SpfVerdict::SoftFail,
            SpfResult::Neutral => SpfVerdict::Neutral,
            SpfResult::None => SpfVerdict::None,
            SpfResult::PermError => SpfVerdict::PermError,
            SpfResult::TempError => SpfVerdict::TempError,
        }
    }
}
