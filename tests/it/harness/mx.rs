//! A mail host that does what a closure says, and records all it gets.
//!
//! One thread a connection, blocking. A message ends only at CRLF.CRLF, so that what a laxer host would split in two is
//! seen as it came.

use std::collections::{BTreeMap, HashMap};
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use super::{Certificate, PATIENCE, Watched};

/// What the client has just done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stage {
    Connect,
    Ehlo,
    StartTls,
    Mail,
    Rcpt,
    Data,
    /// The final dot came.
    Dot,
    Rset,
    Quit,
    Other,
}

/// A question to the script.
#[derive(Debug)]
pub(crate) struct Ask<'a> {
    pub(crate) stage: Stage,
    /// The command as it came, without CRLF; empty at [`Stage::Connect`] and [`Stage::Dot`].
    pub(crate) line: &'a str,
    /// Number of the connection, from 1.
    pub(crate) connection: usize,
    pub(crate) peer: SocketAddr,
    /// Connections that are open from this address now, this one included; those that were turned away do not count.
    pub(crate) open: usize,
    /// Messages that this connection has brought so far.
    pub(crate) messages: usize,
    /// Sender, once MAIL was accepted or is being asked for.
    pub(crate) from: &'a str,
    /// The recipient that is asked for, at [`Stage::Rcpt`].
    pub(crate) recipient: &'a str,
    /// How often this host was asked for this recipient, this time included.
    pub(crate) asked: usize,
    /// Accepted recipients of this transaction.
    pub(crate) recipients: &'a [String],
    /// The message at [`Stage::Dot`], dot-stuffing undone.
    pub(crate) data: &'a [u8],
    pub(crate) is_tls: bool,
}

/// What the host does.
#[derive(Clone, Debug)]
pub(crate) enum Answer {
    /// Accepts.
    Usual,
    /// Says this reply; lines are parted by `\n`.
    Say(String),
    /// Says this reply and closes the connection.
    SayAndClose(String),
    /// Closes the connection without a word.
    Close,
    /// Waits until the gate is open, then does the other. A gate that never opens is a stall.
    Hold(Watched<bool>, Box<Answer>),
    /// Takes its time, then does the other.
    Slow(Duration, Box<Answer>),
}

impl Answer {
    pub(crate) fn say(reply: &str) -> Self {
        Answer::Say(reply.to_owned())
    }

    pub(crate) fn say_and_close(reply: &str) -> Self {
        Answer::SayAndClose(reply.to_owned())
    }

    /// Takes its time, and accepts.
    pub(crate) fn slow(time: Duration) -> Self {
        Answer::Slow(time, Box::new(Answer::Usual))
    }
}

/// TLS of a host.
#[derive(Clone)]
pub(crate) enum MxTls {
    /// STARTTLS is offered, and the handshake works.
    Works(Certificate),
    /// STARTTLS is offered, and the handshake fails.
    Broken,
}

#[derive(Clone)]
pub(crate) struct MxOptions {
    /// EHLO keywords, without STARTTLS.
    pub(crate) extensions: Vec<&'static str>,
    pub(crate) tls: Option<MxTls>,
}

impl Default for MxOptions {
    fn default() -> Self {
        Self { extensions: vec!["PIPELINING", "8BITMIME", "SIZE 50000000", "ENHANCEDSTATUSCODES"], tls: None }
    }
}

/// A message that came whole, whatever the host answered.
#[derive(Clone, Debug)]
pub(crate) struct Transaction {
    pub(crate) connection: usize,
    pub(crate) peer: SocketAddr,
    /// The address in MAIL FROM; empty for the null path.
    pub(crate) from: String,
    /// The whole MAIL command.
    pub(crate) mail: String,
    /// The addresses that were accepted.
    pub(crate) recipients: Vec<String>,
    /// The message, dot-stuffing undone, without the final dot.
    pub(crate) data: Vec<u8>,
    /// All octets after DATA, the final dot included.
    pub(crate) raw: Vec<u8>,
    /// What the host answered at last, or will; empty where it closes without a word.
    pub(crate) reply: String,
    pub(crate) is_tls: bool,
    pub(crate) at: Instant,
}

impl Transaction {
    pub(crate) fn is_accepted(&self) -> bool {
        self.reply.starts_with('2')
    }

    /// The message as text.
    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.data).into_owned()
    }

    /// The Subject of the message.
    pub(crate) fn subject(&self) -> String {
        let text = self.text();
        let subject = text.lines().find_map(|line| line.strip_prefix("Subject: "));
        subject.unwrap_or_default().to_owned()
    }
}

#[derive(Default)]
struct Record {
    connections: usize,
    transactions: Vec<Transaction>,
    /// Connection number and command.
    commands: Vec<(usize, String)>,
    /// Times that each recipient was asked for.
    asked: HashMap<String, usize>,
    open: Vec<TcpStream>,
    /// Connections that are open now, and the most that ever were, by the address that they come from.
    live: BTreeMap<IpAddr, usize>,
    peaks: BTreeMap<IpAddr, usize>,
    /// Where each connection came from.
    peers: Vec<IpAddr>,
    stops: bool,
}

type Script = Arc<std::sync::Mutex<dyn FnMut(&Ask<'_>) -> Answer + Send>>;

/// Stops, and closes all connections, when dropped.
pub(crate) struct Mx {
    address: SocketAddr,
    record: Watched<Record>,
}

impl Mx {
    pub(crate) fn start(
        address: SocketAddr,
        options: MxOptions,
        script: impl FnMut(&Ask<'_>) -> Answer + Send + 'static,
    ) -> Self {
        let listener = TcpListener::bind(address).unwrap_or_else(|error| panic!("mail host at {address}: {error}"));
        let address = listener.local_addr().unwrap();
        let record = Watched::new(Record::default());
        let shared = record.clone();
        let script: Script = Arc::new(std::sync::Mutex::new(script));
        thread::spawn(move || {
            for stream in listener.incoming() {
                let Ok(stream) = stream else { continue };
                if shared.lock().stops {
                    return;
                }
                let (record, options, script) = (shared.clone(), options.clone(), Arc::clone(&script));
                thread::spawn(move || {
                    // An error is a client that went away.
                    let _ = Session::run(stream, record, options, script);
                });
            }
        });
        Self { address, record }
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    pub(crate) fn transactions(&self) -> Vec<Transaction> {
        self.record.lock().transactions.clone()
    }

    /// Those that were answered with 250.
    pub(crate) fn accepted(&self) -> Vec<Transaction> {
        self.record.lock().transactions.iter().filter(|one| one.is_accepted()).cloned().collect()
    }

    /// Waits for this many messages that were answered with 250.
    pub(crate) fn wait_accepted(&self, count: usize) -> Vec<Transaction> {
        self.wait_until(|all| all.iter().filter(|one| one.is_accepted()).count() >= count);
        self.accepted()
    }

    /// Waits for this many messages that came whole, whatever they were answered.
    pub(crate) fn wait_transactions(&self, count: usize) -> Vec<Transaction> {
        self.wait_until(|all| all.len() >= count);
        self.transactions()
    }

    pub(crate) fn wait_until(&self, is_enough: impl Fn(&[Transaction]) -> bool) {
        let found = self.record.wait(PATIENCE, |record| is_enough(&record.transactions).then_some(()));
        assert!(found.is_some(), "mail host {}: {:#?}", self.address, self.commands());
    }

    /// Every command so far, with the number of its connection.
    pub(crate) fn commands(&self) -> Vec<(usize, String)> {
        self.record.lock().commands.clone()
    }

    /// Waits for a command that starts like this.
    pub(crate) fn wait_command(&self, start: &str) {
        let find = |record: &mut Record| record.commands.iter().any(|(_, line)| line.starts_with(start)).then_some(());
        assert!(self.record.wait(PATIENCE, find).is_some(), "no {start} at {}: {:?}", self.address, self.commands());
    }

    /// Connections so far.
    pub(crate) fn connections(&self) -> usize {
        self.record.lock().connections
    }

    /// Where each connection so far came from, in order.
    pub(crate) fn peers(&self) -> Vec<IpAddr> {
        self.record.lock().peers.clone()
    }

    /// The most connections that were open at once, by the address that they came from; without those turned away.
    pub(crate) fn peaks(&self) -> BTreeMap<IpAddr, usize> {
        self.record.lock().peaks.clone()
    }

    /// Waits until so many connections are open from each of these addresses.
    pub(crate) fn wait_open(&self, addresses: &[IpAddr], count: usize) {
        let find = |record: &mut Record| {
            addresses.iter().all(|address| record.live.get(address).is_some_and(|live| *live >= count)).then_some(())
        };
        assert!(self.record.wait(PATIENCE, find).is_some(), "not {count} connections each: {:?}", self.peaks());
    }

    /// How often this recipient was asked for.
    pub(crate) fn asked(&self, recipient: &str) -> usize {
        self.record.lock().asked.get(recipient).copied().unwrap_or_default()
    }

    /// Waits until this recipient was asked for this often.
    pub(crate) fn wait_asked(&self, recipient: &str, count: usize) {
        let find = |record: &mut Record| record.asked.get(recipient).is_some_and(|asked| *asked >= count).then_some(());
        assert!(self.record.wait(PATIENCE, find).is_some(), "{recipient} is not asked for {count} times");
    }
}

impl Drop for Mx {
    fn drop(&mut self) {
        self.record.change(|record| {
            record.stops = true;
            for stream in &record.open {
                let _ = stream.shutdown(std::net::Shutdown::Both);
            }
        });
        // Wakes the accepting thread.
        let _ = TcpStream::connect_timeout(&self.address, PATIENCE);
    }
}

trait Wire: Read + Write + Send {}

impl<T: Read + Write + Send> Wire for T {}

struct Session {
    wire: BufReader<Box<dyn Wire>>,
    /// The same connection, for STARTTLS.
    stream: TcpStream,
    record: Watched<Record>,
    options: MxOptions,
    script: Script,
    connection: usize,
    peer: SocketAddr,
    messages: usize,
    /// It counts as open.
    is_in: bool,
    is_tls: bool,
    mail: String,
    recipients: Vec<String>,
}

/// Whether the session goes on.
type Goes = io::Result<bool>;

impl Session {
    fn run(stream: TcpStream, record: Watched<Record>, options: MxOptions, script: Script) -> io::Result<()> {
        let peer = stream.peer_addr()?;
        stream.set_nodelay(true)?;
        let registered = stream.try_clone()?;
        let connection = record.change(|record| {
            record.connections += 1;
            record.open.push(registered);
            record.peers.push(peer.ip());
            record.connections
        });
        let wire: Box<dyn Wire> = Box::new(stream.try_clone()?);
        let mut session = Self {
            wire: BufReader::new(wire),
            stream,
            record,
            options,
            script,
            connection,
            peer,
            messages: 0,
            is_in: false,
            is_tls: false,
            mail: String::new(),
            recipients: Vec::new(),
        };
        let result = session.talk();
        session.leave();
        let _ = session.stream.shutdown(std::net::Shutdown::Both);
        result
    }

    fn talk(&mut self) -> io::Result<()> {
        let greeting = self.greet();
        let mut goes = self.answer(greeting, "220 mx.test ESMTP")?;
        while goes {
            let Some(line) = self.read_line()? else { return Ok(()) };
            let line = String::from_utf8_lossy(&line).trim_end_matches(['\r', '\n']).to_owned();
            self.record.change(|record| record.commands.push((self.connection, line.clone())));
            goes = self.command(&line)?;
        }
        Ok(())
    }

    /// One after the other, so that who is let in counts for the next.
    fn greet(&mut self) -> Answer {
        let script = Arc::clone(&self.script);
        let mut script = script.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let ip = self.peer.ip();
        self.record.change(|record| *record.live.entry(ip).or_default() += 1);
        self.is_in = true;
        let answer = script(&self.question(Stage::Connect, "", "", &[], ""));
        if matches!(answer, Answer::SayAndClose(_) | Answer::Close) {
            self.leave();
        } else {
            self.record.change(|record| {
                let live = record.live.get(&ip).copied().unwrap_or_default();
                let peak = record.peaks.entry(ip).or_default();
                *peak = live.max(*peak);
            });
        }
        answer
    }

    /// It is not open any more: before the last word is said, so that the client's next one finds it so.
    fn leave(&mut self) {
        if std::mem::take(&mut self.is_in) {
            let ip = self.peer.ip();
            self.record.change(|record| *record.live.entry(ip).or_default() -= 1);
        }
    }

    fn command(&mut self, line: &str) -> Goes {
        let upper = line.to_ascii_uppercase();
        match upper.split([' ', ':']).next().unwrap_or_default() {
            "EHLO" | "HELO" => self.hello(line),
            "STARTTLS" => self.start_tls(line),
            "MAIL" => {
                self.mail = line.to_owned();
                self.recipients.clear();
                let answer = self.ask(Stage::Mail, line, "", &[]);
                if !said(&answer, "2").starts_with('2') {
                    self.mail.clear();
                }
                self.answer(answer, "250 2.1.0 Ok")
            }
            "RCPT" => self.rcpt(line),
            "DATA" => self.data(line),
            "RSET" => {
                self.mail.clear();
                self.recipients.clear();
                self.simple(Stage::Rset, line, "250 2.0.0 Ok")
            }
            "QUIT" => {
                self.leave();
                self.simple(Stage::Quit, line, "221 2.0.0 Bye")?;
                Ok(false)
            }
            _ => self.simple(Stage::Other, line, "502 5.5.1 What?"),
        }
    }

    fn simple(&mut self, stage: Stage, line: &str, usual: &str) -> Goes {
        let answer = self.ask(stage, line, "", &[]);
        self.answer(answer, usual)
    }

    fn hello(&mut self, line: &str) -> Goes {
        let mut lines = vec!["mx.test".to_owned()];
        lines.extend(self.options.extensions.iter().map(|&keyword| keyword.to_owned()));
        if self.options.tls.is_some() && !self.is_tls {
            lines.push("STARTTLS".to_owned());
        }
        let last = lines.len() - 1;
        let text: Vec<String> =
            (0..).zip(&lines).map(|(at, text)| format!("250{}{text}", if at == last { ' ' } else { '-' })).collect();
        self.simple(Stage::Ehlo, line, &text.join("\n"))
    }

    fn start_tls(&mut self, line: &str) -> Goes {
        let Some(tls) = self.options.tls.clone() else { return self.simple(Stage::StartTls, line, "502 5.5.1 No") };
        self.simple(Stage::StartTls, line, "220 2.0.0 Go")?;
        match tls {
            MxTls::Broken => {
                let mut hello = [0; 64];
                let _ = self.stream.read(&mut hello)?;
                self.stream.write_all(b"this is no TLS\r\n")?;
                Ok(false)
            }
            MxTls::Works(certificate) => {
                let wire: Box<dyn Wire> = Box::new(certificate.accept(self.stream.try_clone()?)?);
                self.wire = BufReader::new(wire);
                self.is_tls = true;
                Ok(true)
            }
        }
    }

    fn rcpt(&mut self, line: &str) -> Goes {
        if self.mail.is_empty() {
            return self.say("503 5.5.1 MAIL first");
        }
        let recipient = address_of(line);
        self.record.change(|record| *record.asked.entry(recipient.clone()).or_default() += 1);
        let answer = self.ask(Stage::Rcpt, line, &recipient, &[]);
        if said(&answer, "2").starts_with('2') {
            self.recipients.push(recipient);
        }
        self.answer(answer, "250 2.1.5 Ok")
    }

    fn data(&mut self, line: &str) -> Goes {
        let usual = if self.recipients.is_empty() { "554 5.5.1 No valid recipients" } else { "354 Go ahead" };
        let answer = self.ask(Stage::Data, line, "", &[]);
        let reply = said(&answer, usual);
        if !self.answer(answer, usual)? {
            return Ok(false);
        }
        if !reply.starts_with('3') {
            return Ok(true);
        }
        let Some((raw, data)) = self.read_message()? else { return Ok(false) };
        let answer = self.ask(Stage::Dot, "", "", &data);
        let transaction = Transaction {
            connection: self.connection,
            peer: self.peer,
            from: address_of(&self.mail),
            mail: std::mem::take(&mut self.mail),
            recipients: std::mem::take(&mut self.recipients),
            data,
            raw,
            reply: said(&answer, "250 2.0.0 Taken"),
            is_tls: self.is_tls,
            at: Instant::now(),
        };
        self.messages += 1;
        self.record.change(|record| record.transactions.push(transaction));
        self.answer(answer, "250 2.0.0 Taken")
    }

    /// The octets up to and with the final dot, and the message in them. `None` where the client goes away before.
    fn read_message(&mut self) -> io::Result<Option<(Vec<u8>, Vec<u8>)>> {
        let (mut raw, mut data) = (Vec::new(), Vec::new());
        let mut starts_line = true;
        loop {
            let Some(piece) = self.read_line()? else { return Ok(None) };
            raw.extend(&piece);
            if starts_line && piece == b".\r\n" {
                return Ok(Some((raw, data)));
            }
            let is_stuffed = starts_line && piece.first() == Some(&b'.');
            data.extend(&piece[usize::from(is_stuffed)..]);
            starts_line = piece.ends_with(b"\r\n");
        }
    }

    /// Up to and with a line feed, bare or not; `None` at the end of the stream, also amid a line.
    fn read_line(&mut self) -> io::Result<Option<Vec<u8>>> {
        let mut line = Vec::new();
        self.wire.read_until(b'\n', &mut line)?;
        Ok(line.ends_with(b"\n").then_some(line))
    }

    fn ask(&self, stage: Stage, line: &str, recipient: &str, data: &[u8]) -> Answer {
        let from = address_of(&self.mail);
        let question = self.question(stage, line, recipient, data, &from);
        let mut script = self.script.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        script(&question)
    }

    fn question<'a>(
        &'a self,
        stage: Stage,
        line: &'a str,
        recipient: &'a str,
        data: &'a [u8],
        from: &'a str,
    ) -> Ask<'a> {
        let (connection, peer) = (self.connection, self.peer);
        let record = self.record.lock();
        let asked = record.asked.get(recipient).copied().unwrap_or_default();
        let open = record.live.get(&peer.ip()).copied().unwrap_or_default();
        let (messages, is_tls) = (self.messages, self.is_tls);
        let recipients = &self.recipients;
        Ask { stage, line, connection, peer, open, messages, from, recipient, asked, recipients, data, is_tls }
    }

    fn answer(&mut self, answer: Answer, usual: &str) -> Goes {
        match answer {
            Answer::Usual => self.say(usual),
            Answer::Say(reply) => self.say(&reply),
            Answer::SayAndClose(reply) => {
                self.leave();
                self.say(&reply).map(|_| false)
            }
            Answer::Close => Ok(false),
            Answer::Slow(time, then) => {
                std::thread::sleep(time);
                self.answer(*then, usual)
            }
            Answer::Hold(gate, then) => {
                // A stall outlives every test that is not stuck itself.
                gate.wait(PATIENCE * 2, |open| open.then_some(()));
                self.answer(*then, usual)
            }
        }
    }

    fn say(&mut self, reply: &str) -> Goes {
        let wire = self.wire.get_mut();
        wire.write_all(format!("{}\r\n", reply.replace('\n', "\r\n")).as_bytes())?;
        wire.flush()?;
        Ok(true)
    }
}

/// What will be said; empty for nothing.
fn said(answer: &Answer, usual: &str) -> String {
    match answer {
        Answer::Usual => usual.to_owned(),
        Answer::Say(reply) | Answer::SayAndClose(reply) => reply.clone(),
        Answer::Close => String::new(),
        Answer::Hold(_, then) | Answer::Slow(_, then) => said(then, usual),
    }
}

/// What stands between the angle brackets.
fn address_of(line: &str) -> String {
    let address = line.split_once('<').and_then(|(_, rest)| rest.split_once('>'));
    address.map(|(address, _)| address.to_owned()).unwrap_or_default()
}
