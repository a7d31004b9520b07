//! What a check says: one finding for each thing that was looked at, good or bad.
//!
//! Texts of others (records, greetings) are cut and made safe for a terminal where a finding is made.

use std::net::IpAddr;

use serde::Serialize;

use crate::cli::format::safe;
use crate::types::Domain;

/// Characters of what was seen. The rest of a longer text is cut.
const SEEN_CHARS_MAX: usize = 300;

/// How bad it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Severity {
    /// As it should be.
    Ok,
    /// Worth knowing; nothing to do.
    Note,
    /// Mail goes, and some of it worse than it could; or nobody knows.
    Warning,
    /// Mail is lost or refused because of it.
    Error,
}

impl Severity {
    pub(super) const fn name(self) -> &'static str {
        match self {
            Severity::Ok => "ok",
            Severity::Note => "note",
            Severity::Warning => "warning",
            Severity::Error => "error",
        }
    }
}

/// What kind of thing a finding is about. In the order of the output.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Kind {
    /// This host, by its EHLO name.
    Host,
    /// An address that mail leaves from.
    Source,
    /// A listener of ours.
    Listener,
    /// A domain that we sign or send as.
    Domain,
}

/// What a finding is about.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub(super) struct Subject {
    pub(super) kind: Kind,
    pub(super) name: String,
}

impl Subject {
    pub(super) fn domain(domain: &Domain) -> Self {
        Self { kind: Kind::Domain, name: domain.to_string() }
    }

    pub(super) fn host(host: &Domain) -> Self {
        Self { kind: Kind::Host, name: host.to_string() }
    }

    pub(super) fn source(address: IpAddr) -> Self {
        Self { kind: Kind::Source, name: address.to_string() }
    }

    pub(super) fn listener(name: &str) -> Self {
        Self { kind: Kind::Listener, name: name.to_owned() }
    }
}

/// One of them. Its JSON is part of docs/DOCTOR.md.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(super) struct Finding {
    pub(super) severity: Severity,
    /// Which check: `dkim`, `spf` and so on.
    pub(super) check: &'static str,
    /// What it found, as one word for programs.
    pub(super) code: &'static str,
    pub(super) subject: Subject,
    /// The selector, the source, the server: which of several.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) item: Option<String>,
    /// What was seen.
    pub(super) seen: String,
    /// What to do; empty for nothing.
    pub(super) advice: String,
    /// Records to publish in place of those of the same name and kind, as lines of a zone file.
    pub(super) publish: Vec<String>,
}

/// A check at work on a subject: makes its findings.
#[derive(Clone, Debug)]
pub(super) struct Check {
    pub(super) name: &'static str,
    pub(super) subject: Subject,
}

impl Check {
    pub(super) fn new(name: &'static str, subject: Subject) -> Self {
        Self { name, subject }
    }

    pub(super) fn finding(&self, severity: Severity, code: &'static str, seen: impl AsRef<str>) -> Finding {
        Finding {
            severity,
            check: self.name,
            code,
            subject: self.subject.clone(),
            item: None,
            seen: shown(seen.as_ref()),
            advice: String::new(),
            publish: Vec::new(),
        }
    }

    pub(super) fn ok(&self, seen: impl AsRef<str>) -> Finding {
        self.finding(Severity::Ok, "ok", seen)
    }

    pub(super) fn note(&self, code: &'static str, seen: impl AsRef<str>) -> Finding {
        self.finding(Severity::Note, code, seen)
    }

    pub(super) fn warning(&self, code: &'static str, seen: impl AsRef<str>) -> Finding {
        self.finding(Severity::Warning, code, seen)
    }

    pub(super) fn error(&self, code: &'static str, seen: impl AsRef<str>) -> Finding {
        self.finding(Severity::Error, code, seen)
    }

    /// Nobody knows: never to be mistaken for "missing".
    pub(super) fn unknown(&self, reason: impl AsRef<str>) -> Finding {
        let seen = format!("not known: {}", reason.as_ref());
        self.finding(Severity::Warning, "unknown", seen)
            .advice("see that the DNS servers of [dns] answer, then run this again")
    }
}

impl Finding {
    pub(super) fn item(mut self, item: impl ToString) -> Self {
        self.item = Some(item.to_string());
        self
    }

    pub(super) fn advice(mut self, advice: impl Into<String>) -> Self {
        self.advice = advice.into();
        self
    }

    pub(super) fn publish(mut self, lines: impl IntoIterator<Item = String>) -> Self {
        self.publish = lines.into_iter().collect();
        self
    }
}

/// Cut, and without control characters.
fn shown(text: &str) -> String {
    let cut: String = text.chars().take(SEEN_CHARS_MAX).collect();
    let dots = if cut.len() < text.len() { "..." } else { "" };
    safe(&cut) + dots
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_others_say_is_cut_and_cannot_move_the_cursor() {
        let check = Check::new("spf", Subject::listener("smtp"));
        let long = format!("\u{1b}[2J{}", "x".repeat(1_000));
        let finding = check.error("fail", long);
        assert!(finding.seen.starts_with("?[2Jxxx"), "{}", finding.seen);
        assert_eq!(finding.seen.chars().count(), SEEN_CHARS_MAX + 3);
    }
}
