//! What is concluded from a reply or a fault, in our words and in SES's.

use std::sync::Arc;
use std::time::Duration;

use super::reaction::Reaction;
use crate::types::BounceKind;
pub use crate::types::DelayType;

/// What becomes of the recipients that a reply covers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Disposition {
    /// Taken by the next hop.
    Delivered,
    /// To be tried again.
    Deferred,
    /// Over.
    Bounced,
}

/// What a reply says something about. Only [`Scope::Lane`] feeds concurrency, backoff and IP health.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Scope {
    /// This recipient.
    Recipient,
    /// This message or its sender: other recipients at this site fare the same.
    Message,
    /// Our source at this site: other messages from there fare the same.
    Lane,
    /// This one host, whatever is sent there from wherever: other hosts of the site may do better.
    OneHost,
}

impl Scope {
    /// All.
    pub const ALL: [Scope; 4] = [Scope::Recipient, Scope::Message, Scope::Lane, Scope::OneHost];

    /// As rule files and the command line spell it.
    pub const fn name(self) -> &'static str {
        match self {
            Scope::Recipient => "recipient",
            Scope::Message => "message",
            Scope::Lane => "lane",
            Scope::OneHost => "host",
        }
    }
}

/// The kind of failure, as `posthaste.class` shows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[allow(missing_docs, reason = "the names say it; docs/EVENTS.md lists them")]
#[repr(u8)]
pub enum BounceClass {
    None,
    BadMailbox,
    InactiveMailbox,
    MailboxFull,
    BadDomain,
    Greylist,
    RateLimit,
    TooManyRecipients,
    IpBlock,
    Spam,
    Virus,
    Attachment,
    Content,
    TooLarge,
    Authentication,
    Policy,
    Sender,
    Relay,
    Tls,
    Dns,
    Connection,
    Protocol,
    System,
    Loop,
    Unsupported,
    Expired,
    Other,
}

impl BounceClass {
    /// The number in stored records: never another one.
    pub const fn code(self) -> u8 {
        self as u8
    }

    /// The class with this number.
    pub fn from_code(code: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|class| class.code() == code)
    }

    /// All.
    pub const ALL: [BounceClass; 27] = [
        BounceClass::None,
        BounceClass::BadMailbox,
        BounceClass::InactiveMailbox,
        BounceClass::MailboxFull,
        BounceClass::BadDomain,
        BounceClass::Greylist,
        BounceClass::RateLimit,
        BounceClass::TooManyRecipients,
        BounceClass::IpBlock,
        BounceClass::Spam,
        BounceClass::Virus,
        BounceClass::Attachment,
        BounceClass::Content,
        BounceClass::TooLarge,
        BounceClass::Authentication,
        BounceClass::Policy,
        BounceClass::Sender,
        BounceClass::Relay,
        BounceClass::Tls,
        BounceClass::Dns,
        BounceClass::Connection,
        BounceClass::Protocol,
        BounceClass::System,
        BounceClass::Loop,
        BounceClass::Unsupported,
        BounceClass::Expired,
        BounceClass::Other,
    ];

    /// Whether it is about the address, and says that mail to it reaches nobody.
    pub const fn says_nobody_is_there(self) -> bool {
        matches!(self, BounceClass::BadMailbox | BounceClass::InactiveMailbox | BounceClass::BadDomain)
    }

    /// As events spell it.
    pub const fn name(self) -> &'static str {
        match self {
            BounceClass::None => "none",
            BounceClass::BadMailbox => "bad-mailbox",
            BounceClass::InactiveMailbox => "inactive-mailbox",
            BounceClass::MailboxFull => "mailbox-full",
            BounceClass::BadDomain => "bad-domain",
            BounceClass::Greylist => "greylist",
            BounceClass::RateLimit => "rate-limit",
            BounceClass::TooManyRecipients => "too-many-recipients",
            BounceClass::IpBlock => "ip-block",
            BounceClass::Spam => "spam",
            BounceClass::Virus => "virus",
            BounceClass::Attachment => "attachment",
            BounceClass::Content => "content",
            BounceClass::TooLarge => "too-large",
            BounceClass::Authentication => "authentication",
            BounceClass::Policy => "policy",
            BounceClass::Sender => "sender",
            BounceClass::Relay => "relay",
            BounceClass::Tls => "tls",
            BounceClass::Dns => "dns",
            BounceClass::Connection => "connection",
            BounceClass::Protocol => "protocol",
            BounceClass::System => "system",
            BounceClass::Loop => "loop",
            BounceClass::Unsupported => "unsupported",
            BounceClass::Expired => "expired",
            BounceClass::Other => "other",
        }
    }
}

/// Which schedule a deferred recipient follows; see [`super::retry`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum RetryKind {
    /// The steps as configured.
    Normal,
    /// The steps as configured, from the same source address.
    Greylist,
    /// At least a pause, so that the rate can recover.
    RateLimited,
    /// A longer pause from this source; another source may try at once.
    Blocked,
    /// The steps as configured, with a lifetime of its own.
    MailboxFull,
}

impl RetryKind {
    /// All.
    pub const ALL: [RetryKind; 5] =
        [RetryKind::Normal, RetryKind::Greylist, RetryKind::RateLimited, RetryKind::Blocked, RetryKind::MailboxFull];

    /// As rule files and the command line spell it.
    pub const fn name(self) -> &'static str {
        match self {
            RetryKind::Normal => "normal",
            RetryKind::Greylist => "greylist",
            RetryKind::RateLimited => "rate-limited",
            RetryKind::Blocked => "blocked",
            RetryKind::MailboxFull => "mailbox-full",
        }
    }
}

/// `bounceType` of SES.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[allow(missing_docs, reason = "SES's own words")]
pub enum BounceType {
    Undetermined,
    Permanent,
    Transient,
}

impl BounceType {
    /// All.
    pub const ALL: [BounceType; 3] = [BounceType::Undetermined, BounceType::Permanent, BounceType::Transient];

    /// As events spell it.
    pub const fn name(self) -> &'static str {
        match self {
            BounceType::Undetermined => "Undetermined",
            BounceType::Permanent => "Permanent",
            BounceType::Transient => "Transient",
        }
    }
}

/// `bounceSubType` of SES, as far as replies lead to one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[allow(missing_docs, reason = "SES's own words")]
pub enum BounceSubType {
    Undetermined,
    General,
    MailboxFull,
    MessageTooLarge,
    ContentRejected,
    AttachmentRejected,
    CustomTimeoutExceeded,
}

impl BounceSubType {
    /// All.
    pub const ALL: [BounceSubType; 7] = [
        BounceSubType::Undetermined,
        BounceSubType::General,
        BounceSubType::MailboxFull,
        BounceSubType::MessageTooLarge,
        BounceSubType::ContentRejected,
        BounceSubType::AttachmentRejected,
        BounceSubType::CustomTimeoutExceeded,
    ];

    /// The type that SES writes it with.
    pub const fn is_of(self, bounce_type: BounceType) -> bool {
        match (bounce_type, self) {
            (BounceType::Undetermined, BounceSubType::Undetermined)
            | (BounceType::Permanent, BounceSubType::General) => true,
            (BounceType::Transient, sub_type) => !matches!(sub_type, BounceSubType::Undetermined),
            _ => false,
        }
    }

    /// As events spell it.
    pub const fn name(self) -> &'static str {
        match self {
            BounceSubType::Undetermined => "Undetermined",
            BounceSubType::General => "General",
            BounceSubType::MailboxFull => "MailboxFull",
            BounceSubType::MessageTooLarge => "MessageTooLarge",
            BounceSubType::ContentRejected => "ContentRejected",
            BounceSubType::AttachmentRejected => "AttachmentRejected",
            BounceSubType::CustomTimeoutExceeded => "CustomTimeoutExceeded",
        }
    }
}

/// The decision on one reply or fault.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verdict {
    /// What becomes of the recipients.
    pub disposition: Disposition,
    /// What the reply is about.
    pub scope: Scope,
    /// The kind of failure.
    pub class: BounceClass,
    /// The name of the rule that hit; events quote it.
    pub rule: Arc<str>,
    /// The schedule, for [`Disposition::Deferred`].
    pub retry: RetryKind,
    /// When the peer wants to be asked again, where it said so.
    pub retry_after: Option<Duration>,
    /// The bounce that this is, or will be if it is still deferred when its lifetime ends.
    pub bounce_type: BounceType,
    /// Likewise.
    pub bounce_sub_type: BounceSubType,
    /// The delay that this is, for [`Disposition::Deferred`].
    pub delay_type: DelayType,
    /// What the lane does beyond this recipient.
    pub reaction: Option<Reaction>,
}

impl Verdict {
    /// The bounce that this is, or would be, in SES's words.
    pub fn bounce_kind(&self) -> BounceKind {
        match (self.bounce_type, self.bounce_sub_type) {
            (BounceType::Permanent, _) if self.class == BounceClass::BadMailbox => BounceKind::PermanentNoEmail,
            (BounceType::Permanent, _) => BounceKind::PermanentGeneral,
            (BounceType::Transient, BounceSubType::MailboxFull) => BounceKind::TransientMailboxFull,
            (BounceType::Transient, BounceSubType::MessageTooLarge) => BounceKind::TransientMessageTooLarge,
            (BounceType::Transient, BounceSubType::ContentRejected) => BounceKind::TransientContentRejected,
            (BounceType::Transient, BounceSubType::AttachmentRejected) => BounceKind::TransientAttachmentRejected,
            (BounceType::Transient, BounceSubType::CustomTimeoutExceeded) => BounceKind::TransientCustomTimeoutExceeded,
            (BounceType::Transient, _) => BounceKind::TransientGeneral,
            (BounceType::Undetermined, _) => BounceKind::Undetermined,
        }
    }

    /// Whether a bounce with this verdict says that nobody is there, so that further mail to the address would only do harm: policy,
    /// content, blocks and our own faults never do.
    pub fn says_nobody_is_there(&self) -> bool {
        self.class.says_nobody_is_there() && self.bounce_type == BounceType::Permanent
    }

    /// The verdict on a recipient whose lifetime ended while this was its last one: bounced, with the same cause. Its
    /// type stays what it was, its rule too, so that the bounce tells why it was not delivered; only where nothing was
    /// known of the cause the class becomes `expired`.
    #[must_use]
    pub fn expired(self) -> Verdict {
        let class = if self.class == BounceClass::Other { BounceClass::Expired } else { self.class };
        Verdict { disposition: Disposition::Bounced, class, retry_after: None, ..self }
    }
}
