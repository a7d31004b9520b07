//! Which bounces and complaints are mailed to the sender of their message, as SES does: what nobody else is told of, and what an identity
//! asks for. Plain data, as the config has it.
//!
//! | an event file takes the kind of the message's configuration set | `forward_feedback` of the identity | mailed |
//! |---|---|---|
//! | no | not said, or off | yes: else nobody would hear of it |
//! | yes | not said, or off | no |
//! | either | on | yes |
//!
//! The operator may say never or always for those of identities that say nothing; never also holds for those that say off. What a client
//! said with NOTIFY (RFC 3461), its caller knows.

use std::collections::HashMap;
use std::sync::Arc;

/// Whether what identities say nothing of is mailed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum MailRule {
    /// Only where no event file takes it.
    #[default]
    Auto,
    /// Never.
    Never,
    /// Always.
    Always,
}

/// Which event files take a kind.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Takers {
    /// One takes it of all messages.
    pub of_all: bool,
    /// Otherwise: of messages of these configuration sets.
    pub sets: Vec<Box<str>>,
}

impl Takers {
    /// Whether one takes it of messages of this set; empty: of none.
    fn take(&self, set: &str) -> bool {
        self.of_all || self.sets.iter().any(|taken| **taken == *set)
    }
}

/// What identities say, by name; those that say nothing are not there. Shared by all kinds.
pub type IdentitySwitches = Arc<HashMap<Box<str>, bool>>;

/// See the module; for one kind.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Mailing {
    /// What holds where an identity says nothing.
    pub rule: MailRule,
    /// Who else hears of it.
    pub takers: Takers,
    /// What identities say.
    pub identities: IdentitySwitches,
}

impl Mailing {
    /// Where only the operator says something.
    pub fn by_rule(rule: MailRule) -> Self {
        Self { rule, ..Self::default() }
    }

    /// Whether that of a message of this set and identity is mailed; empty: of none.
    pub fn mails(&self, set: &str, identity: &str) -> bool {
        let asked = self.identities.get(identity).copied();
        match (asked, self.rule) {
            (Some(true), _) | (None, MailRule::Always) => true,
            (_, MailRule::Never) => false,
            (Some(false), _) | (None, MailRule::Auto) => !self.takers.take(set),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_no_file_takes_is_mailed_and_what_one_takes_only_where_somebody_asks() {
        let identities: IdentitySwitches =
            Arc::new(HashMap::from([("on.test".into(), true), ("off.test".into(), false)]));
        let none = Takers::default();
        let some = Takers { of_all: false, sets: vec!["receipts".into()] };
        let all = Takers { of_all: true, sets: vec!["receipts".into()] };
        use MailRule::{Always, Auto, Never};
        // Of a message without an identity that says something, of one that says on, of one that says off.
        for (rule, takers, set, expected) in [
            (Auto, &none, "", [true, true, true]),
            (Auto, &none, "receipts", [true, true, true]),
            (Auto, &some, "", [true, true, true]),
            (Auto, &some, "news", [true, true, true]),
            (Auto, &some, "receipts", [false, true, false]),
            (Auto, &all, "", [false, true, false]),
            (Auto, &all, "receipts", [false, true, false]),
            (Always, &all, "", [true, true, false]),
            (Always, &none, "", [true, true, true]),
            (Never, &none, "", [false, true, false]),
            (Never, &all, "receipts", [false, true, false]),
        ] {
            let mailing = Mailing { rule, takers: takers.clone(), identities: Arc::clone(&identities) };
            let mailed = ["", "on.test", "off.test"].map(|identity| mailing.mails(set, identity));
            assert_eq!(mailed, expected, "{rule:?} {takers:?} {set:?}");
            assert_eq!(mailing.mails(set, "unknown.test"), mailing.mails(set, ""));
        }
    }
}
