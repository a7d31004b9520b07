//! A rule as a file has it: what it says, and what it leaves to its class.

use std::ops::Range;
use std::sync::Arc;

use super::spec::{Codes, Enhanced, Origin, Outcome, Spec, Stages};
use crate::policy::phrase::Phrase;
use crate::policy::reaction::Reaction;
use crate::policy::verdict::{BounceClass, BounceSubType, BounceType, DelayType, Disposition, RetryKind, Scope};

/// See the module. `None`: the file does not say.
#[derive(Clone, Debug)]
pub(super) struct Written {
    pub(super) name: Arc<str>,
    pub(super) enabled: bool,
    pub(super) stages: Option<Stages>,
    pub(super) codes: Option<Box<[Codes]>>,
    pub(super) enhanced: Option<Box<[Enhanced]>>,
    pub(super) phrases: Option<Box<[Box<str>]>>,
    pub(super) providers: Option<Box<[Arc<str>]>>,
    pub(super) class: Option<BounceClass>,
    pub(super) action: Option<Disposition>,
    pub(super) scope: Option<Scope>,
    pub(super) retry: Option<RetryKind>,
    pub(super) bounce_type: Option<BounceType>,
    pub(super) bounce_sub_type: Option<BounceSubType>,
    pub(super) delay: Option<DelayType>,
    /// `Some(None)`: it says that there is none.
    pub(super) reaction: Option<Option<Reaction>>,
    /// Of the rule in the file's text.
    pub(super) span: Range<usize>,
    /// File and line.
    pub(super) place: Box<str>,
}

impl Written {
    /// What this one says, and what `base` says else.
    pub(super) fn over(self, base: &Written) -> Written {
        let base = base.clone();
        // A bounce's type and sub-type go together: who writes one of them does not mean the other of before.
        let writes_bounce = self.bounce_type.is_some() || self.bounce_sub_type.is_some();
        let (base_type, base_sub_type) =
            if writes_bounce { (None, None) } else { (base.bounce_type, base.bounce_sub_type) };
        Written {
            stages: self.stages.or(base.stages),
            codes: self.codes.or(base.codes),
            enhanced: self.enhanced.or(base.enhanced),
            phrases: self.phrases.or(base.phrases),
            providers: self.providers.or(base.providers),
            class: self.class.or(base.class),
            action: self.action.or(base.action),
            scope: self.scope.or(base.scope),
            retry: self.retry.or(base.retry),
            bounce_type: self.bounce_type.or(base_type),
            bounce_sub_type: self.bounce_sub_type.or(base_sub_type),
            delay: self.delay.or(base.delay),
            reaction: self.reaction.or(base.reaction),
            ..self
        }
    }

    /// The rule, with what its class brings for what it does not say.
    pub(super) fn spec(&self, origin: Origin) -> Spec {
        Spec {
            name: Arc::clone(&self.name),
            origin,
            stages: self.stages.unwrap_or(Stages::ANY),
            codes: self.codes.clone().unwrap_or_default(),
            enhanced: self.enhanced.clone().unwrap_or_default(),
            phrases: self.phrases.clone().unwrap_or_default(),
            providers: self.providers.clone().unwrap_or_default(),
            outcome: self.outcome(),
        }
    }

    fn outcome(&self) -> Outcome {
        let of_class = Outcome::of(self.class.unwrap_or(BounceClass::Other));
        Outcome {
            disposition: self.action.or(of_class.disposition),
            scope: self.scope.or(of_class.scope),
            class: of_class.class,
            retry: self.retry.unwrap_or(of_class.retry),
            bounce: self.bounce(of_class.bounce),
            delay: self.delay.unwrap_or(of_class.delay),
            reaction: self.reaction.flatten(),
        }
    }

    /// The bounce, where only one of its two words is written by what goes with it.
    fn bounce(&self, of_class: (BounceType, BounceSubType)) -> (BounceType, BounceSubType) {
        match (self.bounce_type, self.bounce_sub_type) {
            (None, None) => of_class,
            (None, Some(sub_type)) => (of_class.0, sub_type),
            (Some(BounceType::Undetermined), None) => (BounceType::Undetermined, BounceSubType::Undetermined),
            (Some(bounce_type), None) => {
                let sub_type = if of_class.1.is_of(bounce_type) { of_class.1 } else { BounceSubType::General };
                (bounce_type, sub_type)
            }
            (Some(bounce_type), Some(sub_type)) => (bounce_type, sub_type),
        }
    }

    /// Whether it says on what it hits.
    pub(super) fn has_condition(&self) -> bool {
        self.codes.is_some() || self.enhanced.is_some() || self.phrases.is_some()
    }

    /// Whether it takes every reply that `later` takes, so that `later` never hits; `false` where that is not plain to see.
    pub(super) fn shadows(&self, later: &Written) -> bool {
        let any = |stages: Option<Stages>| stages.unwrap_or(Stages::ANY);
        self.enabled
            && any(self.stages).covers(any(later.stages))
            && covers(&self.providers, &later.providers, |name, other| name == other)
            && covers(&self.codes, &later.codes, |codes, other| codes.has(other.min) && codes.has(other.max))
            && covers(&self.enhanced, &later.enhanced, |pattern, other| pattern.covers(*other))
            && covers(&self.phrases, &later.phrases, |phrase, other| Phrase::new(phrase).is_implied_by(other))
    }
}

/// Whether a condition holds wherever the other does: it is none, or each item of the other is within one of its own.
fn covers<T>(wide: &Option<Box<[T]>>, narrow: &Option<Box<[T]>>, within: impl Fn(&T, &T) -> bool) -> bool {
    let Some(wide) = wide else { return true };
    let Some(narrow) = narrow else { return false };
    narrow.iter().all(|item| wide.iter().any(|wide| within(wide, item)))
}
