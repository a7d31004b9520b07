//! Every message of the corpus is understood as its maker meant it.

mod hostile;
mod packed;

use std::collections::BTreeSet;

use super::corpus::{Entry, TOKEN, bounces, mails};
use super::*;

fn read_entry(entry: &Entry) -> Report {
    let word = |word: &str| entry.envelope.iter().any(|line| line.split(' ').any(|known| known == word));
    let addressed = [
        ("complaints", Addressed::Complaints),
        ("unsubscribe", Addressed::Unsubscribe),
        ("postmaster", Addressed::Postmaster),
        ("dmarc", Addressed::Dmarc),
        ("tls", Addressed::TlsRpt),
    ];
    let addressed = addressed.into_iter().find(|(name, _)| word(name)).map_or(Addressed::ReturnPath, |(_, to)| to);
    read(&entry.message, &Context { is_null_sender: !word("sender"), addressed, rules: &Rules::built_in() })
}

/// As `cases.txt` writes it.
fn shown(report: &RecipientReport, expected: &str) -> String {
    let wanted = expected.split(' ').next().unwrap_or_default();
    let named = report.addresses().find(|address| address.as_str() == wanted).or_else(|| report.addresses().next());
    let address = named.map_or("-", EmailAddress::as_str);
    let status = report.status.map_or("-".to_owned(), |status| status.to_string());
    let verdict = report.outcome.bounce().map_or(String::new(), |verdict| {
        assert!(verdict.bounce_sub_type.is_of(verdict.bounce_type), "{verdict:?}");
        assert_eq!(verdict.disposition, crate::policy::Disposition::Bounced);
        format!(" {}/{} {}", verdict.bounce_type.name(), verdict.bounce_sub_type.name(), verdict.class.name())
    });
    format!("{address} {} {status}{verdict}", report.action.name())
}

#[test]
fn every_bounce_is_read_as_its_program_meant_it() {
    let entries = bounces();
    let mut wrong = Vec::new();
    for entry in &entries {
        let Report::Delivery(report) = read_entry(entry) else {
            wrong.push(format!("{}\n    not read: {:?}", entry.name, read_entry(entry)));
            continue;
        };
        let found: Vec<String> = report
            .recipients
            .iter()
            .enumerate()
            .map(|(at, recipient)| shown(recipient, entry.expected.get(at).map_or("", String::as_str)))
            .collect();
        if found != entry.expected {
            wrong.push(format!("{}\n    expected {:?}\n    found    {found:?}", entry.name, entry.expected));
        }
    }
    assert!(wrong.is_empty(), "{} of {}\n{}", wrong.len(), entries.len(), wrong.join("\n"));
    assert!(entries.len() >= 250, "{}", entries.len());
    let messages: BTreeSet<&[u8]> = entries.iter().map(|entry| entry.message.as_slice()).collect();
    assert_eq!(messages.len(), entries.len(), "two are the same");
}

#[test]
fn the_original_is_found_where_a_bounce_returns_it() {
    let mut returned = 0;
    for entry in bounces() {
        let holds = String::from_utf8_lossy(&entry.message).contains("X-Campaign: spring");
        let Report::Delivery(report) = read_entry(&entry) else { panic!("{}", entry.name) };
        if holds {
            returned += 1;
            assert_eq!(report.original.field("x-campaign"), Some("spring"), "{}", entry.name);
            assert_eq!(report.original.clues.tokens, [TOKEN], "{}", entry.name);
            assert_eq!(report.original.clues.message_ids, ["0100018f@sender.example"], "{}", entry.name);
        }
    }
    assert!(returned > 150, "{returned}");
}

#[test]
fn every_other_mail_is_told_apart() {
    let entries = mails();
    let mut wrong = Vec::new();
    for entry in &entries {
        let found = other(&read_entry(entry));
        if [found.clone()] != entry.expected[..] {
            wrong.push(format!("{}\n    expected {:?}\n    found    {found}", entry.name, entry.expected));
        }
    }
    assert!(wrong.is_empty(), "{} of {}\n{}", wrong.len(), entries.len(), wrong.join("\n"));
    let count =
        |start: &str| entries.iter().filter(|entry| entry.expected.iter().any(|one| one.starts_with(start))).count();
    assert!(count("complaint ") >= 40, "{}", count("complaint "));
    assert!(count("autoreply ") >= 30, "{}", count("autoreply "));
    assert!(count("not understood") >= 15, "{}", count("not understood"));
}

fn other(report: &Report) -> String {
    match report {
        Report::Delivery(report) => {
            format!("delivery {}", report.recipients.iter().map(|one| shown(one, "")).collect::<Vec<_>>().join(" + "))
        }
        Report::AutoReply(kind) => format!("autoreply {}", kind.name()),
        Report::Complaint(complaint) => {
            let kind = complaint.kind.map_or("-", ComplaintKind::name);
            let form = match complaint.form {
                ComplaintForm::Arf => "arf",
                ComplaintForm::Xarf => "xarf",
                ComplaintForm::Attached => "attached",
            };
            let out = if complaint.is_opt_out { " opt-out" } else { "" };
            let recipients: Vec<&str> = complaint.recipients.iter().map(EmailAddress::as_str).collect();
            let recipients = if recipients.is_empty() { "-".to_owned() } else { recipients.join(",") };
            let ip = complaint.source_ip.map_or("-".to_owned(), |ip| ip.to_string());
            let token = if complaint.clues.tokens.iter().any(|token| token == TOKEN) { "token" } else { "-" };
            let agent = complaint.user_agent.as_deref().unwrap_or("-");
            let date = complaint.arrived_at.map_or("-".to_owned(), |time| time.to_iso8601());
            format!("complaint {kind}{out} {form} {recipients} {ip} {token} {date} {agent}")
        }
        Report::Unsubscribe(request) => {
            let token = if request.clues.tokens.iter().any(|token| token == TOKEN) { "token" } else { "-" };
            format!("unsubscribe {} {token}", request.from.as_ref().map_or("-", EmailAddress::as_str))
        }
        Report::DmarcAggregate(report) => {
            format!("dmarc {} {} {}", report.organization, report.domain, report.rows.len())
        }
        Report::TlsReport(report) => format!("tls {} {}", report.organization, report.policies.len()),
        Report::NotUnderstood(reason) => format!("not understood: {reason}"),
    }
}

#[test]
fn a_status_report_gives_all_its_fields() {
    let entry = bounces().into_iter().find(|entry| entry.name.starts_with("postfix ~ bob@")).unwrap();
    let Report::Delivery(report) = read_entry(&entry) else { panic!() };
    assert_eq!(report.reporting_mta, Some(Mta { kind: "dns".into(), name: "out15.relay.example".into() }));
    assert_eq!(report.arrived_at.unwrap().to_iso8601(), "2023-05-05T21:00:23.000Z");
    let recipient = &report.recipients[0];
    assert_eq!(recipient.remote_mta.as_ref().unwrap().name, "mx.example.net");
    let diagnostic = recipient.diagnostic.as_ref().unwrap();
    assert_eq!(diagnostic.kind, "smtp");
    assert!(diagnostic.text.starts_with("host mx.example.net[192.0.2.25] said: 550 5.1.1"));
    assert_eq!(recipient.reply.as_ref().unwrap().code().value(), 550);
    assert_eq!(recipient.original_recipient.as_ref().unwrap().as_str(), "bob@example.net");
    assert_eq!(recipient.outcome.bounce().unwrap().rule.as_ref(), "no-such-user");
    let halon = bounces().into_iter().find(|entry| entry.name.starts_with("halon ~ bob@")).unwrap();
    let Report::Delivery(report) = read_entry(&halon) else { panic!() };
    assert_eq!(report.envelope_id.as_deref(), Some("QQ+1234"));
    let proofpoint = bounces().into_iter().find(|entry| entry.name.starts_with("proofpoint ~ bob+promo")).unwrap();
    let Report::Delivery(report) = read_entry(&proofpoint) else { panic!() };
    let addresses: Vec<&str> = report.recipients[0].addresses().map(EmailAddress::as_str).collect();
    assert_eq!(addresses, ["bob+2Bpromo@example.net", "bob+promo@example.net", "bob+promo@example.net"]);
}

/// OpenSMTPD quotes replies in its text alone, and goes on with a line of its own.
#[test]
fn a_reply_ends_where_the_notice_goes_on_to_the_copy() {
    let entry = bounces().into_iter().find(|entry| entry.name.starts_with("live-opensmtpd-two ~ ")).unwrap();
    let Report::Delivery(report) = read_entry(&entry) else { panic!() };
    let replies: Vec<String> = report.recipients.iter().map(|one| one.reply.as_ref().unwrap().to_string()).collect();
    assert_eq!(replies, ["550 5.1.1 no such user here", "552 5.2.2 mailbox full"]);
}

/// A rule of the administrator's decides on reports as on replies.
#[test]
fn own_rules_decide_on_reports_too() {
    let own = "[[rule]]\nname = \"mine\"\ntext = [\"user unknown\"]\nclass = \"policy\"\n";
    let rules = crate::policy::replies::with_own(own, "own.toml", None).unwrap();
    let entry = bounces().into_iter().find(|entry| entry.name.starts_with("forwarded ~ bob@")).unwrap();
    let context = Context { is_null_sender: true, addressed: Addressed::ReturnPath, rules: &rules };
    let Report::Delivery(report) = read(&entry.message, &context) else { panic!() };
    assert_eq!(report.recipients[0].outcome.bounce().unwrap().rule.as_ref(), "mine");
}
