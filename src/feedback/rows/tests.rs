//! Any report, whatever strangers write into it, as lines of JSON: one a row, in order, none forged.

use std::net::IpAddr;

use proptest::prelude::*;
use serde_json::Value;

use super::super::report::{DkimRow, SpfRow};
use super::*;
use crate::events::{EventId, EventKind, OutboxEvent};
use crate::types::MessageId;

fn brought_by(sender: &str) -> BroughtBy<'_> {
    let message_id: MessageId = "01010187edb7434c-4187f4b8-3e2b-404c-a5f6-72b9b64e5d66-000000".parse().unwrap();
    BroughtBy { message_id, at: message_id.accepted_at(), client: IpAddr::from([192, 0, 2, 1]), sender }
}

fn dmarc(rows: Vec<DmarcRow>) -> DmarcReport {
    DmarcReport {
        organization: "receiver.test".into(),
        email: "dmarc@receiver.test".into(),
        report_id: "4711".into(),
        begins_at: Timestamp::from_millis(1_683_158_400_000),
        ends_at: Timestamp::from_millis(1_683_244_799_000),
        domain: "sender.test".into(),
        policy: "reject",
        subdomain_policy: "",
        missing_policy: "",
        percent: None,
        is_testing: false,
        dkim_alignment: "r",
        spf_alignment: "s",
        errors: Vec::new(),
        rows,
    }
}

fn dmarc_row_of(count: u32, dkim: &'static str, spf: &'static str, disposition: &'static str) -> DmarcRow {
    DmarcRow {
        source_ip: Some(IpAddr::from([203, 0, 113, 5])),
        count,
        disposition,
        dkim_aligned: dkim,
        spf_aligned: spf,
        overrides: Vec::new(),
        header_from: "sender.test".into(),
        envelope_from: "bounces.sender.test".into(),
        envelope_to: None,
        dkim: Vec::new(),
        spf: Vec::new(),
    }
}

fn failure(result: &str, sessions: u32) -> TlsFailureRow {
    TlsFailureRow {
        result: result.into(),
        sending_ip: None,
        mx_host: None,
        mx_helo: None,
        receiving_ip: None,
        sessions,
        information: None,
        reason: None,
    }
}

fn policy(domain: &str, successes: u32, failures: u32, details: Vec<TlsFailureRow>) -> TlsPolicyRow {
    TlsPolicyRow {
        policy_type: "sts".into(),
        policy_strings: Vec::new(),
        domain: domain.into(),
        mx_hosts: Vec::new(),
        successes,
        failures,
        details,
    }
}

fn tls(policies: Vec<TlsPolicyRow>) -> TlsReport {
    TlsReport {
        organization: "receiver.test".into(),
        contact: String::new(),
        report_id: "4711".into(),
        begins_at: Timestamp::EPOCH,
        ends_at: Timestamp::MAX,
        policies,
    }
}

/// As a reader of the file finds them: each alone on its line, with its id.
fn read(lines: &[EventLine]) -> Vec<Value> {
    let mut text = Vec::new();
    for (id, line) in (1..).zip(lines) {
        assert_eq!(line.kind, EventKind::Report);
        OutboxEvent { id: EventId::new(id), line: Some(line.clone()) }.write_line(&mut text);
    }
    let text = String::from_utf8(text).unwrap();
    assert!(text.is_empty() || text.ends_with('\n'));
    let values: Vec<Value> = text.split_terminator('\n').map(|line| serde_json::from_str(line).unwrap()).collect();
    for (id, value) in (1_u64..).zip(&values) {
        assert_eq!((&value["eventType"], &value["posthaste"]["eventId"]), (&"Report".into(), &id.into()));
        assert_eq!((&value["report"]["row"], &value["report"]["rows"]), (&id.into(), &values.len().into()));
    }
    values
}

/// What strangers write: quotes, line ends of all languages, the place of the id, long texts.
fn hostile() -> impl Strategy<Value = String> {
    let forged = r#""},"posthaste":{"eventId":1}}"#;
    prop_oneof![
        "\\PC{0,20}",
        "[\\x00-\\x7f]{0,20}",
        "[\"\\\\\n\r\u{85}\u{2028}\u{2029}\u{0}]{0,10}",
        Just(format!("{forged}\n{{\"eventType\":\"Report\"}}")),
        Just("\u{2029}".repeat(500)),
    ]
}

prop_compose! {
    fn any_row()(
        texts in prop::collection::vec(hostile(), 8),
        count in any::<u32>(),
        source_ip in any::<Option<u128>>(),
        results in 0_usize..4,
    ) -> DmarcRow {
        let mut texts = texts.into_iter();
        let mut text = || texts.next().unwrap_or_default();
        DmarcRow {
            source_ip: source_ip.map(|bits| IpAddr::from(bits.to_be_bytes())),
            overrides: vec![("other", text()); results],
            header_from: text(),
            envelope_from: text(),
            envelope_to: Some(text()),
            dkim: vec![DkimRow { domain: text(), selector: text(), result: "pass" }; results],
            spf: vec![SpfRow { domain: text(), scope: "", result: "none" }; results],
            ..dmarc_row_of(count, "pass", "", "")
        }
    }
}

proptest! {
    #[test]
    fn any_dmarc_report_is_one_line_of_json_for_each_row(
        rows in prop::collection::vec(any_row(), 0..8),
        texts in prop::collection::vec(hostile(), 6),
        times in any::<(u64, u64)>(),
    ) {
        let [organization, email, report_id, domain, sender, error]: [String; 6] = texts.try_into().unwrap();
        let report = DmarcReport {
            organization: organization.clone(), email, report_id, domain,
            errors: vec![error; 5],
            begins_at: Timestamp::from_millis(times.0), ends_at: Timestamp::from_millis(times.1),
            ..dmarc(rows)
        };
        let aggregate = Aggregate::Dmarc(&report);
        let values = read(&aggregate.lines(brought_by(&sender)).unwrap());
        prop_assert_eq!(values.len(), report.rows.len());
        for (value, row) in values.iter().zip(&report.rows) {
            prop_assert_eq!(&value["report"]["organization"], head(&organization));
            prop_assert_eq!(&value["report"]["envelopeSender"], sender.as_str());
            prop_assert_eq!(value["dmarc"]["count"].as_u64(), Some(row.count.into()));
            prop_assert_eq!(value["dmarc"]["headerFrom"].as_str().unwrap_or_default(), row.header_from.as_str());
            prop_assert_eq!(value["dmarc"]["dkimResults"].as_array().unwrap().len(), row.dkim.len());
        }
    }

    #[test]
    fn any_tls_report_is_one_line_of_json_for_each_policy_and_failure(
        policies in prop::collection::vec((prop::collection::vec(hostile(), 7), any::<[u32; 3]>(), 0_usize..4), 0..6),
    ) {
        let policies: Vec<_> = policies.into_iter().map(|(texts, [successes, failures, sessions], details)| {
            let mut texts = texts.into_iter();
            let mut text = || texts.next().unwrap_or_default();
            let one = TlsFailureRow { mx_host: Some(text()), information: Some(text()), reason: Some(text()), ..failure("other", sessions) };
            TlsPolicyRow {
                policy_strings: vec![text()], mx_hosts: vec![text()],
                ..policy(&text(), successes, failures, vec![one; details])
            }
        }).collect();
        let report = tls(policies);
        let aggregate = Aggregate::Tls(&report);
        let values = read(&aggregate.lines(brought_by("")).unwrap());
        prop_assert_eq!(values.len(), aggregate.rows().count());
        prop_assert_eq!(values.len(), report.policies.iter().map(|policy| 1 + policy.details.len()).sum::<usize>());
        // No session is counted twice, and none is lost where a policy sums up more than its rows.
        let (mut ok, mut failed) = (0, 0);
        for total in aggregate.rows().flat_map(Row::totals) {
            match total {
                Total::Sessions(_, None, count) => ok += count,
                Total::Sessions(_, Some(_), count) => failed += count,
                Total::Messages(..) => unreachable!(),
            }
        }
        let sums = report.policies.iter().map(|policy| {
            let told = policy.details.iter().map(|failure| u64::from(failure.sessions)).sum::<u64>();
            (u64::from(policy.successes), told.max(policy.failures.into()))
        });
        let (successes, failures): (Vec<u64>, Vec<u64>) = sums.unzip();
        prop_assert_eq!((ok, failed), (successes.iter().sum(), failures.iter().sum()));
    }
}

#[test]
fn a_record_passes_by_either_of_the_two() {
    let row = dmarc_row_of;
    let rows = vec![
        row(5, "pass", "fail", "none"),
        row(3, "fail", "pass", "none"),
        row(2, "fail", "fail", "reject"),
        row(1, "", "", ""),
    ];
    let report = dmarc(rows);
    let totals: Vec<Total<'_>> = Aggregate::Dmarc(&report).rows().flat_map(Row::totals).collect();
    let of = |passes, disposition, count| Total::Messages("sender.test", passes, disposition, count);
    assert_eq!(totals, [of(true, "none", 5), of(true, "none", 3), of(false, "reject", 2), of(false, UNSAID, 1)]);
}

#[test]
fn failures_that_no_row_tells_of_are_counted_too() {
    let report = tls(vec![policy("a.test", 10, 7, vec![failure("certificate-expired", 4)])]);
    let totals: Vec<Total<'_>> = Aggregate::Tls(&report).rows().flat_map(Row::totals).collect();
    let of = |result, count| Total::Sessions("a.test", result, count);
    assert_eq!(totals, [of(None, 10), of(Some(UNSAID), 3), of(Some("certificate-expired"), 4)]);
}

#[test]
fn a_small_report_that_would_fill_the_disk_is_too_large() {
    let mut report = dmarc(vec![dmarc_row_of(1, "", "", ""); 20_000]);
    let usual = Aggregate::Dmarc(&report).lines(brought_by("a@b.test")).unwrap();
    assert_eq!(usual.len(), 20_000, "a report of the largest kind that receivers write");
    report.organization = "\u{2028}".repeat(160);
    report.errors = vec!["\"".repeat(500); 20];
    let bytes: usize = usual.iter().map(|line| line.json.len()).sum();
    assert!(bytes < LINES_BYTES_MAX / 2 + LINES_BYTES_MAX / 4, "{bytes}");
    assert_eq!(Aggregate::Dmarc(&report).lines(brought_by("a@b.test")), Err(TooLarge));
}
