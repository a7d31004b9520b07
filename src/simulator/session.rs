//! One SMTP session of the mailbox simulator.

use std::io;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

use super::Host;
use super::mailbox::{Answer, CLOSING_CODE, Mailbox, NOBODY};
use super::post::Waiting;
use super::report::Subject;
use crate::smtp::command::Command;
use crate::smtp::framing::{COMMAND_LINE_BYTES_MAX, DotFramer, Dotted, Framed, LineFramer};
use crate::types::{EmailAddress, ReversePath};

/// Octets of one read.
const READ_BYTES: usize = 16 * 1024;
/// Octets that may wait undecided; a client that sends more without a line end is cut off.
const BUFFER_BYTES_MAX: usize = 64 * 1024;
/// Octets of a message that are kept, for its reports: of its header the front. The rest is read and dropped.
const HEADER_BYTES_MAX: usize = 16 * 1024;
/// Recipients of one transaction. More: 452 4.5.3.
const RECIPIENTS_MAX: usize = 1_000;
/// A client that says nothing for so long is cut off.
const SILENCE_MAX: Duration = Duration::from_secs(300);

struct Session {
    host: Arc<Host>,
    lines: LineFramer,
    data: Option<DotFramer>,
    from: Option<ReversePath>,
    recipients: Vec<(EmailAddress, Mailbox)>,
    /// The front of the message.
    header: Vec<u8>,
    output: Vec<u8>,
    /// Before the output goes out.
    pause: Duration,
    over: bool,
}

/// Serves until QUIT, the end of the connection, or `stop` between two messages. Errors end the session: its client tries again.
pub(super) async fn run(stream: TcpStream, host: Arc<Host>, stop: CancellationToken) {
    if let Err(error) = talk(stream, host, &stop).await {
        tracing::debug!(%error, "session of the simulator ended");
    }
}

async fn talk(mut stream: TcpStream, host: Arc<Host>, stop: &CancellationToken) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let mut session = Session {
        host,
        lines: LineFramer::default(),
        data: None,
        from: None,
        recipients: Vec::new(),
        header: Vec::new(),
        output: Vec::new(),
        pause: Duration::ZERO,
        over: false,
    };
    session.greet();
    let mut buffer = Vec::new();
    loop {
        session.flush(&mut stream).await?;
        let mut used = 0;
        loop {
            let step = session.step(buffer.get(used..).unwrap_or_default());
            if step == 0 {
                break;
            }
            used += step;
            session.flush(&mut stream).await?;
        }
        buffer.drain(..used);
        if session.over || buffer.len() > BUFFER_BYTES_MAX {
            return stream.shutdown().await;
        }
        buffer.reserve(READ_BYTES);
        let is_between = session.recipients.is_empty() && session.data.is_none();
        let read = tokio::select! {
            biased;
            () = stop.cancelled(), if is_between => {
                stream.write_all(b"421 4.3.2 The simulator is closing\r\n").await?;
                return stream.shutdown().await;
            }
            read = timeout(SILENCE_MAX, stream.read_buf(&mut buffer)) => read,
        };
        // Silence, or the end.
        let Ok(octets) = read else { return Ok(()) };
        if octets? == 0 {
            return Ok(());
        }
    }
}

impl Session {
    async fn flush(&mut self, stream: &mut TcpStream) -> io::Result<()> {
        if self.output.is_empty() {
            return Ok(());
        }
        if !self.pause.is_zero() {
            sleep(std::mem::take(&mut self.pause)).await;
        }
        stream.write_all(&self.output).await?;
        self.output.clear();
        Ok(())
    }

    fn greet(&mut self) {
        let greeting = format!("220 {} ESMTP mailbox simulator\r\n", self.host.domain);
        self.output.extend_from_slice(greeting.as_bytes());
    }

    /// Handles the next line, or piece of a message; how many octets that was. 0: more is needed.
    fn step(&mut self, input: &[u8]) -> usize {
        match () {
            () if self.over => 0,
            () if self.data.is_some() => self.take_data(input),
            () => self.take_line(input),
        }
    }

    fn take_data(&mut self, input: &[u8]) -> usize {
        let Some(framer) = &mut self.data else { return 0 };
        let (used, found) = framer.next(input);
        match found {
            Dotted::Incomplete => {}
            Dotted::Content(run) => {
                let room = HEADER_BYTES_MAX - self.header.len();
                self.header.extend_from_slice(run.get(..room.min(run.len())).unwrap_or_default());
            }
            Dotted::End => {
                self.data = None;
                self.finish();
            }
        }
        used
    }

    /// The message is there: what it brings home waits from now on.
    fn finish(&mut self) {
        let (recipients, header) = (std::mem::take(&mut self.recipients), std::mem::take(&mut self.header));
        let from = self.from.take();
        let return_path = from.as_ref().and_then(ReversePath::mailbox);
        let header = front_of_header(&header);
        let arrived_at = self.host.clock.now();
        let subjects: Vec<Subject> = recipients
            .iter()
            // To the null path nobody reports.
            .filter_map(|(recipient, mailbox)| Some((recipient, mailbox.report()?, return_path?)))
            .map(|(recipient, kind, return_path)| Subject {
                kind,
                return_path: return_path.clone(),
                recipient: recipient.clone(),
                header: header.to_vec(),
                arrived_at,
            })
            .collect();
        self.pause = recipients.iter().map(|(_, mailbox)| mailbox.pause()).max().unwrap_or_default();
        let host = Arc::clone(&self.host);
        let Ok(places) = host.reports.try_reserve_many(subjects.len()) else {
            return self.reply(452, "4.3.1", "Too many reports wait, please try again later");
        };
        for (place, subject) in places.zip(subjects) {
            place.send(Waiting::new(subject));
        }
        self.reply(250, "2.0.0", "Message received");
    }

    fn take_line(&mut self, input: &[u8]) -> usize {
        let mut lines = std::mem::take(&mut self.lines);
        let (used, framed) = lines.next(input, COMMAND_LINE_BYTES_MAX);
        match framed {
            Framed::Incomplete => {}
            Framed::Line(line) => match Command::parse(line, true) {
                Ok(command) => self.run(command),
                Err(error) => self.reply(501, "5.5.2", &error.to_string()),
            },
            Framed::TooLong | Framed::BareLf => self.reply(500, "5.5.2", "Not a command line"),
        }
        self.lines = lines;
        used
    }

    fn run(&mut self, command: Command) {
        match command {
            Command::Ehlo(_) => {
                self.reset();
                let domain = &self.host.domain;
                let text = format!(
                    "250-{domain}\r\n250-PIPELINING\r\n250-8BITMIME\r\n250-SMTPUTF8\r\n250 ENHANCEDSTATUSCODES\r\n"
                );
                self.output.extend_from_slice(text.as_bytes());
            }
            Command::Helo(_) => {
                self.reset();
                let domain = self.host.domain.to_string();
                self.reply(250, "", &domain);
            }
            Command::Mail(mail) => {
                self.reset();
                self.from = Some(mail.reverse_path);
                self.reply(250, "2.1.0", "Ok");
            }
            Command::Rset => {
                self.reset();
                self.reply(250, "2.0.0", "Ok");
            }
            Command::Rcpt(recipient) => self.recipient(recipient.address),
            Command::Data if self.recipients.is_empty() => self.reply(554, "5.5.1", "No valid recipients"),
            Command::Data => {
                self.data = Some(DotFramer::default());
                self.reply(354, "", "Go on");
            }
            Command::Noop => self.reply(250, "2.0.0", "Ok"),
            Command::Quit => {
                self.over = true;
                self.reply(221, "2.0.0", "Bye");
            }
            _ => self.reply(502, "5.5.1", "Not here"),
        }
    }

    fn recipient(&mut self, address: EmailAddress) {
        let Some(from) = &self.from else { return self.reply(503, "5.5.1", "MAIL first") };
        if self.recipients.len() >= RECIPIENTS_MAX {
            return self.reply(452, "4.5.3", "Too many recipients");
        }
        let mailbox = Mailbox::of(address.local_part()).filter(|_| *address.domain() == self.host.domain);
        let Some(mailbox) = mailbox else { return self.answer(NOBODY) };
        let visit = self.host.visits.lock().unwrap_or_else(PoisonError::into_inner).visit(from, &address);
        let answer = mailbox.answer(visit);
        if answer.code == 250 {
            self.recipients.push((address, mailbox));
        }
        self.pause = mailbox.pause();
        self.over = answer.code == CLOSING_CODE;
        self.answer(answer);
    }

    fn reset(&mut self) {
        self.from = None;
        self.recipients.clear();
        self.header.clear();
    }

    fn answer(&mut self, Answer { code, status, text }: Answer) {
        self.reply(code, status, text);
    }

    fn reply(&mut self, code: u16, status: &str, text: &str) {
        let space = if status.is_empty() { "" } else { " " };
        self.output.extend_from_slice(format!("{code} {status}{space}{text}\r\n").as_bytes());
    }
}

/// The header of a message of which this is the front: whole lines, without the empty one.
fn front_of_header(front: &[u8]) -> &[u8] {
    let end = match memchr::memmem::find(front, b"\r\n\r\n") {
        Some(at) => at + 2,
        None => memchr::memmem::rfind(front, b"\r\n").map_or(0, |at| at + 2),
    };
    front.get(..end).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_a_message_the_whole_lines_of_its_header_are_kept() {
        for (front, expected) in [
            ("A: 1\r\nB: 2\r\n\r\nbody\r\n", "A: 1\r\nB: 2\r\n"),
            ("A: 1\r\nB: 2", "A: 1\r\n"),
            ("A: 1\r\n\r\n", "A: 1\r\n"),
            ("A", ""),
            ("", ""),
        ] {
            assert_eq!(front_of_header(front.as_bytes()), expected.as_bytes(), "{front:?}");
        }
    }
}
