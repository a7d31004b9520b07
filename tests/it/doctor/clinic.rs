//! A host, its domain and the world around it, all as they should be.

use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::thread;
use std::time::{SystemTime, UNIX_EPOCH};

use serde_json::Value;

use crate::harness::{Certificate, ConfigText, Lab, Mx, reverse_name};

pub(super) const DOMAIN: &str = "shop.test";
pub(super) const HOST: &str = "mail.shop.test";
/// Selectors of the keys in tests/data/dkim, and their files.
pub(super) const KEYS: [(&str, &str); 2] = [("ph1", "rsa2048"), ("ph2", "ed25519")];

/// Declares first what is dropped last.
pub(super) struct Clinic {
    pub(super) lab: Lab,
    /// What the world sees, as behind NAT: no resolver asks anybody for the names of loopback addresses (RFC 6761).
    pub(super) source: Ipv4Addr,
    pub(super) time: TimeServer,
    /// Of `probe.test` and `probe2.test`.
    pub(super) mx: Option<Mx>,
    /// Whether `--source` names the source.
    pub(super) names_source: bool,
    /// Options of every run.
    pub(super) options: Vec<String>,
}

/// What a run said.
pub(super) struct Report {
    pub(super) code: i32,
    pub(super) json: Value,
}

impl Report {
    pub(super) fn findings(&self) -> &[Value] {
        self.json["findings"].as_array().unwrap()
    }

    pub(super) fn finding(&self, check: &str, code: &str) -> Option<&Value> {
        self.findings().iter().find(|finding| finding["check"] == check && finding["code"] == code)
    }

    /// What is not ok.
    pub(super) fn text(&self) -> String {
        let bad: Vec<&Value> = self.findings().iter().filter(|finding| finding["severity"] != "ok").collect();
        format!("exit {}: {bad:#?}", self.code)
    }
}

impl Clinic {
    pub(super) fn new() -> Self {
        let lab = Lab::new();
        let source = Ipv4Addr::new(203, 0, 113, 9);
        let mx = lab.mx(2);
        let time = TimeServer::start(lab.ip(3));
        let clinic = Self { lab, source, time, mx: Some(mx), names_source: true, options: Vec::new() };
        let dns = &clinic.lab.dns;
        for probe in ["probe.test", "probe2.test"] {
            clinic.lab.domain(probe, &[2]);
        }
        dns.a(HOST, source);
        dns.ptr(source, HOST);
        for name in [HOST, DOMAIN] {
            dns.txt(name, &[&format!("v=spf1 ip4:{source} -all")]);
        }
        dns.txt(DOMAIN, &["some-site-verification=1"]);
        clinic.lab.domain(DOMAIN, &[4]);
        dns.txt(&format!("_dmarc.{DOMAIN}"), &["v=DMARC1; p=quarantine; rua=mailto:dmarc@shop.test"]);
        for (selector, key) in KEYS {
            clinic.publish_key(&format!("{selector}._domainkey.{DOMAIN}"), key);
        }
        clinic.publish_key("ph1._domainkey.esp.test", "ed25519");
        clinic.trust(&Certificate::for_name(HOST));
        clinic.write(&clinic.config());
        clinic
    }

    /// Lets the listener have this certificate, and applications trust it.
    pub(super) fn trust(&self, certificate: &Certificate) {
        certificate.write(self.lab.dir());
        std::fs::copy(self.lab.dir().join("certificate.pem"), self.lab.dir().join("ca.pem")).unwrap();
    }

    /// The record of a key of tests/data/dkim.
    fn publish_key(&self, owner: &str, key: &str) {
        let record = key_record(key);
        let (first, rest) = record.split_at(record.len().min(200));
        self.lab.dns.txt(owner, &[first, rest]);
    }

    pub(super) fn config(&self) -> ConfigText {
        let dir = self.lab.dir();
        let path = |name: &str| format!("{:?}", dir.join(name).to_str().unwrap());
        let mut config = self.lab.config().without_tables("listener").set("hostname", &format!("{HOST:?}"));
        config = config
            .set("delivery.sources", &format!("[\"{}\"]", self.lab.ip(9)))
            .set("signing.operator_domain", "\"esp.test\"")
            .table(&format!(
                "[[listener]]\nname = \"smtp\"\naddress = \"127.0.0.1:0\"\ntls = \"starttls\"\ncertificate = {}\nkey = {}\n",
                path("certificate.pem"),
                path("key.pem")
            ))
            .table("[[tenant]]\nname = \"shop\"\n")
            .table(&format!("[[identity]]\nname = \"{DOMAIN}\"\ntenant = \"shop\"\n"));
        let keys =
            KEYS.map(|(selector, key)| (DOMAIN, selector, key)).into_iter().chain([("esp.test", "ph1", "ed25519")]);
        for (domain, selector, key) in keys {
            config = config.table(&self.key_table(domain, selector, key, "current"));
        }
        config
    }

    /// A `[[dkim]]` with a copy of a key of tests/data/dkim.
    pub(super) fn key_table(&self, domain: &str, selector: &str, key: &str, state: &str) -> String {
        let path = self.lab.dir().join(format!("{domain}.{selector}.pem"));
        if !path.exists() {
            std::fs::copy(data(&format!("{key}.pem")), &path).unwrap();
            set_mode(&path, 0o600);
        }
        format!(
            "[[dkim]]\ndomain = \"{domain}\"\nselector = \"{selector}\"\nkey_file = {path:?}\nstate = \"{state}\"\n"
        )
    }

    pub(super) fn write(&self, config: &ConfigText) {
        std::fs::write(self.lab.dir().join("config.toml"), config.render()).unwrap();
    }

    /// A run that prints text; later options win where they stand once.
    pub(super) fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_posthaste"));
        command.arg("doctor");
        let has = |name: &str| arguments.contains(&name) || self.options.iter().any(|option| option == name);
        for (name, value) in [
            ("--config", self.lab.dir().join("config.toml").to_str().unwrap().to_owned()),
            ("--ca", self.lab.dir().join("ca.pem").to_str().unwrap().to_owned()),
            ("--time-server", self.time.address.to_string()),
            ("--probe", "probe.test".to_owned()),
            ("--source", self.source.to_string()),
        ] {
            if !has(name) && (self.names_source || name != "--source") {
                command.args([name, &value]);
            }
        }
        command.args(&self.options).args(arguments);
        command
    }

    pub(super) fn doctor(&self) -> Report {
        self.doctor_with(&[])
    }

    pub(super) fn doctor_with(&self, arguments: &[&str]) -> Report {
        let output = self.command(&[&["--json"], arguments].concat()).output().unwrap();
        let errors = String::from_utf8_lossy(&output.stderr);
        let json = serde_json::from_slice(&output.stdout);
        let json = json.unwrap_or_else(|error| panic!("{error}: {}: {errors}", output.status));
        Report { code: output.status.code().unwrap(), json }
    }

    /// Does what an administrator does with a line: it takes the place of records of its name and kind (of addresses it
    /// stands beside them, of TXT records it replaces those of its purpose).
    pub(super) fn publish(&self, line: &str) {
        let (name, rest) = line.split_once(". IN ").unwrap_or_else(|| panic!("{line:?} is no line of a zone"));
        let (kind, data) = rest.split_once(' ').unwrap();
        let dns = &self.lab.dns;
        match kind {
            "TXT" => {
                let strings: Vec<&str> = data.split('"').skip(1).step_by(2).collect();
                assert!(strings.iter().all(|string| string.len() <= 255 && !string.contains('\\')), "{line}");
                let is_spf = strings.concat().starts_with("v=spf1");
                dns.remove_txt(name, if is_spf { "v=spf1" } else { "" });
                dns.txt(name, &strings);
            }
            "A" => dns.a(name, data.parse().unwrap()),
            "MX" => {
                let (preference, host) = data.split_once(' ').unwrap();
                dns.mx(name, &[(preference.parse().unwrap(), host.strip_suffix('.').unwrap())]);
            }
            "PTR" => {
                assert_eq!(name, reverse_name(self.source));
                dns.remove(name);
                dns.ptr(self.source, data.strip_suffix('.').unwrap());
            }
            _ => panic!("{line}"),
        }
    }
}

/// The record of a key of tests/data/dkim, as OpenSSL has it.
pub(super) fn key_record(key: &str) -> String {
    std::fs::read_to_string(data(&format!("{key}.txt"))).unwrap().trim().to_owned()
}

fn data(name: &str) -> String {
    format!("{}/tests/data/dkim/{name}", env!("CARGO_MANIFEST_DIR"))
}

pub(super) fn set_mode(path: &Path, mode: u32) {
    std::fs::set_permissions(path, std::os::unix::fs::PermissionsExt::from_mode(mode)).unwrap();
}

/// An SNTP server whose clock is off as told. Stops when dropped.
pub(super) struct TimeServer {
    pub(super) address: SocketAddr,
    /// How far it is ahead of us.
    pub(super) ahead_seconds: Arc<AtomicI64>,
    stops: Arc<AtomicBool>,
}

impl TimeServer {
    fn start(host: Ipv4Addr) -> Self {
        let socket = UdpSocket::bind((host, 0)).unwrap();
        let address = socket.local_addr().unwrap();
        let (ahead_seconds, stops) = (Arc::new(AtomicI64::new(0)), Arc::new(AtomicBool::new(false)));
        let (ahead, stopping) = (Arc::clone(&ahead_seconds), Arc::clone(&stops));
        thread::spawn(move || {
            let mut question = [0; 128];
            while let Ok((length, client)) = socket.recv_from(&mut question) {
                if stopping.load(Ordering::Relaxed) {
                    return;
                }
                if length >= 48 {
                    let _ = socket.send_to(&answer(&question, ahead.load(Ordering::Relaxed)), client);
                }
            }
        });
        Self { address, ahead_seconds, stops }
    }
}

impl Drop for TimeServer {
    fn drop(&mut self) {
        self.stops.store(true, Ordering::Relaxed);
        // Any datagram wakes the thread.
        let _ = UdpSocket::bind((self.address.ip(), 0)).and_then(|socket| socket.send_to(&[0], self.address));
    }
}

/// RFC 4330 §4: version 4, mode 4, stratum 2.
#[allow(clippy::disallowed_methods, reason = "the time that the doctor's clock is held against")]
fn answer(question: &[u8], ahead_seconds: i64) -> Vec<u8> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    let seconds = i64::try_from(now.as_secs()).unwrap() + 2_208_988_800 + ahead_seconds;
    let fraction = (u64::from(now.subsec_nanos()) << 32) / 1_000_000_000;
    let time = ((u64::try_from(seconds).unwrap() & 0xffff_ffff) << 32) | fraction;
    let mut packet = vec![0; 48];
    (packet[0], packet[1]) = (0x24, 2);
    packet[24..32].copy_from_slice(&question[40..48]);
    packet[32..40].copy_from_slice(&time.to_be_bytes());
    packet[40..].copy_from_slice(&time.to_be_bytes());
    packet
}
