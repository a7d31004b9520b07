//! Mail servers that cannot be installed beside Postfix: each in a copy of the root that `scripts/setup` unpacked for it.
//!
//! Both pass all mail for receiver.test on to the host behind them, with a Received field that tells where it came from.

use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::process::Command;

use tempfile::TempDir;

use super::tools::{Background, is_root, poll, program, run, tool};

/// Users of both, in their roots.
const PASSWD: &str = "root:x:0:0:root:/root:/bin/false\nDebian-exim:x:200:200::/var/spool/exim4:/bin/false\n\
                      opensmtpd:x:201:201::/var/lib/opensmtpd/empty:/bin/false\n\
                      opensmtpq:x:202:202::/var/lib/opensmtpd/empty:/bin/false\n";
const GROUP: &str = "root:x:0:\nmail:x:8:\nDebian-exim:x:200:\nopensmtpd:x:201:\nopensmtpq:x:202:\n";

/// A running server.
pub(crate) struct Unpacked {
    _process: Background,
    _root: TempDir,
}

impl Unpacked {
    /// Exim. Returns once it listens.
    pub(crate) fn exim(address: SocketAddr, behind: SocketAddr) -> Self {
        let config = format!(
            "primary_hostname = mx.receiver.test\ndomainlist here = receiver.test\nlocal_interfaces = {}\n\
             daemon_smtp_ports = {}\nlog_file_path = /var/log/exim4/%slog\nkeep_environment =\nhost_lookup =\n\
             rfc1413_query_timeout = 0s\nsmtp_accept_queue_per_connection = 0\nacl_smtp_rcpt = check_rcpt\nhosts_treat_as_local =\n\
             begin acl\ncheck_rcpt:\n  accept domains = +here\n  deny message = relay not permitted\n\
             begin routers\nbehind:\n  driver = manualroute\n  domains = +here\n  route_list = * {}\n  self = send\n  \
             transport = behind\nbegin transports\nbehind:\n  driver = smtp\n  port = {}\nbegin retry\n* * F,1h,1m\n",
            address.ip(),
            address.port(),
            behind.ip(),
            behind.port(),
        );
        let root = root_of("exim");
        for (dir, mode) in [("etc/exim4", "755"), ("var/spool/exim4", "750"), ("var/log/exim4", "750")] {
            std::fs::create_dir_all(root.path().join(dir)).unwrap();
            run(Command::new("chmod").arg(mode).arg(root.path().join(dir)), b"");
        }
        for dir in ["var/spool/exim4", "var/log/exim4"] {
            run(Command::new("chown").arg("200:200").arg(root.path().join(dir)), b"");
        }
        Self::start(root, "etc/exim4/exim4.conf", &config, &["/usr/sbin/exim4", "-bdf"], address)
    }

    /// OpenSMTPD. Returns once it listens.
    pub(crate) fn opensmtpd(address: SocketAddr, behind: SocketAddr) -> Self {
        let config = format!(
            "listen on {} port {} hostname mx.receiver.test\naction \"behind\" relay host smtp://{behind}\n\
             match from any for domain \"receiver.test\" action \"behind\"\n",
            address.ip(),
            address.port(),
        );
        let root = root_of("opensmtpd");
        let spool = root.path().join("var/spool/smtpd");
        std::fs::create_dir_all(&spool).unwrap();
        run(Command::new("chmod").arg("711").arg(&spool), b"");
        Self::start(root, "etc/smtpd.conf", &config, &["/usr/sbin/smtpd", "-d"], address)
    }

    fn start(root: TempDir, file: &str, config: &str, command: &[&str], address: SocketAddr) -> Self {
        std::fs::write(root.path().join(file), config).unwrap();
        run(Command::new("chmod").arg("600").arg(root.path().join(file)), b"");
        let process = Background::start(Command::new(program("chroot")).arg(root.path()).args(command));
        poll(command[0], || TcpStream::connect(address).ok());
        Self { _process: process, _root: root }
    }
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
