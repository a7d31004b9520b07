//! The sending side of SMTP: a host that answers anything.

use posthaste::policy::{self, Rules};
use posthaste::smtp::client::{
    Capabilities, Framing, LossReason, Machine, Options, RecipientResult, ReplyError, ReplyParser, Step, Transaction,
};
use posthaste::types::{BodyKind, EmailAddress, Recipient, Reply, ReversePath, Severity};

/// Where in a session a reply can come.
const STAGES: [policy::Stage; 9] = [
    policy::Stage::Connect,
    policy::Stage::Greeting,
    policy::Stage::Ehlo,
    policy::Stage::Tls,
    policy::Stage::Auth,
    policy::Stage::Mail,
    policy::Stage::Rcpt,
    policy::Stage::Data,
    policy::Stage::Dot,
];

/// Replies as octets, in any reads: octet 0 is the size of reads. Then what each of them means.
pub fn smtp_replies(data: &[u8]) {
    let Some((read_bytes, octets)) = data.split_first() else { return };
    let whole = replies(octets, usize::MAX);
    assert_eq!(whole, replies(octets, usize::from(*read_bytes).max(1)), "the replies depend on the reads");
    let rules = Rules::built_in();
    for reply in &whole.0 {
        for stage in STAGES {
            let verdict = rules.classify(reply, stage, None);
            assert!(!verdict.rule.is_empty(), "no rule for {reply}");
        }
        let _ = Capabilities::from_reply(reply);
        assert!(!reply.to_string().contains(['\r', '\n', '\0']), "a reply is one line of a log: {reply:?}");
    }
}

fn replies(octets: &[u8], read_bytes: usize) -> (Vec<Reply>, Option<ReplyError>) {
    let mut parser = ReplyParser::new();
    let mut found = Vec::new();
    for read in octets.chunks(read_bytes) {
        parser.push(read);
        loop {
            match parser.next_reply() {
                Ok(Some(reply)) => found.push(reply),
                Ok(None) => break,
                Err(error) => return (found, Some(error)),
            }
        }
    }
    found.extend(parser.at_end());
    (found, None)
}

/// One transaction with a host whose replies are the input. Octet 0 chooses the options and when writing fails.
pub fn smtp_client(data: &[u8]) {
    let Some((flags, octets)) = data.split_first() else { return };
    let mut parser = ReplyParser::new();
    parser.push(octets);
    let mut peer = Capabilities::default();
    if flags & 64 != 0
        && let Ok(Some(reply)) = parser.next_reply()
    {
        peer = Capabilities::from_reply(&reply);
    }
    let reverse_path = ReversePath::Mailbox(address("sender@a.test"));
    let recipients: Vec<Recipient> = (0..=flags >> 3 & 3)
        .map(|number| Recipient { address: address(&format!("to{number}@b.test")), notify: None, orcpt: None })
        .collect();
    let transaction = Transaction {
        reverse_path: &reverse_path,
        recipients: &recipients,
        body: BodyKind::EightBitMime,
        smtputf8: flags & 32 != 0,
        ret: None,
        envid: Some("id=1+1\r\nRCPT TO:<x@y.test>"),
        body_bytes: 1_000,
    };
    let options = Options { chunking: flags & 1 != 0, reset_first: flags & 2 != 0 };
    run(Machine::new(transaction, peer, options), &mut parser, flags & 4 != 0, recipients.len());
}

fn run(mut machine: Machine<'_>, parser: &mut ReplyParser, writing_fails: bool, recipients: usize) {
    let mut out = Vec::new();
    let mut is_body_sent = false;
    let mut is_confirmed = false;
    let mut step = machine.start(&mut out);
    loop {
        for line in out.split_inclusive(|octet| *octet == b'\n') {
            let is_command = line.ends_with(b"\r\n") && !line.iter().rev().skip(2).any(u8::is_ascii_control);
            assert!(is_command, "not one command a line: {:?}", String::from_utf8_lossy(&out));
        }
        out.clear();
        step = match step {
            Step::Done => break,
            Step::WriteBody(Framing::Dot | Framing::Chunk) if writing_fails => machine.on_lost(LossReason::TimedOut),
            Step::WriteBody(_) => {
                is_body_sent = true;
                machine.on_body_sent()
            }
            Step::Read(_) => match parser.next_reply() {
                Ok(Some(reply)) => {
                    is_confirmed |= is_body_sent && reply.severity() == Severity::Positive;
                    machine.on_reply(reply, &mut out)
                }
                Ok(None) => machine.on_lost(LossReason::Closed),
                Err(error) => machine.on_lost(LossReason::Protocol(error.to_string().into())),
            },
        };
    }
    let outcome = machine.finish();
    assert_eq!(outcome.recipients.len(), recipients, "a recipient has no fate");
    for result in &outcome.recipients {
        match result {
            RecipientResult::Accepted { reply } => {
                assert!(
                    is_confirmed && reply.severity() == Severity::Positive,
                    "accepted without a 2yz to the message"
                );
            }
            RecipientResult::Ambiguous { .. } => assert!(is_body_sent, "ambiguous though the message was not sent"),
            RecipientResult::NotSent { .. } => assert!(!is_body_sent || !is_confirmed, "the message was taken"),
            RecipientResult::Refused { .. } | RecipientResult::Unsendable { .. } => {}
        }
    }
}

fn address(text: &str) -> EmailAddress {
    EmailAddress::parse(text, false).expect("a literal of this file, with a local part and a domain")
}
