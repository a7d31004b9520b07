//! `posthaste demo`: the real daemon on an embedded default, for a first look.

use super::Failure;

#[derive(Debug, clap::Args)]
pub(super) struct Args {}

pub(super) fn run(_args: &Args) -> Result<(), Failure> {
    crate::daemon::demo::run().map_err(Failure::Failed)
}
