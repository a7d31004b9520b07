//! AUTH: what the machine was told goes to the authenticator, its verdict to the machine and to the audit stream.

use std::net::IpAddr;

use tokio::time::Instant;

use super::{Next, Session};
use crate::admission::authenticate::{Claim, Fault, Hindrance, Verdict};
use crate::events::audit::AuditEntry;
use crate::events::metric;
use crate::net::client_of;
use crate::reception::Ports;
use crate::reception::settings::{ListenerAuth, ListenerTakes};
use crate::smtp::sasl::{Login, Mechanism};
use crate::smtp::server::LoginOffer;

/// Octets of a user name that the audit stream shows where no such user is known: people type passwords there.
const AUDIT_USER_BYTES_MAX: usize = 64;

/// The type of the lines.
const AUDIT_TYPE: &str = "authentication";

impl Session {
    /// Where this client may log in, as its listener and the directory of the day say.
    pub(super) fn login_offer(&self) -> LoginOffer {
        let has_credentials = self.shared.ports.admission.load().has_credentials();
        match self.spec.auth {
            _ if !has_credentials || self.spec.takes == ListenerTakes::Feedback => LoginOffer::Never,
            ListenerAuth::Never => LoginOffer::Never,
            ListenerAuth::Tls => LoginOffer::UnderTls,
            ListenerAuth::Clear => LoginOffer::Always,
        }
    }

    /// A login: verified, answered, noted.
    pub(super) async fn log_in(&mut self, login: Login) -> Next {
        let deadline = self.deadline(self.facts.settings.command_timeout);
        let verdict = verdict_on(&self.shared.ports, client_of(self.facts.client), &login, deadline).await;
        let known = self.shared.ports.admission.load().credential(&login.user).is_some();
        self.note(login.mechanism, &login.user, known, &verdict);
        match verdict {
            Ok(Verdict::Right(proof)) => {
                self.login = Some(proof);
                self.machine.logged_in();
                self.is_in_earnest();
            }
            Ok(Verdict::Later(_)) => self.machine.login_deferred(),
            Ok(Verdict::Wrong(_)) | Err(ActsAsOther) => self.machine.login_refused(),
        }
        Next::GoOn
    }

    /// What was proved no longer holds.
    pub(super) fn log_out(&mut self) {
        if let Some(proof) = self.login.take() {
            tracing::info!(client = %self.facts.client, user = &*proof.user, "login revoked");
            let listener = &*self.spec.name;
            let entry = AuditEntry::new("revocation").text("user", &*proof.user);
            let entry = entry.text("source_ip", self.facts.client.to_string()).text("listener", listener);
            self.shared.ports.audit.note(entry);
        }
        self.machine.log_out();
    }

    fn note(&self, mechanism: Mechanism, user: &str, is_known: bool, verdict: &Result<Verdict, ActsAsOther>) {
        let (outcome, reason) = match verdict {
            Ok(Verdict::Right(_)) => ("accepted", None),
            Ok(Verdict::Wrong(Fault::UnknownUser)) => ("refused", Some("unknown user")),
            Ok(Verdict::Wrong(Fault::WrongSecret)) => ("refused", Some("wrong secret")),
            Ok(Verdict::Later(Hindrance::Throttled)) => ("deferred", Some("too many failures")),
            Ok(Verdict::Later(Hindrance::Busy)) => ("deferred", Some("too many verifications")),
            Err(ActsAsOther) => ("refused", Some("acts as another user")),
        };
        metrics::counter!(metric::AUTH_ATTEMPTS, "outcome" => outcome).increment(1);
        let facts = &self.facts;
        tracing::debug!(client = %facts.client, mechanism = mechanism.name(), outcome, reason, "login");
        let user = if is_known { user } else { shown(user) };
        let entry = AuditEntry::new(AUDIT_TYPE)
            .text("user", user)
            .text("source_ip", facts.client.to_string())
            .text("listener", &*self.spec.name)
            .text("mechanism", mechanism.name())
            .flag("success", outcome == "accepted")
            .optional("reason", reason)
            .optional("tls", facts.tls.as_ref().map(|tls| tls.version));
        self.shared.ports.audit.note(entry);
    }
}

async fn verdict_on(ports: &Ports, client: IpAddr, login: &Login, deadline: Instant) -> Result<Verdict, ActsAsOther> {
    if login.acts_as_other {
        return Err(ActsAsOther);
    }
    let directory = ports.admission.load_full();
    let claim = Claim { user: &login.user, secret: login.secret.expose(), client };
    let verdict = ports.authenticator.verify(&directory, claim);
    // Above: the line of verifications is slower than the client's patience.
    Ok(tokio::time::timeout_at(deadline, verdict).await.unwrap_or(Verdict::Later(Hindrance::Busy)))
}

/// The client asked for the rights of another user (RFC 4616 §2).
struct ActsAsOther;

/// The front of a name that somebody made up.
fn shown(user: &str) -> &str {
    let end = (0..=AUDIT_USER_BYTES_MAX).rev().find(|end| user.is_char_boundary(*end));
    user.get(..end.unwrap_or(0)).unwrap_or(user)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn made_up_names_are_cut_between_characters() {
        assert_eq!(shown("app"), "app");
        assert_eq!(shown(&"a".repeat(200)), "a".repeat(64));
        assert_eq!(shown(&format!("a{}", "é".repeat(100))), format!("a{}", "é".repeat(31)));
    }
}
