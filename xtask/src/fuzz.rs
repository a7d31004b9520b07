//! The fuzz targets, two at a time, each for the same time: fuzz/README.md says what they look for.

use std::collections::VecDeque;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Mutex, PoisonError};
use std::thread;

use crate::soak::cargo;

/// How many targets run at the same time.
const AT_ONCE: usize = 2;

/// Targets whose seeds are kept elsewhere.
const SEEDS_ELSEWHERE: &[(&str, &str)] = &[("queue_format", "queue-format/tests/golden")];

/// Runs all; what was done, where nothing was found.
pub(crate) fn run(seconds: u64) -> Result<String, String> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR").trim_end_matches("/xtask"));
    let targets = targets(root)?;
    println!("soak fuzz: {} targets for {seconds} s each, {AT_ONCE} at a time", targets.len());
    let status = fuzz("build").status().map_err(|error| format!("cargo fuzz did not start: {error}"))?;
    if !status.success() {
        return Err("cargo fuzz build failed; is cargo-fuzz installed? (cargo install cargo-fuzz)".to_owned());
    }
    let waiting = Mutex::new(VecDeque::from(targets));
    let next = || waiting.lock().unwrap_or_else(PoisonError::into_inner).pop_front();
    let work = || {
        let mut done = Vec::new();
        while let Some(target) = next() {
            done.push(one(root, &target, seconds).map_err(|reason| format!("{target}: {reason}")));
        }
        done
    };
    let results: Vec<Result<u64, String>> = thread::scope(|scope| {
        let workers: Vec<_> = (0..AT_ONCE).map(|_| scope.spawn(work)).collect();
        let join = |worker: thread::ScopedJoinHandle<'_, Vec<_>>| worker.join().unwrap_or_default();
        workers.into_iter().flat_map(join).collect()
    });
    let failures: Vec<&str> = results.iter().filter_map(|result| result.as_ref().err()).map(String::as_str).collect();
    if !failures.is_empty() {
        return Err(failures.join("\n"));
    }
    let runs: u64 = results.iter().flatten().sum();
    Ok(format!("{} targets for {seconds} s each, {runs} inputs, nothing found", results.len()))
}

/// One target; how many inputs it ran.
fn one(root: &Path, target: &str, seconds: u64) -> Result<u64, String> {
    let corpus = root.join("fuzz/corpus").join(target);
    fs::create_dir_all(&corpus).map_err(|error| format!("{}: {error}", corpus.display()))?;
    let mut command = fuzz("run");
    command.arg(target).arg(&corpus).args(seeds(root, target));
    command.arg("--").arg(format!("-max_total_time={seconds}")).arg("-print_final_stats=1");
    let output = command.stdin(Stdio::null()).output().map_err(|error| format!("cargo fuzz did not start: {error}"))?;
    let said = String::from_utf8_lossy(&output.stderr);
    if !output.status.success() {
        let tail: Vec<&str> = said.lines().rev().take(30).collect();
        let tail: Vec<&str> = tail.into_iter().rev().collect();
        return Err(format!("{}\n{}", output.status, tail.join("\n")));
    }
    let runs = said.lines().find_map(|line| line.strip_prefix("stat::number_of_executed_units:")?.trim().parse().ok());
    let runs = runs.ok_or("it ended well and did not say how many inputs it ran")?;
    println!("  {target}: {seconds} s, {runs} inputs, nothing found");
    Ok(runs)
}

fn targets(root: &Path) -> Result<Vec<String>, String> {
    let directory = root.join("fuzz/fuzz_targets");
    let entries = fs::read_dir(&directory).map_err(|error| format!("{}: {error}", directory.display()))?;
    let paths = entries.filter_map(|entry| Some(entry.ok()?.path()));
    let mut targets: Vec<String> =
        paths.filter_map(|path| Some(path.file_name()?.to_str()?.strip_suffix(".rs")?.to_owned())).collect();
    targets.sort();
    Ok(targets)
}

fn seeds(root: &Path, target: &str) -> Option<PathBuf> {
    let elsewhere = SEEDS_ELSEWHERE.iter().find(|(name, _)| *name == target);
    let path = elsewhere.map_or_else(|| root.join("fuzz/seeds").join(target), |(_, path)| root.join(path));
    path.is_dir().then_some(path)
}

/// cargo-fuzz with the pinned compiler, which takes the flags of the sanitizers only so.
fn fuzz(command: &str) -> Command {
    let mut cargo = cargo();
    cargo.args(["fuzz", command]).env("RUSTC_BOOTSTRAP", "1");
    cargo
}
