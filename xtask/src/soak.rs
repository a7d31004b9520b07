//! Which soaks there are, and how one is run: `cargo test` on some tests, with counts in its environment.

use std::io::{BufRead, BufReader, Write};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::{SoakArgs, fuzz};

/// Tests that count what they do.
struct Counted {
    /// What the names of the tests begin with.
    tests: &'static str,
    /// The environment variable that they read their count from.
    variable: &'static str,
    /// What is counted.
    unit: &'static str,
    /// Unless `--rounds` says otherwise.
    rounds: u64,
}

const CRASH: Counted = Counted {
    tests: "durability::killed_at_random",
    variable: "POSTHASTE_CRASH_ROUNDS",
    unit: "SIGKILLs",
    rounds: 100,
};
const POINTS: Counted = Counted {
    tests: "crash_points::killed_at_each_named_point",
    variable: "POSTHASTE_CRASH_POINT_ROUNDS",
    unit: "rounds of crash points",
    rounds: 20,
};
const POWER: Counted = Counted {
    tests: "crash_points::after_a_power_cut",
    variable: "POSTHASTE_POWER_CUT_ROUNDS",
    unit: "power cuts",
    rounds: 100,
};
const SIM: Counted = Counted { tests: "simulation::", variable: "POSTHASTE_SIM_SEEDS", unit: "seeds", rounds: 10_000 };
const HOSTILE: Counted = Counted {
    tests: "hostile::",
    variable: "POSTHASTE_HOSTILE_CONNECTIONS",
    unit: "hostile connections",
    rounds: 10_000,
};

/// Runs one seed of [`SIM`] alone.
const SEED_VARIABLE: &str = "POSTHASTE_SIM_SEED";

/// Each soak and what it runs; those of one soak run at the same time. `fuzz` is apart: it needs cargo-fuzz.
const SOAKS: &[(&str, &str, &[Counted])] = &[
    ("crash", "SIGKILL at random moments under load", &[CRASH]),
    ("points", "a crash at each named point of accept, commit, settle, event write and rotation", &[POINTS]),
    ("power", "power cuts: files cut back to what was synced", &[POWER]),
    ("sim", "the simulation of the whole daemon, fresh seeds", &[SIM]),
    ("hostile", "slow, stalled and greedy clients", &[HOSTILE]),
    ("mixed", "all of these at the same time", &[CRASH, POINTS, POWER, SIM, HOSTILE]),
];

/// How long each fuzz target runs, unless `--seconds` says otherwise.
const FUZZ_SECONDS: u64 = 600;

/// One line a soak.
pub(crate) fn list() -> String {
    let mut lines: Vec<String> = SOAKS.iter().map(|(name, what, tests)| line(name, what, tests)).collect();
    lines.push(format!("{:<8} each target of fuzz/, two at a time ({FUZZ_SECONDS} s each)", "fuzz"));
    lines.join("\n")
}

fn line(name: &str, what: &str, tests: &[Counted]) -> String {
    let counts: Vec<String> = tests.iter().map(|test| format!("{} {}", test.rounds, test.unit)).collect();
    format!("{name:<8} {what} ({})", counts.join(", "))
}

/// Runs a soak to its end; its result in one line.
pub(crate) fn run(name: &str, arguments: &SoakArgs) -> Result<String, String> {
    let started = now();
    if name == "fuzz" {
        if arguments.rounds.is_some() || arguments.seed.is_some() {
            return Err("fuzz takes --seconds only".to_owned());
        }
        let result = fuzz::run(arguments.seconds.unwrap_or(FUZZ_SECONDS))?;
        return Ok(format!("soak fuzz: {result}, {}", circumstances(started.elapsed())));
    }
    let Some((_, what, tests)) = SOAKS.iter().find(|(known, ..)| *known == name) else {
        return Err(format!("no soak is called {name}; there are:\n{}", list()));
    };
    if arguments.seconds.is_some() {
        return Err(format!("{name} counts rounds: use --rounds; --seconds is for fuzz"));
    }
    if arguments.seed.is_some() && name != "sim" {
        return Err(format!("{name} has no seeds: --seed is for sim"));
    }
    println!("soak {name}: {what}");
    let counts = test(tests, arguments)?;
    Ok(format!("soak {name}: {counts}: all held, {}", circumstances(started.elapsed())))
}

/// The counts that were run, all of them well.
fn test(tests: &[Counted], arguments: &SoakArgs) -> Result<String, String> {
    let mut command = cargo();
    command.args(["test", "--locked", "--package", "posthaste", "--test", "it", "--"]);
    let mut counts = Vec::new();
    for test in tests {
        command.arg(test.tests);
        match arguments.seed {
            Some(seed) => {
                command.env(SEED_VARIABLE, seed.to_string());
                counts.push(format!("seed {seed}"));
            }
            None => {
                let rounds = arguments.rounds.unwrap_or(test.rounds);
                command.env(test.variable, rounds.to_string());
                println!("  {}={rounds}  {}", test.variable, test.tests);
                counts.push(format!("{rounds} {}", test.unit));
            }
        }
    }
    command.arg("--nocapture");
    let ran = watch(&mut command)?;
    for test in tests {
        if !ran.iter().any(|name| name.starts_with(test.tests)) {
            return Err(format!("no test is called {}*: was it renamed? see xtask/src/soak.rs", test.tests));
        }
    }
    Ok(counts.join(", "))
}

/// Shows what the tests print, and gives back their names once all have passed.
fn watch(command: &mut Command) -> Result<Vec<String>, String> {
    let spawned = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn();
    let mut child = spawned.map_err(|error| format!("cargo did not start: {error}"))?;
    let mut names = Vec::new();
    for line in child.stdout.take().into_iter().flat_map(|output| BufReader::new(output).lines()) {
        let line = line.map_err(|error| format!("the output of the tests: {error}"))?;
        println!("{line}");
        // `test NAME ... ok`: what the test itself prints may stand before `ok`.
        names.extend(line.strip_prefix("test ").and_then(|rest| rest.split(' ').next()).map(str::to_owned));
    }
    // Nobody to tell where the terminal is gone.
    drop(std::io::stdout().flush());
    let status = child.wait().map_err(|error| format!("the tests: {error}"))?;
    if status.success() { Ok(names) } else { Err(format!("the tests failed: {status}; their words are above")) }
}

/// The cargo that runs us.
pub(crate) fn cargo() -> Command {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.current_dir(env!("CARGO_MANIFEST_DIR").trim_end_matches("/xtask"));
    command
}

/// What belongs to each figure.
fn circumstances(elapsed: Duration) -> String {
    let processors = std::thread::available_parallelism().map_or(0, usize::from);
    format!("{} s on {processors} CPUs, commit {}", elapsed.as_secs(), commit())
}

fn commit() -> String {
    let git = |arguments: &[&str]| {
        let output = Command::new("git").args(arguments).output().ok().filter(|output| output.status.success());
        output.map(|output| String::from_utf8_lossy(&output.stdout).trim().to_owned())
    };
    let Some(commit) = git(&["rev-parse", "--short", "HEAD"]) else { return "unknown".to_owned() };
    let is_clean = git(&["status", "--porcelain"]).is_some_and(|changes| changes.is_empty());
    if is_clean { commit } else { format!("{commit} and changes") }
}

#[allow(clippy::disallowed_methods, reason = "how long a run took is told to whoever started it, and decides nothing")]
fn now() -> Instant {
    Instant::now()
}
