//! The sandbox of the unit from inside: a program that tries what the daemon must not be able to do, under the same settings.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::process::Command;

use rustix::process::{Resource, getrlimit};

use crate::harness::*;

const PROBE: &str = include_str!("probe.py");

/// Keys of the unit that are about the daemon's process and not about what it may do.
const LEFT_OUT: &[&str] = &["Exec", "Type=", "NotifyAccess=", "Watchdog", "Restart=", "RestartSec=", "Timeout"];

/// What the probe must find, in its order.
const EXPECTED: &str = "\
mkdir /etc: EROFS
mkdir /usr/local: EROFS
mkdir /var/spool: EROFS
mkdir /sys/fs/cgroup: EROFS
mkdir /var/lib/posthaste: ok
mkdir /var/log/posthaste: ok
mkdir /run/posthaste: ok
list /home: EACCES
find /tmp/outside: ENOENT
find /var/tmp/outside: ENOENT
find /dev/outside: ENOENT
find /proc/1: ENOENT
find /proc/meminfo: ENOENT
open a device: EPERM
socket AF_INET: ok
socket AF_INET6: ok
socket AF_UNIX: ok
socket AF_NETLINK: EAFNOSUPPORT
socket AF_PACKET: EAFNOSUPPORT
bind to port 25: ok
set-user-id: EPERM
own to own: EPERM
writable code: EPERM
personality: EPERM
user namespace: EPERM
host name: EPERM
clock: EPERM
realtime: EPERM
mount: EPERM
trace: EPERM
kernel log: EPERM
module: EPERM
umask: 027
files: FILES
core: 0
CapEff: 0000000000000400
CapBnd: 0000000000000400
NoNewPrivs: 1
";

/// The unit, with the probe in place of the daemon.
fn probe_unit() -> String {
    let unit = include_str!("../../../systemd/posthaste.service");
    let (_, service) = unit.split_once("[Service]\n").unwrap();
    let (service, _) = service.split_once("[Install]").unwrap();
    let kept = service.lines().filter(|line| !LEFT_OUT.iter().any(|key| line.starts_with(key)));
    let kept: Vec<&str> = kept.collect();
    format!(
        "[Service]\nType=oneshot\nStandardOutput=truncate:/var/lib/posthaste/found\n\
         ExecStart=/usr/bin/python3 -I /etc/posthaste/probe.py\n{}\n",
        kept.join("\n")
    )
}

#[test]
fn what_the_sandbox_of_the_unit_forbids_cannot_be_done_in_it() {
    let system = System::boot();
    fs::write(system.path("etc/posthaste/probe.py"), PROBE).unwrap();
    fs::write(system.path("etc/systemd/system/probe.service"), probe_unit()).unwrap();
    for path in ["var/lib/posthaste", "var/spool"] {
        fs::create_dir_all(system.path(path)).unwrap();
    }
    system.must(&["touch", "/tmp/outside", "/var/tmp/outside", "/dev/outside"]);
    // A node that anybody may open: what forbids it is the device policy.
    system.must(&["mknod", "--mode=666", "/var/lib/posthaste/kmsg", "c", "1", "11"]);
    fs::set_permissions(system.path("etc"), fs::Permissions::from_mode(0o755)).unwrap();
    system.must(&["systemctl", "daemon-reload"]);
    let ended = system.run(&["systemctl", "start", "probe"]);
    let journal = system.journal();
    assert!(ended.status.success(), "{journal}");
    let found = fs::read_to_string(system.path("var/lib/posthaste/found")).unwrap();
    assert_eq!(found, EXPECTED.replace("FILES", &files_granted()), "{journal}");
}

/// The unit's limit of files, or less where this machine lets nobody have that many.
fn files_granted() -> String {
    const OF_THE_UNIT: u64 = 262_144;
    let raised = Command::new("prlimit").arg(format!("--nofile={OF_THE_UNIT}")).arg("true").output().unwrap();
    let limit = getrlimit(Resource::Nofile).maximum.filter(|_| !raised.status.success());
    limit.unwrap_or(OF_THE_UNIT).to_string()
}
