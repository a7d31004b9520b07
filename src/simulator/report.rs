//! The reports that mailboxes have brought home: an automatic answer (RFC 3834), a complaint (RFC 5965), a bounce (RFC 3464). Pure.
//!
//! Promises: CRLF line ends only; nothing that the message brought can begin a field or a part: its header is returned in a part of its
//! own, behind a boundary that is younger than it.

use mail_builder::MessageBuilder;
use mail_builder::headers::address::Address;
use mail_builder::headers::content_type::ContentType;
use mail_builder::headers::raw::Raw;
use mail_builder::mime::{BodyPart, MimePart};

use super::mailbox::{NOBODY, ReportKind};
use crate::message::dsn::{self, Diagnostic, Notification, Original, RecipientStatus};
use crate::types::{Domain, EmailAddress, EnhancedStatus, MessageId, Reply, ReplyCode, Timestamp};

/// What `User-Agent` says of who complains.
const USER_AGENT: &str = "posthaste-simulator/1";

/// What a report speaks of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Subject {
    pub(super) kind: ReportKind,
    /// Where it goes.
    pub(super) return_path: EmailAddress,
    /// Of whom it is.
    pub(super) recipient: EmailAddress,
    /// The header of the message, or the front of it: whole lines.
    pub(super) header: Vec<u8>,
    /// When the message came.
    pub(super) arrived_at: Timestamp,
}

/// Writes it. `id` is its own.
pub(super) fn write(subject: &Subject, host: &Domain, id: MessageId) -> Vec<u8> {
    match subject.kind {
        ReportKind::AutoReply => auto_reply(subject, host, id),
        ReportKind::Complaint => complaint(subject, host, id),
        ReportKind::Bounce => bounce(subject, host, id),
    }
}

fn begin<'a>(subject: &'a Subject, from: &'a str, host: &Domain, id: MessageId) -> MessageBuilder<'a> {
    MessageBuilder::new()
        .from(Address::new_address(None::<&str>, from))
        .to(Address::new_address(None::<&str>, subject.return_path.to_ascii_domain()))
        .header("Date", Raw::new(id.accepted_at().to_rfc5322()))
        .message_id(format!("{id}@{host}"))
        .header("MIME-Version", Raw::new("1.0"))
}

fn auto_reply(subject: &Subject, host: &Domain, id: MessageId) -> Vec<u8> {
    let text = format!("I am out of the office.\r\n\r\nThis answer was made by the mailbox simulator at {host}.\r\n");
    let message = begin(subject, subject.recipient.as_str(), host, id)
        .header("Subject", Raw::new("Automatic reply: out of office"))
        .header("Auto-Submitted", Raw::new("auto-replied"));
    written(message.body(part("text/plain; charset=utf-8", text.into_bytes())))
}

fn complaint(subject: &Subject, host: &Domain, id: MessageId) -> Vec<u8> {
    let text = format!("This is an abuse report, made by the mailbox simulator at {host}.\r\n");
    let report = format!(
        "Feedback-Type: abuse\r\nUser-Agent: {USER_AGENT}\r\nVersion: 1\r\nOriginal-Mail-From: <{}>\r\n\
         Original-Rcpt-To: <{}>\r\nArrival-Date: {}\r\nReporting-MTA: dns; {host}\r\n",
        subject.return_path,
        subject.recipient,
        subject.arrived_at.to_rfc5322(),
    );
    let parts = vec![
        part("text/plain; charset=utf-8", text.into_bytes()),
        part("message/feedback-report", report.into_bytes()),
        part("text/rfc822-headers", subject.header.clone()),
    ];
    let kind = ContentType::new("multipart/report")
        .attribute("report-type", "feedback-report")
        // A fresh id cannot occur in a message that is older than it.
        .attribute("boundary", format!("report_{id}"));
    let frame = MimePart { headers: vec![("Content-Type".into(), kind.into())], contents: BodyPart::Multipart(parts) };
    let from = format!("complaints@{host}");
    written(begin(subject, &from, host, id).header("Subject", Raw::new("Abuse report")).body(frame))
}

fn bounce(subject: &Subject, host: &Domain, id: MessageId) -> Vec<u8> {
    let status = EnhancedStatus::new(5, 1, 1).expect("class 5 with small numbers");
    let code = ReplyCode::new(NOBODY.code).expect("the code of a reply");
    let reply = Reply::new(code, Some(status), vec![NOBODY.text.into()]);
    let recipient = RecipientStatus {
        address: &subject.recipient,
        orcpt: None,
        status,
        diagnostic: Diagnostic::Smtp(&reply),
        remote_mta: None,
        last_attempt_at: Some(id.accepted_at()),
        retry_until: None,
    };
    let notification = Notification {
        kind: dsn::Kind::Failed,
        id,
        now: id.accepted_at(),
        hostname: host.as_str(),
        to: &subject.return_path,
        envid: None,
        arrived_at: subject.arrived_at,
        ret: None,
        full_bytes_max: 0,
        original: Original { header: &subject.header, full: None },
        recipients: &[recipient],
    };
    dsn::build(&notification).message
}

/// A part of this type, whose octets stay as they are.
fn part(content_type: &'static str, octets: Vec<u8>) -> MimePart<'static> {
    let encoding = if octets.is_ascii() { "7bit" } else { "8bit" };
    let headers = vec![
        ("Content-Type".into(), Raw::new(content_type).into()),
        ("Content-Transfer-Encoding".into(), Raw::new(encoding).into()),
    ];
    MimePart { headers, contents: BodyPart::Binary(octets.into()) }
}

fn written(message: MessageBuilder<'_>) -> Vec<u8> {
    let mut octets = Vec::new();
    message.serialize(&mut octets);
    octets
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::feedback::report::{
        Addressed, AutoReplyKind, ComplaintKind, Context, Outcome, Report, read as read_report,
    };
    use crate::policy::Rules;
    use crate::types::BounceKind;

    /// As the desk for feedback reads it.
    fn read(kind: ReportKind, header: &str) -> (String, Report) {
        let subject = Subject {
            kind,
            return_path: EmailAddress::parse("token@bounces.op.test", false).unwrap(),
            recipient: EmailAddress::parse("complaint+Order.17@simulator.op.test", false).unwrap(),
            header: header.as_bytes().to_vec(),
            arrived_at: Timestamp::from_millis(1_700_000_000_000),
        };
        let id = MessageId::new(Timestamp::from_millis(1_700_000_001_000), 7);
        let octets = write(&subject, &Domain::parse("simulator.op.test").unwrap(), id);
        let text = String::from_utf8(octets.clone()).unwrap();
        assert!(!text.replace("\r\n", "").contains(['\r', '\n']), "{text}");
        let rules = Rules::built_in();
        let context = Context { is_null_sender: true, addressed: Addressed::ReturnPath, rules: &rules };
        let report = read_report(&octets, &context);
        (text, report)
    }

    const HEADER: &str = "Message-ID: <m@op.test>\r\nFrom: app@op.test\r\nSubject: hello\r\n";

    #[test]
    fn the_automatic_answer_is_read_as_one() {
        let (text, report) = read(ReportKind::AutoReply, HEADER);
        assert!(text.contains("\r\nAuto-Submitted: auto-replied\r\n"), "{text}");
        assert!(matches!(report, Report::AutoReply(kind) if kind != AutoReplyKind::Generated), "{report:?}");
    }

    #[test]
    fn the_complaint_is_read_with_kind_recipient_and_date() {
        let (text, report) = read(ReportKind::Complaint, HEADER);
        let Report::Complaint(complaint) = report else { panic!("{report:?}\n{text}") };
        assert_eq!(complaint.kind, Some(ComplaintKind::Abuse));
        assert_eq!(complaint.user_agent.as_deref(), Some(USER_AGENT));
        let recipients: Vec<_> = complaint.recipients.iter().map(EmailAddress::as_str).collect();
        assert_eq!(recipients, ["complaint+Order.17@simulator.op.test"]);
        assert_eq!(complaint.arrived_at, Some(Timestamp::from_millis(1_700_000_000_000)));
    }

    #[test]
    fn the_bounce_is_read_as_that_of_a_mailbox_that_is_not_there() {
        let (text, report) = read(ReportKind::Bounce, HEADER);
        let Report::Delivery(delivery) = report else { panic!("{report:?}\n{text}") };
        let [recipient] = &delivery.recipients[..] else { panic!("{delivery:?}") };
        let Outcome::Bounced(verdict) = &recipient.outcome else { panic!("{delivery:?}") };
        assert!(verdict.bounce_kind() == BounceKind::PermanentNoEmail || verdict.says_nobody_is_there(), "{verdict:?}");
        assert_eq!(recipient.status.map(|status| status.to_string()).as_deref(), Some("5.1.1"));
        assert!(recipient.addresses().any(|address| address.as_str() == "complaint+Order.17@simulator.op.test"));
    }

    #[test]
    fn what_a_message_brings_begins_no_part() {
        let evil = "Subject: x\r\n--report_\r\n\r\nFinal-Recipient: rfc822; other@b.test\r\n";
        let (_, report) = read(ReportKind::Complaint, evil);
        let Report::Complaint(complaint) = report else { panic!("{report:?}") };
        assert_eq!(complaint.recipients.len(), 1);
    }
}
