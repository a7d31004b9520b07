//! TOML as an administrator writes it: the config file, and the files of rules.
//!
//! Promises: all errors of a file come at once, in its order, each with file, line, column, key, what is wrong and what to
//! write instead; unknown keys are errors. Does not: read files, or know any key; its callers do.

pub(crate) mod findings;
pub(crate) mod nearest;
pub(crate) mod section;
pub mod units;

use std::cell::RefCell;

use toml::de::DeTable;

pub use findings::{ConfigErrors, Finding};
use findings::{Findings, Problem};
use section::Section;

/// Reads a text by `reader`; `None` where it is not TOML, which the findings tell then. `form`: where the form is described.
pub(crate) fn read<T>(
    text: &str,
    findings: &RefCell<Findings>,
    form: &str,
    reader: impl FnOnce(Section<'_>) -> T,
) -> Option<T> {
    let (document, syntax_errors) = DeTable::parse_recoverable(text);
    for error in &syntax_errors {
        let span = error.span().unwrap_or_default();
        let problem = Problem::new(format!("not TOML: {}", error.message()), format!("see {form} for the form"));
        findings.borrow_mut().error(&span, "", problem);
    }
    if !syntax_errors.is_empty() {
        return None;
    }
    Some(reader(Section::root(document.get_ref(), findings)))
}
