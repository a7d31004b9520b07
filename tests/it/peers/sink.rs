//! Postfix's smtp-sink as a receiver: takes everything at any rate, and writes each transaction to a file.

use std::net::{SocketAddr, TcpStream};
use std::path::PathBuf;
use std::process::Command;

use tempfile::TempDir;

use super::tools::{Background, is_root, open_to_all, poll, program};

/// A running sink.
pub(crate) struct SmtpSink {
    _process: Background,
    dir: TempDir,
}

/// One transaction.
#[derive(Debug)]
pub(crate) struct Dumped {
    /// What stood behind MAIL FROM: and its parameters.
    pub(crate) mail_args: String,
    /// The same of each recipient.
    pub(crate) rcpt_args: Vec<String>,
    /// The message, with line feeds at the ends of lines, without the sink's own Received.
    pub(crate) message: String,
}

impl SmtpSink {
    /// `options` of smtp-sink(1). Returns once it listens.
    pub(crate) fn start(address: SocketAddr, options: &[&str]) -> Self {
        let dir = tempfile::tempdir().unwrap();
        open_to_all(dir.path());
        let mut command = Command::new(program("smtp-sink"));
        if is_root() {
            command.args(["-u", "nobody"]);
        }
        command.arg("-d").arg(dir.path().join("%M."));
        command.args(options).arg(address.to_string()).arg("1000");
        let process = Background::start(&mut command);
        poll("smtp-sink listens", || TcpStream::connect(address).ok());
        Self { _process: process, dir }
    }

    /// All transactions that ended so far, in no order.
    pub(crate) fn dumps(&self) -> Vec<Dumped> {
        let files = std::fs::read_dir(self.dir.path()).unwrap().map(|entry| entry.unwrap().path());
        files.filter_map(|file: PathBuf| dumped(&String::from_utf8_lossy(&std::fs::read(file).unwrap()))).collect()
    }

    /// The same, as soon as there are `count`.
    pub(crate) fn wait(&self, count: usize) -> Vec<Dumped> {
        poll("smtp-sink has written all messages", || Some(self.dumps()).filter(|dumps| dumps.len() >= count))
    }
}

/// `None`: a connection without a message.
fn dumped(text: &str) -> Option<Dumped> {
    let args = |name: &str| -> Vec<String> {
        let head = text.lines().take_while(|line| line.starts_with("X-"));
        head.filter_map(|line| line.strip_prefix(name)).map(str::to_owned).collect()
    };
    let (_, rest) = text.split_once("\nReceived: ")?;
    // Its own field has two folded lines.
    let message = rest.splitn(4, '\n').nth(3)?;
    Some(Dumped {
        mail_args: args("X-Mail-Args: ").concat(),
        rcpt_args: args("X-Rcpt-Args: "),
        // It ends each file with an empty line of its own.
        message: message.strip_suffix('\n').unwrap_or(message).to_owned(),
    })
}
