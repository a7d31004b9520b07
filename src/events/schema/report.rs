//! Rows of DMARC and TLS reports of receivers (RFC 7489 §7.2, RFC 8460): one event each. Not of SES, and not about a message: there is no
//! `mail`. Members have the names of those documents. What is empty or not said is left out.

use std::net::IpAddr;

use crate::events::json::Object;
use crate::events::{EventKind, EventLine};
use crate::types::{MessageId, Timestamp};

/// The mail that brought a report.
#[derive(Clone, Copy, Debug)]
pub struct BroughtBy<'a> {
    /// The id in its 250.
    pub message_id: MessageId,
    /// When it came.
    pub at: Timestamp,
    /// Who brought it.
    pub client: IpAddr,
    /// Its reverse-path; empty: `<>`.
    pub sender: &'a str,
}

/// `report`: what all rows of a report have in common.
#[derive(Clone, Copy, Debug)]
pub struct ReportInfo<'a> {
    /// The mail that brought it.
    pub brought_by: BroughtBy<'a>,
    /// Who wrote it, as it says.
    pub organization: &'a str,
    /// Whom to ask, as it says.
    pub contact: &'a str,
    /// Its id, as it says.
    pub report_id: &'a str,
    /// The time that it is about.
    pub begins_at: Timestamp,
    /// Likewise.
    pub ends_at: Timestamp,
    /// How many rows it has.
    pub rows: u32,
    /// What went wrong for its writer.
    pub errors: &'a [String],
}

/// `dmarc`: one record of a DMARC report.
#[derive(Clone, Copy, Debug)]
pub struct DmarcInfo<'a> {
    /// Whose policy it is.
    pub domain: &'a str,
    /// The policy as the receiver saw it.
    pub policy: DmarcPolicyInfo,
    /// Who sent.
    pub source_ip: Option<IpAddr>,
    /// How many messages.
    pub count: u32,
    /// What the receiver did.
    pub disposition: &'a str,
    /// Whether an aligned signature passed.
    pub dkim: &'a str,
    /// Whether aligned SPF did.
    pub spf: &'a str,
    /// Whether either did.
    pub passes: bool,
    /// The domain of `From`.
    pub header_from: &'a str,
    /// That of the reverse-path.
    pub envelope_from: &'a str,
    /// That of the recipient.
    pub envelope_to: Option<&'a str>,
    /// Signatures: domain, selector, result.
    pub signatures: &'a [(&'a str, &'a str, &'a str)],
    /// SPF checks: domain, scope, result.
    pub checks: &'a [(&'a str, &'a str, &'a str)],
    /// Why the receiver did something else than the policy says: type, comment.
    pub reasons: &'a [(&'a str, &'a str)],
}

/// `dmarc.policy`.
#[derive(Clone, Copy, Debug)]
pub struct DmarcPolicyInfo {
    /// As records spell it.
    pub p: &'static str,
    /// Likewise.
    pub sp: &'static str,
    /// Likewise.
    pub np: &'static str,
    /// Likewise.
    pub pct: Option<u8>,
    /// `r` or `s`.
    pub adkim: &'static str,
    /// Likewise.
    pub aspf: &'static str,
    /// `t=y`: the receiver was asked not to apply it.
    pub is_testing: bool,
}

/// `tls`: what was seen under one policy, or one kind of failure there.
#[derive(Clone, Copy, Debug)]
pub struct TlsInfo<'a> {
    /// Whose policy it is.
    pub domain: &'a str,
    /// `sts`, `tlsa`, `no-policy-found`, `other`.
    pub policy_type: &'a str,
    /// Sums or one failure.
    pub row: TlsRowInfo<'a>,
}

/// The two kinds of rows.
#[derive(Clone, Copy, Debug)]
pub enum TlsRowInfo<'a> {
    /// The sums of a policy.
    Summary {
        /// The policy as text.
        policy_strings: &'a [String],
        /// The hosts that it names.
        mx_hosts: &'a [String],
        /// Sessions with TLS as the policy wants it.
        successes: u32,
        /// Others.
        failures: u32,
    },
    /// One kind of failure.
    Failure {
        /// Such as `certificate-expired`.
        result: &'a str,
        /// Who sent.
        sending_ip: Option<IpAddr>,
        /// Whereto.
        mx_host: Option<&'a str>,
        /// As that host named itself.
        mx_helo: Option<&'a str>,
        /// Its address.
        receiving_ip: Option<IpAddr>,
        /// How many sessions.
        sessions: u32,
        /// Words of the sender.
        information: Option<&'a str>,
        /// Likewise.
        reason: Option<&'a str>,
    },
}

/// A row of a DMARC report; `row` counts from 1.
pub fn dmarc_row(report: &ReportInfo<'_>, row: u32, info: &DmarcInfo<'_>) -> EventLine {
    line(report, "dmarc", info.domain, row, |object| {
        object.object("policy", |object| dmarc_policy(object, &info.policy));
        address(object, "sourceIp", info.source_ip);
        object.number("count", info.count.into());
        word(object, "disposition", info.disposition);
        word(object, "dkim", info.dkim);
        word(object, "spf", info.spf);
        object.string("result", if info.passes { "pass" } else { "fail" });
        word(object, "headerFrom", info.header_from);
        word(object, "envelopeFrom", info.envelope_from);
        object.optional("envelopeTo", info.envelope_to);
        object.objects("dkimResults", info.signatures, |object, (domain, selector, result)| {
            object.string("domain", domain);
            word(object, "selector", selector);
            object.string("result", result);
        });
        object.objects("spfResults", info.checks, |object, (domain, scope, result)| {
            object.string("domain", domain);
            word(object, "scope", scope);
            object.string("result", result);
        });
        if !info.reasons.is_empty() {
            object.objects("reasons", info.reasons, |object, (kind, comment)| {
                object.string("type", kind);
                word(object, "comment", comment);
            });
        }
    })
}

fn dmarc_policy(object: &mut Object<'_>, policy: &DmarcPolicyInfo) {
    word(object, "p", policy.p);
    word(object, "sp", policy.sp);
    word(object, "np", policy.np);
    if let Some(pct) = policy.pct {
        object.number("pct", pct.into());
    }
    word(object, "adkim", policy.adkim);
    word(object, "aspf", policy.aspf);
    if policy.is_testing {
        object.boolean("testing", true);
    }
}

/// A row of a TLS report; `row` counts from 1.
pub fn tls_row(report: &ReportInfo<'_>, row: u32, info: &TlsInfo<'_>) -> EventLine {
    line(report, "tls", info.domain, row, |object| match info.row {
        TlsRowInfo::Summary { policy_strings, mx_hosts, successes, failures } => {
            object.string("row", "summary");
            object.string("policyType", info.policy_type);
            object.strings("policyStrings", policy_strings.iter().map(String::as_str));
            object.strings("mxHosts", mx_hosts.iter().map(String::as_str));
            object.number("successfulSessions", successes.into());
            object.number("failedSessions", failures.into());
        }
        TlsRowInfo::Failure { result, sending_ip, mx_host, mx_helo, receiving_ip, sessions, information, reason } => {
            object.string("row", "failure");
            object.string("policyType", info.policy_type);
            object.string("resultType", result);
            object.number("failedSessions", sessions.into());
            address(object, "sendingMtaIp", sending_ip);
            object.optional("receivingMxHostname", mx_host);
            object.optional("receivingMxHelo", mx_helo);
            address(object, "receivingIp", receiving_ip);
            object.optional("additionalInformation", information);
            object.optional("failureReasonCode", reason);
        }
    })
}

fn line(
    report: &ReportInfo<'_>,
    kind: &'static str,
    domain: &str,
    row: u32,
    fill: impl FnOnce(&mut Object<'_>),
) -> EventLine {
    let mut out = Vec::with_capacity(1_024);
    out.extend_from_slice(b"{\"eventType\":\"Report\"");
    let mut object = Object::resume(&mut out);
    object.object("report", |object| {
        let by = &report.brought_by;
        object.plain("timestamp", by.at);
        object.string("type", kind);
        object.plain("messageId", by.message_id);
        object.plain("clientIp", by.client);
        object.string("envelopeSender", by.sender);
        // Nobody has looked at SPF or DKIM of the mail.
        object.boolean("verified", false);
        object.string("organization", report.organization);
        word(object, "contact", report.contact);
        object.string("reportId", report.report_id);
        object.plain("begin", report.begins_at);
        object.plain("end", report.ends_at);
        object.string("domain", domain);
        object.number("row", row.into());
        object.number("rows", report.rows.into());
        if !report.errors.is_empty() {
            object.strings("errors", report.errors.iter().map(String::as_str));
        }
    });
    object.object(kind, fill);
    out.extend_from_slice(b",\"posthaste\":{\"eventId\":");
    let id_at = u32::try_from(out.len()).expect("texts of a row are bounded far below 4 GiB");
    out.extend_from_slice(b"}}");
    EventLine { kind: EventKind::Report, json: out.into(), id_at }
}

/// Nothing where the receiver said nothing.
fn word(object: &mut Object<'_>, name: &'static str, text: &str) {
    object.optional(name, Some(text).filter(|text| !text.is_empty()));
}

fn address(object: &mut Object<'_>, name: &'static str, address: Option<IpAddr>) {
    if let Some(address) = address {
        object.plain(name, address);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::events::schema::samples::{ID, id};
    use crate::events::schema::tests::parsed;

    fn info<'a>(errors: &'a [String]) -> ReportInfo<'a> {
        ReportInfo {
            brought_by: BroughtBy {
                message_id: id(),
                at: Timestamp::from_millis(1_683_320_424_300),
                client: [192, 0, 2, 9].into(),
                sender: "noreply@receiver.test",
            },
            organization: "receiver.test",
            contact: "mailto:dmarc@receiver.test",
            report_id: "4711",
            begins_at: Timestamp::from_millis(1_683_158_400_000),
            ends_at: Timestamp::from_millis(1_683_244_799_000),
            rows: 2,
            errors,
        }
    }

    fn head(kind: &str, row: u32) -> serde_json::Value {
        serde_json::json!({
            "timestamp": "2023-05-05T21:00:24.300Z", "type": kind, "messageId": ID, "clientIp": "192.0.2.9",
            "envelopeSender": "noreply@receiver.test", "verified": false, "organization": "receiver.test",
            "contact": "mailto:dmarc@receiver.test", "reportId": "4711", "begin": "2023-05-04T00:00:00.000Z",
            "end": "2023-05-04T23:59:59.000Z", "domain": "sender.test", "row": row, "rows": 2,
        })
    }

    const POLICY: DmarcPolicyInfo =
        DmarcPolicyInfo { p: "reject", sp: "none", np: "", pct: Some(50), adkim: "r", aspf: "s", is_testing: false };

    #[test]
    fn a_row_of_a_dmarc_report_has_the_names_of_its_rfc() {
        let dmarc = DmarcInfo {
            domain: "sender.test",
            policy: POLICY,
            source_ip: Some([203, 0, 113, 5].into()),
            count: 12,
            disposition: "quarantine",
            dkim: "fail",
            spf: "pass",
            passes: true,
            header_from: "sender.test",
            envelope_from: "bounces.sender.test",
            envelope_to: Some("receiver.test"),
            signatures: &[("sender.test", "s1", "fail")],
            checks: &[("bounces.sender.test", "mfrom", "pass")],
            reasons: &[("local_policy", "known \"list\"\n")],
        };
        let event = parsed(&dmarc_row(&info(&[]), 1, &dmarc));
        assert_eq!(event["eventType"], "Report");
        assert_eq!(event["report"], head("dmarc", 1));
        let expected = serde_json::json!({
            "policy": {"p": "reject", "sp": "none", "pct": 50, "adkim": "r", "aspf": "s"},
            "sourceIp": "203.0.113.5", "count": 12, "disposition": "quarantine", "dkim": "fail", "spf": "pass",
            "result": "pass", "headerFrom": "sender.test", "envelopeFrom": "bounces.sender.test",
            "envelopeTo": "receiver.test",
            "dkimResults": [{"domain": "sender.test", "selector": "s1", "result": "fail"}],
            "spfResults": [{"domain": "bounces.sender.test", "scope": "mfrom", "result": "pass"}],
            "reasons": [{"type": "local_policy", "comment": "known \"list\"\n"}],
        });
        assert_eq!(event["dmarc"], expected);
    }

    #[test]
    fn what_a_report_does_not_say_is_left_out() {
        let policy = DmarcPolicyInfo { p: "", sp: "", pct: None, adkim: "", aspf: "", is_testing: true, ..POLICY };
        let dmarc = DmarcInfo {
            domain: "",
            policy,
            source_ip: None,
            count: 0,
            disposition: "",
            dkim: "",
            spf: "",
            passes: false,
            header_from: "",
            envelope_from: "",
            envelope_to: None,
            signatures: &[],
            checks: &[("", "", "none")],
            reasons: &[],
        };
        let errors = ["no record".to_owned()];
        let event = parsed(&dmarc_row(&info(&errors), 1, &dmarc));
        let expected = serde_json::json!({
            "policy": {"testing": true}, "count": 0, "result": "fail", "dkimResults": [],
            "spfResults": [{"domain": "", "result": "none"}],
        });
        assert_eq!((&event["dmarc"], &event["report"]["errors"]), (&expected, &serde_json::json!(["no record"])));
    }

    #[test]
    fn rows_of_a_tls_report_are_sums_of_a_policy_and_its_failures() {
        let summary = TlsRowInfo::Summary {
            policy_strings: &["version: STSv1".to_owned()],
            mx_hosts: &["*.sender.test".to_owned()],
            successes: 5_326,
            failures: 303,
        };
        let row = |row| TlsInfo { domain: "sender.test", policy_type: "sts", row };
        let event = parsed(&tls_row(&info(&[]), 1, &row(summary)));
        assert_eq!(event["report"], head("tls", 1));
        let expected = serde_json::json!({
            "row": "summary", "policyType": "sts", "policyStrings": ["version: STSv1"], "mxHosts": ["*.sender.test"],
            "successfulSessions": 5_326, "failedSessions": 303,
        });
        assert_eq!(event["tls"], expected);
        let failure = TlsRowInfo::Failure {
            result: "certificate-expired",
            sending_ip: Some("2001:db8::1".parse().unwrap()),
            mx_host: Some("mx.sender.test"),
            mx_helo: None,
            receiving_ip: None,
            sessions: 100,
            information: Some("https://receiver.test/1"),
            reason: None,
        };
        let event = parsed(&tls_row(&info(&[]), 2, &row(failure)));
        let expected = serde_json::json!({
            "row": "failure", "policyType": "sts", "resultType": "certificate-expired", "failedSessions": 100,
            "sendingMtaIp": "2001:db8::1", "receivingMxHostname": "mx.sender.test",
            "additionalInformation": "https://receiver.test/1",
        });
        assert_eq!((&event["report"]["row"], &event["tls"]), (&2.into(), &expected));
    }
}
