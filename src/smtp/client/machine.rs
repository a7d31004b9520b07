//! One mail transaction (RFC 5321 §3.3) with or without PIPELINING (RFC 2920) and CHUNKING (RFC 3030).
//!
//! ```text
//!            [RSET] MAIL RCPT* DATA            354, somebody was accepted            written
//!  start ──▶ Commands ─────────────────────────────────────────────▶ Body ─────────────────────▶ Dot ──▶ Done
//!               │  │ 354, nobody was: lone dot (RFC 2920 §3.1)          │ write failed, late reply  │
//!               │  └──────────────▶ Commands                           ▼                           ▼
//!               └── nobody left, or connection lost ─────────────────▶ Done ◀── 2yz, 4yz, 5yz, or ambiguous
//! ```
//!
//! With PIPELINING the commands go out in batches of up to [`PIPELINE_COMMANDS_MAX`], without it a batch is one command.
//! A batch is written when all replies to the one before have come. The body is never written before the 354; with
//! CHUNKING it is written when all RCPT replies are known, as one BDAT.

use std::collections::VecDeque;

use super::capabilities::{Capabilities, Extension, SizeLimit};
use super::command;
use super::outcome::{After, Loss, LossReason, Outcome, RecipientResult};
use super::transaction::Transaction;
use crate::types::{EnhancedStatus, Reply, Severity, Stage};

/// Commands in one batch. Replies to that many fit into the socket buffers of both sides, so that neither can block the
/// other (RFC 2920 §3.1); more recipients go out in further batches.
pub const PIPELINE_COMMANDS_MAX: usize = 100;

/// How a transaction is run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Options {
    /// Use BDAT where the peer offers CHUNKING.
    pub chunking: bool,
    /// The transaction before was left open: begin with RSET.
    pub reset_first: bool,
}

/// How the body is to be written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Framing {
    /// Dot-stuffed, with the final dot.
    Dot,
    /// As it is, exactly the octets that were declared; the BDAT command is already in the output.
    Chunk,
}

/// What the driver does next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Write the output, if there is any, then read one reply and call [`Machine::on_reply`]. The stage gives the timeout.
    Read(Stage),
    /// Write the output and the body behind it, then call [`Machine::on_body_sent`].
    WriteBody(Framing),
    /// Call [`Machine::finish`].
    Done,
}

/// A command whose reply is due.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Command {
    Reset,
    Mail,
    Rcpt(usize),
    Data,
    /// The end of data of a message to nobody.
    LoneDot,
    /// The end of the message.
    Dot,
}

impl Command {
    const fn stage(self) -> Stage {
        match self {
            Command::Reset | Command::Mail => Stage::Mail,
            Command::Rcpt(_) => Stage::Rcpt,
            Command::Data => Stage::Data,
            Command::LoneDot | Command::Dot => Stage::Dot,
        }
    }
}

/// The command to write next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Cursor {
    Reset,
    Mail,
    Rcpt(usize),
    Data,
    End,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Commands,
    Body,
    Dot,
    Done,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Fate {
    /// RCPT not sent or not answered.
    Waiting,
    /// RCPT was accepted.
    Taken,
    Decided(RecipientResult),
}

/// The machine of one transaction. Output goes into the `out` of each call, which the driver empties by writing it.
#[derive(Debug)]
pub struct Machine<'a> {
    transaction: Transaction<'a>,
    peer: Capabilities,
    chunking: bool,
    batch_max: usize,
    phase: Phase,
    cursor: Cursor,
    /// Written and not answered, oldest first; at most [`PIPELINE_COMMANDS_MAX`].
    outstanding: VecDeque<Command>,
    fates: Vec<Fate>,
    mail_refused: bool,
    needs_reset: bool,
    after: After,
    any_reply: bool,
    silent_from_the_start: bool,
}

impl<'a> Machine<'a> {
    /// A machine for this transaction with this peer. Recipients that the peer cannot take are decided here.
    pub fn new(transaction: Transaction<'a>, peer: Capabilities, options: Options) -> Self {
        let fates = transaction.recipients.iter().map(|_| Fate::Waiting).collect();
        let mut machine = Self {
            transaction,
            peer,
            chunking: options.chunking && peer.offers(Extension::Chunking),
            batch_max: if peer.offers(Extension::Pipelining) { PIPELINE_COMMANDS_MAX } else { 1 },
            phase: Phase::Commands,
            cursor: if options.reset_first { Cursor::Reset } else { Cursor::Mail },
            outstanding: VecDeque::new(),
            fates,
            mail_refused: false,
            needs_reset: options.reset_first,
            after: After::Reusable,
            any_reply: false,
            silent_from_the_start: false,
        };
        machine.decide_unsendable();
        machine
    }

    /// The first step.
    pub fn start(&mut self, out: &mut Vec<u8>) -> Step {
        if !self.fates.contains(&Fate::Waiting) {
            return self.done();
        }
        self.needs_reset = true;
        self.advance(out)
    }

    /// Takes the reply that [`Step::Read`] asked for; or, where writing the body failed, one that the peer had sent
    /// before it stopped reading.
    pub fn on_reply(&mut self, reply: Reply, out: &mut Vec<u8>) -> Step {
        self.silent_from_the_start = !self.any_reply && reply.code().value() == 421;
        self.any_reply = true;
        let Some(command) = self.outstanding.pop_front() else {
            return self.on_early_reply(reply);
        };
        if reply.code().value() == 421 && command != Command::Dot {
            return self.lose(Loss { stage: command.stage(), reason: LossReason::ShuttingDown(reply) });
        }
        match (command, reply.severity()) {
            (Command::Reset, Severity::Positive) => {}
            (Command::Mail, Severity::Positive) => {}
            (Command::Mail, Severity::Transient | Severity::Permanent) => {
                self.mail_refused = true;
                self.refuse(&reply, Stage::Mail, |_| true);
            }
            (Command::Rcpt(index), Severity::Positive) => self.take(index),
            (Command::Rcpt(index), Severity::Transient | Severity::Permanent) => self.refuse_one(index, reply),
            (Command::Data, Severity::Intermediate) if self.anyone_taken() => {
                self.phase = Phase::Body;
                return Step::WriteBody(Framing::Dot);
            }
            (Command::Data, Severity::Intermediate) => {
                out.extend_from_slice(b".\r\n");
                self.outstanding.push_back(Command::LoneDot);
            }
            (Command::Data, Severity::Transient | Severity::Permanent) => {
                self.refuse(&reply, Stage::Data, |fate| *fate == Fate::Taken);
            }
            (Command::LoneDot, _) => self.needs_reset = false,
            (Command::Dot, Severity::Positive | Severity::Transient | Severity::Permanent) => self.settle(&reply),
            (Command::Reset, _) | (_, Severity::Positive | Severity::Intermediate) => {
                let text = format!("reply makes no sense here: {reply}").into();
                return self.lose(Loss { stage: command.stage(), reason: LossReason::Protocol(text) });
            }
        }
        self.advance(out)
    }

    /// All of the body, with its end, has been written.
    pub fn on_body_sent(&mut self) -> Step {
        assert_eq!(self.phase, Phase::Body, "the driver writes the body only when told to");
        self.phase = Phase::Dot;
        self.outstanding.push_back(Command::Dot);
        Step::Read(Stage::Dot)
    }

    /// The connection ended, or is to be given up.
    pub fn on_lost(&mut self, reason: LossReason) -> Step {
        let closed = matches!(reason, LossReason::Closed | LossReason::Io(_) | LossReason::ShuttingDown(_));
        self.silent_from_the_start = closed && !self.any_reply;
        let stage = self.outstanding.front().map_or(Stage::Data, |command| command.stage());
        self.lose(Loss { stage, reason })
    }

    /// The results. Before [`Step::Done`] it counts as the loss of the connection.
    pub fn finish(mut self) -> Outcome {
        if self.phase != Phase::Done {
            self.on_lost(LossReason::Io("given up".into()));
        }
        let recipients = self.fates.into_iter().filter_map(|fate| match fate {
            Fate::Decided(result) => Some(result),
            Fate::Waiting | Fate::Taken => None,
        });
        let recipients: Vec<RecipientResult> = recipients.collect();
        assert_eq!(recipients.len(), self.transaction.recipients.len(), "a finished transaction decided on everyone");
        Outcome {
            recipients,
            after: self.after,
            needs_reset: self.needs_reset,
            silent_from_the_start: self.silent_from_the_start,
        }
    }

    /// RFC 1870 §6.1 and RFC 6531 §3.2: what the peer said in its EHLO reply is enough to know.
    fn decide_unsendable(&mut self) {
        if let SizeLimit::Bytes(limit) = self.peer.size()
            && self.transaction.body_bytes > limit
        {
            let size = self.transaction.body_bytes;
            let text = format!("message of {size} bytes exceeds the limit of the host, {limit} bytes");
            return self.decide(|_| true, &RecipientResult::Unsendable { status: TOO_LARGE, text: text.into() });
        }
        if self.transaction.uses_smtputf8() && !self.peer.offers(Extension::SmtpUtf8) {
            let everyone = self.transaction.message_needs_smtputf8();
            let text = "host does not offer SMTPUTF8, which this message needs";
            let verdict = Fate::Decided(RecipientResult::Unsendable { status: NEEDS_SMTPUTF8, text: text.into() });
            for (fate, recipient) in self.fates.iter_mut().zip(self.transaction.recipients) {
                if everyone || recipient.address.needs_smtputf8() {
                    *fate = verdict.clone();
                }
            }
        }
    }

    /// Writes the next batch, if it is time for it.
    fn advance(&mut self, out: &mut Vec<u8>) -> Step {
        if self.phase == Phase::Done {
            return Step::Done;
        }
        if self.outstanding.is_empty() {
            self.write_batch(out);
        }
        if let Some(command) = self.outstanding.front() {
            return Step::Read(command.stage());
        }
        if self.phase == Phase::Commands && self.chunking && self.anyone_taken() {
            command::bdat_last(out, self.transaction.body_bytes);
            self.phase = Phase::Body;
            return Step::WriteBody(Framing::Chunk);
        }
        self.done()
    }

    fn write_batch(&mut self, out: &mut Vec<u8>) {
        while self.outstanding.len() < self.batch_max {
            let Some(next) = self.next_command() else { return };
            match next {
                Command::Reset => command::bare(out, "RSET"),
                Command::Mail => command::mail(out, &self.transaction, &self.peer),
                Command::Data => command::bare(out, "DATA"),
                Command::Rcpt(index) => {
                    if let Some(recipient) = self.transaction.recipients.get(index) {
                        command::rcpt(out, recipient, &self.peer);
                    }
                }
                Command::LoneDot | Command::Dot => return,
            }
            self.outstanding.push_back(next);
        }
    }

    fn next_command(&mut self) -> Option<Command> {
        match self.cursor {
            Cursor::Reset => {
                self.cursor = Cursor::Mail;
                Some(Command::Reset)
            }
            Cursor::Mail => {
                self.cursor = Cursor::Rcpt(0);
                Some(Command::Mail)
            }
            Cursor::Rcpt(_) | Cursor::Data if self.mail_refused => {
                self.cursor = Cursor::End;
                None
            }
            Cursor::Rcpt(from) => {
                let found = self.fates.iter().skip(from).position(|fate| *fate == Fate::Waiting);
                let Some(offset) = found else {
                    self.cursor = Cursor::Data;
                    return self.next_command();
                };
                self.cursor = Cursor::Rcpt(from + offset + 1);
                Some(Command::Rcpt(from + offset))
            }
            Cursor::Data => {
                self.cursor = Cursor::End;
                // With replies still due, somebody may be accepted.
                let worthwhile = self.anyone_taken() || !self.outstanding.is_empty();
                (worthwhile && !self.chunking).then_some(Command::Data)
            }
            Cursor::End => None,
        }
    }

    /// A reply while the body is being written: the peer has made up its mind. The end of data was not sent, so the
    /// connection cannot be used any more.
    fn on_early_reply(&mut self, reply: Reply) -> Step {
        let stage = Stage::Data;
        match reply.severity() {
            Severity::Transient | Severity::Permanent if reply.code().value() != 421 => {
                self.refuse(&reply, stage, |_| true);
                self.after = After::Closed;
                self.done()
            }
            Severity::Transient => self.lose(Loss { stage, reason: LossReason::ShuttingDown(reply) }),
            _ => {
                let text = format!("reply before the end of data: {reply}").into();
                self.lose(Loss { stage, reason: LossReason::Protocol(text) })
            }
        }
    }

    /// The reply to the complete message. It is one for all recipients that were accepted.
    fn settle(&mut self, reply: &Reply) {
        self.needs_reset = false;
        if reply.severity() == Severity::Positive {
            self.decide(|fate| *fate == Fate::Taken, &RecipientResult::Accepted { reply: reply.clone() });
        } else {
            self.refuse(reply, Stage::Dot, |fate| *fate == Fate::Taken);
        }
        if reply.code().value() == 421 {
            self.after = After::Closed;
        }
    }

    fn lose(&mut self, loss: Loss) -> Step {
        let result = match self.phase {
            Phase::Dot => RecipientResult::Ambiguous { loss },
            Phase::Commands | Phase::Body | Phase::Done => RecipientResult::NotSent { loss },
        };
        self.decide(|_| true, &result);
        self.after = After::Closed;
        self.done()
    }

    fn done(&mut self) -> Step {
        self.phase = Phase::Done;
        Step::Done
    }

    fn anyone_taken(&self) -> bool {
        self.fates.contains(&Fate::Taken)
    }

    fn take(&mut self, index: usize) {
        if let Some(fate @ Fate::Waiting) = self.fates.get_mut(index) {
            *fate = Fate::Taken;
        }
    }

    fn refuse_one(&mut self, index: usize, reply: Reply) {
        if let Some(fate @ Fate::Waiting) = self.fates.get_mut(index) {
            *fate = Fate::Decided(RecipientResult::Refused { reply, stage: Stage::Rcpt });
        }
    }

    fn refuse(&mut self, reply: &Reply, stage: Stage, which: impl Fn(&Fate) -> bool) {
        self.decide(which, &RecipientResult::Refused { reply: reply.clone(), stage });
    }

    /// Decides on those recipients that are not decided yet. What was decided stays.
    fn decide(&mut self, which: impl Fn(&Fate) -> bool, result: &RecipientResult) {
        for fate in &mut self.fates {
            if !matches!(fate, Fate::Decided(_)) && which(fate) {
                *fate = Fate::Decided(result.clone());
            }
        }
    }
}

/// X.3.4, message too big for system.
const TOO_LARGE: EnhancedStatus = EnhancedStatus::new(5, 3, 4).expect("5.3.4 is a status");
/// X.6.7, non-ASCII addresses not permitted for that recipient (RFC 6531 §4.4).
const NEEDS_SMTPUTF8: EnhancedStatus = EnhancedStatus::new(5, 6, 7).expect("5.6.7 is a status");
