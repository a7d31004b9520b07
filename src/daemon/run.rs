//! Wiring of the whole daemon. Stub: the modules that it starts are being built.

use std::path::Path;

/// Runs the daemon until SIGTERM. `Err` says why it could not start, or why it stopped by itself.
pub fn run(config_path: &Path) -> Result<(), String> {
    Err(format!("cannot run with {}: the daemon is not wired yet", config_path.display()))
}
