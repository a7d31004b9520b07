//! Reports of receivers as lines of the report stream, one for each row, and as totals. Pure.
//!
//! | report | one row for each |
//! |---|---|
//! | DMARC | record |
//! | TLS | policy, with its sums; kind of failure under it |
//!
//! Promises: any report gives lines that are JSON on one line each, whatever its texts hold; their number and octets are bounded
//! ([`LINES_BYTES_MAX`]). The same report gives the same rows in the same order. Does not: believe or judge what a report says.

use super::report::{DmarcReport, DmarcRow, Report, TlsFailureRow, TlsPolicyRow, TlsReport};
use crate::events::EventLine;
use crate::events::schema::{
    BroughtBy, DmarcInfo, DmarcPolicyInfo, ReportInfo, TlsInfo, TlsRowInfo, dmarc_row, tls_row,
};
use crate::types::Timestamp;

/// Octets of the lines of one report: 20,000 rows of the usual length, half as much again. Above: it is kept for the operator.
pub const LINES_BYTES_MAX: usize = 32 << 20;
/// Octets of a text that stands in each line of a report.
const COMMON_TEXT_BYTES_MAX: usize = 255;
/// Errors that stand in each line of a report.
const ERRORS_MAX: usize = 3;

/// A report of a receiver.
#[derive(Clone, Copy, Debug)]
pub enum Aggregate<'a> {
    /// DMARC.
    Dmarc(&'a DmarcReport),
    /// TLS.
    Tls(&'a TlsReport),
}

/// One row of it.
#[derive(Clone, Copy, Debug)]
pub enum Row<'a> {
    /// A record of a DMARC report.
    Dmarc(&'a DmarcReport, &'a DmarcRow),
    /// The sums of a policy.
    Policy(&'a TlsPolicyRow),
    /// A kind of failure there.
    Failure(&'a TlsPolicyRow, &'a TlsFailureRow),
}

/// Its lines have more than [`LINES_BYTES_MAX`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("its lines would have more than {LINES_BYTES_MAX} octets")]
pub struct TooLarge;

impl<'a> Aggregate<'a> {
    /// `None`: it is another kind of report.
    pub fn of(report: &'a Report) -> Option<Self> {
        match report {
            Report::DmarcAggregate(report) => Some(Aggregate::Dmarc(report)),
            Report::TlsReport(report) => Some(Aggregate::Tls(report)),
            _ => None,
        }
    }

    /// As metrics spell it.
    pub const fn name(self) -> &'static str {
        match self {
            Aggregate::Dmarc(_) => "dmarc",
            Aggregate::Tls(_) => "tls-rpt",
        }
    }

    /// The time that it is about.
    pub fn range(self) -> (Timestamp, Timestamp) {
        match self {
            Aggregate::Dmarc(report) => (report.begins_at, report.ends_at),
            Aggregate::Tls(report) => (report.begins_at, report.ends_at),
        }
    }

    /// What names it, beside its time: hosts repeat a report with all of these.
    pub fn names(self) -> [&'a str; 4] {
        match self {
            Aggregate::Dmarc(report) => [self.name(), &report.organization, &report.report_id, &report.domain],
            Aggregate::Tls(report) => {
                let domain = report.policies.first().map_or("", |policy| &policy.domain);
                [self.name(), &report.organization, &report.report_id, domain]
            }
        }
    }

    /// Its rows, in their order.
    pub fn rows(self) -> Box<dyn Iterator<Item = Row<'a>> + Send + 'a> {
        match self {
            Aggregate::Dmarc(report) => Box::new(report.rows.iter().map(move |row| Row::Dmarc(report, row))),
            Aggregate::Tls(report) => Box::new(report.policies.iter().flat_map(|policy| {
                let failures = policy.details.iter().map(move |failure| Row::Failure(policy, failure));
                std::iter::once(Row::Policy(policy)).chain(failures)
            })),
        }
    }

    /// Its lines, one for each row.
    pub fn lines(self, brought_by: BroughtBy<'_>) -> Result<Vec<EventLine>, TooLarge> {
        let rows = u32::try_from(self.rows().count()).map_err(|_| TooLarge)?;
        let (begins_at, ends_at) = self.range();
        let [_, organization, report_id, _] = self.names();
        let (contact, errors) = match self {
            Aggregate::Dmarc(report) => (&report.email, report.errors.as_slice()),
            Aggregate::Tls(report) => (&report.contact, [].as_slice()),
        };
        let errors: Vec<String> = errors.iter().take(ERRORS_MAX).map(|error| head(error).to_owned()).collect();
        let info = ReportInfo {
            brought_by,
            organization: head(organization),
            contact: head(contact),
            report_id: head(report_id),
            begins_at,
            ends_at,
            rows,
            errors: &errors,
        };
        let mut bytes = 0;
        let mut lines = Vec::new();
        for (number, row) in (1..).zip(self.rows()) {
            let line = row.line(&info, number);
            bytes += line.json.len();
            if bytes > LINES_BYTES_MAX {
                return Err(TooLarge);
            }
            lines.push(line);
        }
        Ok(lines)
    }
}

/// What a row adds to a total.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Total<'a> {
    /// So many messages of a domain, whether DMARC passed, what the receiver did.
    Messages(&'a str, bool, &'static str, u64),
    /// So many sessions to a domain; `None`: as they should be, else the type of failure.
    Sessions(&'a str, Option<&'a str>, u64),
}

/// What metrics call what a report does not say.
pub const UNSAID: &str = "unsaid";

impl<'a> Row<'a> {
    fn line(self, info: &ReportInfo<'_>, number: u32) -> EventLine {
        match self {
            Row::Dmarc(report, row) => dmarc_line(info, number, report, row),
            Row::Policy(policy) => {
                let row = TlsRowInfo::Summary {
                    policy_strings: &policy.policy_strings,
                    mx_hosts: &policy.mx_hosts,
                    successes: policy.successes,
                    failures: policy.failures,
                };
                let (domain, policy_type) = (head(&policy.domain), policy.policy_type.as_str());
                tls_row(info, number, &TlsInfo { domain, policy_type, row })
            }
            Row::Failure(policy, failure) => {
                let row = TlsRowInfo::Failure {
                    result: &failure.result,
                    sending_ip: failure.sending_ip,
                    mx_host: failure.mx_host.as_deref(),
                    mx_helo: failure.mx_helo.as_deref(),
                    receiving_ip: failure.receiving_ip,
                    sessions: failure.sessions,
                    information: failure.information.as_deref(),
                    reason: failure.reason.as_deref(),
                };
                let (domain, policy_type) = (head(&policy.domain), policy.policy_type.as_str());
                tls_row(info, number, &TlsInfo { domain, policy_type, row })
            }
        }
    }

    /// What it adds to totals. Failures that a policy sums up and no row of its own tells of are [`UNSAID`].
    pub fn totals(self) -> impl Iterator<Item = Total<'a>> {
        let totals = match self {
            Row::Dmarc(report, row) => {
                let disposition = if row.disposition.is_empty() { UNSAID } else { row.disposition };
                [Some(Total::Messages(&report.domain, row.passes(), disposition, row.count.into())), None]
            }
            Row::Policy(policy) => {
                let told: u64 = policy.details.iter().map(|failure| u64::from(failure.sessions)).sum();
                let untold = u64::from(policy.failures).saturating_sub(told);
                [
                    Some(Total::Sessions(&policy.domain, None, policy.successes.into())),
                    (untold > 0).then_some(Total::Sessions(&policy.domain, Some(UNSAID), untold)),
                ]
            }
            Row::Failure(policy, failure) => {
                [Some(Total::Sessions(&policy.domain, Some(&failure.result), failure.sessions.into())), None]
            }
        };
        totals.into_iter().flatten()
    }
}

fn dmarc_line(info: &ReportInfo<'_>, number: u32, report: &DmarcReport, row: &DmarcRow) -> EventLine {
    let signatures: Vec<_> = row.dkim.iter().map(|one| (&*one.domain, &*one.selector, one.result)).collect();
    let checks: Vec<_> = row.spf.iter().map(|one| (&*one.domain, one.scope, one.result)).collect();
    let reasons: Vec<_> = row.overrides.iter().map(|(kind, comment)| (*kind, comment.as_str())).collect();
    let policy = DmarcPolicyInfo {
        p: report.policy,
        sp: report.subdomain_policy,
        np: report.missing_policy,
        pct: report.percent,
        adkim: report.dkim_alignment,
        aspf: report.spf_alignment,
        is_testing: report.is_testing,
    };
    let dmarc = DmarcInfo {
        domain: head(&report.domain),
        policy,
        source_ip: row.source_ip,
        count: row.count,
        disposition: row.disposition,
        dkim: row.dkim_aligned,
        spf: row.spf_aligned,
        passes: row.passes(),
        header_from: &row.header_from,
        envelope_from: &row.envelope_from,
        envelope_to: row.envelope_to.as_deref(),
        signatures: &signatures,
        checks: &checks,
        reasons: &reasons,
    };
    dmarc_row(info, number, &dmarc)
}

fn head(text: &str) -> &str {
    text.get(..text.floor_char_boundary(COMMON_TEXT_BYTES_MAX.min(text.len()))).unwrap_or_default()
}

#[cfg(test)]
mod tests;
