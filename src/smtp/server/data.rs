//! The machine while message data arrives: DATA (RFC 5321 §4.1.1.4) and BDAT (RFC 3030).

use super::super::framing::{DotFramer, Dotted};
use super::answer::{self, Answer};
use super::content::Fault;
use super::machine::{Machine, State, Step};

impl Machine {
    pub(super) fn begin_data(&mut self) -> Option<Step> {
        match std::mem::replace(&mut self.state, State::Ready) {
            State::Transaction(transaction) if transaction.has_recipients() => {
                let message = Box::new(transaction.into_message(self.limits.content));
                self.state = State::Data(message, DotFramer::default());
                self.output.extend_from_slice(b"354 End data with <CR><LF>.<CR><LF>\r\n");
                Some(Step::Begin)
            }
            other => {
                self.state = other;
                self.refuse_command(&answer::NO_RECIPIENTS)
            }
        }
    }

    /// RFC 3030 §2: the octets of a refused BDAT follow all the same.
    pub(super) fn begin_chunk(&mut self, bytes: u64, last: bool) -> Option<Step> {
        let (message, begins) = match std::mem::replace(&mut self.state, State::Ready) {
            State::Transaction(transaction) if transaction.has_recipients() => {
                (Box::new(transaction.into_message(self.limits.content)), true)
            }
            State::Chunks(message) => (message, false),
            other => {
                let (answer, then) = match other {
                    State::Transaction(transaction) => (answer::NO_RECIPIENTS, Some(transaction)),
                    State::Connected => (answer::HELLO_FIRST, None),
                    _ => (answer::MAIL_FIRST, None),
                };
                self.state = State::Skip { remaining: bytes, answer, then };
                return None;
            }
        };
        self.state = State::Chunk { message, bytes, remaining: bytes, last };
        begins.then_some(Step::Begin)
    }

    pub(super) fn data(&mut self, input: &[u8]) -> (usize, Option<Step>) {
        let State::Data(message, dots) = &mut self.state else {
            return (0, None);
        };
        let (used, dotted) = dots.next(input);
        match dotted {
            Dotted::Incomplete => (used, Some(Step::Read)),
            Dotted::Content(run) => {
                message.content.push(run);
                (used, None)
            }
            Dotted::End => (used, self.end_message()),
        }
    }

    pub(super) fn chunk(&mut self, input: &[u8]) -> (usize, Option<Step>) {
        let State::Chunk { message, bytes, remaining, last } = &mut self.state else {
            return (0, None);
        };
        let run = front(input, *remaining);
        message.content.push(run);
        *remaining -= length(run);
        let (bytes, last) = (*bytes, *last);
        let step = match *remaining {
            0 if last => self.end_message(),
            0 => self.end_chunk(bytes),
            _ => Some(Step::Read),
        };
        (run.len(), step)
    }

    /// A message that is already lost says so at once: its last chunk gets the same reply, and ends it. Counted as an
    /// error only then.
    fn end_chunk(&mut self, bytes: u64) -> Option<Step> {
        match std::mem::replace(&mut self.state, State::Ready) {
            State::Chunk { message, .. } => {
                match message.content.fault() {
                    Some(fault) => self.refusals.push(fault.write(&mut self.output)),
                    None => Answer::chunk_received(bytes).write(&mut self.output),
                }
                self.state = State::Chunks(message);
            }
            other => self.state = other,
        }
        None
    }

    pub(super) fn skip(&mut self, input: &[u8]) -> (usize, Option<Step>) {
        let State::Skip { remaining, answer, then } = &mut self.state else {
            return (0, None);
        };
        let run = front(input, *remaining);
        *remaining -= length(run);
        if *remaining > 0 {
            return (run.len(), Some(Step::Read));
        }
        let answer = answer.clone();
        self.state = match then.take() {
            Some(transaction) => State::Transaction(transaction),
            None if self.hello.is_some() => State::Ready,
            None => State::Connected,
        };
        (run.len(), self.refuse_command(&answer))
    }

    fn end_message(&mut self) -> Option<Step> {
        match std::mem::replace(&mut self.state, State::Accepting) {
            State::Data(mut message, _) | State::Chunk { mut message, .. } => match message.content.finish() {
                None => Some(Step::Message(message)),
                Some(fault) => Some(self.refuse_message(&fault)),
            },
            other => {
                self.state = other;
                None
            }
        }
    }

    fn refuse_message(&mut self, fault: &Fault) -> Step {
        self.state = State::Ready;
        let code = fault.write(&mut self.output);
        self.count_refusal(code);
        if code == 421 {
            self.state = State::Closed { orderly: false };
        }
        Step::Abandoned
    }
}

fn front(input: &[u8], bytes_max: u64) -> &[u8] {
    let count = usize::try_from(bytes_max).unwrap_or(usize::MAX);
    input.get(..count).unwrap_or(input)
}

fn length(run: &[u8]) -> u64 {
    u64::try_from(run.len()).unwrap_or(u64::MAX)
}
