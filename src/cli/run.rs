//! `posthaste run`: the daemon in the foreground, as systemd starts it.

use std::path::PathBuf;

use super::Failure;
use crate::daemon::config::DEFAULT_PATH;

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Config file.
    #[arg(long, value_name = "PATH", default_value = DEFAULT_PATH)]
    config: PathBuf,
}

pub(super) fn run(args: &Args) -> Result<(), Failure> {
    crate::daemon::run::run(&args.config).map_err(Failure::Failed)
}
