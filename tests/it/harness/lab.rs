//! A network of its own for one test: a /24 below 127/8, so that tests beside each other never meet.

use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener};
use std::path::Path;
use std::sync::atomic::{AtomicU8, Ordering};

use tempfile::TempDir;

use super::{Answer, Ask, Client, ConfigText, Daemon, Dns, Mx, MxOptions, Stage, Watched};

/// Numbers the networks within one process.
static NETWORKS: AtomicU8 = AtomicU8::new(0);

/// See the module. Dropped last in a test: declare it first.
pub(crate) struct Lab {
    pub(crate) dns: Dns,
    network: [u8; 3],
    port: u16,
    dir: TempDir,
}

impl Lab {
    pub(crate) fn new() -> Self {
        // Another process is another second octet, another test of this process another third one.
        let process = u8::try_from(std::process::id() % 200).unwrap() + 20;
        let network = [127, process, NETWORKS.fetch_add(1, Ordering::Relaxed)];
        let host = Ipv4Addr::new(network[0], network[1], network[2], 1);
        // All mail hosts share one port. Nobody else is in this network, so what is free on one host is free on all.
        let port = TcpListener::bind((host, 0)).unwrap().local_addr().unwrap().port();
        Self { dns: Dns::start(host), network, port, dir: tempfile::tempdir().unwrap() }
    }

    pub(crate) fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// The port of all mail hosts.
    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    /// The address of a host of this network; 1 is the DNS server.
    pub(crate) fn ip(&self, host: u8) -> Ipv4Addr {
        Ipv4Addr::new(self.network[0], self.network[1], self.network[2], host)
    }

    /// A mail host at [`Lab::ip`] `host` that accepts everything. It has no name yet: see [`Lab::domain`].
    pub(crate) fn mx(&self, host: u8) -> Mx {
        self.mx_with(host, MxOptions::default(), |_| Answer::Usual)
    }

    /// A mail host that answers as `script` says.
    pub(crate) fn mx_scripted(&self, host: u8, script: impl FnMut(&Ask<'_>) -> Answer + Send + 'static) -> Mx {
        self.mx_with(host, MxOptions::default(), script)
    }

    pub(crate) fn mx_with(
        &self,
        host: u8,
        options: MxOptions,
        script: impl FnMut(&Ask<'_>) -> Answer + Send + 'static,
    ) -> Mx {
        Mx::start(SocketAddr::new(IpAddr::V4(self.ip(host)), self.port), options, script)
    }

    /// A mail host that answers no final dot until the gate opens.
    pub(crate) fn mx_holding_dots(&self, host: u8) -> (Mx, Watched<bool>) {
        let gate = Watched::new(false);
        let shut = gate.clone();
        let mx = self.mx_scripted(host, move |ask| {
            let holds = ask.stage == Stage::Dot;
            if holds { Answer::Hold(shut.clone(), Box::new(Answer::Usual)) } else { Answer::Usual }
        });
        (mx, gate)
    }

    /// Gives `domain` MX records for the hosts, in order of preference, named `mx<host>.<domain>`.
    pub(crate) fn domain(&self, domain: &str, hosts: &[u8]) {
        let mut records = Vec::new();
        for (rank, host) in (1_u16..).zip(hosts) {
            let name = format!("mx{host}.{domain}");
            self.dns.a(&name, self.ip(*host));
            records.push((rank * 10, name));
        }
        self.dns.mx(domain, &records.iter().map(|(rank, name)| (*rank, name.as_str())).collect::<Vec<_>>());
    }

    /// Mail hosts for `one.test` and `two.test`, which take everything.
    pub(crate) fn one_and_two(&self) -> [Mx; 2] {
        let hosts = [self.mx(2), self.mx(3)];
        self.name_one_and_two();
        hosts
    }

    /// The same; the first defers a tenth of the recipients once, so that a fault meets mail in every state.
    pub(crate) fn one_and_two_greylisting(&self) -> [Mx; 2] {
        let greylist = |ask: &Ask<'_>| {
            let defers = ask.stage == Stage::Rcpt && ask.asked == 1 && ask.recipient.contains("7@");
            if defers { Answer::say("450 4.2.0 Not now") } else { Answer::Usual }
        };
        let hosts = [self.mx_scripted(2, greylist), self.mx(3)];
        self.name_one_and_two();
        hosts
    }

    fn name_one_and_two(&self) {
        self.domain("one.test", &[2]);
        self.domain("two.test", &[3]);
    }

    /// A config for this lab: quick retries, small memory, all files in the lab's directory.
    pub(crate) fn config(&self) -> ConfigText {
        ConfigText::for_lab(self.dir(), self.dns.address(), self.port)
    }

    /// Starts the daemon with [`Lab::config`].
    pub(crate) fn daemon(&self) -> Daemon {
        Daemon::start(self.dir(), self.config())
    }

    /// Starts the daemon with another config.
    pub(crate) fn daemon_with(&self, config: ConfigText) -> Daemon {
        Daemon::start(self.dir(), config)
    }

    /// A client of `daemon` that has said EHLO.
    pub(crate) fn client(&self, daemon: &Daemon) -> Client {
        Client::hello(daemon.smtp_addr())
    }
}
