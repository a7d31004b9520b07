//! The servers under test. Each starts with an empty queue in a directory of its own, and is stopped by SIGTERM.

use std::fmt::Write as _;
use std::fs;
use std::net::SocketAddr;
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use rustix::process::Signal;

use crate::child::Child;
use crate::dns;
use crate::failure::{Context, Failure, Result};
use crate::login;
use crate::options::Work;
use crate::reports;
use crate::signing;
use crate::sink;

/// Where both take submissions.
const SUBMISSION: ([u8; 4], u16) = ([127, 0, 0, 1], 2525);

/// The certificate of that listener, in the directory of a run.
pub(crate) const CERTIFICATE: &str = "certificate.pem";
/// Where posthaste takes submissions with TLS from the first octet, in `hostile` and `login`.
pub(crate) const IMPLICIT_TLS: ([u8; 4], u16) = ([127, 0, 0, 1], 2465);

/// Where posthaste takes reports, in `reports`.
pub(crate) const FEEDBACK: ([u8; 4], u16) = ([127, 0, 0, 1], 2526);

/// A running server.
pub(crate) struct Running {
    child: Child,
    /// The process that SIGTERM goes to: Postfix's master is a child of the script that we start.
    root: u32,
    /// Submission.
    pub(crate) address: SocketAddr,
}

/// Connection limits of posthaste in a run.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Connections {
    /// In all.
    pub(crate) all: u32,
    /// To one site.
    pub(crate) site: u32,
}

impl Running {
    /// Its first process.
    pub(crate) fn root(&self) -> u32 {
        self.root
    }

    /// Stops it and returns how long that took.
    pub(crate) async fn stop(self) -> Result<Duration> {
        self.child.stop(self.root, Signal::TERM).await
    }
}

/// What a work needs beside the load.
#[derive(Clone, Copy, Debug)]
pub(crate) enum More {
    Nothing,
    /// Room for so many connections, and a listener with TLS.
    Hostile(u32),
    /// Tenants with credentials, and a listener with TLS.
    Logins,
    /// A listener for feedback.
    Reports,
    /// Keys of this work for the author's domain and the operator's.
    Keys(Work),
}

/// Starts posthaste from `binary`. `directory` may hold the queue of an earlier run. `more` is what
/// the work needs beside the load.
pub(crate) async fn posthaste(
    binary: &Path,
    directory: &Path,
    connections: Connections,
    more: More,
) -> Result<Running> {
    fs::create_dir_all(directory.join("events")).context(|| format!("{}", directory.display()))?;
    let config = directory.join("config.toml");
    let mut text = posthaste_config(directory, connections);
    match more {
        More::Nothing => {}
        More::Hostile(hostile) => {
            let places = hostile.saturating_add(2_000);
            text.push_str(&tls_listener(directory)?);
            write!(text, "\n[reception]\nconnections_max = {places}\nconnections_per_client_max = {places}\n")
                .context(|| "config".to_owned())?;
        }
        More::Logins => {
            text.push_str(&tls_listener(directory)?);
            text.push_str(&login::config());
        }
        More::Reports => text.push_str(&reports::config()),
        More::Keys(work) => text.push_str(&signing::config(directory, work)?),
    }
    fs::write(&config, text).context(|| format!("{}", config.display()))?;
    let arguments = ["run".to_owned(), "--config".to_owned(), config.display().to_string()];
    let child = Child::start(binary, &arguments, &directory.join("log"), "posthaste (cargo build --release)")?;
    let child = ready(child).await?;
    Ok(Running { root: child.id()?, child, address: SUBMISSION.into() })
}

/// Everything that is not named is at its default.
fn posthaste_config(directory: &Path, connections: Connections) -> String {
    let (all, site) = (connections.all, connections.site);
    let (address, port) = SUBMISSION;
    let address = SocketAddr::from((address, port));
    let (directory, mx_port, dns) = (directory.display(), sink::PORT, dns::ADDRESS);
    format!(
        "hostname = \"mta.bench.test\"\ndata_dir = \"{directory}/data\"\n\n[[listener]]\nname = \"bench\"\n\
         address = \"{address}\"\n\n[delivery]\nport = {mx_port}\nallow_private_addresses = true\n\
         connections_max = {all}\nconnections_per_site_max = {site}\n\n[dns]\nservers = [\"{dns}:53\"]\n\n\
         [events]\ndirectory = \"{directory}/events\"\n\n[admin]\nsocket = \"{directory}/admin.sock\"\n"
    )
}

/// A listener with TLS from the first octet and a new certificate (ECDSA P-256).
fn tls_listener(directory: &Path) -> Result<String> {
    let made =
        rcgen::generate_simple_self_signed(["mta.bench.test".to_owned()]).context(|| "certificate".to_owned())?;
    let (certificate, key) = (directory.join(CERTIFICATE), directory.join("key.pem"));
    fs::write(&certificate, made.cert.pem()).context(|| format!("{}", certificate.display()))?;
    fs::write(&key, made.signing_key.serialize_pem()).context(|| format!("{}", key.display()))?;
    fs::set_permissions(&key, fs::Permissions::from_mode(0o600)).context(|| format!("{}", key.display()))?;
    let (certificate, key, address) = (certificate.display(), key.display(), SocketAddr::from(IMPLICIT_TLS));
    Ok(format!(
        "\n[[listener]]\n\
         name = \"tls\"\naddress = \"{address}\"\ntls = \"implicit\"\ncertificate = \"{certificate}\"\nkey = \"{key}\"\n"
    ))
}

/// Starts a Postfix of its own. `directory` may hold the queue of an earlier run.
pub(crate) async fn postfix(directory: &Path, log: bool) -> Result<Running> {
    fs::create_dir_all(directory.join("queue")).context(|| format!("{}", directory.display()))?;
    let data = directory.join("data");
    fs::create_dir_all(&data).context(|| format!("{}", data.display()))?;
    let (user, group) = postfix_user()?;
    chown(&data, Some(user), Some(group)).context(|| format!("owner of {}", data.display()))?;
    fs::write(directory.join("main.cf"), main_cf(directory, log)).context(|| "main.cf".to_owned())?;
    fs::write(directory.join("master.cf"), master_cf()?).context(|| "master.cf".to_owned())?;
    let arguments = ["-c".to_owned(), directory.display().to_string(), "start-fg".to_owned()];
    let child = Child::start(Path::new("postfix"), &arguments, &directory.join("log"), "postfix")?;
    let child = ready(child).await?;
    let file = directory.join("queue/pid/master.pid");
    let text = fs::read_to_string(&file).context(|| format!("{}", file.display()))?;
    let root = text.trim().parse().context(|| format!("process id in {}", file.display()))?;
    Ok(Running { root, child, address: SUBMISSION.into() })
}

async fn ready(mut child: Child) -> Result<Child> {
    child.ready(SUBMISSION.into(), b"220").await?;
    Ok(child)
}

/// Numbers of Postfix's user and group.
fn postfix_user() -> Result<(u32, u32)> {
    let file = "/etc/passwd";
    let text = fs::read_to_string(file).context(|| file.to_owned())?;
    text.lines()
        .map(|line| line.split(':').collect::<Vec<_>>())
        .find(|fields| fields.first() == Some(&"postfix"))
        .and_then(|fields| Some((fields.get(2)?.parse().ok()?, fields.get(3)?.parse().ok()?)))
        .ok_or_else(|| Failure::new("no user postfix in /etc/passwd: install the package postfix"))
}

/// Debian's main.cf for a fresh install, without TLS, and what an instance of its own needs. benches/README.md lists the
/// differences and their reasons.
fn main_cf(directory: &Path, log: bool) -> String {
    let directory = directory.display();
    let mut text = format!(
        "smtpd_banner = $myhostname ESMTP $mail_name (Debian/GNU)\nbiff = no\nappend_dot_mydomain = no\n\
         readme_directory = no\ncompatibility_level = 3.6\n\
         smtpd_relay_restrictions = permit_mynetworks permit_sasl_authenticated defer_unauth_destination\n\
         mailbox_size_limit = 0\nrecipient_delimiter = +\nmynetworks = 127.0.0.0/8\n\
         queue_directory = {directory}/queue\ndata_directory = {directory}/data\ncommand_directory = /usr/sbin\n\
         daemon_directory = /usr/lib/postfix/sbin\nmyhostname = mta.bench.test\nmydestination =\nrelayhost =\n\
         alias_maps =\nalias_database =\ninet_interfaces = 127.0.0.1\nsmtp_tls_security_level = none\n\
         smtpd_tls_security_level = none\n"
    );
    if log {
        text.push_str(&format!("maillog_file = {directory}/maillog\nmaillog_file_prefixes = {directory}\n"));
    }
    text
}

/// Debian's master.cf with our submission port in place of port 25, and without chroot, which would need copies of system
/// files.
fn master_cf() -> Result<String> {
    let file = PathBuf::from("/usr/share/postfix/master.cf.dist");
    let text = fs::read_to_string(&file).context(|| format!("{}; install the package postfix", file.display()))?;
    let (_, port) = SUBMISSION;
    Ok(text.lines().map(|line| master_line(line, port)).collect())
}

fn master_line(line: &str, port: u16) -> String {
    let mut fields: Vec<&str> = line.split_whitespace().collect();
    let listener = format!("127.0.0.1:{port}");
    if line.starts_with(|first: char| first == '#' || first.is_whitespace()) || fields.len() < 8 {
        return format!("{line}\n");
    }
    if let Some(chroot) = fields.get_mut(4) {
        *chroot = "n";
    }
    if fields.first() == Some(&"smtp") && fields.get(1) == Some(&"inet") {
        fields.splice(..1, [listener.as_str()]);
    }
    format!("{}\n", fields.join(" "))
}

/// First line of what `program` says about itself, for the report.
pub(crate) fn version(program: &Path, arguments: &[&str]) -> String {
    let output = Command::new(program).args(arguments).output();
    let text = output.map(|output| String::from_utf8_lossy(&output.stdout).into_owned()).unwrap_or_default();
    text.lines().next().unwrap_or("unknown").trim().to_owned()
}

/// A directory that all users may enter.
pub(crate) fn make_directory(directory: &Path) -> Result<()> {
    fs::create_dir(directory).context(|| format!("{}", directory.display()))?;
    fs::set_permissions(directory, fs::Permissions::from_mode(0o755)).context(|| format!("{}", directory.display()))
}
