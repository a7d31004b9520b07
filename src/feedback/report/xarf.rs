//! X-ARF: a complaint as JSON (versions 2 and 3; RFC 9477 §3.3 allows it). Field names differ by version and case: they are compared
//! without underscores, in lower case.
//!
//! Promises: bounded by the size that is read; `serde_json` bounds the depth.

use serde_json::Value;

use super::complaint::{Complaint, ComplaintForm, add_recipient, bounded, ip};
use super::mail::{Mail, Part};
use super::{address, date, decode, original};

/// Octets of a report.
const REPORT_BYTES_MAX: usize = 1 << 20;
/// Objects within one another that are looked into.
const DEPTH_MAX: usize = 4;

/// The report in one of the parts.
pub(super) fn read(mail: &Mail<'_>) -> Option<Complaint> {
    mail.parts.iter().filter(|part| is_candidate(part)).find_map(of_part)
}

fn is_candidate(part: &Part<'_>) -> bool {
    let is_named = part.name.as_deref().is_some_and(|name| name.ends_with("xarf.json"));
    is_named || part.kind == "application/xarf+json" || part.kind == "application/json"
}

fn of_part(part: &Part<'_>) -> Option<Complaint> {
    let report: Value = serde_json::from_slice(&part.content(REPORT_BYTES_MAX)).ok()?;
    let text = |name: &str| find(&report, name, DEPTH_MAX).and_then(Value::as_str);
    let kind = text("reporttype").or_else(|| text("type"))?;
    find(&report, "reporterinfo", DEPTH_MAX).or_else(|| find(&report, "reporter", DEPTH_MAX))?;
    let mut complaint = Complaint::new(ComplaintForm::Xarf);
    complaint.set_type(kind);
    complaint.user_agent = text("useragent").or_else(|| text("generator")).map(bounded);
    complaint.source_ip = text("sourceip").or_else(|| text("sourceidentifier")).or_else(|| text("ip")).and_then(ip);
    complaint.arrived_at = text("date").or_else(|| text("timestamp")).and_then(date::parse);
    complaint.mail_from = text("smtpmailfromaddress").or_else(|| text("smtpfrom")).and_then(address::mailbox);
    for name in ["smtprcpttoaddress", "smtpto", "originalrcptto"] {
        add_recipient(&mut complaint, text(name).and_then(address::mailbox));
    }
    complaint.clues.cfbl_feedback_ids.extend(text("cfblfeedbackid").map(bounded));
    if let Some(sample) = find(&report, "payload", DEPTH_MAX).and_then(Value::as_str) {
        let is_plain = sample.contains('\n') && sample.contains(": ");
        let bytes = if is_plain { sample.as_bytes().to_vec() } else { decode::base64(sample.as_bytes()) };
        complaint.original = original::from_header(crate::message::header::split(&bytes).0);
    }
    Some(complaint)
}

/// The first value of this name, the outermost first.
fn find<'a>(value: &'a Value, name: &str, depth: usize) -> Option<&'a Value> {
    let inner = |depth: usize| depth.checked_sub(1);
    match value {
        Value::Object(fields) => {
            let own = fields.iter().find(|(key, _)| key.to_ascii_lowercase().replace(['_', '-'], "") == name);
            own.map(|(_, value)| value).or_else(|| {
                let depth = inner(depth)?;
                fields.values().find_map(|value| find(value, name, depth))
            })
        }
        Value::Array(items) => {
            let depth = inner(depth)?;
            items.iter().take(10).find_map(|value| find(value, name, depth))
        }
        _ => None,
    }
}
