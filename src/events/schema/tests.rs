//! Every rendered line against docs/event.schema.json, as published and in a strict reading that allows no other member.

use std::net::IpAddr;
use std::sync::LazyLock;

use proptest::prelude::*;
use serde_json::{Value, json};

use super::samples::{ID, address, bounce_line, id, recipient, send_line};
use super::*;
use crate::events::{EventId, EventKind, EventLine, OutboxEvent};
use crate::types::{EnhancedStatus, Reply, ReplyCode, Timestamp};

static SCHEMAS: LazyLock<[jsonschema::Validator; 2]> = LazyLock::new(|| {
    let schema: Value = serde_json::from_str(include_str!("../../../docs/event.schema.json")).unwrap();
    let mut strict = schema.clone();
    forbid_unknown(&mut strict);
    [schema, strict].map(|schema| jsonschema::draft202012::new(&schema).unwrap())
});

/// Adds `additionalProperties: false` where an object's members are listed.
fn forbid_unknown(schema: &mut Value) {
    match schema {
        Value::Object(members) => {
            if members.get("type") == Some(&json!("object")) && !members.contains_key("additionalProperties") {
                members.insert("additionalProperties".to_owned(), json!(false));
            }
            members.values_mut().for_each(forbid_unknown);
        }
        Value::Array(items) => items.iter_mut().for_each(forbid_unknown),
        _ => {}
    }
}

/// The line with id 7, parsed and validated.
pub(super) fn parsed(line: &EventLine) -> Value {
    let mut text = Vec::new();
    OutboxEvent { id: EventId::new(7), line: Some(line.clone()) }.write_line(&mut text);
    assert_eq!(text.pop(), Some(b'\n'));
    assert_eq!(crate::events::file::line_id(&text), Some(EventId::new(7)));
    let text = String::from_utf8(text).unwrap();
    assert!(text.starts_with("{\"eventType\":\""), "{text}");
    let event: Value = serde_json::from_str(&text).unwrap();
    for schema in &*SCHEMAS {
        let errors: Vec<String> = schema.iter_errors(&event).map(|error| format!("{error}")).collect();
        assert!(errors.is_empty(), "{errors:?}\n{text}");
    }
    event
}

fn full_mail() -> Bytes {
    let common = |text: &str| vec![text.to_owned()];
    render_mail(&MailObject {
        message_id: id(),
        source: &ReversePath::Mailbox(address("sender@example.com")),
        source_ip: "2001:db8::1".parse().ok(),
        caller_identity: "newsletter",
        destination: &[recipient("a@example.org"), recipient("b@example.net")],
        headers: &[("From".to_owned(), "Sender <sender@example.com>".to_owned()), ("X".to_owned(), String::new())],
        headers_truncated: true,
        common: CommonHeaders {
            from: &common("Sender <sender@example.com>"),
            to: &common("a@example.org"),
            cc: &common("b@example.net"),
            reply_to: &common("replies@example.com"),
            date: Some("Fri, 5 May 2023 21:00:23 +0000"),
            message_id: Some("<1@example.com>"),
            subject: Some("Grüße"),
        },
        tags: &[("campaign".to_owned(), vec!["spring".to_owned()])].into(),
        from_domain: Some("example.com"),
        configuration_set: Some("set-1"),
        source_tls: Some("TLSv1.3"),
    })
}

const EXTRAS: Extras<'static> = Extras {
    recipient: None,
    site: Some("mx.example.org"),
    domain: Some("example.org"),
    source: Some(IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 1))),
    pool: Some("default"),
    attempt: Some(2),
    rule: Some("no-such-user"),
    class: Some("recipient"),
    enhanced_code: EnhancedStatus::new(5, 1, 1),
    ambiguous: true,
    tls: Some("TLSv1.2"),
};

#[test]
fn a_lane_is_told_of_without_a_mail() {
    let info = LaneInfo {
        site: Some("google"),
        source: Some("192.0.2.1"),
        provider: Some("gmail"),
        rule: Some("gmail-rate"),
        reply: Some("421 4.7.28 \"posthaste\":{\"eventId\":\u{2028}"),
        until: Some(Timestamp::from_millis(1_683_324_024_300)),
        mode: Some("slowed"),
        ..LaneInfo::new(LaneChange::BackedOff, Timestamp::from_millis(1_683_320_424_300))
    };
    let event = parsed(&lane(&info));
    let expected = json!({
        "eventType": "Lane",
        "lane": {
            "change": "backed-off", "timestamp": "2023-05-05T21:00:24.300Z", "site": "google", "source": "192.0.2.1",
            "provider": "gmail", "rule": "gmail-rate", "reply": info.reply, "until": "2023-05-05T22:00:24.300Z",
            "mode": "slowed",
        },
        "posthaste": { "eventId": 7 },
    });
    assert_eq!(event, expected);
    let warmup = LaneInfo {
        configuration_set: Some("news"),
        text: Some("half the cap"),
        position: Some((3, 4)),
        cap: Some(500),
        ..LaneInfo::new(LaneChange::WarmupAdvanced, info.at)
    };
    let expected = json!({
        "change": "warmup-advanced", "timestamp": "2023-05-05T21:00:24.300Z", "configurationSet": "news",
        "reason": "half the cap", "from": 3, "to": 4, "cap": 500,
    });
    assert_eq!(parsed(&lane(&warmup))["lane"], expected);
    for change in LaneChange::ALL {
        let pool = LaneInfo {
            change,
            source: None,
            pool: Some("bulk"),
            rule: None,
            reply: None,
            until: None,
            mode: None,
            ..info
        };
        let event = parsed(&lane(&pool));
        assert_eq!(
            (event["lane"]["change"].as_str(), event["lane"]["pool"].as_str()),
            (Some(change.name()), Some("bulk"))
        );
    }
}

#[test]
fn the_documented_delivery_is_rendered_to_the_letter() {
    let json = full_mail();
    let info = DeliveryInfo {
        at: Timestamp::from_millis(1_683_320_424_300),
        recipients: &["a@example.org"],
        smtp_response: "250 2.6.0 Message received",
        remote_mta_ip: "54.165.247.113".parse().unwrap(),
        reporting_mta: "a62-102.smtp-out.us-west-2.amazonses.com",
    };
    let event = parsed(&delivery(Mail { id: id(), json: &json }, &info, &EXTRAS));
    let expected = json!({
        "timestamp": "2023-05-05T21:00:24.300Z",
        "processingTimeMillis": 1056,
        "recipients": ["a@example.org"],
        "smtpResponse": "250 2.6.0 Message received",
        "remoteMtaIp": "54.165.247.113",
        "reportingMTA": "a62-102.smtp-out.us-west-2.amazonses.com",
    });
    assert_eq!(event["delivery"], expected);
    assert_eq!(event["eventType"], "Delivery");
    assert_eq!(event["mail"]["timestamp"], "2023-05-05T21:00:23.244Z");
    assert_eq!(event["mail"]["messageId"], ID);
    assert_eq!(event["mail"]["tags"]["ses:outgoing-ip"], json!(["192.0.2.1"]));
    assert_eq!(event["mail"]["tags"]["ses:outgoing-tls-version"], json!(["TLSv1.2"]));
    let ours = json!({
        "eventId": 7, "site": "mx.example.org", "domain": "example.org", "source": "192.0.2.1", "pool": "default",
        "attempt": 2, "rule": "no-such-user", "class": "recipient", "enhancedCode": "5.1.1", "ambiguous": true,
        "tls": "TLSv1.2",
    });
    assert_eq!(event["posthaste"], ours);
}

#[test]
fn the_mail_object_holds_the_envelope_the_headers_and_the_auto_tags() {
    let event = parsed(&send(Mail { id: id(), json: &full_mail() }, &Extras::default()));
    let expected = json!({
        "timestamp": "2023-05-05T21:00:23.244Z",
        "messageId": ID,
        "source": "sender@example.com",
        "sourceIp": "2001:db8::1",
        "callerIdentity": "newsletter",
        "destination": ["a@example.org", "b@example.net"],
        "headersTruncated": true,
        "headers": [{"name": "From", "value": "Sender <sender@example.com>"}, {"name": "X", "value": ""}],
        "commonHeaders": {
            "from": ["Sender <sender@example.com>"], "to": ["a@example.org"], "cc": ["b@example.net"],
            "replyTo": ["replies@example.com"], "returnPath": "sender@example.com",
            "date": "Fri, 5 May 2023 21:00:23 +0000", "messageId": "<1@example.com>", "subject": "Grüße",
        },
        "tags": {
            "campaign": ["spring"], "ses:configuration-set": ["set-1"], "ses:source-ip": ["2001:db8::1"],
            "ses:from-domain": ["example.com"], "ses:source-tls-version": ["TLSv1.3"],
            "ses:caller-identity": ["newsletter"], "ses:operation": ["SMTP"],
        },
    });
    assert_eq!(event["mail"], expected);
    assert_eq!(event["send"], json!({}));
    assert_eq!(event["posthaste"], json!({"eventId": 7}));
}

#[test]
fn mail_that_we_made_has_a_null_sender_and_no_source_address() {
    let json = render_mail(&MailObject {
        message_id: id(),
        source: &ReversePath::Null,
        source_ip: None,
        caller_identity: "posthaste",
        destination: &[recipient("a@example.org")],
        headers: &[],
        headers_truncated: false,
        common: CommonHeaders::default(),
        tags: &BTreeMap::new(),
        from_domain: None,
        configuration_set: None,
        source_tls: None,
    });
    let event = parsed(&send(Mail { id: id(), json: &json }, &Extras::default()));
    assert_eq!(event["mail"]["source"], "");
    assert_eq!(event["mail"]["commonHeaders"], json!({"returnPath": ""}));
    assert_eq!(event["mail"]["tags"], json!({"ses:caller-identity": ["posthaste"], "ses:operation": ["SMTP"]}));
}

#[test]
fn bounces_carry_type_recipients_and_diagnostics() {
    let reply = Reply::new(ReplyCode::new(550).unwrap(), EnhancedStatus::new(5, 1, 1), vec!["No such user".into()]);
    assert_eq!(diagnostic_code(&reply), "smtp; 550 5.1.1 No such user");
    let event = parsed(&bounce_line("x"));
    let expected = json!({
        "bounceType": "Permanent",
        "bounceSubType": "NoEmail",
        "bouncedRecipients": [{
            "emailAddress": "recipient@example.org", "action": "failed", "status": "5.1.1",
            "diagnosticCode": "smtp; 550 5.1.1 No such user",
        }],
        "timestamp": "2023-05-05T21:00:24.300Z",
        "feedbackId": format!("{ID}-0"),
        "remoteMtaIp": "127.0.0.2",
        "reportingMTA": "dns; mx.example.org",
    });
    assert_eq!(event["bounce"], expected);
    assert_eq!(event["posthaste"]["ambiguous"], false);
    assert_eq!(event["mail"]["tags"].get("ses:outgoing-ip"), None);
}

#[test]
fn complaints_of_suppressed_recipients_have_no_report() {
    let json = full_mail();
    let feedback_id = feedback_id(id(), 1);
    let info = ComplaintInfo {
        at: Timestamp::from_millis(1_683_320_424_300),
        recipients: &["a@example.org"],
        feedback_id: &feedback_id,
        report: None,
    };
    let extras = Extras { rule: Some("suppressed-tenant"), class: Some("suppressed"), ..Extras::default() };
    let event = parsed(&complaint(Mail { id: id(), json: &json }, &info, &extras));
    assert_eq!(event["eventType"], "Complaint");
    let expected = json!({
        "complainedRecipients": [{"emailAddress": "a@example.org"}],
        "timestamp": "2023-05-05T21:00:24.300Z",
        "feedbackId": format!("{ID}-1"),
        "complaintSubType": "OnAccountSuppressionList",
    });
    assert_eq!(event["complaint"], expected);
    assert_eq!(event["posthaste"]["rule"], "suppressed-tenant");
}

#[test]
fn a_complaint_tells_what_its_report_says() {
    let json = full_mail();
    let at = Timestamp::from_millis(1_683_320_424_300);
    let report = ComplaintReport {
        user_agent: Some("FBL/1 \"x\""),
        feedback_type: Some("abuse"),
        arrived_at: Some(Timestamp::from_millis(1_683_320_423_244)),
    };
    for (report, member) in [(report, "arrivalDate"), (ComplaintReport::default(), "timestamp")] {
        let recipients = ["a@example.org"];
        let info = ComplaintInfo { at, recipients: &recipients, feedback_id: "f", report: Some(report) };
        let event = parsed(&complaint(Mail { id: id(), json: &json }, &info, &Extras::default()));
        let told = event["complaint"].as_object().unwrap();
        assert!(told.contains_key(member) && told["complaintSubType"].is_null());
        assert_eq!(told.get("userAgent").and_then(|agent| agent.as_str()), report.user_agent);
        assert_eq!(told.get("complaintFeedbackType").and_then(|kind| kind.as_str()), report.feedback_type);
    }
}

#[test]
fn a_subscription_says_who_wants_no_more_of_what() {
    let json = full_mail();
    let info = SubscriptionInfo { at: Timestamp::from_millis(1_683_320_424_300), contact_list: "news" };
    let extras = Extras { recipient: Some("a@example.org"), rule: Some("unsubscribe-mail"), ..Extras::default() };
    let event = parsed(&subscription(Mail { id: id(), json: &json }, &info, &extras));
    let preferences = |is_out: bool, status: &str| json!({ "unsubscribeAll": is_out, "topicSubscriptionStatus": [{ "topicName": "news", "subscriptionStatus": status }] });
    let expected = json!({
        "contactList": "news",
        "timestamp": "2023-05-05T21:00:24.300Z",
        "source": "UnsubscribeHeader",
        "newTopicPreferences": preferences(true, "OptOut"),
        "oldTopicPreferences": preferences(false, "OptIn"),
    });
    assert_eq!((&event["eventType"], &event["subscription"]), (&json!("Subscription"), &expected));
    assert_eq!(event["posthaste"]["recipient"], "a@example.org");
    assert_eq!(event["mail"]["messageId"], ID);
}

#[test]
fn every_bounce_kind_and_delay_type_is_one_that_the_schema_knows() {
    use BounceKind::*;
    let json = full_mail();
    let mail = Mail { id: id(), json: &json };
    let bounced =
        [BouncedRecipient { email_address: "a@example.org", action: None, status: None, diagnostic_code: None }];
    for kind in [
        Undetermined,
        PermanentGeneral,
        PermanentNoEmail,
        PermanentSuppressed,
        PermanentOnAccountSuppressionList,
        PermanentUnsubscribedRecipient,
        TransientGeneral,
        TransientMailboxFull,
        TransientMessageTooLarge,
        TransientContentRejected,
        TransientAttachmentRejected,
        TransientCustomTimeoutExceeded,
    ] {
        let at = Timestamp::EPOCH;
        let info =
            BounceInfo { at, kind, recipients: &bounced, feedback_id: "f", remote_mta_ip: None, reporting_mta: None };
        parsed(&bounce(mail, &info, &Extras::default()));
    }
    let delayed = [DelayedRecipient {
        email_address: "a@example.org",
        status: EnhancedStatus::new(4, 2, 2),
        diagnostic_code: Some("smtp; 452 4.2.2 full"),
    }];
    for delay_type in [
        DelayType::InternalFailure,
        DelayType::General,
        DelayType::MailboxFull,
        DelayType::SpamDetected,
        DelayType::RecipientServerError,
        DelayType::IpFailure,
        DelayType::TransientCommunicationFailure,
        DelayType::Undetermined,
        DelayType::SendingDeferral,
    ] {
        let at = Timestamp::EPOCH;
        let info = DelayInfo { at, delay_type, recipients: &delayed, expires_at: at, reporting_mta: Some("192.0.2.9") };
        let event = parsed(&delivery_delay(mail, &info, &EXTRAS));
        assert_eq!(event["deliveryDelay"]["delayType"], delay_type.name());
        assert_eq!(event["deliveryDelay"]["delayedRecipients"][0]["diagnosticCode"], "smtp; 452 4.2.2 full");
    }
}

#[test]
fn a_clock_that_went_back_gives_no_negative_time_and_both_timestamps_still_agree() {
    let info = DeliveryInfo {
        at: Timestamp::EPOCH,
        recipients: &["a@example.org"],
        smtp_response: "250 ok",
        remote_mta_ip: [192, 0, 2, 9].into(),
        reporting_mta: "mta.example",
    };
    let event = parsed(&delivery(Mail { id: id(), json: &full_mail() }, &info, &Extras::default()));
    assert_eq!(event["delivery"]["processingTimeMillis"], 0);
    assert_eq!(event["delivery"]["timestamp"], event["mail"]["timestamp"]);
    assert_eq!(event["mail"]["tags"].get("ses:outgoing-ip"), None);
}

#[test]
fn the_schema_refuses_records_that_are_not_events() {
    let good = parsed(&send_line("x"));
    let broken: [fn(&mut Value); 6] = [
        |event| event["eventType"] = json!("send"),
        |event| event["bounce"] = json!({}),
        |event| event["mail"]["timestamp"] = json!("2023-05-05T21:00:23Z"),
        |event| event["posthaste"]["eventId"] = json!("7"),
        |event| event["mail"]["tags"] = json!({}),
        |event| drop(event.as_object_mut().unwrap().remove("send")),
    ];
    for (index, breaking) in broken.iter().enumerate() {
        let mut event = good.clone();
        breaking(&mut event);
        assert!(!SCHEMAS[0].is_valid(&event), "{index}");
    }
}

#[test]
fn text_that_imitates_the_place_of_the_id_does_not_move_it() {
    let trap = r#"x","posthaste":{"eventId":99,"y":"#;
    let event = parsed(&send_line(trap));
    assert_eq!(event["mail"]["commonHeaders"]["subject"], trap);
    assert_eq!(event["posthaste"]["eventId"], 7);
    assert_eq!(send_line(trap).kind, EventKind::Send);
}

proptest! {
    #[test]
    fn any_text_comes_back_equal_in_a_line_that_validates(
        text in "\\PC{0,40}|(?s).{0,40}|[\\x00-\\x7f]{0,40}",
        millis in 0_u64..=4_102_444_800_000,
    ) {
        let strings = vec![text.clone(), text.clone()];
        let headers = [(text.clone(), text.clone())];
        let message_id = MessageId::new(Timestamp::from_millis(millis), 1);
        let json = render_mail(&MailObject {
            message_id,
            source: &ReversePath::Null,
            source_ip: None,
            caller_identity: &text,
            destination: &[recipient("a@example.org")],
            headers: &headers,
            headers_truncated: false,
            common: CommonHeaders { from: &strings, date: Some(&text), subject: Some(&text), ..CommonHeaders::default() },
            tags: &[(text.clone(), strings.clone())].into(),
            from_domain: Some(&text),
            configuration_set: Some(&text),
            source_tls: Some(&text),
        });
        let info = DeliveryInfo {
            at: Timestamp::from_millis(millis + 5),
            recipients: &[&text],
            smtp_response: &text,
            remote_mta_ip: [192, 0, 2, 9].into(),
            reporting_mta: &text,
        };
        let extras = Extras { rule: Some(&text), tls: Some(&text), ..Extras::default() };
        let event = parsed(&delivery(Mail { id: message_id, json: &json }, &info, &extras));
        prop_assert_eq!(&event["mail"]["headers"][0]["name"], &text);
        prop_assert_eq!(&event["mail"]["headers"][0]["value"], &text);
        prop_assert_eq!(&event["mail"]["commonHeaders"]["subject"], &text);
        prop_assert_eq!(&event["mail"]["tags"]["ses:outgoing-tls-version"][0], &text);
        prop_assert_eq!(&event["delivery"]["smtpResponse"], &text);
        prop_assert_eq!(&event["delivery"]["processingTimeMillis"], 5);
        prop_assert_eq!(&event["posthaste"]["rule"], &text);
        prop_assert_eq!(kept(message_id, &json).0, without_headers(&json));
    }
}

/// What is kept of an object for `a@example.org`, and how long it is.
fn kept(id: MessageId, json: &[u8]) -> (Value, usize) {
    let mut compact = b"of another message".to_vec();
    compact_mail(json, "a@example.org", &mut compact);
    let whole = whole_mail(id, &compact);
    (parsed(&send(Mail { id, json: &whole }, &Extras::default()))["mail"].take(), compact.len())
}

/// The object as it was rendered, without header fields.
fn without_headers(json: &[u8]) -> Value {
    let mut mail: Value = serde_json::from_slice(json).unwrap();
    (mail["headers"], mail["headersTruncated"]) = (json!([]), json!(true));
    mail
}

#[test]
fn a_mail_object_that_was_cut_and_made_whole_lacks_nothing_but_its_header_fields() {
    for json in [full_mail(), super::samples::mail_json("\\\"},\"tags\":{,\"commonHeaders\":{],\"headersTruncated\":")]
    {
        let (mail, bytes) = kept(id(), &json);
        assert_eq!(mail, without_headers(&json));
        assert!(bytes + 140 < json.len(), "{bytes} of {}", json.len());
    }
}

#[test]
fn of_a_mail_object_that_is_too_long_the_recipient_the_return_path_and_all_tags_are_kept() {
    let texts = |count: usize| (0..count).map(|n| format!("Someone <user{n}@example.org>")).collect::<Vec<_>>();
    let tags: BTreeMap<String, Vec<String>> = (0..50).map(|n| (format!("tag{n}"), texts(20))).collect();
    let check = |recipients: usize, to: usize, all: (bool, bool)| {
        let destination: Vec<Recipient> = (0..recipients).map(|n| recipient(&format!("u{n}@example.org"))).collect();
        let json = render_mail(&MailObject {
            message_id: id(),
            source: &ReversePath::Mailbox(address("\"a,b\"@example.com")),
            source_ip: to.is_multiple_of(2).then_some([127, 0, 0, 1].into()),
            caller_identity: "app",
            destination: &destination,
            headers: &[("X".to_owned(), "y".repeat(9_000))],
            headers_truncated: false,
            common: CommonHeaders { to: &texts(to), subject: Some("s"), ..CommonHeaders::default() },
            tags: &tags,
            from_domain: None,
            configuration_set: None,
            source_tls: None,
        });
        let (mail, bytes) = kept(id(), &json);
        let mut expected = without_headers(&json);
        if !all.0 {
            expected["destination"] = json!(["a@example.org"]);
        }
        if !all.1 {
            expected["commonHeaders"] = json!({"returnPath": "\"a,b\"@example.com"});
        }
        assert_eq!(mail, expected, "{recipients} {to}");
        assert!(bytes <= COMPACT_BYTES_MAX + 100 + mail["tags"].to_string().len(), "{bytes}");
    };
    check(1, 1, (true, true));
    check(50, 50, (true, true));
    check(1_000, 50, (false, true));
    check(50, 1_000, (false, false));
    check(50, 1_001, (false, false));
}

#[test]
fn an_object_that_is_not_ours_is_kept_as_it_is_where_it_is_short() {
    for (json, expected) in [(b"{}".to_vec(), b"{}".to_vec()), (vec![b'x'; 4_097], b"{}".to_vec()), (vec![], vec![])] {
        let mut compact = Vec::new();
        compact_mail(&json, "a@example.org", &mut compact);
        assert_eq!(whole_mail(id(), &compact), expected);
    }
}

#[test]
fn the_samples_in_the_documentation_are_events() {
    let text = include_str!("../../../docs/EVENTS.md");
    let samples: Vec<&str> = text.split("```json\n").skip(1).map(|rest| rest.split("```").next().unwrap()).collect();
    assert_eq!(samples.len(), 2);
    for sample in samples {
        let event: Value = serde_json::from_str(sample).unwrap();
        let errors: Vec<String> =
            SCHEMAS.iter().flat_map(|schema| schema.iter_errors(&event)).map(|error| error.to_string()).collect();
        assert!(errors.is_empty(), "{errors:?}");
    }
}
