//! The built-in rules, in order. `replies/cases.txt` holds some 270 replies of real servers against them.
//!
//! Ways to write a rule: names say what is wrong, with the provider in front where only one says it so; texts are lower
//! case; a phrase must be so long that no other meaning of it is likely.

mod by_code;
mod hosts;
mod messages;
mod recipients;

use super::classify::{Codes, Enhanced, Outcome, Spec, Stages};
use super::verdict::{BounceClass, BounceSubType, BounceType, DelayType, Disposition, RetryKind, Scope};

/// The tables in the order of their precedence.
pub(super) fn tables() -> impl Iterator<Item = &'static [Spec<'static>]> {
    [
        hosts::PROVIDERS,
        hosts::HOSTS,
        recipients::RECIPIENTS,
        messages::MESSAGES,
        by_code::ENHANCED,
        messages::VAGUE,
        by_code::BASIC,
    ]
    .into_iter()
}

const fn text(name: &'static str, stages: Stages, phrases: &'static [&'static str], outcome: Outcome) -> Spec<'static> {
    Spec { name, stages, codes: Codes::Any, enhanced: &[], phrases, outcome }
}

const fn enhanced(
    name: &'static str,
    stages: Stages,
    enhanced: &'static [Enhanced],
    outcome: Outcome,
) -> Spec<'static> {
    Spec { name, stages, codes: Codes::Any, enhanced, phrases: &[], outcome }
}

const fn basic(name: &'static str, stages: Stages, codes: Codes<'static>, outcome: Outcome) -> Spec<'static> {
    Spec { name, stages, codes, enhanced: &[], phrases: &[], outcome }
}

/// `x.subject.detail`.
const fn x(subject: u16, detail: u16) -> Enhanced {
    range(subject, detail, detail)
}

/// `x.subject.min` to `x.subject.max`.
const fn range(subject: u16, detail_min: u16, detail_max: u16) -> Enhanced {
    Enhanced { class: None, subject, detail_min, detail_max }
}

pub(super) const SOFT: (BounceType, BounceSubType) = (BounceType::Transient, BounceSubType::General);
const HARD: (BounceType, BounceSubType) = (BounceType::Permanent, BounceSubType::General);

/// The starting point of every outcome: by code and stage, nothing known.
pub(super) const OTHER: Outcome = Outcome {
    disposition: None,
    scope: None,
    class: BounceClass::Other,
    retry: RetryKind::Normal,
    bounce: SOFT,
    delay: DelayType::General,
};

const UNDETERMINED: Outcome =
    Outcome { bounce: (BounceType::Undetermined, BounceSubType::Undetermined), ..recipient(BounceClass::Other, SOFT) };

const BAD_MAILBOX: Outcome = recipient(BounceClass::BadMailbox, HARD);
const INACTIVE: Outcome = recipient(BounceClass::InactiveMailbox, HARD);
const BAD_DOMAIN: Outcome = recipient(BounceClass::BadDomain, HARD);
const NO_MAIL_HERE: Outcome = Outcome { disposition: Some(Disposition::Bounced), ..BAD_DOMAIN };
const FULL: Outcome = Outcome {
    disposition: Some(Disposition::Deferred),
    retry: RetryKind::MailboxFull,
    delay: DelayType::MailboxFull,
    ..recipient(BounceClass::MailboxFull, (BounceType::Transient, BounceSubType::MailboxFull))
};
const FULL_FOR_GOOD: Outcome = Outcome { disposition: Some(Disposition::Bounced), ..FULL };
const TOO_LARGE_FOR_RECIPIENT: Outcome =
    recipient(BounceClass::TooLarge, (BounceType::Transient, BounceSubType::MessageTooLarge));
const REFUSED_BY_RECIPIENT: Outcome = recipient(BounceClass::Policy, SOFT);
const RELAY: Outcome = recipient(BounceClass::Relay, SOFT);
const ROUTING: Outcome =
    Outcome { delay: DelayType::TransientCommunicationFailure, ..recipient(BounceClass::Dns, SOFT) };
const GREYLIST: Outcome = Outcome {
    disposition: Some(Disposition::Deferred),
    retry: RetryKind::Greylist,
    ..recipient(BounceClass::Greylist, SOFT)
};
const TOO_MANY_RECIPIENTS: Outcome =
    Outcome { disposition: Some(Disposition::Deferred), ..recipient(BounceClass::TooManyRecipients, SOFT) };
const RATE_OF_RECIPIENT: Outcome = Outcome {
    disposition: Some(Disposition::Deferred),
    retry: RetryKind::RateLimited,
    delay: DelayType::RecipientServerError,
    ..recipient(BounceClass::RateLimit, SOFT)
};

const RATE: Outcome = host(BounceClass::RateLimit, RetryKind::RateLimited, DelayType::IpFailure);
const BLOCK: Outcome = host(BounceClass::IpBlock, RetryKind::Blocked, DelayType::IpFailure);
const TLS: Outcome = host(BounceClass::Tls, RetryKind::Normal, DelayType::TransientCommunicationFailure);
/// A host's own trouble. By code, since a 5yz in a transaction means that it gave up on the message.
const SYSTEM: Outcome = Outcome { class: BounceClass::System, delay: DelayType::RecipientServerError, ..OTHER };
const PROTOCOL: Outcome = Outcome { class: BounceClass::Protocol, ..SYSTEM };
const LOGIN: Outcome = host(BounceClass::Authentication, RetryKind::Normal, DelayType::InternalFailure);

const SPAM: Outcome = Outcome {
    delay: DelayType::SpamDetected,
    ..message(BounceClass::Spam, (BounceType::Transient, BounceSubType::ContentRejected))
};
const VIRUS: Outcome = message(BounceClass::Virus, (BounceType::Transient, BounceSubType::ContentRejected));
const CONTENT: Outcome = message(BounceClass::Content, (BounceType::Transient, BounceSubType::ContentRejected));
const ATTACHMENT: Outcome =
    message(BounceClass::Attachment, (BounceType::Transient, BounceSubType::AttachmentRejected));
const TOO_LARGE: Outcome = message(BounceClass::TooLarge, (BounceType::Transient, BounceSubType::MessageTooLarge));
const AUTH: Outcome = message(BounceClass::Authentication, SOFT);
const SENDER: Outcome = message(BounceClass::Sender, SOFT);
const POLICY: Outcome = Outcome { class: BounceClass::Policy, ..OTHER };
const LOOP: Outcome = message(BounceClass::Loop, SOFT);
const EXPIRED: Outcome = message(BounceClass::Expired, SOFT);
const UNSUPPORTED: Outcome = message(BounceClass::Unsupported, SOFT);

const fn recipient(class: BounceClass, bounce: (BounceType, BounceSubType)) -> Outcome {
    Outcome { scope: Some(Scope::Recipient), class, bounce, ..OTHER }
}

const fn message(class: BounceClass, bounce: (BounceType, BounceSubType)) -> Outcome {
    Outcome { scope: Some(Scope::Message), class, bounce, ..OTHER }
}

/// Not the recipient's fault: deferred whatever the code says.
const fn host(class: BounceClass, retry: RetryKind, delay: DelayType) -> Outcome {
    Outcome { disposition: Some(Disposition::Deferred), scope: Some(Scope::Host), class, retry, bounce: SOFT, delay }
}
