//! The receiving side of SMTP: a client that says anything, cut into reads in any way.

use posthaste::smtp::command::Command;
use posthaste::smtp::framing::COMMAND_LINE_BYTES_MAX;
use posthaste::smtp::server::{ContentLimits, Hygiene, Limits, Machine, Step, TlsState};
use posthaste::types::{EmailAddress, EnhancedStatus, MessageId, Reply, ReplyCode, Timestamp};

use super::octets::assert_clean;

/// Small, so that inputs of a few hundred octets reach every limit.
const LIMITS: Limits = Limits {
    content: ContentLimits {
        message_bytes_max: 1_500,
        header_bytes_max: 600,
        line_bytes_max: 200,
        hygiene: Hygiene::Refuse,
    },
    recipients_max: 3,
    transactions_max: 5,
    errors_max: 8,
    idle_commands_max: 8,
};

/// What a session came to.
#[derive(Default, PartialEq, Eq, Debug)]
struct Transcript {
    replies: Vec<u8>,
    messages: Vec<(Vec<String>, Vec<u8>)>,
}

/// A session of the server machine. Octet 0 chooses hygiene, TLS and admission, octet 1 the size of reads.
pub fn smtp_server(data: &[u8]) {
    let Some(([flags, read_bytes], octets)) = data.split_first_chunk::<2>() else { return };
    let cut = session(octets, usize::from(*read_bytes).max(1), *flags);
    for line in cut.replies.split_inclusive(|octet| *octet == b'\n') {
        let is_reply = line.len() > 5 && line.iter().take(3).all(u8::is_ascii_digit) && line.ends_with(b"\r\n");
        assert!(is_reply, "not a reply: {:?}", String::from_utf8_lossy(line));
    }
    // What was pipelined behind STARTTLS is dropped, and how much that is depends on the reads.
    if flags & 1 == 0 {
        assert_eq!(
            cut,
            session(octets, usize::MAX, *flags),
            "the result depends on how the octets were cut into reads"
        );
    }
}

fn session(octets: &[u8], read_bytes: usize, flags: u8) -> Transcript {
    let tls = if flags & 1 == 0 { TlsState::Unavailable } else { TlsState::Offered };
    let mut limits = LIMITS;
    if flags & 2 != 0 {
        limits.content.hygiene = Hygiene::Repair;
    }
    let mut machine = Machine::new("mx.test", limits, tls);
    let mut transcript = Transcript::default();
    let mut buffer = Vec::new();
    for read in octets.chunks(read_bytes) {
        buffer.extend_from_slice(read);
        while let Some(used) = advance(&mut machine, &buffer, limits, flags, &mut transcript) {
            match used {
                Progress::Again(used) => drop(buffer.drain(..used)),
                Progress::Closed => return transcript,
                Progress::NeedsMore(used) => {
                    buffer.drain(..used);
                    break;
                }
            }
        }
        assert!(buffer.len() <= COMMAND_LINE_BYTES_MAX, "{} octets wait undecided", buffer.len());
    }
    transcript.replies.extend(machine.take_output());
    transcript
}

enum Progress {
    Again(usize),
    NeedsMore(usize),
    Closed,
}

fn advance(
    machine: &mut Machine,
    buffer: &[u8],
    limits: Limits,
    flags: u8,
    transcript: &mut Transcript,
) -> Option<Progress> {
    let (used, step) = machine.step(buffer);
    assert!(used <= buffer.len(), "more was used than there is");
    match step {
        Step::Read => return Some(Progress::NeedsMore(used)),
        Step::Mail if flags & 4 != 0 => machine.refuse(&refusal()),
        Step::Mail => machine.admit(limits),
        Step::Begin => assert!(machine.message_mut().is_some(), "Begin without a message"),
        Step::Abandoned => {}
        Step::Message(mut message) => {
            let content = message.content.take_all();
            assert_clean(&content);
            assert!(content.len() as u64 <= limits.content.message_bytes_max * 2, "the limit of the size was passed");
            let recipients: Vec<String> =
                message.envelope.recipients.iter().map(|to| to.address.as_str().to_owned()).collect();
            assert!(!recipients.is_empty() && recipients.len() <= limits.recipients_max, "{recipients:?}");
            transcript.messages.push((recipients, content));
            machine.accepted(&MessageId::new(Timestamp::EPOCH, 0));
        }
        Step::StartTls => machine.tls_started(),
        Step::Close { .. } => {
            transcript.replies.extend(machine.take_output());
            return Some(Progress::Closed);
        }
    }
    Some(Progress::Again(used))
}

fn refusal() -> Reply {
    let code = ReplyCode::new(530).expect("530 is a reply code");
    Reply::new(code, EnhancedStatus::new(5, 7, 0), vec!["Authentication required".into()])
}

/// A command line, and the same octets as an address.
pub fn smtp_command(data: &[u8]) {
    for smtputf8 in [false, true] {
        // Refusals are typed; what is accepted holds nothing that could end a line early.
        if let Ok(Command::Rcpt(recipient)) = Command::parse(data, smtputf8) {
            assert!(!recipient.address.as_str().bytes().any(|octet| octet.is_ascii_control()));
        }
        let Ok(text) = std::str::from_utf8(data) else { continue };
        if let Ok(address) = EmailAddress::parse(text, smtputf8) {
            let again = EmailAddress::parse(address.as_str(), smtputf8);
            assert_eq!(again.as_ref(), Ok(&address), "an address that was accepted is refused when it is read again");
        }
    }
}
