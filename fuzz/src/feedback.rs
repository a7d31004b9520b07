//! Messages that come home, which anybody may write, and aggregate reports, packed or not.

use posthaste::events::schema::BroughtBy;
use posthaste::events::{EventId, OutboxEvent};
use posthaste::feedback::report::{Action, Addressed, Context, RECIPIENTS_MAX, ROWS_MAX, Report, read};
use posthaste::feedback::rows::{Aggregate, LINES_BYTES_MAX, Row};
use posthaste::policy::Rules;
use posthaste::types::{MessageId, Timestamp};
use serde_json::Value;

const ADDRESSED: [Addressed; 6] = [
    Addressed::ReturnPath,
    Addressed::Complaints,
    Addressed::Unsubscribe,
    Addressed::Dmarc,
    Addressed::TlsRpt,
    Addressed::Postmaster,
];
/// Headers of messages that are a report themselves.
const KINDS: [&str; 4] = [
    "Content-Type: text/xml\r\n\r\n",
    "Content-Type: application/tlsrpt+json\r\n\r\n",
    "Content-Type: application/gzip\r\n\r\n",
    "Content-Type: application/zip; name=r.zip\r\n\r\n",
];

/// The first octet as what is known of the envelope, the others as a message: it is read, the same each time, within its bounds; a
/// bounce is a failure with a type of SES.
pub fn feedback_report(data: &[u8]) {
    let Some((first, message)) = data.split_first() else { return };
    let addressed = ADDRESSED.get(usize::from(*first) / 2 % ADDRESSED.len()).copied().unwrap_or(Addressed::ReturnPath);
    let rules = Rules::built_in();
    let context = Context { is_null_sender: first % 2 == 1, addressed, rules: &rules };
    let report = read(message, &context);
    assert_eq!(report, read(message, &context));
    if let Report::Delivery(report) = report {
        assert!((1..=RECIPIENTS_MAX).contains(&report.recipients.len()));
        for recipient in &report.recipients {
            let bounce = recipient.outcome.bounce();
            assert_eq!(bounce.is_some(), recipient.action == Action::Failed);
            assert!(bounce.is_none_or(|verdict| verdict.bounce_sub_type.is_of(verdict.bounce_type)), "{bounce:?}");
        }
    }
}

/// The first octet as a type, the others as a report of it: rows within their bounds, each one line of JSON of its own, or a reason.
pub fn feedback_aggregate(data: &[u8]) {
    let Some((first, content)) = data.split_first() else { return };
    let mut message = KINDS.get(usize::from(*first) % KINDS.len()).copied().unwrap_or_default().as_bytes().to_vec();
    message.extend_from_slice(content);
    let rules = Rules::built_in();
    let report = read(&message, &Context { is_null_sender: false, addressed: Addressed::Dmarc, rules: &rules });
    if let Some(aggregate) = Aggregate::of(&report) {
        check_lines(aggregate);
    }
    match report {
        Report::DmarcAggregate(report) => {
            assert!(report.rows.len() <= ROWS_MAX);
            assert!(report.rows.iter().all(|row| row.dkim.len() <= 20 && row.header_from.len() <= 500));
        }
        Report::TlsReport(report) => assert!(report.policies.len() <= 3 * ROWS_MAX),
        _ => {}
    }
}

/// As a reader of the file finds them.
fn check_lines(aggregate: Aggregate<'_>) {
    let id = MessageId::from_bytes([7; MessageId::BYTES]);
    let brought_by = BroughtBy { message_id: id, at: Timestamp::EPOCH, client: [192, 0, 2, 1].into(), sender: "" };
    let Ok(lines) = aggregate.lines(brought_by) else { return };
    assert_eq!(lines.len(), aggregate.rows().count());
    assert!(aggregate.rows().flat_map(Row::totals).count() >= lines.len());
    assert!(lines.iter().map(|line| line.json.len()).sum::<usize>() <= LINES_BYTES_MAX);
    for (number, line) in (1_u64..).zip(lines) {
        let mut text = Vec::new();
        OutboxEvent { id: EventId::new(number), line: Some(line) }.write_line(&mut text);
        let (end, text) = text.split_last().expect("a line has an end");
        assert!(*end == b'\n' && !text.iter().any(u8::is_ascii_control), "not one line");
        let value: Value = serde_json::from_slice(text).expect("a line is JSON");
        assert_eq!((&value["posthaste"]["eventId"], &value["report"]["row"]), (&number.into(), &number.into()));
    }
}
