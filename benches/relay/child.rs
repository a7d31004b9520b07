//! Processes that the benchmark starts: found or an error that names the Debian package, their output in a file, ready when
//! their port answers, stopped by SIGTERM and then SIGKILL, by process id only.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;
use tokio::process::Command;
use tokio::time::{Instant, sleep, timeout};

use crate::failure::{Context, Failure, Result};

/// How long a server may take to answer on its port.
const START_MAX: Duration = Duration::from_secs(30);
/// How long a server may take to end after SIGTERM.
const STOP_MAX: Duration = Duration::from_secs(60);
/// Lines of a log that an error quotes.
const LOG_LINES: usize = 12;

/// A process of ours.
pub(crate) struct Child {
    name: String,
    log: PathBuf,
    process: tokio::process::Child,
}

impl Child {
    /// Starts `program`; its output goes to `log`. `package` is what to install where it is missing.
    pub(crate) fn start<A: AsRef<OsStr>>(program: &Path, arguments: &[A], log: &Path, package: &str) -> Result<Self> {
        let name = program.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let output = File::create(log).context(|| format!("{}", log.display()))?;
        let errors = output.try_clone().context(|| format!("{}", log.display()))?;
        let process = Command::new(program)
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(output)
            .stderr(errors)
            .kill_on_drop(true)
            .spawn()
            .context(|| format!("{} did not start; install the package {package}", program.display()))?;
        Ok(Self { name, log: log.to_owned(), process })
    }

    /// Its process id; an error once it has ended.
    pub(crate) fn id(&self) -> Result<u32> {
        self.process.id().ok_or_else(|| self.failure("has ended"))
    }

    /// Waits until `address` greets with `greeting`; an error when the process ends or takes more than [`START_MAX`].
    pub(crate) async fn ready(&mut self, address: SocketAddr, greeting: &[u8]) -> Result<()> {
        let end = Instant::now() + START_MAX;
        while Instant::now() < end {
            if let Ok(Some(status)) = self.process.try_wait() {
                return Err(self.failure(&format!("ended at once with {status}")));
            }
            if greets(address, greeting).await {
                return Ok(());
            }
            sleep(Duration::from_millis(20)).await;
        }
        Err(self.failure(&format!("did not answer on {address} within {START_MAX:?}")))
    }

    /// Waits for its end.
    pub(crate) async fn ended(&mut self) -> Result<ExitStatus> {
        self.process.wait().await.context(|| self.name.clone())
    }

    /// Sends `signal` to `target`, which is this process or what it waits for, and waits for the end of this process;
    /// SIGKILL after [`STOP_MAX`]. Returns how long it took.
    pub(crate) async fn stop(mut self, target: u32, signal: Signal) -> Result<Duration> {
        let begin = Instant::now();
        let Some(target) = i32::try_from(target).ok().and_then(Pid::from_raw) else {
            return Err(self.failure("has no process id"));
        };
        kill_process(target, signal).context(|| format!("signal to {}", self.name))?;
        if timeout(STOP_MAX, self.process.wait()).await.is_err() {
            self.process.kill().await.context(|| format!("SIGKILL to {}", self.name))?;
        }
        Ok(begin.elapsed())
    }

    /// A failure of this process, with the end of its log.
    pub(crate) fn failure(&self, what: &str) -> Failure {
        let text = fs::read_to_string(&self.log).unwrap_or_default();
        let lines: Vec<&str> = text.lines().collect();
        let tail = lines.get(lines.len().saturating_sub(LOG_LINES)..).unwrap_or_default().join("\n  ");
        Failure::new(format!("{} {what}; its log, {}, ends with:\n  {tail}", self.name, self.log.display()))
    }
}

/// True if the server at `address` takes a connection and its first octets are `greeting`.
async fn greets(address: SocketAddr, greeting: &[u8]) -> bool {
    let Ok(mut stream) = TcpStream::connect(address).await else { return false };
    let mut first = vec![0; greeting.len()];
    let read = timeout(Duration::from_secs(5), stream.read_exact(&mut first)).await;
    matches!(read, Ok(Ok(_))) && first == greeting
}
