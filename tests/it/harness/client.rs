//! An application that hands in mail: one SMTP dialogue, blocking.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};

use super::{Certificate, PATIENCE};

/// A whole reply.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Reply {
    pub(crate) code: u16,
    /// All lines without their codes, joined by line feeds.
    pub(crate) text: String,
}

impl Reply {
    /// The id in a 250 reply to the final dot.
    pub(crate) fn message_id(&self) -> String {
        let id = self.text.split_whitespace().find(|word| word.len() == 60 && word.ends_with("-000000"));
        id.unwrap_or_else(|| panic!("no message id in {self:?}")).to_owned()
    }
}

trait Wire: Read + Write + Send {}

impl<T: Read + Write + Send> Wire for T {}

/// One connection.
pub(crate) struct Client {
    wire: BufReader<Box<dyn Wire>>,
}

impl Client {
    /// Connects and reads the greeting, whatever it is.
    pub(crate) fn connect(address: SocketAddr) -> io::Result<(Self, Reply)> {
        let stream = TcpStream::connect_timeout(&address, PATIENCE)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_nodelay(true)?;
        let mut client = Self { wire: BufReader::new(Box::new(stream)) };
        let greeting = client.reply()?;
        Ok((client, greeting))
    }

    /// Connects and says EHLO; both must be answered well.
    pub(crate) fn hello(address: SocketAddr) -> Self {
        Self::try_hello(address).unwrap()
    }

    pub(crate) fn try_hello(address: SocketAddr) -> io::Result<Self> {
        let (mut client, greeting) = Self::connect(address)?;
        let hello = client.command("EHLO app.example")?;
        if greeting.code != 220 || hello.code != 250 {
            return Err(io::Error::other(format!("not welcome: {greeting:?} {hello:?}")));
        }
        Ok(client)
    }

    /// Connects to a listener with TLS from the first byte, and trusts exactly `certificate`.
    pub(crate) fn hello_tls(address: SocketAddr, certificate: &Certificate) -> io::Result<Self> {
        let stream = TcpStream::connect_timeout(&address, PATIENCE)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        let mut client = Self { wire: BufReader::new(Box::new(certificate.connect(stream)?)) };
        client.reply()?;
        client.command("EHLO app.example")?;
        Ok(client)
    }

    pub(crate) fn command(&mut self, line: &str) -> io::Result<Reply> {
        self.write(format!("{line}\r\n").as_bytes())?;
        self.reply()
    }

    pub(crate) fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        let wire = self.wire.get_mut();
        wire.write_all(bytes)?;
        wire.flush()
    }

    pub(crate) fn reply(&mut self) -> io::Result<Reply> {
        let mut texts: Vec<String> = Vec::new();
        loop {
            let mut line = String::new();
            if self.wire.read_line(&mut line)? == 0 {
                return Err(io::Error::new(io::ErrorKind::UnexpectedEof, format!("connection closed after {texts:?}")));
            }
            let line = line.trim_end_matches(['\r', '\n']);
            let code = line.get(..3).and_then(|code| code.parse().ok());
            let code = code.ok_or_else(|| io::Error::other(format!("not a reply: {line:?}")))?;
            texts.push(line.get(4..).unwrap_or_default().to_owned());
            if line.as_bytes().get(3) != Some(&b'-') {
                return Ok(Reply { code, text: texts.join("\n") });
            }
        }
    }

    /// MAIL, RCPT and DATA, which must be answered well; the message must follow with [`Client::body`].
    pub(crate) fn envelope(&mut self, from: &str, to: &[&str]) -> io::Result<()> {
        let mail = self.command(&format!("MAIL FROM:{}", path(from)))?;
        expect(250, &mail)?;
        for recipient in to {
            let reply = self.command(&format!("RCPT TO:{}", path(recipient)))?;
            expect(250, &reply)?;
        }
        let data = self.command("DATA")?;
        expect(354, &data)
    }

    /// Sends the octets as they are, then the final dot, and reads the reply.
    pub(crate) fn body(&mut self, message: &[u8]) -> io::Result<Reply> {
        self.write(message)?;
        self.write(b".\r\n")?;
        self.reply()
    }

    /// Hands in a message. Addresses may carry parameters: `<a@b.example> NOTIFY=NEVER`. An error where it was not taken.
    pub(crate) fn try_send(&mut self, from: &str, to: &[&str], message: &str) -> io::Result<String> {
        self.envelope(from, to)?;
        let reply = self.body(message.as_bytes())?;
        expect(250, &reply)?;
        Ok(reply.message_id())
    }

    /// Hands in a message that must be taken; its id.
    pub(crate) fn send(&mut self, from: &str, to: &[&str], message: &str) -> String {
        self.try_send(from, to, message).unwrap()
    }

    /// Hands in a small message with this subject.
    pub(crate) fn send_simple(&mut self, from: &str, to: &[&str], subject: &str) -> String {
        self.send(from, to, &simple(subject))
    }
}

/// A small message.
pub(crate) fn simple(subject: &str) -> String {
    format!("From: app@sender.example\r\nTo: you@example.test\r\nSubject: {subject}\r\n\r\nHello.\r\n")
}

fn path(address: &str) -> String {
    if address.starts_with('<') { address.to_owned() } else { format!("<{address}>") }
}

fn expect(code: u16, reply: &Reply) -> io::Result<()> {
    if reply.code == code { Ok(()) } else { Err(io::Error::other(format!("expected {code}, got {reply:?}"))) }
}
