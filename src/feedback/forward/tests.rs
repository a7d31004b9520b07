//! From a report to the message that the sender gets, which is read again by the reader of reports.

use std::collections::HashMap;

use super::*;
use crate::feedback::report::{Addressed, Context, Outcome, Report};
use crate::policy::Rules;
use crate::policy::mailing::{MailRule, Takers};
use crate::queue::{NewBody, RecipientOutcome};
use crate::types::{PoolName, ReversePath};

const NOW: Timestamp = Timestamp::from_millis(1_700_000_000_000);

fn address(text: &str) -> EmailAddress {
    EmailAddress::parse(text, true).unwrap()
}

fn sent(mail_json: &'static str) -> SentRecipient {
    SentRecipient {
        id: MessageId::new(NOW, 7),
        index: 0,
        recipient: address("you@example.test"),
        reverse_path: ReversePath::Mailbox(address("app@sender.example")),
        caller: "app".into(),
        tenant: "shop".into(),
        identity: "sender.example".into(),
        configuration_set: "receipts".into(),
        pool: PoolName::parse("warm").unwrap(),
        source: None,
        site: None,
        outcome: RecipientOutcome::Delivered,
        ended_at: Some(NOW),
        bounced_at: None,
        complained_at: None,
        unsubscribed_at: None,
        remarked_at: None,
        mail_json: Bytes::from_static(mail_json.as_bytes()),
    }
}

fn settings(rule: MailRule) -> Settings {
    let mailing = Arc::new(Mailing::by_rule(rule));
    Settings {
        hostname: "mail.test".into(),
        bounces: Arc::clone(&mailing),
        complaints: mailing,
        lifetime: Duration::from_secs(3_600),
        signers: Arc::default(),
    }
}

fn read(octets: &[u8], addressed: Addressed) -> Report {
    report::read(octets, &Context { is_null_sender: true, addressed, rules: &Rules::built_in() })
}

const DSN: &str = "From: MAILER-DAEMON@mx.example.test\r\nMIME-Version: 1.0\r\n\
    Content-Type: multipart/report; report-type=delivery-status; boundary=\"b\"\r\n\r\n\
    --b\r\nContent-Type: message/delivery-status\r\n\r\nReporting-MTA: dns; mx.example.test\r\n\r\n\
    Final-Recipient: rfc822; elsewhere@secret.test\r\nAction: failed\r\nStatus: 5.1.1\r\n\
    Diagnostic-Code: smtp; 550 5.1.1 User unknown\r\n\
    --b\r\nContent-Type: text/rfc822-headers\r\n\r\nFrom: as returned\r\nSubject: returned\r\n\r\n--b--\r\n";

const ARF: &str = "From: fbl@provider.test\r\nMIME-Version: 1.0\r\n\
    Content-Type: multipart/report; report-type=feedback-report; boundary=\"b\"\r\n\r\n\
    --b\r\nContent-Type: message/feedback-report\r\nContent-Transfer-Encoding: base64\r\n\r\n\
    RmVlZGJhY2stVHlwZTogYWJ1c2UKVXNlci1BZ2VudDogTG9vcC8xClZlcnNpb246IDEKUmVwb3J0ZWQtRG9tYWluOiBzZW5kZXIuZXhhbXBsZQo=\r\n\
    --b\r\nContent-Type: message/rfc822\r\n\r\nFrom: a@b.test\r\nSubject: returned\r\n\r\nhello\r\n--b--\r\n";

const MAIL: &str = "{\"source\":\"app@sender.example\",\"commonHeaders\":{\"from\":[\"App <app@sender.example>\"],\
    \"to\":[\"you@example.test\",\"other@example.test\"],\"messageId\":\"<m@sender.example>\",\"subject\":\"Your order\"},\"tags\":{}}";

fn written(forward: &Forward) -> (NewMessage, String) {
    let new = forward.write(MessageId::new(NOW, 9), &address("app@sender.example"), &settings(MailRule::Always));
    let NewBody::Inline(octets) = &new.body else { panic!("a spooled body") };
    let text = String::from_utf8(octets.to_vec()).unwrap();
    (new, text)
}

fn bounce(mail_json: &'static str) -> (NewMessage, String) {
    let octets = Bytes::from_static(DSN.as_bytes());
    let Report::Delivery(report) = read(&octets, Addressed::ReturnPath) else { panic!("no bounce") };
    let recipient = &report.recipients[0];
    let verdict = recipient.outcome.bounce().unwrap();
    written(&Forward::bounce(&sent(mail_json), &report, recipient, verdict, &octets))
}

#[test]
fn a_forwarded_bounce_reads_as_a_bounce_of_the_recipient_that_it_was_sent_to() {
    let (new, text) = bounce(MAIL);
    let Report::Delivery(again) = read(text.as_bytes(), Addressed::ReturnPath) else { panic!("{text}") };
    assert_eq!(again.recipients.len(), 1);
    let recipient = &again.recipients[0];
    assert_eq!(recipient.final_recipient, Some(address("you@example.test")));
    assert_eq!(recipient.status.map(|status| status.to_string()).as_deref(), Some("5.1.1"));
    let Outcome::Bounced(verdict) = &recipient.outcome else { panic!("{recipient:?}") };
    assert_eq!(verdict.bounce_kind(), BounceKind::PermanentNoEmail);
    assert_eq!(again.reporting_mta.unwrap().name, "mx.example.test");
    for line in [
        "  From: App <app@sender.example>\r\n",
        "  To: you@example.test, other@example.test\r\n",
        "  Subject: Your order\r\n",
    ] {
        assert!(text.contains(line), "{line} in {text}");
    }
    assert!(text.contains("In-Reply-To: <m@sender.example>\r\n") && text.contains("elsewhere@secret.test"));
    // As all that we write: nothing comes back, nobody pays, it goes out as its message did.
    assert_eq!(
        (&new.envelope.reverse_path, &*new.origin.tenant, new.origin.pool.as_str()),
        (&ReversePath::Null, "", "warm")
    );
    assert_eq!((new.envelope.recipients.len(), new.charges.list.len()), (1, 0));
}

#[test]
fn what_is_not_remembered_of_the_message_is_shown_as_the_report_returns_it() {
    for unknown in ["{}", "", "not json", "{\"commonHeaders\":{\"from\":7}}"] {
        let text = bounce(unknown).1;
        assert!(text.contains("  From: as returned\r\n  To: (not known)\r\n  Subject: returned\r\n"), "{text}");
    }
}

#[test]
fn a_forwarded_complaint_hands_on_the_feedback_of_the_report() {
    let octets = Bytes::from_static(ARF.as_bytes());
    let Report::Complaint(complaint) = read(&octets, Addressed::Complaints) else { panic!("no complaint") };
    let (_, text) = written(&Forward::complaint(&sent(MAIL), &complaint, &octets));
    assert!(
        text.contains(
            "\r\n\r\nFeedback-Type: abuse\r\nUser-Agent: Loop/1\r\nVersion: 1\r\nReported-Domain: sender.example\r\n"
        ),
        "{text}"
    );
    assert!(text.contains("report-type=\"feedback-report\"") && text.contains("  Subject: Your order\r\n"), "{text}");
    let Report::Complaint(again) = read(text.as_bytes(), Addressed::Complaints) else { panic!("{text}") };
    assert_eq!((again.kind, again.reported_domains), (Some(ComplaintKind::Abuse), vec!["sender.example".to_owned()]));
}

#[test]
fn the_submitted_reverse_path_hears_of_it_once_and_where_the_config_says_so() {
    let always = settings(MailRule::Always);
    let to = |settings: &Settings, sent: &SentRecipient, kind| settings.addressee(sent, kind).map(ToString::to_string);
    let app = || Some("app@sender.example".to_owned());
    assert_eq!(to(&always, &sent(MAIL), FeedbackKind::Bounce), app());
    assert_eq!(to(&always, &sent(MAIL), FeedbackKind::Complaint), app());
    assert_eq!(to(&always, &sent(MAIL), FeedbackKind::Remark), app());
    assert_eq!(to(&always, &sent(MAIL), FeedbackKind::Unsubscribe), None);
    assert_eq!(to(&settings(MailRule::Never), &sent(MAIL), FeedbackKind::Bounce), None);
    let null = SentRecipient { reverse_path: ReversePath::Null, ..sent(MAIL) };
    assert_eq!(to(&always, &null, FeedbackKind::Bounce), None);
    let told = SentRecipient { bounced_at: Some(NOW), ..sent(MAIL) };
    assert_eq!((to(&always, &told, FeedbackKind::Bounce), to(&always, &told, FeedbackKind::Complaint)), (None, app()));
    // By kind, set and identity.
    let taken = Mailing { takers: Takers { of_all: false, sets: vec!["receipts".into()] }, ..Mailing::default() };
    let asked = Mailing { identities: Arc::new(HashMap::from([("sender.example".into(), true)])), ..taken.clone() };
    let of_kinds = |bounces: &Mailing, complaints: &Mailing| {
        let (bounces, complaints) = (Arc::new(bounces.clone()), Arc::new(complaints.clone()));
        Settings { bounces, complaints, ..settings(MailRule::Auto) }
    };
    let settings = of_kinds(&taken, &asked);
    assert_eq!(
        (to(&settings, &sent(MAIL), FeedbackKind::Bounce), to(&settings, &sent(MAIL), FeedbackKind::Complaint)),
        (None, app())
    );
    let of_another_set = SentRecipient { configuration_set: "".into(), ..sent(MAIL) };
    assert_eq!(to(&settings, &of_another_set, FeedbackKind::Bounce), app());
}
