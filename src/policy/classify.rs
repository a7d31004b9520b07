//! What a reply means: a table of rules, first match wins.
//!
//! The rules are data ([`Spec`]): those of `replies/replies.toml`, and those of a file of the administrator's in front
//! ([`super::replies`]). Text rules stand before those on enhanced codes, those before the ones on basic codes, so that text beats
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

use std::fmt;
use std::sync::{Arc, LazyLock};

use super::phrase::{Phrase, Text};
use super::replies::{Outcome, SOFT, Spec};
use super::verdict::{BounceClass, BounceSubType, BounceType, DelayType, Disposition, RetryKind, Scope, Verdict};
use super::{Stage, hint, replies};
use crate::types::{EnhancedStatus, Reply, ReplyCode, Severity};

/// A compiled table.
#[derive(Clone)]
pub struct Rules {
    rules: Vec<Rule>,
    delivered: Arc<str>,
    unknown: Arc<str>,
}

#[derive(Clone)]
struct Rule {
    spec: Spec,
    phrases: Box<[Phrase]>,
}

static BUILT_IN: LazyLock<Arc<Rules>> = LazyLock::new(|| Arc::new(Rules::compile(replies::built_in())));

/// How many, and which: a whole table is too long to read.
impl fmt::Debug for Rules {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.names()).finish()
    }
}

impl Default for Rules {
    /// The built-in ones.
    fn default() -> Self {
        Rules::clone(&BUILT_IN)
    }
}

impl Rules {
    /// The table that this version ships.
    pub fn built_in() -> Arc<Rules> {
        Arc::clone(&BUILT_IN)
    }

    /// Compiles rules in their order.
    pub fn compile(specs: impl IntoIterator<Item = Spec>) -> Rules {
        let rules = specs.into_iter().map(Rule::compile).collect();
        Rules { rules, delivered: "delivered".into(), unknown: "unknown".into() }
    }

    /// The verdict on a reply that came at `stage`, at a site of this provider, if it is one's. A 2yz is delivered, so ask only
    /// where a 2yz settles something.
    pub fn classify(&self, reply: &Reply, stage: Stage, provider: Option<&str>) -> Verdict {
        if reply.severity() == Severity::Positive {
            return delivered(&self.delivered);
        }
        // Built when the first rule needs it: many replies are settled by then.
        let mut text: Option<Text> = None;
        let rule = self.rules.iter().find(|rule| rule.takes(reply, stage, provider, &mut text));
        let (name, outcome) =
            rule.map_or((&self.unknown, &Outcome::OTHER), |rule| (&rule.spec.name, &rule.spec.outcome));
        let mut verdict = conclude(name, outcome, reply, stage);
        if verdict.disposition == Disposition::Deferred {
            let text = text.unwrap_or_else(|| Text::new(reply.lines()));
            verdict.retry_after = hint::find(text.as_str());
        }
        verdict
    }

    /// Whether a rule of this name speaks of a block of the source.
    pub fn is_block(&self, name: &str) -> bool {
        self.specs().any(|spec| *spec.name == *name && spec.outcome.retry == RetryKind::Blocked)
    }

    /// Names of all rules, in order.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.rules.iter().map(|rule| &*rule.spec.name)
    }

    /// All rules, in order.
    pub fn specs(&self) -> impl Iterator<Item = &Spec> {
        self.rules.iter().map(|rule| &rule.spec)
    }
}

impl Rule {
    fn compile(spec: Spec) -> Rule {
        let phrases = spec.phrases.iter().map(|phrase| Phrase::new(phrase)).collect();
        Rule { spec, phrases }
    }

    fn takes(&self, reply: &Reply, stage: Stage, provider: Option<&str>, text: &mut Option<Text>) -> bool {
        let spec = &self.spec;
        let code = reply.code().value();
        if !spec.stages.has(stage) || !(spec.codes.is_empty() || spec.codes.iter().any(|codes| codes.has(code))) {
            return false;
        }
        if !spec.providers.is_empty() && !spec.providers.iter().any(|name| Some(&**name) == provider) {
            return false;
        }
        let fits = |status: EnhancedStatus| spec.enhanced.iter().any(|pattern| pattern.takes(status));
        if !spec.enhanced.is_empty() && !reply.enhanced().is_some_and(fits) {
            return false;
        }
        if self.phrases.is_empty() {
            return true;
        }
        let text = text.get_or_insert_with(|| Text::new(reply.lines()));
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
        reaction: None,
    }
}

fn conclude(name: &Arc<str>, outcome: &Outcome, reply: &Reply, stage: Stage) -> Verdict {
    let disposition = outcome.disposition.unwrap_or_else(|| disposition(reply.code(), reply.enhanced(), stage));
    let (bounce_type, bounce_sub_type) = outcome.bounce;
    // A mailbox that is perhaps there tomorrow must not be taken off a list because our patience ended.
    let (bounce_type, bounce_sub_type) = match (disposition, bounce_type) {
        (Disposition::Deferred, BounceType::Permanent | BounceType::Undetermined) => SOFT,
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
        reaction: outcome.reaction,
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
        _ if code.value() == 421 || stage.is_session() => Scope::Lane,
        Stage::Rcpt => Scope::Recipient,
        _ => Scope::Message,
    }
}

#[cfg(test)]
#[path = "classify_tests.rs"]
mod tests;
