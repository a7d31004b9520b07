//! Finds the programs that tests drive, runs them, and ends them.

use std::io::{BufRead, BufReader, Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::harness::{PATIENCE, Watched};

/// Directories where Debian and others put daemons; users' PATH often lacks them.
const SBIN: [&str; 3] = ["/usr/sbin", "/usr/local/sbin", "/sbin"];

/// Between two looks at what cannot wake us.
const LOOK_EVERY: Duration = Duration::from_millis(10);

const ADVICE: &str = "is needed for this test and was not found: run `scripts/setup test`";

/// A program of the system.
pub(crate) fn program(name: &str) -> PathBuf {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let mut candidates = std::env::split_paths(&path).chain(SBIN.map(PathBuf::from)).map(|dir| dir.join(name));
    candidates.find(|file| file.is_file()).unwrap_or_else(|| panic!("{name} {ADVICE}"))
}

/// A file below the directory that `scripts/setup test` fills: `POSTHASTE_TEST_TOOLS`, or where the scripts put it.
pub(crate) fn tool(path: &str) -> PathBuf {
    let from_home = |name: &str| PathBuf::from(std::env::var_os(name).unwrap_or_default());
    let cache = || match std::env::var_os("XDG_CACHE_HOME") {
        Some(dir) if !dir.is_empty() => PathBuf::from(dir),
        _ => from_home("HOME").join(".cache"),
    };
    let dir =
        std::env::var_os("POSTHASTE_TEST_TOOLS").map_or_else(|| cache().join("posthaste/test-tools"), PathBuf::from);
    let file = dir.join(path);
    assert!(file.exists(), "{} {ADVICE}", file.display());
    file
}

/// Python with aiosmtpd.
pub(crate) fn python() -> Command {
    let mut command = Command::new(tool("venv/bin/python"));
    command.arg("-u");
    command
}

/// Node.js with nodemailer.
pub(crate) fn node() -> Command {
    let modules = tool("node_modules/nodemailer");
    let mut command = Command::new(program("node"));
    command.env("NODE_PATH", modules.parent().unwrap());
    command
}

/// A program of this directory, for Python or Node.js.
pub(crate) fn script(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/peers/programs").join(name)
}

/// Runs it to its end, which must be a good one; what it printed on both streams.
#[track_caller]
pub(crate) fn run(command: &mut Command, stdin: &[u8]) -> String {
    let (is_good, output) = run_any(command, stdin);
    assert!(is_good, "{command:?} failed:\n{output}");
    output
}

/// Runs it to its end; whether that was a good one, and what it printed on both streams.
pub(crate) fn run_any(command: &mut Command, stdin: &[u8]) -> (bool, String) {
    let spawned = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
    let mut child = spawned.unwrap_or_else(|error| panic!("{command:?}: {error}"));
    let mut input = child.stdin.take().unwrap();
    let stdin = stdin.to_vec();
    // Who does not read its input to the end says so itself.
    let writer = std::thread::spawn(move || drop(input.write_all(&stdin)));
    let mut stderr = child.stderr.take().unwrap();
    let errors = std::thread::spawn(move || {
        let mut bytes = Vec::new();
        stderr.read_to_end(&mut bytes).map(|_| bytes)
    });
    let mut printed = Vec::new();
    child.stdout.take().unwrap().read_to_end(&mut printed).unwrap();
    printed.extend(errors.join().unwrap().unwrap());
    writer.join().unwrap();
    (child.wait().unwrap().success(), String::from_utf8_lossy(&printed).into_owned())
}

/// A program in the background: its lines are kept, and it is killed with the value.
pub(crate) struct Background {
    child: Child,
    lines: Watched<Vec<String>>,
}

impl Background {
    /// Its standard output is read; its standard error goes to the test's.
    pub(crate) fn start(command: &mut Command) -> Self {
        let spawned = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn();
        let mut child = spawned.unwrap_or_else(|error| panic!("{command:?}: {error}"));
        let lines = Watched::<Vec<String>>::default();
        let (kept, output) = (lines.clone(), child.stdout.take().unwrap());
        std::thread::spawn(move || {
            for line in BufReader::new(output).lines().map_while(Result::ok) {
                kept.change(|lines| lines.push(line));
            }
        });
        Self { child, lines }
    }

    /// What `look` finds in the lines so far, as soon as it finds something.
    #[track_caller]
    pub(crate) fn wait<R>(&self, mut look: impl FnMut(&[String]) -> Option<R>) -> R {
        let found = self.lines.wait(PATIENCE, |lines| look(lines));
        found.unwrap_or_else(|| panic!("not printed:\n{}", self.lines.lock().join("\n")))
    }
}

impl Drop for Background {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// What `look` finds, as soon as it finds something: for what cannot wake us, such as files of other programs.
#[track_caller]
pub(crate) fn poll<R>(what: &str, look: impl FnMut() -> Option<R>) -> R {
    try_poll(look).unwrap_or_else(|| panic!("waited in vain: {what}"))
}

/// The same; `None` where it was in vain.
pub(crate) fn try_poll<R>(mut look: impl FnMut() -> Option<R>) -> Option<R> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let found = look();
        if found.is_some() || Instant::now() > deadline {
            return found;
        }
        std::thread::sleep(LOOK_EVERY);
    }
}

/// Lets other users into a temporary directory: most servers drop their rights before they write.
pub(crate) fn open_to_all(dir: &Path) {
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o777);
    std::fs::set_permissions(dir, mode).unwrap();
}

/// Whether this process may change users, as mail servers do.
pub(crate) fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}
