//! Knot DNS as the authoritative server of one zone file.

use std::net::SocketAddr;
use std::process::Command;

use tempfile::TempDir;

use super::tools::{Background, program};

/// A running server.
pub(crate) struct Knot {
    _process: Background,
    _dir: TempDir,
}

impl Knot {
    /// Serves the zone `domain` on UDP and TCP. Returns once it answers.
    pub(crate) fn start(address: SocketAddr, domain: &str, zone: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let shown = dir.path().display();
        std::fs::write(dir.path().join("zone"), zone).unwrap();
        let config = format!(
            "server:\n    rundir: \"{shown}\"\n    listen: {}@{}\n    udp-workers: 1\n    tcp-workers: 1\n\
             database:\n    storage: \"{shown}\"\nlog:\n  - target: stdout\n    any: info\n\
             zone:\n  - domain: {domain}\n    storage: \"{shown}\"\n    file: zone\n",
            address.ip(),
            address.port()
        );
        let file = dir.path().join("knot.conf");
        std::fs::write(&file, config).unwrap();
        let process = Background::start(Command::new(program("knotd")).arg("-c").arg(&file));
        process.wait(|lines| {
            let failed = lines.iter().find(|line| line.contains("error:"));
            assert!(failed.is_none(), "knotd: {failed:?}");
            let has = |text: &str| lines.iter().any(|line| line.contains(text));
            (has(&format!("[{domain}.] loaded")) && has("server started")).then_some(())
        });
        Self { _process: process, _dir: dir }
    }
}
