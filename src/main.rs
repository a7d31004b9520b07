//! The `posthaste` program: its command line is `posthaste::cli`.

use std::process::ExitCode;

fn main() -> ExitCode {
    posthaste::cli::main()
}
