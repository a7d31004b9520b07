//! `posthaste demo`: the real daemon on an embedded default, for a first look.

use super::Failure;

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Print the event records as they stand in the file, instead of one readable line each.
    #[arg(long)]
    json: bool,
}

pub(super) fn run(args: &Args) -> Result<(), Failure> {
    crate::daemon::demo::run(args.json).map_err(Failure::Failed)
}
