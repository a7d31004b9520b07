//! Reply rules as data: the built-in file, and the file of the administrator's in front of it.
//!
//! `replies/replies.toml` holds the built-in rules, `replies/cases.txt` replies of real servers against them. Both files have the
//! same form, which docs/RULES.md describes key by key. Own rules stand in front of the built-in ones; one with the name of
//! a built-in rule changes the keys that it writes, in the place of that rule.
//!
//! Ways to write a built-in rule: names say what is wrong, with the provider in front where only one says it so; a phrase must
//! be so long that no other meaning of it is likely.

mod file;
mod reaction;
mod spec;
mod written;

use std::sync::{Arc, LazyLock};

use super::classify::Rules;
use crate::tables::ConfigErrors;
use written::Written;

pub use spec::{Codes, Enhanced, Origin, Outcome, SOFT, Spec, Stages};

/// The built-in file.
pub const BUILT_IN_FILE: &str = include_str!("replies/replies.toml");

static BUILT_IN: LazyLock<Vec<Written>> = LazyLock::new(|| {
    file::read(BUILT_IN_FILE, "replies.toml", &[], None).expect("the tests read the same file: it has no errors")
});

/// The built-in rules, in order.
pub(super) fn built_in() -> Vec<Spec> {
    BUILT_IN.iter().map(|rule| rule.spec(Origin::BuiltIn)).collect()
}

/// The built-in rules behind those of this text, a file named `name`. `providers`: the names that rules may
/// say; `None`: any.
pub fn with_own(text: &str, name: &str, providers: Option<&[Arc<str>]>) -> Result<Rules, ConfigErrors> {
    let own = file::read(text, name, &BUILT_IN, providers)?;
    let changes = |rule: &&Written| BUILT_IN.iter().any(|built_in| built_in.name == rule.name);
    let front = own.iter().filter(|rule| !changes(rule)).map(|rule| rule.spec(Origin::Own(rule.place.clone())));
    let behind = BUILT_IN.iter().map(|built_in| match own.iter().find(|rule| rule.name == built_in.name) {
        Some(changed) => (changed, Origin::Changed(changed.place.clone())),
        None => (built_in, Origin::BuiltIn),
    });
    let behind = behind.filter(|(rule, _)| rule.enabled).map(|(rule, origin)| rule.spec(origin));
    Ok(Rules::compile(front.chain(behind)))
}

#[cfg(test)]
#[path = "replies/file_tests.rs"]
mod tests;
