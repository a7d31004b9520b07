//! What each mailbox does, by its name: the local part up to `+`, in any case.
//!
//! | mailbox | at RCPT | after the message |
//! |---|---|---|
//! | `success` | 250 | |
//! | `bounce` | 550 5.1.1: no such user | |
//! | `ooto` | 250 | an automatic answer (RFC 3834) to the return path |
//! | `complaint` | 250 | a complaint (RFC 5965) to the return path |
//! | `suppressionlist` | is never asked for: admission holds the mail back | |
//! | `latebounce` | 250 | a bounce (RFC 3464) to the return path |
//! | `full` | 552 5.2.2 always: mailbox full | |
//! | `policy` | 554 5.7.1: refused by policy | |
//! | `defer` | 451 4.3.0 the first time, then 250 | |
//! | `greylist` | 450 4.7.1 the first time, then 250 | |
//! | `block` | 550 5.7.1 the first two times, as who blocks the sender's address says it, then 250 | |
//! | `421` | 421 4.3.2 the first time, and the connection ends; then 250 | |
//! | `slow` | 250, slowly | 250, slowly |
//! | `unavailable` | 451 4.3.0 always | |
//! | any other | 550 5.1.1 | |
//!
//! Pure. The times that a mailbox is asked for are counted by return path: as each message has one of its own, each has the whole play.

use std::time::Duration;

/// Before each reply of `slow`.
const SLOW_PAUSE: Duration = Duration::from_secs(2);

/// A mailbox.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Mailbox {
    Success,
    Bounce,
    Ooto,
    Complaint,
    LateBounce,
    Full,
    Policy,
    Defer,
    Greylist,
    Block,
    Closing,
    Slow,
    Unavailable,
}

/// A reply to RCPT.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Answer {
    pub(super) code: u16,
    pub(super) status: &'static str,
    pub(super) text: &'static str,
}

/// What comes home after the message was taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ReportKind {
    /// An automatic answer.
    AutoReply,
    /// A complaint.
    Complaint,
    /// A bounce.
    Bounce,
}

const TABLE: [(&str, Mailbox); 14] = [
    ("success", Mailbox::Success),
    ("bounce", Mailbox::Bounce),
    ("ooto", Mailbox::Ooto),
    ("complaint", Mailbox::Complaint),
    // Held back before it comes here; if it does, it bounces all the same.
    ("suppressionlist", Mailbox::Bounce),
    ("latebounce", Mailbox::LateBounce),
    ("full", Mailbox::Full),
    ("policy", Mailbox::Policy),
    ("defer", Mailbox::Defer),
    ("greylist", Mailbox::Greylist),
    ("block", Mailbox::Block),
    ("421", Mailbox::Closing),
    ("slow", Mailbox::Slow),
    ("unavailable", Mailbox::Unavailable),
];

const fn say(code: u16, status: &'static str, text: &'static str) -> Answer {
    Answer { code, status, text }
}

impl Mailbox {
    /// That of a local part; `None`: there is none of that name.
    pub(super) fn of(local_part: &str) -> Option<Self> {
        let name = local_part.split('+').next().unwrap_or_default();
        TABLE.iter().find(|(known, _)| known.eq_ignore_ascii_case(name)).map(|(_, mailbox)| *mailbox)
    }

    /// What it says to RCPT, when it is asked for the `visit`th time.
    pub(super) fn answer(self, visit: u32) -> Answer {
        match self {
            Mailbox::Bounce => NOBODY,
            Mailbox::Full => say(552, "5.2.2", "Mailbox full"),
            Mailbox::Policy => say(554, "5.7.1", "Message refused by policy"),
            Mailbox::Unavailable => say(451, "4.3.0", "Mailbox store is down, try again later"),
            Mailbox::Defer if visit == 1 => say(451, "4.3.0", "Not now, please try again later"),
            Mailbox::Greylist if visit == 1 => say(450, "4.7.1", "Greylisted, please try again in a moment"),
            Mailbox::Block if visit <= 2 => {
                say(550, "5.7.1", "Service unavailable; client host blocked using a block list of the simulator")
            }
            Mailbox::Closing if visit == 1 => say(CLOSING_CODE, "4.3.2", "Service not available, closing connection"),
            _ => say(250, "2.1.5", "Ok"),
        }
    }

    /// What it has brought home after it took a message.
    pub(super) const fn report(self) -> Option<ReportKind> {
        match self {
            Mailbox::Ooto => Some(ReportKind::AutoReply),
            Mailbox::Complaint => Some(ReportKind::Complaint),
            Mailbox::LateBounce => Some(ReportKind::Bounce),
            _ => None,
        }
    }

    /// How long it takes for each reply.
    pub(super) const fn pause(self) -> Duration {
        match self {
            Mailbox::Slow => SLOW_PAUSE,
            _ => Duration::ZERO,
        }
    }
}

/// The code after which the connection ends (RFC 5321 §3.8).
pub(super) const CLOSING_CODE: u16 = 421;
/// Of those that there are not.
pub(super) const NOBODY: Answer = say(550, "5.1.1", "User unknown; there is no mailbox of that name here");

#[cfg(test)]
mod tests {
    use super::*;

    fn codes(local_part: &str) -> [u16; 3] {
        let answer = |visit| Mailbox::of(local_part).map_or(NOBODY, |mailbox| mailbox.answer(visit)).code;
        [answer(1), answer(2), answer(3)]
    }

    #[test]
    fn mailboxes_do_what_their_names_say() {
        for (local_part, expected) in [
            ("success", [250; 3]),
            ("SUCCESS+order-17", [250; 3]),
            ("bounce+x+y", [550; 3]),
            ("suppressionlist", [550; 3]),
            ("ooto", [250; 3]),
            ("complaint", [250; 3]),
            ("latebounce", [250; 3]),
            ("full", [552; 3]),
            ("policy", [554; 3]),
            ("defer", [451, 250, 250]),
            ("greylist+a", [450, 250, 250]),
            ("block", [550, 550, 250]),
            ("421", [421, 250, 250]),
            ("slow", [250; 3]),
            ("unavailable", [451; 3]),
            ("", [550; 3]),
            ("+success", [550; 3]),
            ("successful", [550; 3]),
            ("success-x", [550; 3]),
        ] {
            assert_eq!(codes(local_part), expected, "{local_part:?}");
        }
    }

    #[test]
    fn only_who_takes_a_message_reports_on_it() {
        for (name, mailbox) in TABLE {
            assert!(mailbox.report().is_none() || mailbox.answer(1).code == 250, "{name}");
        }
        let reports = TABLE.iter().filter_map(|(_, mailbox)| mailbox.report());
        assert_eq!(reports.collect::<Vec<_>>(), [ReportKind::AutoReply, ReportKind::Complaint, ReportKind::Bounce]);
    }
}
