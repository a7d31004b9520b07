//! Failures without a reply: names, connections, TLS, our own limits. Same verdicts as for replies, so that the rest of
//! the daemon knows one kind of outcome.

use std::sync::Arc;

use super::verdict::{BounceClass, BounceSubType, BounceType, DelayType, Disposition, RetryKind, Scope, Verdict};
use crate::types::EnhancedStatus;

/// What went wrong before or without a reply.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Fault {
    /// NXDOMAIN, confirmed (the caller asks twice, some time apart).
    NoSuchDomain,
    /// The domain has neither MX nor address records.
    NoAddress,
    /// A null MX (RFC 7505): the domain takes no mail.
    NullMx,
    /// SERVFAIL, timeout, bogus: nobody knows; also NXDOMAIN that is not yet confirmed.
    DnsFailed,
    /// Every MX host leads back to this server.
    MxLoop,
    /// Refused, unreachable or timed out before the greeting.
    ConnectFailed,
    /// Broken off or timed out within the session.
    ConnectionLost,
    /// The other side does not speak SMTP, or breaks its rules.
    Protocol,
    /// TLS is required for this mail and could not be had.
    TlsRequired,
    /// SIZE of every host is below the message's size (RFC 1870).
    TooLarge,
    /// The message needs SMTPUTF8 and no host offers it (RFC 6531 §3.5).
    NeedsSmtpUtf8,
    /// The message holds octets above 127, no host offers 8BITMIME, and it cannot be converted (RFC 6152 §3).
    NeedsEightBit,
    /// Our own disk, memory or configuration.
    Internal,
}

/// One row: rule name, status, disposition, scope, class, bounce, delay.
struct Row(&'static str, (u8, u16, u16), Disposition, Scope, BounceClass, (BounceType, BounceSubType), DelayType);

impl Fault {
    /// Every fault.
    pub const ALL: [Fault; 13] = [
        Fault::NoSuchDomain,
        Fault::NoAddress,
        Fault::NullMx,
        Fault::DnsFailed,
        Fault::MxLoop,
        Fault::ConnectFailed,
        Fault::ConnectionLost,
        Fault::Protocol,
        Fault::TlsRequired,
        Fault::TooLarge,
        Fault::NeedsSmtpUtf8,
        Fault::NeedsEightBit,
        Fault::Internal,
    ];

    /// The verdict. Scope `Recipient` where the domain itself is at fault.
    pub fn verdict(self) -> Verdict {
        let Row(name, _, disposition, scope, class, (bounce_type, bounce_sub_type), delay_type) = self.row();
        Verdict {
            disposition,
            scope,
            class,
            rule: Arc::from(name),
            retry: RetryKind::Normal,
            retry_after: None,
            bounce_type,
            bounce_sub_type,
            delay_type,
            reaction: None,
        }
    }

    /// The status for events and notifications (RFC 3463).
    pub fn status(self) -> EnhancedStatus {
        let Row(_, (class, subject, detail), ..) = self.row();
        EnhancedStatus::new(class, subject, detail).expect("the table holds classes 4 and 5 and small numbers only")
    }

    fn row(self) -> Row {
        use BounceClass as Class;
        use BounceSubType::{ContentRejected, General, MessageTooLarge};
        use BounceType::{Permanent, Transient};
        use DelayType as Delay;
        use Disposition::{Bounced, Deferred};
        use Scope::{Lane, Message, Recipient};
        let down = Delay::TransientCommunicationFailure;
        let soft = (Transient, General);
        let hard = (Permanent, General);
        match self {
            Fault::NoSuchDomain => Row("no-such-domain", (5, 1, 2), Bounced, Recipient, Class::BadDomain, hard, down),
            Fault::NoAddress => Row("domain-no-address", (5, 1, 2), Bounced, Recipient, Class::BadDomain, hard, down),
            Fault::NullMx => Row("null-mx", (5, 1, 10), Bounced, Recipient, Class::BadDomain, hard, down),
            Fault::DnsFailed => Row("dns-failed", (4, 4, 3), Deferred, Recipient, Class::Dns, soft, down),
            Fault::MxLoop => Row("mx-loop", (5, 4, 6), Bounced, Recipient, Class::Loop, soft, Delay::General),
            Fault::ConnectFailed => Row("connect-failed", (4, 4, 1), Deferred, Lane, Class::Connection, soft, down),
            Fault::ConnectionLost => Row("connection-lost", (4, 4, 2), Deferred, Lane, Class::Connection, soft, down),
            Fault::Protocol => {
                Row("protocol-error", (4, 5, 0), Deferred, Lane, Class::Protocol, soft, Delay::RecipientServerError)
            }
            Fault::TlsRequired => Row("tls-unavailable", (4, 7, 10), Deferred, Lane, Class::Tls, soft, down),
            Fault::TooLarge => {
                let large = (Transient, MessageTooLarge);
                Row("size-limit", (5, 3, 4), Bounced, Message, Class::TooLarge, large, Delay::General)
            }
            Fault::NeedsSmtpUtf8 => {
                Row("no-smtputf8", (5, 6, 7), Bounced, Message, Class::Unsupported, soft, Delay::General)
            }
            Fault::NeedsEightBit => {
                let content = (Transient, ContentRejected);
                Row("no-8bitmime", (5, 6, 3), Bounced, Message, Class::Unsupported, content, Delay::General)
            }
            Fault::Internal => {
                Row("internal", (4, 3, 0), Deferred, Message, Class::System, soft, Delay::InternalFailure)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_status_class_agrees_with_the_disposition() {
        let mut names = std::collections::BTreeSet::new();
        for fault in Fault::ALL {
            let verdict = fault.verdict();
            let permanent = fault.status().class() == 5;
            assert_eq!(verdict.disposition == Disposition::Bounced, permanent, "{fault:?}");
            assert!(names.insert(verdict.rule.to_string()), "{fault:?}");
        }
    }

    #[test]
    fn an_unreachable_name_server_never_bounces_and_a_null_mx_does_at_once() {
        assert_eq!(Fault::DnsFailed.verdict().disposition, Disposition::Deferred);
        assert_eq!(Fault::NullMx.verdict().disposition, Disposition::Bounced);
        assert_eq!(Fault::NullMx.status().to_string(), "5.1.10");
    }

    #[test]
    fn an_expired_delay_keeps_its_cause() {
        let bounce = Fault::ConnectFailed.verdict().expired();
        assert_eq!((bounce.disposition, bounce.class), (Disposition::Bounced, BounceClass::Connection));
        assert_eq!(bounce.bounce_type, BounceType::Transient);
        assert_eq!(&*bounce.rule, "connect-failed");
    }
}
