//! A reply rule as data: where it applies, what it takes, what follows.

use std::fmt;
use std::sync::Arc;

use crate::policy::reaction::Reaction;
use crate::policy::verdict::{BounceClass, BounceSubType, BounceType, DelayType, Disposition, RetryKind, Scope};
use crate::types::{EnhancedStatus, Stage};

/// A set of stages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stages(u16);

impl Stages {
    /// Every stage.
    pub const ANY: Stages = Stages(Stages::SESSION.0 | Stages::MESSAGE.0 | Stages::RECIPIENT.0);
    /// Connect to AUTH.
    pub const SESSION: Stages =
        Stages(Stage::Connect.bit() | Stage::Greeting.bit() | Stage::Ehlo.bit() | Stage::Tls.bit() | Stage::Auth.bit());
    /// DATA and the final dot.
    pub const CONTENT: Stages = Stages(Stage::Data.bit() | Stage::Dot.bit());
    /// RCPT, DATA and the final dot: where a recipient is known.
    pub const RECIPIENT: Stages = Stages(Stage::Rcpt.bit() | Stages::CONTENT.0);
    /// MAIL, DATA and the final dot: where the message or its sender is judged.
    pub const MESSAGE: Stages = Stages(Stage::Mail.bit() | Stages::CONTENT.0);
    /// None: the start of a union.
    pub const NONE: Stages = Stages(0);

    /// Words for sets, as rule files write them beside the names of stages.
    pub const GROUPS: [(&'static str, Stages); 5] = [
        ("any", Stages::ANY),
        ("session", Stages::SESSION),
        ("recipient", Stages::RECIPIENT),
        ("message", Stages::MESSAGE),
        ("content", Stages::CONTENT),
    ];

    /// Only this stage.
    pub const fn only(stage: Stage) -> Self {
        Self(stage.bit())
    }

    /// Whether a stage is in the set.
    pub const fn has(self, stage: Stage) -> bool {
        self.0 & stage.bit() != 0
    }

    /// Both sets.
    #[must_use]
    pub const fn with(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// Whether all of `other` is in this one.
    pub const fn covers(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }
}

/// As a rule file would say it.
impl fmt::Display for Stages {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some((name, _)) = Self::GROUPS.iter().find(|(_, stages)| stages == self) {
            return f.write_str(name);
        }
        let names: Vec<&str> = Stage::ALL.iter().filter(|stage| self.has(**stage)).map(|stage| stage.name()).collect();
        f.write_str(&names.join(", "))
    }
}

/// Basic codes from this to that.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Codes {
    /// The first.
    pub min: u16,
    /// The last.
    pub max: u16,
}

impl Codes {
    /// `550`, `55z` or `5yz`; `None` for anything else, and for codes that are no refusals.
    pub fn parse(text: &str) -> Option<Self> {
        let [class, tens, ones] = *text.as_bytes() else { return None };
        let digit = |byte: u8| byte.is_ascii_digit().then(|| u16::from(byte - b'0'));
        let hundreds = digit(class).filter(|class| (3..=5).contains(class))? * 100;
        let (min, max) = match (tens, ones) {
            (b'y', b'z') => (hundreds, hundreds + 99),
            (tens, b'z') => (hundreds + digit(tens)? * 10, hundreds + digit(tens)? * 10 + 9),
            (tens, ones) => {
                let code = hundreds + digit(tens)? * 10 + digit(ones)?;
                (code, code)
            }
        };
        Some(Self { min, max })
    }

    /// Whether a code is among them.
    pub const fn has(self, code: u16) -> bool {
        self.min <= code && code <= self.max
    }
}

impl fmt::Display for Codes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.max - self.min {
            0 => write!(f, "{}", self.min),
            9 => write!(f, "{}z", self.min / 10),
            _ => write!(f, "{}yz", self.min / 100),
        }
    }
}

/// Which enhanced codes a rule takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Enhanced {
    /// 4 or 5; `None` takes both (and 2, where a host mixes them up).
    pub class: Option<u8>,
    /// The second number.
    pub subject: u16,
    /// The third number: from this
    pub detail_min: u16,
    /// to this.
    pub detail_max: u16,
}

impl Enhanced {
    /// The third number of an enhanced code.
    const DETAIL_LAST: u16 = 999;

    /// `5.7.26`, `x.7.26`, `5.7.606-649` or `x.7`.
    pub fn parse(text: &str) -> Option<Self> {
        let number = |text: &str| {
            let fits = (1..=3).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_digit());
            fits.then(|| text.parse().ok()).flatten()
        };
        let (class, rest) = text.split_once('.')?;
        let class = match class {
            "x" => None,
            "4" => Some(4),
            "5" => Some(5),
            _ => return None,
        };
        let Some((subject, details)) = rest.split_once('.') else {
            return Some(Self { class, subject: number(rest)?, detail_min: 0, detail_max: Self::DETAIL_LAST });
        };
        let (detail_min, detail_max) = match details.split_once('-') {
            Some((min, max)) => (number(min)?, number(max)?),
            None => (number(details)?, number(details)?),
        };
        (detail_min <= detail_max).then_some(Self { class, subject: number(subject)?, detail_min, detail_max })
    }

    /// Whether it takes a code.
    pub fn takes(self, status: EnhancedStatus) -> bool {
        self.class.is_none_or(|class| class == status.class())
            && self.subject == status.subject()
            && (self.detail_min..=self.detail_max).contains(&status.detail())
    }

    /// Whether it takes all that `other` takes.
    pub(super) fn covers(self, other: Self) -> bool {
        self.class.is_none_or(|class| other.class == Some(class))
            && self.subject == other.subject
            && self.detail_min <= other.detail_min
            && other.detail_max <= self.detail_max
    }
}

impl fmt::Display for Enhanced {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.class {
            Some(class) => write!(f, "{class}.{}", self.subject)?,
            None => write!(f, "x.{}", self.subject)?,
        }
        match (self.detail_min, self.detail_max) {
            (0, Self::DETAIL_LAST) => Ok(()),
            (min, max) if min == max => write!(f, ".{min}"),
            (min, max) => write!(f, ".{min}-{max}"),
        }
    }
}

/// A rule. All conditions that are given must hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Spec {
    /// Its name, quoted in events; unique.
    pub name: Arc<str>,
    /// Where it was written.
    pub origin: Origin,
    /// Where it applies.
    pub stages: Stages,
    /// Basic codes, one of which must match; empty: none is needed.
    pub codes: Box<[Codes]>,
    /// Enhanced codes, one of which must match; empty: none is needed.
    pub enhanced: Box<[Enhanced]>,
    /// Phrases, one of which must stand in the text (whole words, any case, `*` for up to 60 octets); empty: none is
    /// needed.
    pub phrases: Box<[Box<str>]>,
    /// At whose sites it applies; empty: at all.
    pub providers: Box<[Arc<str>]>,
    /// What follows.
    pub outcome: Outcome,
}

/// Where a rule was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    /// In the file that this version ships.
    BuiltIn,
    /// Built in, and some of its keys were changed at this file and line.
    Changed(Box<str>),
    /// The administrator's, at this file and line.
    Own(Box<str>),
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Origin::BuiltIn => f.write_str("built in"),
            Origin::Changed(place) => write!(f, "built in, changed at {place}"),
            Origin::Own(place) => f.write_str(place),
        }
    }
}

/// What a rule concludes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// `None`: by code and stage.
    pub disposition: Option<Disposition>,
    /// `None`: by stage.
    pub scope: Option<Scope>,
    /// The kind of failure.
    pub class: BounceClass,
    /// The schedule where it is deferred.
    pub retry: RetryKind,
    /// The bounce where it is permanent. Where it is deferred and expires, the type is
    /// always `Transient`.
    pub bounce: (BounceType, BounceSubType),
    /// The delay where it is deferred.
    pub delay: DelayType,
    /// What the lane does.
    pub reaction: Option<Reaction>,
}

/// A bounce of which nothing is known, but that a later message may fare better.
pub const SOFT: (BounceType, BounceSubType) = (BounceType::Transient, BounceSubType::General);
const HARD: (BounceType, BounceSubType) = (BounceType::Permanent, BounceSubType::General);

impl Outcome {
    /// The starting point of every outcome: by code and stage, nothing known.
    pub const OTHER: Outcome = Outcome {
        disposition: None,
        scope: None,
        class: BounceClass::Other,
        retry: RetryKind::Normal,
        bounce: SOFT,
        delay: DelayType::General,
        reaction: None,
    };

    /// What a class brings with it, for all that a rule does not say. docs/RULES.md shows this as a table.
    pub const fn of(class: BounceClass) -> Outcome {
        use BounceClass as Class;
        use BounceSubType as Sub;
        use DelayType as Delay;
        let base = Outcome { class, ..Self::OTHER };
        let recipient = Outcome { scope: Some(Scope::Recipient), ..base };
        let message = Outcome { scope: Some(Scope::Message), ..base };
        // Not the recipient's fault: deferred whatever the code says.
        let lane = Outcome { disposition: Some(Disposition::Deferred), scope: Some(Scope::Lane), ..base };
        let content = Outcome { bounce: (BounceType::Transient, Sub::ContentRejected), ..message };
        match class {
            Class::BadMailbox | Class::InactiveMailbox | Class::BadDomain => Outcome { bounce: HARD, ..recipient },
            Class::MailboxFull => Outcome {
                disposition: Some(Disposition::Deferred),
                retry: RetryKind::MailboxFull,
                bounce: (BounceType::Transient, Sub::MailboxFull),
                delay: Delay::MailboxFull,
                ..recipient
            },
            Class::Greylist => {
                Outcome { disposition: Some(Disposition::Deferred), retry: RetryKind::Greylist, ..recipient }
            }
            Class::TooManyRecipients => Outcome { disposition: Some(Disposition::Deferred), ..recipient },
            Class::Relay => recipient,
            Class::Dns => Outcome { delay: Delay::TransientCommunicationFailure, ..recipient },
            Class::RateLimit => Outcome { retry: RetryKind::RateLimited, delay: Delay::IpFailure, ..lane },
            Class::IpBlock => Outcome { retry: RetryKind::Blocked, delay: Delay::IpFailure, ..lane },
            Class::Tls | Class::Connection => Outcome { delay: Delay::TransientCommunicationFailure, ..lane },
            // A host's own trouble. By code, since a 5yz in a transaction means that it gave up on the message.
            Class::System | Class::Protocol => Outcome { delay: Delay::RecipientServerError, ..base },
            Class::Spam => Outcome { delay: Delay::SpamDetected, ..content },
            Class::Virus | Class::Content => content,
            Class::Attachment => Outcome { bounce: (BounceType::Transient, Sub::AttachmentRejected), ..message },
            Class::TooLarge => Outcome { bounce: (BounceType::Transient, Sub::MessageTooLarge), ..message },
            Class::Authentication | Class::Sender | Class::Loop | Class::Expired | Class::Unsupported => message,
            Class::Policy | Class::Other | Class::None => base,
        }
    }
}
