//! The DNS of the benchmark: knot, authoritative for `bench.test`, on port 53 of a loopback address. Each destination has
//! its own MX record, its own host name and its own address, so that neither server can see that one sink is behind all.

use std::fmt::Write;
use std::fs;
use std::path::Path;

use rustix::process::Signal;

use crate::child::Child;
use crate::failure::{Context, Result};

/// Where it listens.
pub(crate) const ADDRESS: &str = "127.0.0.1";
/// The destination of `one`.
pub(crate) const ONE: &str = "one.bench.test";
/// The destination whose MX cannot be reached: its address has no route.
pub(crate) const DEAD: &str = "dead.bench.test";

/// The destination number `at` of many.
pub(crate) fn many(at: u32) -> String {
    format!("d{at}.bench.test")
}

/// A running name server.
pub(crate) struct Dns(Child);

impl Dns {
    /// Starts it with a zone of `destinations`; its files are in `directory`.
    pub(crate) async fn start(directory: &Path, destinations: u32) -> Result<Self> {
        let directory = directory.join("dns");
        fs::create_dir(&directory).context(|| format!("{}", directory.display()))?;
        let zone = directory.join("bench.test.zone");
        fs::write(&zone, zone_text(destinations)).context(|| format!("{}", zone.display()))?;
        let config = directory.join("knot.conf");
        fs::write(&config, config_text(&directory)).context(|| format!("{}", config.display()))?;
        let arguments = ["-c".to_owned(), config.display().to_string()];
        let mut child = Child::start(Path::new("knotd"), &arguments, &directory.join("log"), "knot")?;
        // It answers on TCP too; a connection is enough to know that it is there.
        child.ready(([127, 0, 0, 1], 53).into(), b"").await?;
        Ok(Self(child))
    }

    /// Stops it.
    pub(crate) async fn stop(self) -> Result<()> {
        let id = self.0.id()?;
        self.0.stop(id, Signal::TERM).await.map(drop)
    }
}

fn config_text(directory: &Path) -> String {
    let directory = directory.display();
    format!(
        "server:\n    rundir: {directory}\n    listen: {ADDRESS}@53\n    udp-workers: 1\n    tcp-workers: 1\n    \
         background-workers: 1\ndatabase:\n    storage: {directory}\nlog:\n  - target: stderr\n    any: info\n\
         zone:\n  - domain: bench.test\n    storage: {directory}\n    file: bench.test.zone\n"
    )
}

fn zone_text(destinations: u32) -> String {
    let mut zone = String::from(
        "$ORIGIN bench.test.\n$TTL 3600\n@ SOA ns root 1 3600 600 86400 60\n@ NS ns\nns A 127.0.0.1\n\
         mta A 127.0.0.1\nload A 127.0.0.1\nload MX 10 mx.load\nmx.load A 127.3.0.1\none MX 10 mx.one\n\
         mx.one A 127.2.0.1\ndead MX 10 mx.dead\nmx.dead A 192.0.2.1\n",
    );
    for at in 0..destinations {
        let (high, low) = (at / 250, at % 250 + 1);
        let written = writeln!(zone, "d{at} MX 10 mx.d{at}\nmx.d{at} A 127.1.{high}.{low}");
        debug_assert!(written.is_ok(), "writing to a String cannot fail");
    }
    zone
}
