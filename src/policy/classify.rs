//! What a reply means: a table of rules, first match wins.
//!
//! The rules are data ([`Spec`]); the built-in table is in `replies.rs`, and a table from a configuration compiles the
//! same way. Text rules stand before those on enhanced codes, those before the ones on basic codes, so that text beats
//! both and enhanced beats basic. Whether a failure is permanent:
//!
//! 1. a rule that says so decides (a block by address is deferred even at 554);
//! 2. within the session, before MAIL, everything is deferred: no recipient has been named yet;
//! 3. 421 is deferred: the host closes the connection (RFC 5321 §3.8);
//! 4. basic 5yz is permanent, even with an enhanced 4.x.x;
//! 5. basic 4yz with an enhanced 5.x.x is permanent: enhanced beats basic;
//! 6. basic 4yz else is transient; 2yz is delivered; 3yz where it does not belong is a protocol fault, deferred.
//!
//! Promises: total (each reply gets a verdict with the name of its rule), pure, linear in the text. Numbers within the
//! text never decide: codes come from their places in the reply only.

use std::sync::{Arc, LazyLock};

use super::phrase::{Phrase, normalise};
use super::verdict::{BounceClass, BounceSubType, BounceType, DelayType, Disposition, RetryKind, Scope, Verdict};
use super::{Stage, hint, replies};
use crate::types::{EnhancedStatus, Reply, ReplyCode, Severity};

/// A set of stages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stages(u16);

impl Stages {
    /// Every stage.
    pub const ANY: Stages = Stages(u16::MAX);
    /// Connect to AUTH.
    pub const SESSION: Stages =
        Stages(Stage::Connect.bit() | Stage::Greeting.bit() | Stage::Ehlo.bit() | Stage::Tls.bit() | Stage::Auth.bit());
    /// MAIL.
    pub const MAIL: Stages = Stages(Stage::Mail.bit());
    /// RCPT.
    pub const RCPT: Stages = Stages(Stage::Rcpt.bit());
    /// DATA and the final dot.
    pub const CONTENT: Stages = Stages(Stage::Data.bit() | Stage::Dot.bit());
    /// RCPT, DATA and the final dot: where a recipient is known.
    pub const RECIPIENT: Stages = Stages(Stages::RCPT.0 | Stages::CONTENT.0);
    /// MAIL, DATA and the final dot: where the message or its sender is judged.
    pub const MESSAGE: Stages = Stages(Stages::MAIL.0 | Stages::CONTENT.0);

    /// Whether a stage is in the set.
    pub const fn has(self, stage: Stage) -> bool {
        self.0 & stage.bit() != 0
    }
}

/// Which basic codes a rule takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Codes<'a> {
    /// Every code that is not 2yz.
    Any,
    /// 4yz.
    Transient,
    /// 5yz.
    Permanent,
    /// These.
    Listed(&'a [u16]),
}

/// Which enhanced codes a rule takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Enhanced {
    /// 4 or 5; `None` takes both.
    pub class: Option<u8>,
    /// The second number.
    pub subject: u16,
    /// The third number: from this
    pub detail_min: u16,
    /// to this.
    pub detail_max: u16,
}

impl Enhanced {
    fn takes(self, status: EnhancedStatus) -> bool {
        self.class.is_none_or(|class| class == status.class())
            && self.subject == status.subject()
            && (self.detail_min..=self.detail_max).contains(&status.detail())
    }
}

/// A rule as written. All conditions that are given must hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Spec<'a> {
    /// Its name, quoted in events; unique.
    pub name: &'a str,
    /// Where it applies.
    pub stages: Stages,
    /// Basic codes.
    pub codes: Codes<'a>,
    /// Enhanced codes, one of which must match; empty: none is needed.
    pub enhanced: &'a [Enhanced],
    /// Phrases, one of which must stand in the text (whole words, any case, `*` for up to 60 octets); empty: none is
    /// needed.
    pub phrases: &'a [&'a str],
    /// What follows.
    pub outcome: Outcome,
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
}

/// A compiled table.
#[derive(Clone, Debug)]
pub struct Rules {
    rules: Vec<Rule>,
    delivered: Arc<str>,
    unknown: Arc<str>,
}

#[derive(Clone, Debug)]
struct Rule {
    name: Arc<str>,
    stages: Stages,
    codes: OwnedCodes,
    enhanced: Box<[Enhanced]>,
    phrases: Box<[Phrase]>,
    outcome: Outcome,
}

#[derive(Clone, Debug)]
enum OwnedCodes {
    Any,
    Of(Severity),
    Listed(Box<[u16]>),
}

static BUILT_IN: LazyLock<Rules> = LazyLock::new(|| Rules::compile(replies::tables().flatten().copied()));

/// Classifies by the built-in table.
pub fn classify(reply: &Reply, stage: Stage) -> Verdict {
    Rules::built_in().classify(reply, stage)
}

impl Rules {
    /// The table that this version ships.
    pub fn built_in() -> &'static Rules {
        &BUILT_IN
    }

    /// Compiles rules in their order. To override the built-in ones, put own rules in front.
    pub fn compile<'a>(specs: impl IntoIterator<Item = Spec<'a>>) -> Rules {
        let rules = specs.into_iter().map(|spec| Rule::compile(&spec)).collect();
        Rules { rules, delivered: "delivered".into(), unknown: "unknown".into() }
    }

    /// The verdict on a reply that came at `stage`. A 2yz is delivered, so ask only where a 2yz settles something.
    pub fn classify(&self, reply: &Reply, stage: Stage) -> Verdict {
        if reply.severity() == Severity::Positive {
            return delivered(&self.delivered);
        }
        // Built when the first rule needs it: many replies are settled by then.
        let mut text: Option<String> = None;
        let rule = self.rules.iter().find(|rule| rule.takes(reply, stage, &mut text));
        let (name, outcome) = rule.map_or((&self.unknown, &replies::OTHER), |rule| (&rule.name, &rule.outcome));
        let mut verdict = conclude(name, outcome, reply, stage);
        if verdict.disposition == Disposition::Deferred {
            let text = text.unwrap_or_else(|| normalise(reply.lines()));
            verdict.retry_after = hint::find(&text);
        }
        verdict
    }

    /// Names of all rules, in order.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.rules.iter().map(|rule| &*rule.name)
    }
}

impl Rule {
    fn compile(spec: &Spec<'_>) -> Rule {
        let codes = match spec.codes {
            Codes::Any => OwnedCodes::Any,
            Codes::Transient => OwnedCodes::Of(Severity::Transient),
            Codes::Permanent => OwnedCodes::Of(Severity::Permanent),
            Codes::Listed(codes) => OwnedCodes::Listed(codes.into()),
        };
        Rule {
            name: spec.name.into(),
            stages: spec.stages,
            codes,
            enhanced: spec.enhanced.into(),
            phrases: spec.phrases.iter().map(|phrase| Phrase::new(phrase)).collect(),
            outcome: spec.outcome,
        }
    }

    fn takes(&self, reply: &Reply, stage: Stage, text: &mut Option<String>) -> bool {
        let code = reply.code();
        let code_fits = match &self.codes {
            OwnedCodes::Any => true,
            OwnedCodes::Of(severity) => code.severity() == *severity,
            OwnedCodes::Listed(codes) => codes.contains(&code.value()),
        };
        if !self.stages.has(stage) || !code_fits {
            return false;
        }
        let status = reply.enhanced();
        let fits = |pattern: &Enhanced| status.is_some_and(|status| pattern.takes(status));
        if !self.enhanced.is_empty() && !self.enhanced.iter().any(fits) {
            return false;
        }
        if self.phrases.is_empty() {
            return true;
        }
        let text = text.get_or_insert_with(|| normalise(reply.lines()));
        self.phrases.iter().any(|phrase| phrase.is_in(text))
    }
}

fn delivered(rule: &Arc<str>) -> Verdict {
    Verdict {
        disposition: Disposition::Delivered,
        scope: Scope::Recipient,
        class: BounceClass::None,
        rule: rule.clone(),
        retry: RetryKind::Normal,
        retry_after: None,
        bounce_type: BounceType::Undetermined,
        bounce_sub_type: BounceSubType::Undetermined,
        delay_type: DelayType::Undetermined,
    }
}

fn conclude(name: &Arc<str>, outcome: &Outcome, reply: &Reply, stage: Stage) -> Verdict {
    let disposition = outcome.disposition.unwrap_or_else(|| disposition(reply.code(), reply.enhanced(), stage));
    let (bounce_type, bounce_sub_type) = outcome.bounce;
    // A mailbox that is perhaps there tomorrow must not be taken off a list because our patience ended.
    let (bounce_type, bounce_sub_type) = match (disposition, bounce_type) {
        (Disposition::Deferred, BounceType::Permanent | BounceType::Undetermined) => replies::SOFT,
        _ => (bounce_type, bounce_sub_type),
    };
    Verdict {
        disposition,
        scope: outcome.scope.unwrap_or_else(|| scope(reply.code(), stage)),
        class: outcome.class,
        rule: name.clone(),
        retry: outcome.retry,
        retry_after: None,
        bounce_type,
        bounce_sub_type,
        delay_type: outcome.delay,
    }
}

/// Rules 2 to 6 of the module's list.
fn disposition(code: ReplyCode, enhanced: Option<EnhancedStatus>, stage: Stage) -> Disposition {
    let permanent = match code.severity() {
        Severity::Permanent => true,
        Severity::Transient => code.value() != 421 && enhanced.is_some_and(|status| status.class() == 5),
        Severity::Positive | Severity::Intermediate => false,
    };
    if permanent && !stage.is_session() { Disposition::Bounced } else { Disposition::Deferred }
}

fn scope(code: ReplyCode, stage: Stage) -> Scope {
    match stage {
        _ if code.value() == 421 || stage.is_session() => Scope::Host,
        Stage::Rcpt => Scope::Recipient,
        _ => Scope::Message,
    }
}

#[cfg(test)]
#[path = "classify_tests.rs"]
mod tests;
