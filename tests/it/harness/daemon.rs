//! The daemon under test: a process, its log, its signals, its admin socket.

use std::ffi::{OsStr, OsString};
use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{ChildStderr, Command, ExitStatus, Stdio};
use std::thread;
use std::time::Duration;

use rustix::process::{Pid, kill_process};
use serde_json::Value;

use super::{ConfigText, Events, PATIENCE, Watched, poll};

pub(crate) use rustix::process::Signal;

/// Lines of the log that a failed test shows.
const LOG_SHOWN_LINES: usize = 300;

/// One after the other on the same config and data.
pub(crate) struct Daemon {
    dir: PathBuf,
    config: ConfigText,
    /// Put before the daemon's command line.
    wrapper: Vec<OsString>,
    process: Process,
}

struct Process {
    pid: Pid,
    log: Watched<Log>,
    exit: Watched<Option<ExitStatus>>,
}

#[derive(Default)]
struct Log {
    lines: Vec<String>,
    is_closed: bool,
}

impl Daemon {
    /// Starts it and waits until it is ready.
    pub(crate) fn start(dir: &Path, config: ConfigText) -> Self {
        Self::start_under::<&str>(dir, config, &[])
    }

    /// The same below another program, which must become the daemon without another process id (such as `strace -D`).
    pub(crate) fn start_under<W: AsRef<OsStr>>(dir: &Path, config: ConfigText, wrapper: &[W]) -> Self {
        let daemon = Self::launch(dir, config, wrapper);
        daemon.wait_ready();
        daemon
    }

    /// The same without waiting for anything.
    pub(crate) fn launch<W: AsRef<OsStr>>(dir: &Path, config: ConfigText, wrapper: &[W]) -> Self {
        let wrapper: Vec<OsString> = wrapper.iter().map(OsString::from).collect();
        write_config(dir, &config);
        let process = Process::start(dir, &wrapper);
        Self { dir: dir.to_owned(), config, wrapper, process }
    }

    /// Waits until it is ready.
    pub(crate) fn wait_ready(&self) {
        self.wait_log_from(0, ": ready version=");
    }

    /// Where the first listener listens.
    pub(crate) fn smtp_addr(&self) -> SocketAddr {
        self.listener_addr("smtp")
    }

    /// Where this listener listens.
    pub(crate) fn listener_addr(&self, name: &str) -> SocketAddr {
        let line = self.wait_log_from(0, &format!("listening listener=\"{name}\""));
        let address = line.split_whitespace().find_map(|word| word.strip_prefix("address="));
        address.and_then(|address| address.parse().ok()).unwrap_or_else(|| panic!("no address in {line:?}"))
    }

    pub(crate) fn pid(&self) -> u32 {
        self.process.pid.as_raw_nonzero().get().unsigned_abs()
    }

    pub(crate) fn signal(&self, signal: Signal) {
        assert!(!self.has_exited(), "there is no process to signal any more\n{}", self.log_tail());
        kill_process(self.process.pid, signal).unwrap();
    }

    /// Whether the process has ended.
    pub(crate) fn has_exited(&self) -> bool {
        self.process.exit.lock().is_some()
    }

    /// Waits for the end of the process.
    pub(crate) fn wait_exit(&self, patience: Duration) -> ExitStatus {
        let exit = self.process.exit.wait(patience, |exit| *exit);
        exit.unwrap_or_else(|| panic!("still running after {patience:?}\n{}", self.log_tail()))
    }

    /// SIGKILL, and waits until the process is gone.
    pub(crate) fn kill(&self) {
        self.signal(Signal::KILL);
        assert_eq!(self.wait_exit(PATIENCE).signal(), Some(9));
    }

    /// SIGTERM; the process must exit with 0.
    pub(crate) fn stop(&self) {
        self.signal(Signal::TERM);
        let status = self.wait_exit(PATIENCE);
        assert!(status.success(), "{status}\n{}", self.log_tail());
    }

    /// Starts it again after [`Daemon::kill`] or [`Daemon::stop`], with the config as it is now.
    pub(crate) fn start_again(&mut self) {
        self.launch_again();
        self.wait_ready();
    }

    /// The same without waiting for anything.
    pub(crate) fn launch_again(&mut self) {
        assert!(self.has_exited(), "still running");
        self.process = Process::start(&self.dir, &self.wrapper);
    }

    /// Runs `queue recover` on the data of this daemon, which must not run; its exit code and answer.
    pub(crate) fn recover(&self) -> (i32, Value) {
        let output = Command::new(env!("CARGO_BIN_EXE_posthaste"))
            .args(["queue", "recover", "--json", "--config"])
            .arg(self.config_path())
            .output()
            .unwrap();
        let answer = serde_json::from_slice(&output.stdout);
        let errors = String::from_utf8_lossy(&output.stderr);
        let answer = answer.unwrap_or_else(|error| panic!("{error}: {}: {errors}", output.status));
        (output.status.code().unwrap(), answer)
    }

    /// An orderly stop and a new start.
    pub(crate) fn restart(&mut self) {
        self.stop();
        self.start_again();
    }

    /// Writes another config file; takes effect at SIGHUP or the next start.
    pub(crate) fn edit_config(&mut self, edit: impl FnOnce(ConfigText) -> ConfigText) {
        self.config = edit(self.config.clone());
        write_config(&self.dir, &self.config);
    }

    /// [`Daemon::edit_config`], SIGHUP, and waits until the log says that it was taken.
    pub(crate) fn reload(&mut self, edit: impl FnOnce(ConfigText) -> ConfigText) {
        self.edit_config(edit);
        let mark = self.log_len();
        self.signal(Signal::HUP);
        let line = self.wait_log_from(mark, "config ");
        assert!(line.contains("config reloaded"), "{line}");
    }

    pub(crate) fn config_path(&self) -> PathBuf {
        self.dir.join("config.toml")
    }

    /// The default stream of events.
    pub(crate) fn events_path(&self) -> PathBuf {
        self.dir.join("events/events.jsonl")
    }

    pub(crate) fn events(&self) -> Events {
        Events::open(&self.events_path())
    }

    /// Lines of the log so far: a mark for [`Daemon::wait_log_from`].
    pub(crate) fn log_len(&self) -> usize {
        self.process.log.lock().lines.len()
    }

    /// The lines of the log after a mark.
    pub(crate) fn log_from(&self, mark: usize) -> Vec<String> {
        self.process.log.lock().lines[mark..].to_vec()
    }

    /// The first line after the mark with this text.
    pub(crate) fn wait_log_from(&self, mark: usize, text: &str) -> String {
        let found = self.process.log.wait(PATIENCE, |log| {
            let line = log.lines[mark..].iter().find(|line| line.contains(text));
            line.map(|line| Some(line.clone())).or_else(|| log.is_closed.then_some(None))
        });
        found.flatten().unwrap_or_else(|| panic!("{text:?} is not in the log\n{}", self.log_tail()))
    }

    /// The last lines of the log.
    pub(crate) fn log_tail(&self) -> String {
        let log = self.process.log.lock();
        log.lines[log.lines.len().saturating_sub(LOG_SHOWN_LINES)..].join("\n")
    }

    /// Runs a subcommand against this daemon with `--json`; its answer.
    pub(crate) fn cli(&self, arguments: &[&str]) -> Value {
        let output = Command::new(env!("CARGO_BIN_EXE_posthaste"))
            .args(arguments)
            .arg("--json")
            .arg("--socket")
            .arg(self.dir.join("admin.sock"))
            .output()
            .unwrap();
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{arguments:?}: {}: {errors}", output.status);
        serde_json::from_slice(&output.stdout).unwrap()
    }

    /// The same; `None` where the command says no.
    pub(crate) fn cli_or_none(&self, arguments: &[&str]) -> Option<Value> {
        let socket = self.dir.join("admin.sock");
        let output = Command::new(env!("CARGO_BIN_EXE_posthaste"))
            .args(arguments)
            .arg("--json")
            .arg("--socket")
            .arg(socket)
            .output()
            .unwrap();
        output.status.success().then(|| serde_json::from_slice(&output.stdout).unwrap())
    }

    pub(crate) fn status(&self) -> Value {
        self.cli(&["status"])
    }

    /// The messages of the queue.
    pub(crate) fn queue(&self) -> Vec<Value> {
        self.cli(&["queue", "list", "--limit", "100000"])["messages"].as_array().cloned().unwrap_or_default()
    }

    /// Asks for the queue again and again until it is as wanted.
    pub(crate) fn wait_queue(&self, what: &str, is_wanted: impl Fn(&[Value]) -> bool) -> Vec<Value> {
        let look = || Some(self.queue()).filter(|queue| is_wanted(queue));
        poll(look, || format!("{what}: {:#?}\n{}", self.queue(), self.log_tail()))
    }

    /// Waits until nothing is queued.
    pub(crate) fn wait_empty(&self) {
        self.wait_queue("the queue does not get empty", <[Value]>::is_empty);
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        if thread::panicking() {
            eprintln!("--- log of the daemon\n{}\n---", self.log_tail());
        }
    }
}

impl Process {
    fn start(dir: &Path, wrapper: &[OsString]) -> Self {
        let binary = OsString::from(env!("CARGO_BIN_EXE_posthaste"));
        let mut words = wrapper.iter().chain(std::iter::once(&binary));
        let program = words.next().unwrap();
        let mut child = Command::new(program)
            .args(words)
            .arg("run")
            .arg("--config")
            .arg(dir.join("config.toml"))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap_or_else(|error| panic!("cannot start {}: {error}", program.display()));
        let (log, exit) = (Watched::new(Log::default()), Watched::new(None));
        let stderr = child.stderr.take().unwrap();
        let lines = log.clone();
        thread::spawn(move || read_log(stderr, &lines));
        let pid = Pid::from_child(&child);
        let ended = exit.clone();
        thread::spawn(move || {
            let status = child.wait().unwrap();
            ended.change(|exit| *exit = Some(status));
        });
        Self { pid, log, exit }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if self.exit.lock().is_none() {
            let _ = kill_process(self.pid, Signal::KILL);
            self.exit.wait(PATIENCE, |exit| *exit);
        }
    }
}

fn read_log(stderr: ChildStderr, log: &Watched<Log>) {
    for line in BufReader::new(stderr).split(b'\n') {
        let Ok(line) = line else { break };
        log.change(|log| log.lines.push(String::from_utf8_lossy(&line).into_owned()));
    }
    log.change(|log| log.is_closed = true);
}

/// In one step, so that a reload never sees half of it.
fn write_config(dir: &Path, config: &ConfigText) {
    let new = dir.join("config.toml.new");
    std::fs::write(&new, config.render()).unwrap();
    std::fs::rename(&new, dir.join("config.toml")).unwrap();
}
