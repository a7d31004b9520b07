//! Postfix instances of the tests' own: each with its own config, queue, data and log below one temporary directory, on
//! the loopback address that it is given. The system's instance is never touched.

use std::fmt::Write as _;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;

use tempfile::TempDir;

use super::tools::{is_root, open_to_all, poll, program, run, run_any, try_poll};

/// Who owns the files of delivered mail: "nobody" on Debian.
const MAILBOX_OWNER: u32 = 65534;

/// What an instance needs, besides its smtpd.
const SERVICES: &str = "\
pickup unix n - n 1 1 pickup
cleanup unix n - n - 0 cleanup
qmgr unix n - n 300 1 qmgr
tlsmgr unix - - n 1000? 1 tlsmgr
rewrite unix - - n - - trivial-rewrite
bounce unix - - n - 0 bounce
defer unix - - n - 0 bounce
trace unix - - n - 0 bounce
verify unix - - n - 1 verify
flush unix n - n 1000? 0 flush
proxymap unix - - n - - proxymap
proxywrite unix - - n - 1 proxymap
smtp unix - - n - - smtp
relay unix - - n - - smtp
showq unix n - n - - showq
error unix - - n - - error
retry unix - - n - - error
virtual unix - n n - - virtual
anvil unix - - n - 1 anvil
scache unix - - n - 1 scache
postlog unix-dgram n - n - 1 postlogd
";

/// A running instance.
pub(crate) struct Postfix {
    dir: TempDir,
}

impl Postfix {
    /// Takes mail for `mailboxes`, each a directory of files (Maildir) with everything that came for it, and refuses
    /// other recipients.
    pub(crate) fn receiver(address: SocketAddr, mailboxes: &[&str]) -> Self {
        Self::receiver_with(address, mailboxes, "")
    }

    /// The same. `settings`: further lines of main.cf.
    pub(crate) fn receiver_with(address: SocketAddr, mailboxes: &[&str], settings: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let mail = dir.path().join("mail");
        std::fs::create_dir(&mail).unwrap();
        open_to_all(&mail);
        let mut table = String::new();
        for mailbox in mailboxes {
            writeln!(table, "{mailbox} {mailbox}/").unwrap();
        }
        // No table: two mailboxes of one domain would be two lines with one key.
        let domains = mailboxes.iter().map(|mailbox| mailbox.rsplit_once('@').unwrap().1).collect::<Vec<_>>().join(" ");
        let file = |name: &str, content: &str| {
            let file = dir.path().join(name);
            std::fs::write(&file, content).unwrap();
            format!("texthash:{}", file.display())
        };
        let settings = format!(
            "virtual_mailbox_domains = {domains}\nvirtual_mailbox_maps = {}\nvirtual_mailbox_base = {}\n\
             virtual_uid_maps = static:{MAILBOX_OWNER}\nvirtual_gid_maps = static:{MAILBOX_OWNER}\n\
             virtual_mailbox_limit = 0\nmessage_size_limit = 50000000\n{settings}",
            file("mailboxes", &table),
            mail.display(),
        );
        Self::start(dir, address, "mx.receiver.test", &settings)
    }

    /// Sends all its mail to `relay`. `settings`: further lines of main.cf.
    pub(crate) fn upstream(address: SocketAddr, relay: SocketAddr, settings: &str) -> Self {
        let settings = format!("relayhost = [{}]:{}\n{settings}", relay.ip(), relay.port());
        Self::start(tempfile::tempdir().unwrap(), address, "upstream.sender.example", &settings)
    }

    fn start(dir: TempDir, address: SocketAddr, hostname: &str, settings: &str) -> Self {
        assert!(is_root(), "Postfix starts only as root: run this test as root, in a container or a virtual machine");
        open_to_all(dir.path());
        let shown = dir.path().display().to_string();
        for name in ["config", "queue", "data"] {
            std::fs::create_dir(dir.path().join(name)).unwrap();
        }
        run(Command::new("chown").arg("postfix").arg(dir.path().join("data")), b"");
        let main = format!(
            "compatibility_level = 3.6\nqueue_directory = {shown}/queue\ndata_directory = {shown}/data\n\
             maillog_file = {shown}/log\nmaillog_file_prefixes = {shown}\nmyhostname = {hostname}\nmydestination =\n\
             inet_interfaces = 127.0.0.1\ninet_protocols = ipv4\nmynetworks = 127.0.0.0/8\nalias_maps =\n\
             alias_database =\n{settings}"
        );
        std::fs::write(dir.path().join("config/main.cf"), main).unwrap();
        let services = format!("{address} inet n - n - - smtpd\n{SERVICES}");
        std::fs::write(dir.path().join("config/master.cf"), services).unwrap();
        // From here on the instance is ended with the value.
        let postfix = Self { dir };
        let (is_good, output) = run_any(postfix.command("postfix", "-c").arg("start"), b"");
        assert!(is_good, "Postfix does not start:\n{output}\n{}", postfix.log());
        postfix
    }

    /// `option`: how this program of Postfix takes the config directory.
    fn command(&self, name: &str, option: &str) -> Command {
        let mut command = Command::new(program(name));
        command.arg(option).arg(self.dir.path().join("config"));
        command
    }

    pub(crate) fn log(&self) -> String {
        String::from_utf8_lossy(&std::fs::read(self.dir.path().join("log")).unwrap_or_default()).into_owned()
    }

    /// The first line of the log with all these texts, as soon as there is one.
    #[track_caller]
    pub(crate) fn wait_log(&self, texts: &[&str]) -> String {
        let line = || {
            let log = self.log();
            let found = log.lines().find(|line| texts.iter().all(|text| line.contains(text))).map(str::to_owned);
            found.ok_or(log)
        };
        let mut last = String::new();
        let found = try_poll(|| line().map_err(|log| last = log).ok());
        found.unwrap_or_else(|| panic!("{texts:?} is not in the log of Postfix:\n{last}"))
    }

    /// Hands in a message on this host, as cron and scripts do.
    pub(crate) fn sendmail(&self, from: &str, to: &[&str], message: &str) {
        run(self.command("sendmail", "-C").args(["-i", "-f", from]).args(to), super::with_lf(message).as_bytes());
    }

    /// What lies in a mailbox, as soon as there are `count` messages; in no order.
    #[track_caller]
    pub(crate) fn mailbox(&self, mailbox: &str, count: usize) -> Vec<String> {
        let dir = self.dir.path().join("mail").join(mailbox).join("new");
        let found = try_poll(|| Some(files(&dir)).filter(|files| files.len() >= count));
        let found = found.unwrap_or_else(|| panic!("{mailbox} has not got {count} messages:\n{}", self.log()));
        found.iter().map(|file| String::from_utf8(std::fs::read(file).unwrap()).unwrap()).collect()
    }

    /// Tries all mail of its queue now.
    pub(crate) fn flush(&self) {
        run(self.command("postqueue", "-c").arg("-f"), b"");
    }

    /// Waits until its queue is empty.
    pub(crate) fn wait_empty(&self) {
        poll("the queue of Postfix gets empty", || {
            let queue = run(self.command("postqueue", "-c").arg("-j"), b"");
            queue.trim().is_empty().then_some(())
        });
    }
}

impl Drop for Postfix {
    fn drop(&mut self) {
        drop(self.command("postfix", "-c").arg("stop").output());
        if std::thread::panicking() {
            eprintln!("--- log of Postfix\n{}\n---", self.log());
        }
    }
}

fn files(dir: &Path) -> Vec<PathBuf> {
    std::fs::read_dir(dir).into_iter().flatten().map(|entry| entry.unwrap().path()).collect()
}
