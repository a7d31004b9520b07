//! A machine of its own, with systemd as its process 1 and posthaste installed as systemd/README.md says.
//!
//! All of it lives in namespaces of the kernel: processes, mounts, network, host name, IPC, cgroups. The daemon under test is
//! a service of that systemd, with the unit as it ships. Its root is a small file system: `/usr` of this machine read-only,
//! `/etc` and `/var` from a temporary directory, so that tests read the daemon's files there.
//!
//! Needs root, util-linux, iproute2, Debian's package systemd, and a cgroup2 file system in which root may make a group; a
//! test that lacks one of them fails and says which. `scripts/test` asks the same before it runs these tests.

use std::fs;
use std::io;
use std::net::SocketAddr;
use std::os::fd::AsFd;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::thread;

use rustix::process::{Pid, Signal, kill_process};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use serde_json::Value;
use tempfile::TempDir;

use super::{ConfigText, poll};

const PROGRAM: &str = env!("CARGO_BIN_EXE_posthaste");

/// The address of the daemon's listener: the port that needs a right of root.
pub(crate) const SMTP: &str = "127.0.0.1:25";

/// See the module. Ends with the value: its process 1 is killed, and with it all that ran there.
pub(crate) struct System {
    /// Dropped after everything in it has ended.
    dir: TempDir,
    /// `unshare`, which waits for the machine's end.
    outer: Child,
    /// Process 1 of the machine, as seen from outside.
    init: u32,
    cgroup: PathBuf,
}

impl System {
    /// Boots, and installs posthaste without a config and without starting it.
    pub(crate) fn boot() -> Self {
        assert!(
            rustix::process::geteuid().is_root(),
            "this test starts a systemd in namespaces of its own, which only root may: run it as root"
        );
        let dir = tempfile::tempdir().unwrap();
        lay_out(dir.path());
        let cgroup = cgroup_root().join(dir.path().file_name().unwrap());
        fs::create_dir(&cgroup).unwrap_or_else(|error| {
            panic!("{}: {error}: this test needs a cgroup2 file system that root may change", cgroup.display())
        });
        let outer = start(dir.path(), &cgroup);
        let mut system = Self { dir, outer, init: 0, cgroup };
        system.init = poll(|| system.find_init(), || "unshare starts nothing".to_owned());
        // Systemd answers when it is up; before, process 1 is the script that mounts.
        poll(
            || system.run(&["systemctl", "is-active", "posthaste-test.target"]).status.success().then_some(()),
            || format!("systemd does not come up: {}", system.console()),
        );
        system.must(&["systemd-sysusers"]);
        system
    }

    /// Writes the config, checking nothing, as an administrator's editor would.
    pub(crate) fn write_config(&self, config: &ConfigText) {
        let path = self.path("etc/posthaste/config.toml");
        fs::write(&path, config.render()).unwrap();
        self.must(&["chgrp", "-R", "posthaste", "/etc/posthaste"]);
        self.must(&["chmod", "750", "/etc/posthaste"]);
        self.must(&["chmod", "640", "/etc/posthaste/config.toml"]);
    }

    /// The config of a lab, with the directories of an installation and port 25.
    pub(crate) fn installed(config: ConfigText) -> ConfigText {
        config
            .set("data_dir", "\"/var/lib/posthaste\"")
            .set("events.directory", "\"/var/log/posthaste\"")
            .set("admin.socket", "\"/run/posthaste/admin.sock\"")
            .without_tables("listener")
            .table(&format!("[[listener]]\nname = \"smtp\"\naddress = \"{SMTP}\"\n"))
    }

    /// Sets keys of the unit beside it, as `systemctl edit` does.
    pub(crate) fn edit_unit(&self, settings: &str) {
        let drop_in = self.path("etc/systemd/system/posthaste.service.d");
        fs::create_dir_all(&drop_in).unwrap();
        fs::write(drop_in.join("override.conf"), settings).unwrap();
        self.must(&["systemctl", "daemon-reload"]);
    }

    /// Runs a command in the machine, as its root.
    pub(crate) fn run(&self, words: &[&str]) -> Output {
        let init = self.init.to_string();
        let mut command = Command::new("nsenter");
        command.args(["--target", &init, "--mount", "--pid", "--net", "--uts", "--ipc", "--cgroup", "--"]);
        command.args(words).env_clear().env("PATH", "/usr/local/bin:/usr/sbin:/usr/bin");
        command.stdin(Stdio::null()).output().unwrap()
    }

    /// The same, where it must end well; what it printed.
    #[track_caller]
    pub(crate) fn must(&self, words: &[&str]) -> String {
        let output = self.run(words);
        let (said, complaint) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        assert!(output.status.success(), "{words:?}: {}\n{said}{complaint}\n{}", output.status, self.journal());
        said.trim_end().to_owned()
    }

    /// A property of the service, as `systemctl show` prints it.
    pub(crate) fn property(&self, name: &str) -> String {
        self.must(&["systemctl", "show", "--value", "--property", name, "posthaste"])
    }

    /// Waits until a property of the service is as wanted; its value.
    #[track_caller]
    pub(crate) fn wait_property(&self, name: &str, is_wanted: impl Fn(&str) -> bool) -> String {
        let look = || Some(self.property(name)).filter(|value| is_wanted(value));
        poll(look, || format!("{name} is {}\n{}", self.property(name), self.journal()))
    }

    /// A file of the machine's `/etc` or `/var`.
    pub(crate) fn path(&self, path: &str) -> PathBuf {
        self.dir.path().join(path)
    }

    /// What everything in the machine said, systemd and the service among them.
    pub(crate) fn journal(&self) -> String {
        drop(self.run(&["journalctl", "--sync"]));
        let output = self.run(&["journalctl", "--output", "short-monotonic", "--no-pager", "--lines", "300"]);
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    /// Waits until one of them said this; the line.
    pub(crate) fn wait_journal(&self, text: &str) -> String {
        let look = || self.journal().lines().rev().find(|line| line.contains(text)).map(str::to_owned);
        poll(look, || format!("{text:?} is not in the journal:\n{}", self.journal()))
    }

    /// Asks the daemon over its admin socket; `None` where it does not answer.
    pub(crate) fn ask(&self, arguments: &[&str]) -> Option<Value> {
        // Through the root directory of its process 1: the socket is in a mount namespace of the machine.
        let socket = format!("/proc/{}/root/run/posthaste/admin.sock", self.init);
        let output = Command::new(PROGRAM).args(arguments).args(["--json", "--socket", &socket]).output().unwrap();
        serde_json::from_slice(&output.stdout).ok().filter(|_| output.status.success())
    }

    /// Waits until the daemon answers that nothing is queued.
    pub(crate) fn wait_empty(&self) {
        let is_empty = |status: &Value| status["queue"]["messages"] == 0;
        poll(|| self.ask(&["status"]).filter(is_empty), || format!("not empty:\n{}", self.journal()));
    }

    /// Runs `test` in a thread that is in the network of the machine, as are all threads that it starts.
    pub(crate) fn inside(&self, test: impl FnOnce(SocketAddr) + Send) {
        let namespace = fs::File::open(format!("/proc/{}/ns/net", self.init)).unwrap();
        thread::scope(|scope| {
            let body = scope.spawn(|| {
                move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Network)).unwrap();
                test(SMTP.parse().unwrap());
            });
            if let Err(panic) = body.join() {
                eprintln!("--- journal\n{}", self.journal());
                std::panic::resume_unwind(panic);
            }
        });
    }

    fn find_init(&mut self) -> Option<u32> {
        let outer = self.outer.id();
        let ended = self.outer.try_wait().unwrap();
        assert!(ended.is_none(), "no machine in namespaces: {ended:?}: {}", self.console());
        let children = fs::read_to_string(format!("/proc/{outer}/task/{outer}/children")).unwrap_or_default();
        children.split_whitespace().next()?.parse().ok()
    }

    /// What `unshare` and the script said.
    fn console(&self) -> String {
        fs::read_to_string(self.path("console")).unwrap_or_default()
    }
}

impl Drop for System {
    fn drop(&mut self) {
        // The kernel kills all processes of a machine whose process 1 ends.
        let init = i32::try_from(self.init).ok().and_then(Pid::from_raw);
        match init {
            Some(init) => drop(kill_process(init, Signal::KILL)),
            None => drop(self.outer.kill()),
        }
        // All of them are gone when unshare is, which is the last in the group.
        drop(self.outer.wait());
        let removed = remove_groups(&self.cgroup);
        assert!(removed.is_ok() || thread::panicking(), "{}: {removed:?}", self.cgroup.display());
    }
}

/// The files that an administrator and Debian would have put there.
fn lay_out(dir: &Path) {
    let write = |path: &str, text: &str| {
        let path = dir.join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    };
    for path in ["root", "var/lib", "var/log", "var/tmp", "etc/posthaste", "etc/systemd/system"] {
        fs::create_dir_all(dir.join(path)).unwrap();
    }
    fs::set_permissions(dir.join("var/tmp"), fs::Permissions::from_mode(0o1777)).unwrap();
    std::os::unix::fs::symlink("/run", dir.join("var/run")).unwrap();
    fs::copy("/etc/ld.so.cache", dir.join("etc/ld.so.cache")).unwrap();
    write("etc/passwd", "root:x:0:0::/root:/bin/sh\nnobody:x:65534:65534::/:/usr/sbin/nologin\n");
    write("etc/group", "root:x:0:\nsystemd-journal:x:101:\nnogroup:x:65534:\n");
    write("etc/hostname", "machine\n");
    write("etc/machine-id", "");
    write("etc/systemd/system/posthaste-test.target", "[Unit]\nDescription=nothing but what a test starts\n");
    write("etc/systemd/system/posthaste.service", include_str!("../../../systemd/posthaste.service"));
    write("etc/sysusers.d/posthaste.conf", include_str!("../../../systemd/posthaste.sysusers"));
}

/// `unshare` in a cgroup of its own, so that the machine sees no other.
fn start(dir: &Path, cgroup: &Path) -> Child {
    let console = fs::File::create(dir.join("console")).unwrap();
    let enter = format!("echo $$ >{}/cgroup.procs && exec unshare \"$@\"", cgroup.display());
    let mut command = Command::new("sh");
    command.args(["-c", &enter, "unshare"]);
    command.args(["--mount", "--pid", "--net", "--uts", "--ipc", "--cgroup", "--fork", "--kill-child", "--"]);
    command.args(["sh", "-c", include_str!("systemd_boot.sh"), "systemd_boot.sh"]).arg(dir).arg(PROGRAM);
    command.stdin(Stdio::null()).stdout(console.try_clone().unwrap()).stderr(console);
    assert!(
        Path::new("/lib/systemd/systemd").exists(),
        "systemd is needed for this test and was not found: run `scripts/setup test` (Debian: apt-get install systemd)"
    );
    command.spawn().unwrap()
}

/// Where this machine has its cgroup2 file system: alone, or beside those of version 1.
fn cgroup_root() -> PathBuf {
    let mounts = fs::read_to_string("/proc/self/mounts").unwrap();
    let mut fields = mounts.lines().map(|line| line.split(' ').collect::<Vec<_>>());
    let mount = fields.find(|fields| fields.get(2) == Some(&"cgroup2"));
    mount.map(|fields| PathBuf::from(fields[1])).expect("this test needs a cgroup2 file system: none is mounted")
}

/// A group and those in it, the innermost first.
fn remove_groups(group: &Path) -> io::Result<()> {
    for entry in fs::read_dir(group)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            remove_groups(&entry.path())?;
        }
    }
    fs::remove_dir(group)
}
