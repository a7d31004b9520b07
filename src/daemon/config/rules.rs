//! `[rules]`: files of reply rules and provider rules, which stand in front of the built-in ones.
//!
//! Parsing the config only notes their names; [`load`] reads them. What is wrong in them is told with their own names and lines.

use std::io::Read;
use std::path::Path;
use std::sync::Arc;

use super::findings::{Findings, PathKind, Problem};
use super::section::Section;
use crate::policy::{Providers, Rules, replies};
use crate::tables::Finding;

/// A file of rules is a few kilobytes. Larger: an error.
const RULE_FILE_BYTES_MAX: u64 = 4 << 20;

/// What `[rules]` leads to.
#[derive(Clone, Debug)]
pub struct RuleSettings {
    /// Own and built-in reply rules.
    pub replies: Arc<Rules>,
    /// Own and built-in provider rules.
    pub providers: Arc<Providers>,
}

impl Default for RuleSettings {
    /// The built-in ones.
    fn default() -> Self {
        Self { replies: Rules::built_in(), providers: Providers::built_in() }
    }
}

/// The keys: paths, to be read by [`load`].
pub(super) fn section(mut section: Section<'_>) -> RuleSettings {
    section.path("replies", PathKind::ReplyRules);
    section.path("providers", PathKind::ProviderRules);
    section.close();
    RuleSettings::default()
}

/// Reads the files that the config names. What cannot be read is told at the config's key; what is wrong in the files is
/// returned, and the built-in rules stand in its place.
pub(super) fn load(findings: &mut Findings) -> (RuleSettings, Vec<Finding>) {
    let mut settings = RuleSettings::default();
    let mut errors = Vec::new();
    if let Some((name, text)) = file(findings, PathKind::ProviderRules) {
        match Providers::with_own(&text, &name) {
            Ok(providers) => settings.providers = Arc::new(providers),
            Err(found) => errors.extend(found.errors),
        }
    }
    // Reply rules name providers: with those unknown, every name would be wrong.
    let names = errors.is_empty().then(|| settings.providers.names());
    if let Some((name, text)) = file(findings, PathKind::ReplyRules) {
        match replies::with_own(&text, &name, names.as_deref()) {
            Ok(rules) => settings.replies = Arc::new(rules),
            Err(found) => errors.extend(found.errors),
        }
    }
    (settings, errors)
}

/// Name and text of the file of this kind, if the config names one that can be read.
fn file(findings: &mut Findings, kind: PathKind) -> Option<(String, String)> {
    let at = findings.paths.iter().position(|named| named.kind == kind)?;
    let named = findings.paths.remove(at);
    match read(&named.path) {
        Ok(text) => Some((named.path.display().to_string(), text)),
        Err(problem) => {
            let problem = format!("{} {problem}", named.path.display());
            let remedy = "name an existing text file that the user posthaste can read, or remove the key";
            findings.error(&named.span, &named.key, Problem::new(problem, remedy));
            None
        }
    }
}

fn read(path: &Path) -> Result<String, String> {
    let unreadable = |error: std::io::Error| format!("cannot be read: {error}");
    let file = std::fs::File::open(path).map_err(unreadable)?;
    let mut bytes = Vec::new();
    file.take(RULE_FILE_BYTES_MAX + 1).read_to_end(&mut bytes).map_err(unreadable)?;
    if u64::try_from(bytes.len()).unwrap_or(u64::MAX) > RULE_FILE_BYTES_MAX {
        return Err("is larger than 4 MiB".to_owned());
    }
    String::from_utf8(bytes).map_err(|error| format!("is not UTF-8 at byte {}", error.utf8_error().valid_up_to()))
}
