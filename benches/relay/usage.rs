//! CPU and memory of a server: its first process and all descendants, from /proc.
//!
//! CPU is user and system time of the living ones plus what each has reaped of its dead children (`cutime`, `cstime`), so
//! that Postfix's short-lived daemons count: its master reaps them. Linux scales these ticks to the scheduler's exact
//! run time, and adds up the dead in nanoseconds. Work that the kernel does in its own threads (journal, writeback) counts
//! for nobody.
//!
//! Memory is the proportional set size (a page shared by n processes counts 1/n in each), summed over all processes and
//! sampled; for a server of one process the kernel's own peak of the resident set (`VmHWM`), which is never less.

use std::collections::HashMap;
use std::fs;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::task::JoinHandle;
use tokio::time::sleep;

use crate::failure::{Failure, Result};

/// Of `utime` and its kind in /proc: fixed at 100 a second in Linux's interface on all machines that Debian runs on.
const TICKS_PER_SECOND: f64 = 100.0;
/// Between two looks at memory.
const SAMPLE: Duration = Duration::from_millis(500);

/// One process of /proc.
struct Process {
    parent: u32,
    ticks_own: u64,
    ticks_reaped: u64,
}

/// CPU seconds, user and system, of the process `root` and all its descendants since they started.
pub(crate) fn cpu_seconds(root: u32) -> Result<f64> {
    let processes = processes();
    if !processes.contains_key(&root) {
        return Err(Failure::new(format!("process {root} has ended while it was measured")));
    }
    let family = family(root, &processes);
    let ticks: u64 = family
        .iter()
        .filter_map(|id| processes.get(id))
        .map(|process| process.ticks_own.saturating_add(process.ticks_reaped))
        .sum();
    Ok(seconds(ticks))
}

/// CPU seconds, user and system, of this process alone.
pub(crate) fn cpu_seconds_own() -> f64 {
    fs::read_to_string("/proc/self/stat").ok().and_then(|text| parse(&text)).map_or(0.0, |own| seconds(own.ticks_own))
}

/// Ticks in seconds.
fn seconds(ticks: u64) -> f64 {
    f64::from(u32::try_from(ticks).unwrap_or(u32::MAX)) / TICKS_PER_SECOND
}

/// All that /proc shows at this moment.
fn processes() -> HashMap<u32, Process> {
    let Ok(entries) = fs::read_dir("/proc") else { return HashMap::new() };
    entries
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok())
        .filter_map(|id| Some((id, parse(&fs::read_to_string(format!("/proc/{id}/stat")).ok()?)?)))
        .collect()
}

/// The fields of /proc/PID/stat that count; the name in parentheses may hold anything, so they are found from its end.
fn parse(stat: &str) -> Option<Process> {
    let (_, fields) = stat.rsplit_once(") ")?;
    let fields: Vec<&str> = fields.split(' ').collect();
    let number = |at: usize| fields.get(at)?.parse::<u64>().ok();
    Some(Process {
        parent: u32::try_from(number(1)?).ok()?,
        ticks_own: number(11)?.checked_add(number(12)?)?,
        ticks_reaped: number(13)?.checked_add(number(14)?)?,
    })
}

/// `root` and its descendants.
fn family(root: u32, processes: &HashMap<u32, Process>) -> Vec<u32> {
    let mut family = vec![root];
    let mut at = 0;
    while let Some(&parent) = family.get(at) {
        family.extend(processes.iter().filter(|(_, process)| process.parent == parent).map(|(id, _)| *id));
        at += 1;
    }
    family
}

/// Watches the memory of a server until dropped.
pub(crate) struct MemoryWatch {
    root: u32,
    peak_kib: Arc<AtomicU64>,
    processes: Arc<AtomicU64>,
    task: JoinHandle<()>,
}

impl MemoryWatch {
    /// Watches `root` and its descendants.
    pub(crate) fn start(root: u32) -> Self {
        let peak_kib = Arc::new(AtomicU64::new(0));
        let processes_peak = Arc::new(AtomicU64::new(0));
        let (peak, count) = (Arc::clone(&peak_kib), Arc::clone(&processes_peak));
        let task = tokio::spawn(async move {
            loop {
                let family = family(root, &processes());
                let kib = family.iter().filter_map(|id| field_kib(&format!("/proc/{id}/smaps_rollup"), "Pss:")).sum();
                peak.fetch_max(kib, Ordering::Relaxed);
                count.fetch_max(u64::try_from(family.len()).unwrap_or(u64::MAX), Ordering::Relaxed);
                sleep(SAMPLE).await;
            }
        });
        Self { root, peak_kib, processes: processes_peak, task }
    }

    /// Peak so far in MiB.
    pub(crate) fn peak_mib(&self) -> f64 {
        let sampled = self.peak_kib.load(Ordering::Relaxed);
        let alone = self.processes.load(Ordering::Relaxed) <= 1;
        let own_peak = field_kib(&format!("/proc/{}/status", self.root), "VmHWM:").filter(|_| alone).unwrap_or(0);
        f64::from(u32::try_from(sampled.max(own_peak)).unwrap_or(u32::MAX)) / 1_024.0
    }

    /// Most processes seen at one time.
    pub(crate) fn processes(&self) -> u64 {
        self.processes.load(Ordering::Relaxed)
    }
}

impl Drop for MemoryWatch {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// The number behind `key` in a file of `key   number kB` lines.
fn field_kib(file: &str, key: &str) -> Option<u64> {
    let text = fs::read_to_string(file).ok()?;
    text.lines().find_map(|line| line.strip_prefix(key))?.split_whitespace().next()?.parse().ok()
}
