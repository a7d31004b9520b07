//! Mail servers that cannot be installed beside Postfix: each in a copy of the root that `scripts/setup` unpacked for it.
//!
//! All pass mail for receiver.test on to the host behind them, with a Received field that tells where it came from, and what
//! else they write to another host: the notifications of what that one did not take. A message that waits for more than a
//! second is notified as well. Some mailboxes they refuse themselves, after they took the mail:
//!
//! | mailbox | at | why |
//! |---|---|---|
//! | `closed` | Exim | a redirection that fails with a text |
//! | `lost` | Exim | it is redirected to where no router knows the way |
//! | `program` | Sendmail | a program takes its mail, and exits with `EX_UNAVAILABLE` |

use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::process::Command;

use tempfile::TempDir;

use super::tools::{Background, is_root, poll, program, run, tool};

/// Users of all, in their roots.
const PASSWD: &str = "root:x:0:0:root:/root:/bin/false\nDebian-exim:x:200:200::/var/spool/exim4:/bin/false\n\
                      opensmtpd:x:201:201::/var/lib/opensmtpd/empty:/bin/false\n\
                      opensmtpq:x:202:202::/var/lib/opensmtpd/empty:/bin/false\n\
                      mail:x:8:8::/var/mail:/bin/false\nsmmsp:x:203:203::/var/mail:/bin/false\n";
const GROUP: &str = "root:x:0:\nmail:x:8:\nDebian-exim:x:200:\nopensmtpd:x:201:\nopensmtpq:x:202:\nsmmsp:x:203:\n";

/// What a server has to do with whom.
#[derive(Clone, Copy)]
pub(crate) struct Neighbours {
    /// Where it listens.
    pub(crate) here: SocketAddr,
    /// Who takes what comes for receiver.test.
    pub(crate) behind: SocketAddr,
    /// Who takes what it writes itself.
    pub(crate) home: SocketAddr,
}

/// A running server.
pub(crate) struct Unpacked {
    _process: Background,
    _root: TempDir,
}

impl Unpacked {
    /// Exim. Returns once it listens.
    pub(crate) fn exim(neighbours: Neighbours) -> Self {
        let Neighbours { here, behind, home } = neighbours;
        let route = |name: &str, rule: &str, to: SocketAddr| {
            format!(
                "{name}:\n  driver = manualroute\n  {rule}\n  route_list = * {}\n  self = send\n  transport = {name}\n",
                to.ip()
            )
        };
        let redirect = |name: &str, data: &str| {
            format!("{name}:\n  driver = redirect\n  local_parts = {name}\n  allow_fail\n  data = {data}\n")
        };
        let config = format!(
            "primary_hostname = mx.receiver.test\ndomainlist here = receiver.test\nlocal_interfaces = {}\n\
             daemon_smtp_ports = {}\nlog_file_path = /var/log/exim4/%slog\nkeep_environment =\nhost_lookup =\n\
             rfc1413_query_timeout = 0s\nsmtp_accept_queue_per_connection = 0\nacl_smtp_rcpt = check_rcpt\nhosts_treat_as_local =\n\
             delay_warning = 1s\n\
             begin acl\ncheck_rcpt:\n  accept domains = +here\n  deny message = relay not permitted\n\
             begin routers\n{}{}{}{}begin transports\n\
             behind:\n  driver = smtp\n  port = {}\nhome:\n  driver = smtp\n  port = {}\nbegin retry\n* * F,1h,1m\n",
            here.ip(),
            here.port(),
            redirect("closed", ":fail: this mailbox was closed"),
            redirect("lost", "lost@nowhere.invalid"),
            route("behind", "domains = +here", behind),
            route("home", "senders = :", home),
            behind.port(),
            home.port(),
        );
        let root = root_of("exim");
        for (dir, mode) in [("etc/exim4", "755"), ("var/spool/exim4", "750"), ("var/log/exim4", "750")] {
            directory(&root, dir, mode);
        }
        for dir in ["var/spool/exim4", "var/log/exim4"] {
            run(Command::new("chown").arg("200:200").arg(root.path().join(dir)), b"");
        }
        Self::start(root, "etc/exim4/exim4.conf", &config, &["/usr/sbin/exim4", "-bdf"], here)
    }

    /// OpenSMTPD. Returns once it listens.
    pub(crate) fn opensmtpd(neighbours: Neighbours) -> Self {
        let Neighbours { here, behind, home } = neighbours;
        let config = format!(
            "bounce warn-interval 1s\n\
             listen on {} port {} hostname mx.receiver.test\naction \"behind\" relay host smtp://{behind}\n\
             action \"home\" relay host smtp://{home}\n\
             match from any for domain \"receiver.test\" action \"behind\"\nmatch from local for any action \"home\"\n",
            here.ip(),
            here.port(),
        );
        let root = root_of("opensmtpd");
        directory(&root, "var/spool/smtpd", "711");
        Self::start(root, "etc/smtpd.conf", &config, &["/usr/sbin/smtpd", "-d"], here)
    }

    /// Sendmail, with the config that its own macros make. Returns once it listens.
    pub(crate) fn sendmail(neighbours: Neighbours) -> Self {
        let Neighbours { here, behind, home } = neighbours;
        // It knows no ports of its hosts but by mailer. A busy machine is no reason to keep mail here.
        let macros = format!(
            "divert(-1)\ninclude(`m4/cf.m4')\ndivert(0)\nOSTYPE(`linux')\ndefine(`confDOMAIN_NAME', `mx.receiver.test')\n\
             define(`confTO_IDENT', `0')\ndefine(`confTO_QUEUEWARN', `1s')\n\
             define(`confQUEUE_LA', `10000')\ndefine(`confREFUSE_LA', `10000')\n\
             define(`confSERVICE_SWITCH_FILE', `/etc/mail/service.switch')\ndefine(`confPID_FILE', `/var/run/sendmail.pid')\n\
             define(`SMART_HOST', `relay:[{}]')\ndefine(`RELAY_MAILER_ARGS', `TCP $h {}')\n\
             define(`ESMTP_MAILER_ARGS', `TCP $h {}')\nundefine(`ALIAS_FILE')\n\
             FEATURE(`nocanonify')\nFEATURE(`accept_unresolvable_domains')\nFEATURE(`no_default_msa')\n\
             DAEMON_OPTIONS(`Name=MTA, Addr={}, Port={}')\nRELAY_DOMAIN(`receiver.test')\n\
             MAILER(`local')\nMAILER(`smtp')\nLOCAL_RULE_0\nRprogram < @ receiver.test . >\t$#closed $: program\n\
             R$* < @ receiver.test . > $*\t$#esmtp $@ [{}] $: $1 < @ receiver.test . > $2\n\
             MAILER_DEFINITIONS\nMclosed,\tP=/usr/libexec/sendmail/smrsh, F=lsDFMo, S=EnvFromL, R=EnvToL, D=/,\
             T=DNS/RFC822/X-Unix, A=smrsh -c $u\n",
            home.ip(),
            home.port(),
            behind.port(),
            here.ip(),
            here.port(),
            behind.ip(),
        );
        let root = root_of("sendmail");
        let made_in = root.path().join("usr/share/sendmail/cf");
        let config = run(Command::new(program("m4")).current_dir(made_in).arg("-"), macros.as_bytes());
        directory(&root, "var/spool/mqueue", "700");
        for (file, text) in
            [("mail/service.switch", "hosts files\npasswd files\naliases files\n"), ("hosts", "127.0.0.1 localhost\n")]
        {
            std::fs::write(root.path().join("etc").join(file), text).unwrap();
        }
        Self::start(root, "etc/mail/sendmail.cf", &config, &["/usr/libexec/sendmail/sendmail", "-bD"], here)
    }

    fn start(root: TempDir, file: &str, config: &str, command: &[&str], address: SocketAddr) -> Self {
        std::fs::write(root.path().join(file), config).unwrap();
        run(Command::new("chmod").arg("600").arg(root.path().join(file)), b"");
        let process = Background::start(Command::new(program("chroot")).arg(root.path()).args(command));
        poll(command[0], || TcpStream::connect(address).ok());
        Self { _process: process, _root: root }
    }
}

fn directory(root: &TempDir, path: &str, mode: &str) {
    let path = root.path().join(path);
    std::fs::create_dir_all(&path).unwrap();
    run(Command::new("chmod").arg(mode).arg(path), b"");
}

/// A root of its own for one test: what these servers write lies at fixed paths.
fn root_of(name: &str) -> TempDir {
    assert!(is_root(), "{name} runs in a root of its own: run this test as root, in a container or a virtual machine");
    let root = tempfile::tempdir().unwrap();
    run(Command::new("cp").arg("-a").arg(tool(&format!("roots/{name}")).join(".")).arg(root.path()), b"");
    run(Command::new("chmod").arg("755").arg(root.path()), b"");
    let device = |path: &str, minor: &str| {
        run(Command::new("mknod").args(["-m", "666"]).arg(root.path().join(path)).args(["c", "1", minor]), b"");
    };
    device("dev/null", "3");
    device("dev/urandom", "9");
    let write = |path: &str, text: &str| std::fs::write(root.path().join(Path::new("etc").join(path)), text).unwrap();
    write("passwd", PASSWD);
    write("group", GROUP);
    root
}
