//! The relay benchmark: the same work through posthaste and through Debian's Postfix, on one machine in one run.
//!
//! `cargo bench --bench relay` (as root; options behind `--`, `--help` lists them). It makes a network of its own, starts
//! an authoritative DNS server and a sink that stands for all mail hosts, then for each work and each server: an empty
//! queue on a real disk, many sessions of submissions, and the figures. benches/README.md tells method and fairness.
//!
//! It promises: every message is accounted for (lost, repeated and put-off ones are printed), all runs end, and nothing of
//! it is left on the machine. It does not touch an installed Postfix's queue or configuration.

mod child;
mod dns;
mod failure;
mod hostile;
mod ledger;
mod load;
mod login;
mod namespace;
mod options;
mod report;
mod reports;
mod server;
mod signing;
mod sink;
mod usage;
mod work;

use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::thread;
use std::time::Duration;

use clap::Parser;
use rustix::fs::statfs;
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::Instant;

use crate::dns::Dns;
use crate::failure::{Context, Failure, Result};
use crate::options::{Options, Server, Work};
use crate::work::{Bench, Figures};

/// Of a file system in memory (Linux, magic.h): its syncs cost nothing, so it would flatter whoever syncs more.
const TMPFS: i64 = 0x0102_1994;
/// Syncs of the probe.
const SYNCS: usize = 100;
/// Attempts to remove the directory at the end.
const REMOVALS: usize = 10;

fn main() -> ExitCode {
    let options = Options::parse();
    let outcome = if namespace::is_inside() { inside(&options) } else { Err(namespace::enter()) };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("relay benchmark: {failure}");
            ExitCode::FAILURE
        }
    }
}

/// Everything, in the namespaces; this process is their first, so all others end with it.
fn inside(options: &Options) -> Result<()> {
    let directory = options.directory.join(format!("posthaste-bench-{}", namespace::outer_id()));
    server::make_directory(&directory)?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().context(|| "runtime".to_owned())?;
    let outcome = namespace::arrange(&directory, dns::ADDRESS).and_then(|()| {
        runtime.block_on(async {
            tokio::select! {
                outcome = all(options, &directory) => outcome.map(|()| true),
                () = interrupted() => Ok(false),
            }
        })
    });
    runtime.shutdown_timeout(Duration::from_secs(1));
    if options.keep || outcome.is_err() {
        println!("logs and queues are kept in {}", directory.display());
    } else {
        remove(&directory)?;
    }
    if outcome? { Ok(()) } else { Err(Failure::new("interrupted")) }
}

/// Removes the directory; after an interruption a server may still be writing there for a moment.
fn remove(directory: &Path) -> Result<()> {
    for _ in 1..REMOVALS {
        if fs::remove_dir_all(directory).is_ok() {
            return Ok(());
        }
        thread::sleep(Duration::from_millis(200));
    }
    fs::remove_dir_all(directory).context(|| format!("{}", directory.display()))
}

/// Waits for SIGINT or SIGTERM.
async fn interrupted() {
    let (Ok(mut interrupt), Ok(mut terminate)) = (signal(SignalKind::interrupt()), signal(SignalKind::terminate()))
    else {
        return std::future::pending().await;
    };
    tokio::select! { _ = interrupt.recv() => (), _ = terminate.recv() => () }
}

/// All runs.
async fn all(options: &Options, directory: &Path) -> Result<()> {
    let kind = statfs(directory).context(|| format!("{}", directory.display()))?.f_type;
    if i128::from(kind) == i128::from(TMPFS) {
        return Err(Failure::new(format!(
            "{} is in memory, where syncs cost nothing: name a directory on a disk with --directory",
            options.directory.display()
        )));
    }
    let dns = Dns::start(directory, options.destinations).await?;
    report::machine(options, directory, probe(directory).ok());
    let binary = options.posthaste.clone().unwrap_or_else(|| PathBuf::from(env!("CARGO_BIN_EXE_posthaste")));
    let bench = Bench { options, directory, binary };
    report::baseline(&bench.baseline().await?);
    report::head();
    let mut results: Vec<(Work, Server, Figures)> = Vec::new();
    for work in &options.work {
        for server in options.server.iter().filter(|server| work.is_for(**server)) {
            let rate = rate_of(*work, *server, options, &results)?;
            let mut figures = bench.run(*server, *work, rate).await?;
            if matches!(work, Work::SignedRsa | Work::SignedEd25519) {
                figures.signatures_cpu =
                    Some(signing::cost(*work, usize::try_from(options.size).unwrap_or(usize::MAX))?);
                // A message costs more where fewer share a write: bare ones at the same pace are what to compare with.
                let pace = format!("{:.0}", figures.rate).parse().ok();
                let bare = bench.run(*server, Work::One, pace).await?;
                report::row(Work::One, *server, &bare);
                figures.bare_cpu = Some(bare.cpu);
            }
            report::row(*work, *server, &figures);
            results.push((*work, *server, figures));
        }
    }
    report::ratios(&results);
    report::signing(&results);
    dns.stop().await
}

/// The rate of `half`: as given, or half of what `one` has shown.
fn rate_of(work: Work, server: Server, options: &Options, results: &[(Work, Server, Figures)]) -> Result<Option<u32>> {
    if work != Work::Half {
        return Ok(None);
    }
    let shown = results.iter().find(|(work, other, _)| *work == Work::One && *other == server);
    let half = shown.map(|(_, _, figures)| figures.rate / 2.0);
    let rounded = half.and_then(|half| format!("{half:.0}").parse().ok()).filter(|rate| *rate > 0);
    options
        .rate
        .or(rounded)
        .map(Some)
        .ok_or_else(|| Failure::new("half needs --rate, or one before it: --work one,half"))
}

/// Median time of a small write with fdatasync.
fn probe(directory: &Path) -> Result<Duration> {
    let path = directory.join("probe");
    let mut file = File::create(&path).context(|| format!("{}", path.display()))?;
    let mut times = Vec::with_capacity(SYNCS);
    for _ in 0..SYNCS {
        let begin = Instant::now();
        file.write_all(&[0; 4_096]).and_then(|()| file.sync_data()).context(|| format!("{}", path.display()))?;
        times.push(begin.elapsed());
    }
    fs::remove_file(&path).context(|| format!("{}", path.display()))?;
    times.sort_unstable();
    ledger::percentile(&times, 50).ok_or_else(|| Failure::new("no probe"))
}
