//! Aggregate reports of receivers: DMARC (RFC 7489 §7.2, and its successor) and TLS (RFC 8460), as typed rows.
//!
//! The XML and the JSON are read by mail-auth; this is the only file here that names it. Its parsers are called on octets that are bounded
//! before ([`unpack`](super::unpack)), and with a bounded number of records, since each takes more memory than text. Its XML reader
//! (quick-xml) knows no entities but the five of XML and characters by number: an entity of a document type, however nested, is an error
//! and not a text.

use std::net::IpAddr;

use mail_auth::report as parsed;
use mail_auth::report::tlsrpt;

use super::diagnostic::head;
use super::mail::{Mail, Part};
use super::unpack::{self, UnpackError};
use crate::types::Timestamp;

/// Octets of an attachment, packed.
const PACKED_BYTES_MAX: usize = 10 << 20;
/// Records of a report. Above: refused.
pub const ROWS_MAX: usize = 20_000;
/// Octets of a text that are kept.
const TEXT_BYTES_MAX: usize = 500;
/// Results and reasons of one record that are kept.
const RESULTS_MAX: usize = 20;

/// A DMARC aggregate report.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DmarcReport {
    /// `org_name`.
    pub organization: String,
    /// `email`.
    pub email: String,
    /// `report_id`.
    pub report_id: String,
    /// `begin` and `end`.
    pub begins_at: Timestamp,
    /// Likewise.
    pub ends_at: Timestamp,
    /// `policy_published`: whose mail it is about.
    pub domain: String,
    /// `p`, as policies are spelled.
    pub policy: &'static str,
    /// `sp`.
    pub subdomain_policy: &'static str,
    /// `np`: that of names that do not exist.
    pub missing_policy: &'static str,
    /// `pct`, up to 100.
    pub percent: Option<u8>,
    /// `testing`.
    pub is_testing: bool,
    /// `adkim`: `r`, `s` or nothing.
    pub dkim_alignment: &'static str,
    /// `aspf`.
    pub spf_alignment: &'static str,
    /// `error`.
    pub errors: Vec<String>,
    /// Its records, at most [`ROWS_MAX`].
    pub rows: Vec<DmarcRow>,
}

/// One record: what one source sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DmarcRow {
    /// `source_ip`.
    pub source_ip: Option<IpAddr>,
    /// Messages.
    pub count: u32,
    /// What the receiver did: `none`, `pass`, `quarantine`, `reject` or nothing.
    pub disposition: &'static str,
    /// Whether an aligned DKIM signature passed: `pass`, `fail` or nothing.
    pub dkim_aligned: &'static str,
    /// The same of SPF.
    pub spf_aligned: &'static str,
    /// Why it did something else than the policy says, with its comment.
    pub overrides: Vec<(&'static str, String)>,
    /// `header_from`.
    pub header_from: String,
    /// `envelope_from`.
    pub envelope_from: String,
    /// `envelope_to`.
    pub envelope_to: Option<String>,
    /// Each signature: domain, selector, result.
    pub dkim: Vec<DkimRow>,
    /// Each SPF check.
    pub spf: Vec<SpfRow>,
}

impl DmarcRow {
    /// Whether DMARC passes: by an aligned signature, or by aligned SPF.
    pub fn passes(&self) -> bool {
        self.dkim_aligned == "pass" || self.spf_aligned == "pass"
    }
}

/// One DKIM signature that a receiver checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DkimRow {
    /// `d=`.
    pub domain: String,
    /// `s=`.
    pub selector: String,
    /// Its word for the result.
    pub result: &'static str,
}

/// One SPF check of a receiver.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SpfRow {
    /// The domain whose record was asked.
    pub domain: String,
    /// `helo`, `mfrom` or nothing.
    pub scope: &'static str,
    /// Its word for the result.
    pub result: &'static str,
}

/// A TLS report.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsReport {
    /// `organization-name`.
    pub organization: String,
    /// `contact-info`.
    pub contact: String,
    /// `report-id`.
    pub report_id: String,
    /// `date-range`.
    pub begins_at: Timestamp,
    /// Likewise.
    pub ends_at: Timestamp,
    /// One for each policy, at most [`ROWS_MAX`] with all failures.
    pub policies: Vec<TlsPolicyRow>,
}

/// What happened under one policy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsPolicyRow {
    /// `policy-type`: `sts`, `tlsa`, `no-policy-found`, `other`.
    pub policy_type: String,
    /// `policy-string`.
    pub policy_strings: Vec<String>,
    /// `policy-domain`.
    pub domain: String,
    /// `mx-host`.
    pub mx_hosts: Vec<String>,
    /// `total-successful-session-count`.
    pub successes: u32,
    /// `total-failure-session-count`.
    pub failures: u32,
    /// `failure-details`.
    pub details: Vec<TlsFailureRow>,
}

/// One kind of failure.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsFailureRow {
    /// `result-type`, such as `certificate-expired`.
    pub result: String,
    /// `sending-mta-ip`.
    pub sending_ip: Option<IpAddr>,
    /// `receiving-mx-hostname`.
    pub mx_host: Option<String>,
    /// `receiving-mx-helo`.
    pub mx_helo: Option<String>,
    /// `receiving-ip`.
    pub receiving_ip: Option<IpAddr>,
    /// `failed-session-count`.
    pub sessions: u32,
    /// `additional-information`.
    pub information: Option<String>,
    /// `failure-reason-code`.
    pub reason: Option<String>,
}

/// Why a report was not read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AggregateError {
    /// Nothing attached looks like one.
    #[error("no report is attached")]
    Missing,
    /// Too large, or damaged.
    #[error(transparent)]
    Unpack(#[from] UnpackError),
    /// More records than are read.
    #[error("more than {ROWS_MAX} records")]
    TooManyRows,
    /// The words of the parser, bounded.
    #[error("{0}")]
    Malformed(String),
}

/// What a part holds, by its name and type.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Holds {
    Dmarc,
    Tls,
    Either,
}

/// One of the two.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Aggregate {
    Dmarc(Box<DmarcReport>),
    Tls(Box<TlsReport>),
}

/// The first report that is attached and can be read; else the last reason why none could.
pub(super) fn read(mail: &Mail<'_>) -> Result<Aggregate, AggregateError> {
    let mut error = AggregateError::Missing;
    for part in &mail.parts {
        let Some(holds) = holds(part) else { continue };
        match of_part(part, holds) {
            Ok(report) => return Ok(report),
            Err(reason) => error = reason,
        }
    }
    Err(error)
}

fn holds(part: &Part<'_>) -> Option<Holds> {
    let name = part.name.as_deref().unwrap_or_default();
    let ends = |suffix: &str| name.ends_with(suffix);
    match part.kind.as_str() {
        "application/tlsrpt+gzip" | "application/tlsrpt+json" | "application/tlsrpt+zip" => Some(Holds::Tls),
        "application/dmarc+xml" | "text/xml" | "application/xml" => Some(Holds::Dmarc),
        _ if ends(".json") || ends(".json.gz") || ends(".json.zip") => Some(Holds::Tls),
        _ if ends(".xml") || ends(".xml.gz") || ends(".xml.zip") => Some(Holds::Dmarc),
        "application/gzip"
        | "application/x-gzip"
        | "application/zip"
        | "application/x-zip-compressed"
        | "application/x-zip"
        | "application/x-gzip-compressed" => Some(Holds::Either),
        _ if ends(".gz") || ends(".zip") => Some(Holds::Either),
        // Some attach nothing: the message is the report.
        "application/json" => Some(Holds::Tls),
        _ => None,
    }
}

fn of_part(part: &Part<'_>, holds: Holds) -> Result<Aggregate, AggregateError> {
    let packed = part.content(PACKED_BYTES_MAX + 1);
    if packed.len() > PACKED_BYTES_MAX {
        return Err(UnpackError::TooLarge.into());
    }
    let report = unpack::unpack(&packed)?;
    let report = report.strip_prefix(b"\xef\xbb\xbf").unwrap_or(&report).trim_ascii();
    let is_json = report.first() == Some(&b'{');
    match holds {
        Holds::Tls => tls(report),
        Holds::Either if is_json => tls(report),
        Holds::Dmarc | Holds::Either => dmarc(report),
    }
}

/// A DMARC report from its XML.
fn dmarc(xml: &[u8]) -> Result<Aggregate, AggregateError> {
    // Counted with prefixes, too: what is counted too often is refused, what is parsed is bounded.
    if memchr::memmem::find_iter(xml, b"record>").count() > 2 * ROWS_MAX
        || memchr::memmem::find_iter(xml, b"<").count() > 60 * ROWS_MAX
    {
        return Err(AggregateError::TooManyRows);
    }
    let report = parsed::Report::parse_xml(xml).map_err(|reason| AggregateError::Malformed(bounded(reason)))?;
    if report.record.len() > ROWS_MAX {
        return Err(AggregateError::TooManyRows);
    }
    let metadata = report.report_metadata;
    let published = report.policy_published;
    Ok(Aggregate::Dmarc(Box::new(DmarcReport {
        organization: bounded(metadata.org_name),
        email: bounded(metadata.email),
        report_id: bounded(metadata.report_id),
        begins_at: seconds(metadata.date_range.begin),
        ends_at: seconds(metadata.date_range.end),
        domain: bounded(published.domain),
        policy: policy(published.p),
        subdomain_policy: policy(published.sp),
        missing_policy: policy(published.np),
        percent: percent(xml),
        is_testing: published.testing,
        dkim_alignment: alignment(published.adkim),
        spf_alignment: alignment(published.aspf),
        errors: metadata.error.into_iter().take(RESULTS_MAX).map(bounded).collect(),
        rows: report.record.into_iter().map(dmarc_row).collect(),
    })))
}

fn dmarc_row(record: parsed::Record) -> DmarcRow {
    let evaluated = record.row.policy_evaluated;
    let reasons = evaluated.reason.into_iter().take(RESULTS_MAX);
    let signatures = record.auth_results.dkim.into_iter().take(RESULTS_MAX);
    let checks = record.auth_results.spf.into_iter().take(RESULTS_MAX);
    DmarcRow {
        source_ip: record.row.source_ip,
        count: record.row.count,
        disposition: disposition(evaluated.disposition),
        dkim_aligned: aligned(evaluated.dkim),
        spf_aligned: aligned(evaluated.spf),
        overrides: reasons
            .map(|reason| (override_type(reason.type_), bounded(reason.comment.unwrap_or_default())))
            .collect(),
        header_from: bounded(record.identifiers.header_from),
        envelope_from: bounded(record.identifiers.envelope_from),
        envelope_to: record.identifiers.envelope_to.map(bounded),
        dkim: signatures
            .map(|one| DkimRow {
                domain: bounded(one.domain),
                selector: bounded(one.selector),
                result: dkim_result(one.result),
            })
            .collect(),
        spf: checks
            .map(|one| SpfRow { domain: bounded(one.domain), scope: scope(one.scope), result: spf_result(one.result) })
            .collect(),
    }
}

/// `pct` of the published policy, which mail-auth leaves out: receivers that still name it spell it so.
fn percent(xml: &[u8]) -> Option<u8> {
    let (_, rest) = split(xml, b"<policy_published>")?;
    let (published, _) = split(rest, b"</policy_published>")?;
    let (_, rest) = split(published, b"<pct>")?;
    let (number, _) = split(rest, b"</pct>")?;
    let number = std::str::from_utf8(number).ok()?.trim().parse().ok()?;
    (0..=100).contains(&number).then_some(number)
}

/// What stands before and behind the first place of these octets.
fn split<'a>(text: &'a [u8], at: &[u8]) -> Option<(&'a [u8], &'a [u8])> {
    let (before, rest) = text.split_at_checked(memchr::memmem::find(text, at)?)?;
    Some((before, rest.get(at.len()..)?))
}

/// A TLS report from its JSON.
fn tls(json: &[u8]) -> Result<Aggregate, AggregateError> {
    if memchr::memchr_iter(b'{', json).count() > 3 * ROWS_MAX {
        return Err(AggregateError::TooManyRows);
    }
    let report = tlsrpt::TlsReport::parse_json(json)
        .map_err(|error| AggregateError::Malformed(bounded(format!("{error:?}"))))?;
    Ok(Aggregate::Tls(Box::new(TlsReport {
        organization: bounded(report.organization_name.unwrap_or_default()),
        contact: bounded(report.contact_info.unwrap_or_default()),
        report_id: bounded(report.report_id),
        begins_at: time(report.date_range.start_datetime.to_timestamp()),
        ends_at: time(report.date_range.end_datetime.to_timestamp()),
        policies: report.policies.into_iter().map(tls_policy).collect(),
    })))
}

fn tls_policy(policy: tlsrpt::Policy) -> TlsPolicyRow {
    TlsPolicyRow {
        policy_type: word(&policy.policy.policy_type),
        policy_strings: policy.policy.policy_string.into_iter().take(RESULTS_MAX).map(bounded).collect(),
        domain: bounded(policy.policy.policy_domain),
        mx_hosts: policy.policy.mx_host.into_iter().take(RESULTS_MAX).map(bounded).collect(),
        successes: policy.summary.total_success,
        failures: policy.summary.total_failure,
        details: policy.failure_details.into_iter().map(tls_failure).collect(),
    }
}

fn tls_failure(failure: tlsrpt::FailureDetails) -> TlsFailureRow {
    TlsFailureRow {
        result: word(&failure.result_type),
        sending_ip: failure.sending_mta_ip,
        mx_host: failure.receiving_mx_hostname.map(bounded),
        mx_helo: failure.receiving_mx_helo.map(bounded),
        receiving_ip: failure.receiving_ip,
        sessions: failure.failed_session_count,
        information: failure.additional_information.map(bounded),
        reason: failure.failure_reason_code.map(bounded),
    }
}

/// As RFC 8460 spells it, which is how mail-auth serializes it.
fn word(value: &impl serde::Serialize) -> String {
    match serde_json::to_value(value) {
        Ok(serde_json::Value::String(word)) => word,
        _ => "other".to_owned(),
    }
}

fn seconds(seconds: u64) -> Timestamp {
    Timestamp::from_millis(seconds.saturating_mul(1_000))
}

fn time(seconds_since_epoch: i64) -> Timestamp {
    seconds(u64::try_from(seconds_since_epoch).unwrap_or_default())
}

/// Control characters have no place in any of these texts; each would take six octets of a line.
fn bounded(text: impl AsRef<str>) -> String {
    head(text.as_ref(), TEXT_BYTES_MAX).replace(char::is_control, " ")
}

fn policy(value: parsed::Disposition) -> &'static str {
    match value {
        parsed::Disposition::None => "none",
        parsed::Disposition::Quarantine => "quarantine",
        parsed::Disposition::Reject => "reject",
        parsed::Disposition::Unspecified => "",
    }
}

fn disposition(value: parsed::ActionDisposition) -> &'static str {
    match value {
        parsed::ActionDisposition::None => "none",
        parsed::ActionDisposition::Pass => "pass",
        parsed::ActionDisposition::Quarantine => "quarantine",
        parsed::ActionDisposition::Reject => "reject",
        parsed::ActionDisposition::Unspecified => "",
    }
}

fn alignment(value: parsed::Alignment) -> &'static str {
    match value {
        parsed::Alignment::Relaxed => "r",
        parsed::Alignment::Strict => "s",
        parsed::Alignment::Unspecified => "",
    }
}

fn aligned(value: parsed::DmarcResult) -> &'static str {
    match value {
        parsed::DmarcResult::Pass => "pass",
        parsed::DmarcResult::Fail => "fail",
        parsed::DmarcResult::Unspecified => "",
    }
}

fn override_type(value: parsed::PolicyOverride) -> &'static str {
    match value {
        parsed::PolicyOverride::LocalPolicy => "local_policy",
        parsed::PolicyOverride::MailingList => "mailing_list",
        parsed::PolicyOverride::PolicyTestMode => "policy_test_mode",
        parsed::PolicyOverride::TrustedForwarder => "trusted_forwarder",
        parsed::PolicyOverride::Other => "other",
    }
}

fn dkim_result(value: parsed::DkimResult) -> &'static str {
    match value {
        parsed::DkimResult::None => "none",
        parsed::DkimResult::Pass => "pass",
        parsed::DkimResult::Fail => "fail",
        parsed::DkimResult::Policy => "policy",
        parsed::DkimResult::Neutral => "neutral",
        parsed::DkimResult::TempError => "temperror",
        parsed::DkimResult::PermError => "permerror",
    }
}

fn scope(value: parsed::SPFDomainScope) -> &'static str {
    match value {
        parsed::SPFDomainScope::Helo => "helo",
        parsed::SPFDomainScope::MailFrom => "mfrom",
        parsed::SPFDomainScope::Unspecified => "",
    }
}

fn spf_result(value: parsed::SpfResult) -> &'static str {
    match value {
        parsed::SpfResult::None => "none",
        parsed::SpfResult::Neutral => "neutral",
        parsed::SpfResult::Pass => "pass",
        parsed::SpfResult::Fail => "fail",
        parsed::SpfResult::SoftFail => "softfail",
        parsed::SpfResult::TempError => "temperror",
        parsed::SpfResult::PermError => "permerror",
    }
}
