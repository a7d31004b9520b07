//! One SMTP session of the built-in mail host.

use std::io;
use std::sync::Arc;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_util::sync::CancellationToken;

use super::{Visits, mailbox};
use crate::smtp::command::Command;
use crate::smtp::framing::{COMMAND_LINE_BYTES_MAX, DotFramer, Dotted, Framed, LineFramer};

/// Octets of one read.
const READ_BYTES: usize = 16 * 1024;
/// Octets that may wait undecided; a client that sends more without a line end is cut off.
const BUFFER_BYTES_MAX: usize = 1 << 20;

struct Session {
    visits: Arc<Visits>,
    lines: LineFramer,
    data: Option<DotFramer>,
    recipients: usize,
    output: Vec<u8>,
    quit: bool,
}

/// Serves until QUIT, the end of the connection or `stop`. Errors end the session: its client tries again.
pub(super) async fn run(stream: TcpStream, visits: Arc<Visits>, stop: CancellationToken) {
    tokio::select! {
        () = stop.cancelled() => {}
        result = talk(stream, visits) => {
            if let Err(error) = result {
                tracing::debug!(%error, "session of the built-in mail host ended");
            }
        }
    }
}

async fn talk(mut stream: TcpStream, visits: Arc<Visits>) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let lines = LineFramer::default();
    let mut session = Session { visits, lines, data: None, recipients: 0, output: Vec::new(), quit: false };
    session.reply(220, "", "mx.demo.test ESMTP built-in mail host");
    let mut buffer = Vec::new();
    loop {
        let used = session.take(&buffer);
        buffer.drain(..used);
        stream.write_all(&session.output).await?;
        session.output.clear();
        if session.quit || buffer.len() > BUFFER_BYTES_MAX {
            return Ok(());
        }
        buffer.reserve(READ_BYTES);
        if stream.read_buf(&mut buffer).await? == 0 {
            return Ok(());
        }
    }
}

impl Session {
    /// Handles what is complete in `input`; returns how much that was.
    fn take(&mut self, input: &[u8]) -> usize {
        let mut used = 0;
        while let Some(rest) = input.get(used..).filter(|rest| !rest.is_empty() && !self.quit) {
            let step = if self.data.is_some() { self.take_data(rest) } else { self.take_line(rest) };
            if step == 0 {
                break;
            }
            used += step;
        }
        used
    }

    fn take_data(&mut self, input: &[u8]) -> usize {
        let Some(framer) = &mut self.data else { return 0 };
        let (used, found) = framer.next(input);
        if found == Dotted::End {
            self.data = None;
            self.recipients = 0;
            self.visits.message();
            self.reply(250, "2.0.0", "Message received");
        }
        used
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
            Command::Ehlo(_) => self.output.extend_from_slice(
                b"250-mx.demo.test\r\n250-PIPELINING\r\n250-SIZE 41943040\r\n250-8BITMIME\r\n250-SMTPUTF8\r\n250 ENHANCEDSTATUSCODES\r\n",
            ),
            Command::Helo(_) => self.reply(250, "", "mx.demo.test"),
            Command::Mail(_) | Command::Rset => {
                self.recipients = 0;
                self.reply(250, "2.1.0", "Ok");
            }
            Command::Rcpt(recipient) => {
                let address = recipient.address;
                let visit = self.visits.visit(address.as_str());
                let (code, status, text) = mailbox::answer(address.local_part(), visit);
                self.recipients += usize::from(code == 250);
                self.reply(code, status, text);
            }
            Command::Data if self.recipients == 0 => self.reply(554, "5.5.1", "No valid recipients"),
            Command::Data => {
                self.data = Some(DotFramer::default());
                self.reply(354, "", "Go on");
            }
            Command::Noop => self.reply(250, "2.0.0", "Ok"),
            Command::Quit => {
                self.quit = true;
                self.reply(221, "2.0.0", "Bye");
            }
            _ => self.reply(502, "5.5.1", "Not here"),
        }
    }

    fn reply(&mut self, code: u16, status: &str, text: &str) {
        let space = if status.is_empty() { "" } else { " " };
        self.output.extend_from_slice(format!("{code} {status}{space}{text}\r\n").as_bytes());
    }
}
