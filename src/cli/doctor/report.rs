//! All findings together: as text under their subjects, or as JSON.

use std::io::{self, Write};

use serde::Serialize;

use super::finding::{Finding, Kind, Severity, Subject};
use crate::cli::Failure;
use crate::cli::format;

/// How many findings there are of each severity.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub(super) struct Summary {
    ok: usize,
    notes: usize,
    warnings: usize,
    errors: usize,
}

/// The answer of `--json`; docs/DOCTOR.md describes it.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Report {
    summary: Summary,
    findings: Vec<Finding>,
}

impl Report {
    /// Puts findings of one subject together: host, sources, listeners, domains, each in the order of their checks.
    pub(super) fn new(mut findings: Vec<Finding>) -> Self {
        let mut subjects: Vec<Subject> = Vec::new();
        for finding in &findings {
            if !subjects.contains(&finding.subject) {
                subjects.push(finding.subject.clone());
            }
        }
        let place = |subject: &Subject| subjects.iter().position(|other| other == subject);
        findings.sort_by_cached_key(|finding| (finding.subject.kind, place(&finding.subject)));
        let mut summary = Summary::default();
        for finding in &findings {
            match finding.severity {
                Severity::Ok => summary.ok += 1,
                Severity::Note => summary.notes += 1,
                Severity::Warning => summary.warnings += 1,
                Severity::Error => summary.errors += 1,
            }
        }
        Self { summary, findings }
    }

    /// The exit code says how bad it is.
    pub(super) fn verdict(&self) -> Result<(), Failure> {
        match self.summary {
            Summary { errors: 1.., .. } => Err(Failure::Errors),
            Summary { warnings: 1.., .. } => Err(Failure::Warnings),
            _ => Ok(()),
        }
    }

    pub(super) fn print_json(&self, out: &mut dyn Write) -> io::Result<()> {
        let text = serde_json::to_string_pretty(self).map_err(io::Error::other)?;
        writeln!(out, "{text}")
    }

    pub(super) fn print(&self, out: &mut dyn Write) -> io::Result<()> {
        let width = |texts: &mut dyn Iterator<Item = usize>| texts.max().unwrap_or_default();
        let severity_width = width(&mut self.findings.iter().map(|finding| finding.severity.name().len()));
        let check_width = width(&mut self.findings.iter().map(|finding| finding.check.len()));
        let mut subject = None;
        for finding in &self.findings {
            if subject != Some(&finding.subject) {
                if subject.is_some() {
                    writeln!(out)?;
                }
                writeln!(out, "{}", title(&finding.subject))?;
                subject = Some(&finding.subject);
            }
            let (severity, check) = (finding.severity.name(), finding.check);
            let item = finding.item.as_ref().map(|item| format!("{}: ", format::safe(item))).unwrap_or_default();
            writeln!(out, "  {severity:severity_width$}  {check:check_width$}  {item}{}", finding.seen)?;
            let indent = " ".repeat(severity_width + check_width + 6);
            if !finding.advice.is_empty() {
                writeln!(out, "{indent}-> {}", format::safe(&finding.advice))?;
            }
            for line in &finding.publish {
                writeln!(out, "{indent}   {line}")?;
            }
        }
        let Summary { ok, notes, warnings, errors } = self.summary;
        let counts = [format::count(errors, "error"), format::count(warnings, "warning"), format::count(notes, "note")];
        writeln!(out, "\n{}, {ok} ok", counts.join(", "))
    }
}

fn title(subject: &Subject) -> String {
    let kind = match subject.kind {
        Kind::Host => "host",
        Kind::Source => "source",
        Kind::Listener => "listener",
        Kind::Domain => "domain",
    };
    format!("{kind} {}", subject.name)
}

#[cfg(test)]
mod tests {
    use super::super::finding::Check;
    use super::*;

    #[test]
    fn findings_stand_under_their_subject_and_records_under_their_finding() {
        let domain = |name: &str| Subject { kind: Kind::Domain, name: name.to_owned() };
        let host = Subject { kind: Kind::Host, name: "mail.test".to_owned() };
        let spf = Check::new("spf", domain("b.test"));
        let findings = vec![
            spf.error("missing", "no record").advice("publish it").publish(["b.test. IN TXT \"v=spf1\"".to_owned()]),
            Check::new("dkim", domain("a.test")).ok("good").item("ph1"),
            Check::new("clock", host).warning("off", "6 s"),
            spf.note("note", "see"),
        ];
        let report = Report::new(findings);
        let mut out = Vec::new();
        report.print(&mut out).unwrap();
        let expected = "\
host mail.test
  warning  clock  6 s

domain b.test
  error    spf    no record
                  -> publish it
                     b.test. IN TXT \"v=spf1\"
  note     spf    see

domain a.test
  ok       dkim   ph1: good

1 error, 1 warning, 1 note, 1 ok
";
        assert_eq!(String::from_utf8(out).unwrap(), expected);
        assert!(matches!(report.verdict(), Err(Failure::Errors)));
    }

    #[test]
    fn the_worst_finding_decides() {
        let check = Check::new("spf", Subject { kind: Kind::Host, name: String::new() });
        assert!(Report::new(vec![check.ok("")]).verdict().is_ok());
        assert!(Report::new(vec![check.ok(""), check.note("x", "")]).verdict().is_ok());
        assert!(matches!(
            Report::new(vec![check.warning("x", ""), check.note("x", "")]).verdict(),
            Err(Failure::Warnings)
        ));
    }
}
