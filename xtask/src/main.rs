//! `cargo run --release -p xtask -- soak NAME`: the tests of CI, for longer.
//!
//! A soak is test code that runs in every CI run with a small count; here the count is given, by the environment variables
//! that these tests read. Nothing is tested here that CI does not test. The last line of a soak is its result, in a form for
//! docs/RELIABILITY.md. Builds with the development profile, in the target directory that the environment names.

mod fuzz;
mod soak;

use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};

#[derive(Debug, Parser)]
#[command(about = "Tasks around posthaste that are no tests by themselves")]
struct Command {
    #[command(subcommand)]
    task: Task,
}

#[derive(Debug, Subcommand)]
enum Task {
    /// Runs a part of the tests for long: `soak --list` tells which there are.
    Soak(SoakArgs),
}

/// What to run, and how much of it.
#[derive(Debug, Args)]
struct SoakArgs {
    /// Which soak.
    #[arg(required_unless_present = "list")]
    name: Option<String>,
    /// Lists them, with their default counts.
    #[arg(long)]
    list: bool,
    /// How many rounds, seeds or connections: what is counted stands in the list.
    #[arg(long, value_name = "N")]
    rounds: Option<u64>,
    /// Of fuzz: how long each target runs.
    #[arg(long, value_name = "N")]
    seconds: Option<u64>,
    /// Of sim: runs this seed alone, and tells its story.
    #[arg(long, value_name = "S")]
    seed: Option<u64>,
}

fn main() -> ExitCode {
    let Command { task: Task::Soak(arguments) } = Command::parse();
    let outcome = match &arguments.name {
        Some(name) if !arguments.list => soak::run(name, &arguments),
        _ => {
            println!("{}", soak::list());
            return ExitCode::SUCCESS;
        }
    };
    match outcome {
        Ok(line) => {
            println!("\n{line}");
            ExitCode::SUCCESS
        }
        Err(reason) => {
            eprintln!("\nxtask: {reason}");
            ExitCode::FAILURE
        }
    }
}
