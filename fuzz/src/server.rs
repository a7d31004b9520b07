//! The receiving side of SMTP: a client that says anything, cut into reads in any way.

use posthaste::smtp::command::Command;
use posthaste::smtp::framing::{AUTH_LINE_BYTES_MAX, COMMAND_LINE_BYTES_MAX};
use posthaste::smtp::sasl::Login;
use posthaste::smtp::server::{ContentLimits, Hygiene, Limits, LoginOffer, LongLines, Machine, Step, TlsState};
use posthaste::types::{EmailAddress, EnhancedStatus, MessageId, Reply, ReplyCode, Timestamp};

use super::octets::assert_clean;

/// Small, so that inputs of a few hundred octets reach every limit.
const LIMITS: Limits = Limits {
    content: ContentLimits {
        message_bytes_max: 1_500,
        header_bytes_max: 600,
        long_lines: LongLines::Encode,
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
    /// User, secret, and whether it asked to act as another.
    logins: Vec<(String, Vec<u8>, bool)>,
}

/// AUTH is offered.
const LOGIN_FLAG: u8 = 8;
/// Of the flags: recipients are decided on.
const GATE_FLAG: u8 = 16;

/// A session in which AUTH is offered, from behind its EHLO. Octet 0 is the size of reads.
pub fn smtp_auth(data: &[u8]) {
    let Some((read_bytes, octets)) = data.split_first() else { return };
    let octets = [b"EHLO c.test\r\n", octets].concat();
    let cut = session(&octets, usize::from(*read_bytes).max(1), LOGIN_FLAG);
    assert_eq!(
        cut,
        session(&octets, usize::MAX, LOGIN_FLAG),
        "the result depends on how the octets were cut into reads"
    );
    let replies = String::from_utf8_lossy(&cut.replies).into_owned();
    let let_in = cut.logins.iter().filter(|login| is_right(login)).count();
    assert_eq!(replies.lines().filter(|line| line.starts_with("235 ")).count(), let_in, "{replies}");
}

fn is_right((_, secret, acts_as_other): &(String, Vec<u8>, bool)) -> bool {
    secret == b"right" && !acts_as_other
}

/// A session of the server machine. Octet 0 chooses hygiene, TLS, admission and AUTH, octet 1 the size of reads.
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
    if flags & GATE_FLAG != 0 {
        machine.gate_recipients();
    }
    let line_bytes_max = if flags & LOGIN_FLAG == 0 {
        COMMAND_LINE_BYTES_MAX
    } else {
        machine.offer_login(LoginOffer::Always);
        AUTH_LINE_BYTES_MAX
    };
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
        assert!(buffer.len() <= line_bytes_max, "{} octets wait undecided", buffer.len());
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
        Step::Recipient => {
            assert!(flags & GATE_FLAG != 0, "nobody asked for a decision");
            let (recipient, _) = machine.pending_recipient().expect("the one that is to be decided on");
            if recipient.address.as_str().len() % 3 == 0 {
                machine.refuse(&refusal())
            } else {
                machine.admit_recipient()
            }
        }
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
        Step::Login(login) => log_in(machine, *login, transcript),
        Step::StartTls => machine.tls_started(),
        Step::Close { .. } => {
            transcript.replies.extend(machine.take_output());
            return Some(Progress::Closed);
        }
    }
    Some(Progress::Again(used))
}

fn log_in(machine: &mut Machine, login: Login, transcript: &mut Transcript) {
    assert!((1..=255).contains(&login.user.len()) && !login.user.contains('\0'), "{login:?}");
    let secret = login.secret.expose().to_vec();
    let shown = String::from_utf8_lossy(&secret).into_owned();
    let is_told = login.user.contains(&shown) || "Login { mechanism: Plain }".contains(&shown);
    assert!(shown.len() < 6 || is_told || !format!("{login:?}").contains(&shown), "a secret is shown");
    let login = (login.user.into(), secret, login.acts_as_other);
    match () {
        () if is_right(&login) => machine.logged_in(),
        () if login.1 == b"later" => machine.login_deferred(),
        () => machine.login_refused(),
    }
    transcript.logins.push(login);
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
