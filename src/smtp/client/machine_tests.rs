//! Replays dialogues.txt, and throws random replies at the machine.

use proptest::prelude::*;

use super::*;
use crate::types::{BodyKind, EmailAddress, Recipient, Reply, ReplyCode, ReversePath};

const DIALOGUES: &str = include_str!("dialogues.txt");

fn peer(keywords: &str) -> Capabilities {
    let lines = std::iter::once("host").chain(keywords.split(", ")).map(Into::into).collect();
    Capabilities::from_reply(&Reply::new(ReplyCode::new(250).unwrap(), None, lines))
}

fn recipient(text: &str) -> Recipient {
    Recipient { address: EmailAddress::parse(text, true).unwrap(), notify: None, orcpt: None }
}

fn reply(line: &str) -> Reply {
    let mut parser = ReplyParser::new();
    parser.push(format!("{line}\r\n").as_bytes());
    parser.next_reply().unwrap().unwrap()
}

struct Setup {
    peer: Capabilities,
    options: Options,
    from: ReversePath,
    to: Vec<Recipient>,
    size: u64,
    utf8: bool,
}

impl Default for Setup {
    fn default() -> Self {
        Self {
            peer: Capabilities::default(),
            options: Options::default(),
            from: ReversePath::Mailbox(EmailAddress::parse("s@a.test", false).unwrap()),
            to: vec![recipient("x@b.test")],
            size: 100,
            utf8: false,
        }
    }
}

impl Setup {
    /// Takes a line of the setup; `false` where the dialogue proper begins.
    fn read(&mut self, line: &str) -> bool {
        let Some((key, value)) = line.split_once(':') else { return false };
        let value = value.trim();
        match key {
            "peer" => self.peer = peer(value),
            "options" => {
                self.options = Options { chunking: value.contains("chunking"), reset_first: value.contains("reset") };
            }
            "from" => self.from = ReversePath::Null,
            "to" => self.to = value.split(' ').map(recipient).collect(),
            "size" => self.size = value.parse().unwrap(),
            "utf8" => self.utf8 = true,
            _ => return false,
        }
        true
    }

    fn transaction(&self) -> Transaction<'_> {
        Transaction {
            reverse_path: &self.from,
            recipients: &self.to,
            body: BodyKind::SevenBit,
            smtputf8: self.utf8,
            ret: None,
            envid: None,
            body_bytes: self.size,
        }
    }
}

fn describe(result: &RecipientResult) -> String {
    match result {
        RecipientResult::Accepted { reply } => format!("accepted {reply}"),
        RecipientResult::Refused { reply, stage } => format!("refused {stage} {reply}"),
        RecipientResult::NotSent { loss } => format!("not-sent {loss}"),
        RecipientResult::Ambiguous { loss } => format!("ambiguous {loss}"),
        RecipientResult::Unsendable { status, text } => format!("unsendable {status} {text}"),
    }
}

fn connection(outcome: &Outcome) -> String {
    let state = match outcome.after {
        After::Closed => "closed",
        After::Reusable if outcome.needs_reset => "reset",
        After::Reusable => "reusable",
    };
    format!("{state}{}", if outcome.silent_from_the_start { " silent" } else { "" })
}

/// Runs one dialogue; gives the "=>" lines it came to.
fn run(name: &str, lines: &[&str]) -> Vec<String> {
    let mut setup = Setup::default();
    let script: Vec<&str> = lines.iter().copied().skip_while(|line| setup.read(line)).collect();
    let mut machine = Machine::new(setup.transaction(), setup.peer, setup.options);
    let mut out = Vec::new();
    let mut step = machine.start(&mut out);
    let mut untouched = true;
    let mut script = script.into_iter().filter(|line| !line.starts_with("=>")).peekable();
    while step != Step::Done {
        untouched = false;
        let mut written = String::from_utf8(std::mem::take(&mut out)).unwrap();
        while let Some(line) = script.next_if(|line| line.starts_with("C: ") || line.starts_with("C+ ")) {
            let expected = format!("{}\r\n", &line[3..]);
            written = written.strip_prefix(&expected).unwrap_or_else(|| panic!("{name}: {line}: {written}")).to_owned();
        }
        let line = script.next().unwrap_or_else(|| panic!("{name}: script ends at {step:?}"));
        step = match (step, line.split_once(' ').unwrap_or((line, ""))) {
            (Step::WriteBody(framing), ("BODY", rest)) => {
                let (kind, bdat) = rest.split_once(' ').unwrap_or((rest, ""));
                assert_eq!(kind, if framing == Framing::Dot { "dot" } else { "chunk" }, "{name}");
                if bdat == "broken" {
                    Step::Read(Stage::Data)
                } else {
                    written = written.replace(&format!("{bdat}\r\n"), "");
                    machine.on_body_sent()
                }
            }
            (Step::Read(_), ("LOST", "timeout")) => machine.on_lost(LossReason::TimedOut),
            (Step::Read(_), ("LOST", _)) => machine.on_lost(LossReason::Closed),
            (Step::Read(_), ("S:", text)) => machine.on_reply(reply(text), &mut out),
            (step, _) => panic!("{name}: {line} at {step:?}"),
        };
        assert_eq!(written, "", "{name}: written and not expected");
    }
    assert_eq!(script.next(), None, "{name}: not reached");
    assert!(out.is_empty(), "{name}");
    let outcome = machine.finish();
    let fates = setup.to.iter().zip(&outcome.recipients);
    let mut found: Vec<String> = fates.map(|(to, result)| format!("=> {} {}", to.address, describe(result))).collect();
    found.push(format!("=> {}{}", connection(&outcome), if untouched { " untouched" } else { "" }));
    found
}

#[test]
fn every_dialogue_ends_as_its_script_says() {
    let mut count = 0;
    for dialogue in DIALOGUES.split("\n== ").skip(1) {
        let mut lines = dialogue.lines().filter(|line| !line.is_empty());
        let name = lines.next().unwrap();
        let lines: Vec<&str> = lines.collect();
        let expected: Vec<&str> = lines.iter().copied().filter(|line| line.starts_with("=>")).collect();
        assert_eq!(run(name, &lines), expected, "{name}");
        count += 1;
    }
    assert!(count > 30, "the file was read: {count}");
}

#[test]
fn more_recipients_than_a_batch_go_out_in_further_batches() {
    let setup = Setup {
        peer: peer("PIPELINING"),
        to: (0..250).map(|index| recipient(&format!("{index}@b.test"))).collect(),
        ..Setup::default()
    };
    let mut machine = Machine::new(setup.transaction(), setup.peer, setup.options);
    let mut out = Vec::new();
    let mut step = machine.start(&mut out);
    let mut batches = Vec::new();
    while let Step::Read(stage) = step {
        if !out.is_empty() {
            batches.push(memchr::memchr_iter(b'\n', &out).count());
            out.clear();
        }
        let text = if stage == Stage::Data { "451 no" } else { "250 ok" };
        step = machine.on_reply(reply(text), &mut out);
    }
    assert_eq!(batches, [PIPELINE_COMMANDS_MAX, PIPELINE_COMMANDS_MAX, 52]);
    assert_eq!(machine.finish().recipients.len(), 250);
}

fn any_reply() -> impl Strategy<Value = Reply> {
    prop_oneof![Just(250_u16), Just(354), Just(421), Just(450), Just(550), Just(251), Just(503), 200..600_u16]
        .prop_map(|code| Reply::new(ReplyCode::new(code).unwrap(), None, vec!["text".into()]))
}

proptest! {
    /// The two promises of the module, for every sequence of replies.
    #[test]
    fn accepted_only_after_a_whole_message_and_ambiguous_only_behind_its_end(
        replies in proptest::collection::vec(any_reply(), 0..12),
        broken: bool,
        pipelining: bool,
        chunking: bool,
        count in 1..4_usize,
    ) {
        let setup = Setup {
            peer: peer(if pipelining { "PIPELINING, CHUNKING" } else { "CHUNKING" }),
            to: (0..count).map(|index| recipient(&format!("{index}@b.test"))).collect(),
            options: Options { chunking, reset_first: false },
            ..Setup::default()
        };
        let mut machine = Machine::new(setup.transaction(), setup.peer, setup.options);
        let mut out = Vec::new();
        let mut step = machine.start(&mut out);
        let mut replies = replies.into_iter();
        let (mut whole, mut last_positive) = (false, false);
        loop {
            step = match step {
                Step::Done => break,
                Step::WriteBody(_) if broken => Step::Read(Stage::Data),
                Step::WriteBody(_) => { whole = true; machine.on_body_sent() }
                Step::Read(_) => match replies.next() {
                    Some(reply) => {
                        last_positive = reply.code().value() < 300;
                        machine.on_reply(reply, &mut out)
                    }
                    None => { last_positive = false; machine.on_lost(LossReason::Closed) }
                },
            };
        }
        let outcome = machine.finish();
        prop_assert_eq!(outcome.recipients.len(), count);
        for result in &outcome.recipients {
            match result {
                RecipientResult::Accepted { .. } => prop_assert!(whole && last_positive),
                RecipientResult::Ambiguous { .. } => prop_assert!(whole),
                RecipientResult::NotSent { .. } => prop_assert!(!whole),
                RecipientResult::Refused { reply, .. } => prop_assert!(reply.code().value() >= 400),
                RecipientResult::Unsendable { .. } => prop_assert!(false),
            }
        }
    }
}
