//! Reports beside the load: bounces and complaints of messages that were sent before, half of each, to a listener for feedback. They come
//! as hosts bring them: each over a connection of its own, with a token that counts, and the message returned in it. First as
//! many as the server takes, then at a pace beside the work of `one`.
//!
//! Relaying beside them is compared with relaying after the first of them, when the addresses that bounced are on a list already:
//! what a list costs is no matter of reports that come.

use std::fs::{self, File};
use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicUsize, Ordering};
use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, sleep_until, timeout};

use crate::failure::{Context, Failure, Result};
use crate::ledger::{Ledger, percentile};
use crate::load::{self, Connection, Destinations, Plan};
use crate::options::{Server, Work};
use crate::server::{self, Running};
use crate::sink::{Received, Sink};
use crate::usage;
use crate::work::{Bench, SETTLE, figures, for_1000};

/// Connections of the storm.
const CONNECTIONS: u32 = 20;
/// How long events may take once all reports are accepted.
const EVENTS_MAX: Duration = Duration::from_secs(30);
/// Between two looks at the event files.
const LOOK: Duration = Duration::from_millis(100);
/// Where complaints go that have no token in their address.
const COMPLAINTS: &str = "fbl@mta.bench.test";

/// What the same work showed beside reports.
#[derive(Clone, Debug)]
pub(crate) struct BesideReports {
    /// Reports a second where nothing else is done, and CPU seconds of the server for 1,000.
    pub(crate) storm_rate: f64,
    pub(crate) storm_cpu: f64,
    /// Messages a second and CPU seconds for 1,000, after those reports.
    pub(crate) alone_rate: f64,
    pub(crate) alone_cpu: f64,
    /// The same while reports come.
    pub(crate) beside_rate: f64,
    pub(crate) beside_cpu: f64,
    /// Reports a minute that came meanwhile.
    pub(crate) per_minute: f64,
    /// From the end of a report's data to the 250, in order.
    pub(crate) replies: Vec<Duration>,
    /// Reports accepted in all.
    pub(crate) accepted: usize,
    /// Bounce and Complaint events in the files.
    pub(crate) events: usize,
    /// Whether there were too few reports for the whole time.
    pub(crate) ran_out: bool,
}

/// What the config has for it.
pub(crate) fn config() -> String {
    let address = SocketAddr::from(server::FEEDBACK);
    format!(
        "\n[[listener]]\nname = \"home\"\naddress = \"{address}\"\ntakes = \"feedback\"\n\n\
         [return_path]\ndomain = \"bounces.bench.test\"\n\n[feedback]\ncomplaints = [\"{COMPLAINTS}\"]\n\n\
         [reputation]\nautomatic_pause = false\n"
    )
}

/// The measurement, through a server that has done the work of `one`; `directory` is that of its run.
pub(crate) async fn measure(bench: &Bench<'_>, running: &Running, directory: &Path) -> Result<BesideReports> {
    let count = bench.options.reports;
    let stock = Arc::new(Stock::sent(bench, running, count.saturating_mul(2)).await?);
    let before = usage::cpu_seconds(running.root())?;
    let begin = Instant::now();
    stock.storm(count).await?;
    let storm_rate = f64::from(count) / begin.elapsed().as_secs_f64();
    sleep(SETTLE).await;
    let storm_cpu = for_1000(usage::cpu_seconds(running.root())? - before, count);
    stock.replies.lock().await.clear();
    let (alone_rate, alone_cpu) = one(bench, running).await?;
    let (begin, first) = (Instant::now(), stock.taken());
    let pace = tokio::spawn(Arc::clone(&stock).pace(bench.options.reports_per_minute));
    let (beside_rate, beside_cpu) = one(bench, running).await?;
    stock.is_over.store(true, Ordering::Relaxed);
    let came = u32::try_from(stock.taken().saturating_sub(first)).unwrap_or(u32::MAX);
    let per_minute = f64::from(came) * 60.0 / begin.elapsed().as_secs_f64();
    let ran_out = pace.await.context(|| "the pace of reports".to_owned())??;
    let mut replies = std::mem::take(&mut *stock.replies.lock().await);
    replies.sort_unstable();
    let accepted = stock.accepted.load(Ordering::Relaxed);
    let events = events(directory, accepted).await?;
    Ok(BesideReports {
        storm_rate,
        storm_cpu,
        alone_rate,
        alone_cpu,
        beside_rate,
        beside_cpu,
        per_minute,
        replies,
        accepted,
        events,
        ran_out,
    })
}

impl BesideReports {
    /// The reply that so many percent of the reports had in time.
    pub(crate) fn reply(&self, percent: usize) -> Duration {
        percentile(&self.replies, percent).unwrap_or_default()
    }
}

/// The work of `one`: messages a second and CPU seconds of the server for 1,000.
async fn one(bench: &Bench<'_>, running: &Running) -> Result<(f64, f64)> {
    // The sink of the run before has its port until its tasks have ended.
    sleep(SETTLE).await;
    let ledger = Arc::new(Ledger::new(bench.messages(Server::Posthaste, Work::One)));
    let _sink = Sink::start(Arc::clone(&ledger), Duration::ZERO)?;
    let before = usage::cpu_seconds(running.root())?;
    bench.drive(running, Work::One, None, &ledger).await?;
    let cpu = usage::cpu_seconds(running.root())? - before;
    Ok((figures(&ledger).rate, for_1000(cpu, ledger.messages())))
}

/// Messages that were sent, each to be reported once.
struct Stock {
    received: Vec<Received>,
    /// What every report returns behind a header.
    body: Vec<u8>,
    next: AtomicUsize,
    accepted: AtomicUsize,
    replies: tokio::sync::Mutex<Vec<Duration>>,
    is_over: AtomicBool,
}

impl Stock {
    /// Sends `count` messages to other destinations than those of `one`: those that bounce are written to no more.
    async fn sent(bench: &Bench<'_>, running: &Running, count: u32) -> Result<Self> {
        sleep(SETTLE).await;
        let ledger = Arc::new(Ledger::new(count));
        let (_sink, received) = Sink::remembering(Arc::clone(&ledger))?;
        let to = Destinations::Many(bench.options.destinations);
        let plan = Plan { server: running.address, to, ..bench.plan(Work::One, None) };
        let submit = async {
            load::submit(plan, Arc::clone(&ledger)).await?;
            ledger.complete().await;
            Ok(())
        };
        timeout(bench.options.time_max(), submit).await.unwrap_or(Ok(()))?;
        // Until what was delivered is remembered.
        sleep(SETTLE).await;
        let received = std::mem::take(&mut *received.lock().map_err(|_| Failure::new("a session of the sink broke"))?);
        let size = usize::try_from(bench.options.size).unwrap_or(usize::MAX);
        Ok(Self {
            received,
            body: load::body(size),
            next: AtomicUsize::new(0),
            accepted: AtomicUsize::new(0),
            replies: tokio::sync::Mutex::default(),
            is_over: AtomicBool::new(false),
        })
    }

    fn taken(&self) -> usize {
        self.next.load(Ordering::Relaxed).min(self.received.len())
    }

    /// Brings the next one; false where none is left.
    async fn bring(&self) -> Result<bool> {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let Some(received) = self.received.get(number) else { return Ok(false) };
        let (from, to, report) =
            if number.is_multiple_of(2) { bounce(received, &self.body) } else { complaint(received, &self.body) };
        let mut connection = Connection::open(server::FEEDBACK.into(), None).await?;
        let is_ready = connection.command(&format!("MAIL FROM:<{from}>\r\n"), 250).await?
            && connection.command(&format!("RCPT TO:<{to}>\r\n"), 250).await?
            && connection.command("DATA\r\n", 354).await?;
        let begin = Instant::now();
        if !(is_ready && connection.message(&report, &[]).await?) {
            return Err(Failure::new(format!("report {number} was refused with a 4xx reply")));
        }
        self.replies.lock().await.push(begin.elapsed());
        self.accepted.fetch_add(1, Ordering::Relaxed);
        connection.quit().await;
        Ok(true)
    }

    /// `count` of them as fast as they are taken.
    async fn storm(self: &Arc<Self>, count: u32) -> Result<()> {
        let left = Arc::new(AtomicU32::new(count));
        let mut tasks = JoinSet::new();
        for _ in 0..CONNECTIONS {
            let (stock, left) = (Arc::clone(self), Arc::clone(&left));
            tasks.spawn(async move {
                while left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1)).is_ok() {
                    if !stock.bring().await? {
                        break;
                    }
                }
                Ok(())
            });
        }
        all(tasks).await
    }

    /// One after the other at this pace, whether those before have their reply or not, until the time is over; whether there were too few.
    async fn pace(self: Arc<Self>, per_minute: u32) -> Result<bool> {
        let begin = Instant::now();
        let mut tasks = JoinSet::new();
        let mut number: u64 = 0;
        let ran_out = loop {
            sleep_until(begin + Duration::from_micros(60_000_000 * number / u64::from(per_minute))).await;
            if self.is_over.load(Ordering::Relaxed) {
                break false;
            }
            if self.taken() == self.received.len() {
                break true;
            }
            number += 1;
            let stock = Arc::clone(&self);
            tasks.spawn(async move { stock.bring().await.map(drop) });
            while let Some(ended) = tasks.try_join_next() {
                ended.context(|| "a report".to_owned())??;
            }
        };
        all(tasks).await?;
        Ok(ran_out)
    }
}

async fn all(mut tasks: JoinSet<Result<()>>) -> Result<()> {
    while let Some(ended) = tasks.join_next().await {
        ended.context(|| "a report".to_owned())??;
    }
    Ok(())
}

/// Reverse-path, recipient and text of a bounce as Postfix writes it.
fn bounce(received: &Received, body: &[u8]) -> (&'static str, String, String) {
    let Received { return_path, recipient, .. } = received;
    let returned = returned(received, body);
    let report = format!(
        "From: MAILER-DAEMON@mx.bench.test (Mail Delivery System)\r\nTo: {return_path}\r\n\
         Subject: Undelivered Mail Returned to Sender\r\nAuto-Submitted: auto-replied\r\nMIME-Version: 1.0\r\n\
         Date: Mon, 6 Jul 2026 08:10:00 +0000\r\nMessage-ID: <20260706081000.1@mx.bench.test>\r\n\
         Content-Type: multipart/report; report-type=delivery-status;\r\n\tboundary=\"b0undary\"\r\n\r\n\
         This is a MIME-encapsulated message.\r\n\r\n--b0undary\r\nContent-Description: Notification\r\n\
         Content-Type: text/plain; charset=us-ascii\r\n\r\nThis is the mail system at host mx.bench.test.\r\n\r\n\
         I'm sorry to have to inform you that your message could not\r\nbe delivered to one or more recipients.\r\n\r\n\
         <{recipient}>: host store.bench.test[127.0.0.9] said: 550 5.1.1\r\n    <{recipient}>: Recipient address rejected: \
         User unknown\r\n    (in reply to RCPT TO command)\r\n\r\n--b0undary\r\nContent-Description: Delivery report\r\n\
         Content-Type: message/delivery-status\r\n\r\nReporting-MTA: dns; mx.bench.test\r\n\
         Arrival-Date: Mon,  6 Jul 2026 08:00:00 +0000 (UTC)\r\n\r\nFinal-Recipient: rfc822; {recipient}\r\nAction: failed\r\n\
         Status: 5.1.1\r\nRemote-MTA: dns; store.bench.test\r\nDiagnostic-Code: smtp; 550 5.1.1 <{recipient}>:\r\n    \
         Recipient address rejected: User unknown\r\n\r\n--b0undary\r\nContent-Description: Undelivered Message\r\n\
         Content-Type: message/rfc822\r\n\r\n{returned}\r\n--b0undary--\r\n"
    );
    ("", return_path.clone(), report)
}

/// The same of a complaint as a feedback loop sends it (RFC 5965), the recipient redacted.
fn complaint(received: &Received, body: &[u8]) -> (&'static str, String, String) {
    let returned = returned(received, body);
    let report = format!(
        "From: <feedback@provider.bench.test>\r\nTo: <{COMPLAINTS}>\r\nSubject: FW: message\r\nMIME-Version: 1.0\r\n\
         Date: Mon, 6 Jul 2026 08:10:00 +0000\r\nMessage-ID: <20260706081000.2@provider.bench.test>\r\n\
         Content-Type: multipart/report; report-type=feedback-report;\r\n\tboundary=\"b0undary\"\r\n\r\n\
         --b0undary\r\nContent-Type: text/plain; charset=us-ascii\r\n\r\nThis is an email abuse report for an email message \
         received from 127.0.0.1.\r\n\r\n--b0undary\r\nContent-Type: message/feedback-report\r\n\r\nFeedback-Type: abuse\r\n\
         User-Agent: Bench-FBL/1.0\r\nVersion: 1\r\nSource-IP: 127.0.0.1\r\nArrival-Date: Mon, 6 Jul 2026 08:00:00 +0000\r\n\
         Reported-Domain: load.bench.test\r\n\r\n--b0undary\r\nContent-Type: message/rfc822\r\n\r\n{returned}\r\n\
         --b0undary--\r\n"
    );
    ("feedback@provider.bench.test", COMPLAINTS.to_owned(), report)
}

/// The message as it comes back.
fn returned(received: &Received, body: &[u8]) -> String {
    let Received { number, return_path, .. } = received;
    format!(
        "Return-Path: <{return_path}>\r\nReceived: from mta.bench.test (mta.bench.test [127.0.0.1])\r\n\tby mx.bench.test with \
         ESMTP; Mon, 6 Jul 2026 08:00:00 +0000\r\nFrom: <sender@load.bench.test>\r\nTo: undisclosed\r\nSubject: message {number}\r\n\
         Date: Mon, 6 Jul 2026 08:00:00 +0000\r\nMessage-ID: <{number:010}.bench@load.bench.test>\r\n\r\n{}",
        String::from_utf8_lossy(body)
    )
}

/// Bounce and Complaint events in all files, as soon as there are `wanted`, or after a while.
async fn events(directory: &Path, wanted: usize) -> Result<usize> {
    let begin = Instant::now();
    loop {
        let found = count_events(&directory.join("events"))?;
        if found >= wanted || begin.elapsed() > EVENTS_MAX {
            return Ok(found);
        }
        sleep(LOOK).await;
    }
}

fn count_events(directory: &Path) -> Result<usize> {
    let failed = || format!("{}", directory.display());
    let mut count = 0;
    for entry in fs::read_dir(directory).context(failed)? {
        let mut file = BufReader::with_capacity(1 << 20, File::open(entry.context(failed)?.path()).context(failed)?);
        let mut line = Vec::new();
        while file.read_until(b'\n', &mut line).context(failed)? > 0 {
            count += usize::from(
                [b"{\"eventType\":\"Bounce\"".as_slice(), b"{\"eventType\":\"Complaint\""]
                    .iter()
                    .any(|start| line.starts_with(start)),
            );
            line.clear();
        }
    }
    Ok(count)
}
