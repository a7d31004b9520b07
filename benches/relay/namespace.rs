//! A network of our own. Everything runs in new mount, network and process-id namespaces: the DNS server has port 53, the
//! sink port 25 on all of 127.0.0.0/8, /etc/resolv.conf names that DNS server, nothing can reach the outside, and whatever
//! happens to the benchmark, the kernel ends all that it started.

use std::env;
use std::fs;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::failure::{Context, Failure, Result};

/// Set in the environment of the process inside, to the process id of unshare outside.
const INSIDE: &str = "POSTHASTE_BENCH_INSIDE";

/// File handles that the sink of a run with many connections needs; the servers set their own.
const FILES_WANTED: u64 = 65_536;

/// True in the process that [`enter`] made.
pub(crate) fn is_inside() -> bool {
    env::var_os(INSIDE).is_some()
}

/// The process id of unshare, for names: inside, ids begin at 1 again.
pub(crate) fn outer_id() -> String {
    env::var(INSIDE).unwrap_or_default()
}

/// Becomes the same program inside; returns only to say why not.
pub(crate) fn enter() -> Failure {
    if !rustix::process::geteuid().is_root() {
        return Failure::new(
            "run it as root: Postfix starts only as root, and the benchmark makes its own network (sudo env PATH=\"$PATH\" \
             cargo bench --bench relay)",
        );
    }
    let program = match env::current_exe() {
        Ok(program) => program,
        Err(error) => return Failure::new(format!("own program not found: {error}")),
    };
    let error = Command::new("unshare")
        .args(["--mount", "--net", "--pid", "--fork", "--kill-child", "--mount-proc", "--"])
        .arg(program)
        .args(env::args_os().skip(1))
        .env(INSIDE, std::process::id().to_string())
        .exec();
    Failure::new(format!("unshare did not start: {error}; install the package util-linux"))
}

/// Loopback up, name resolution by `dns`, enough file handles. Only inside.
pub(crate) fn arrange(directory: &Path, dns: &str) -> Result<()> {
    run("ip", &["link", "set", "lo", "up"], "iproute2")?;
    let resolv = directory.join("resolv.conf");
    fs::write(&resolv, format!("nameserver {dns}\n")).context(|| format!("{}", resolv.display()))?;
    let resolv = resolv.display().to_string();
    run("mount", &["--bind", &resolv, "/etc/resolv.conf"], "mount")?;
    let limit = getrlimit(Resource::Nofile);
    let wanted = limit.maximum.map_or(FILES_WANTED, |maximum| maximum.min(FILES_WANTED));
    setrlimit(Resource::Nofile, Rlimit { current: Some(wanted), maximum: limit.maximum })
        .context(|| format!("limit of file handles to {wanted}"))
}

fn run(program: &str, arguments: &[&str], package: &str) -> Result<()> {
    let output = Command::new(program)
        .args(arguments)
        .output()
        .context(|| format!("{program} did not start; install the package {package}"))?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    Err(Failure::new(format!("{program} {}: {}", arguments.join(" "), said.trim())))
}
