//! The main job on an embedded default. Stub: the modules that it starts are being built.

/// Runs the demo to its end. `Err` says what went otherwise than it should.
pub fn run() -> Result<(), String> {
    Err("cannot run the demo: the daemon is not wired yet".to_owned())
}
