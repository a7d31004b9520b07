//! Sources behind proxies of others: microsocks, HAProxy.

use std::net::{IpAddr, SocketAddr, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::process::Command;

use super::tools::{Background, is_root, poll, program};
use crate::harness::*;

const FROM: &str = "app@sender.example";
const SECRET: &str = "5ecret-of-the-proxy";

/// Where proxies of a lab listen: nobody else is there.
fn proxy_address(lab: &Lab) -> SocketAddr {
    SocketAddr::new(IpAddr::V4(lab.ip(5)), lab.port())
}

fn wait_for(address: SocketAddr) {
    poll("the proxy listens", || TcpStream::connect(address).ok());
}

/// A SOCKS5 proxy with a login that sends from [`Lab::ip`] 9.
fn microsocks(lab: &Lab) -> Background {
    let address = proxy_address(lab);
    let mut command = Command::new(program("microsocks"));
    command.args(["-i", &address.ip().to_string(), "-p", &address.port().to_string()]);
    command.args(["-u", "mta", "-P", SECRET, "-b", &lab.ip(9).to_string()]);
    let process = Background::start(&mut command);
    wait_for(address);
    process
}

/// The source `far`, at [`Lab::ip`] 9 behind that proxy.
fn far(lab: &Lab, secret: &str) -> ConfigText {
    let file = lab.dir().join("socks5.password");
    std::fs::write(&file, format!("{secret}\n")).unwrap();
    std::fs::set_permissions(&file, PermissionsExt::from_mode(0o600)).unwrap();
    lab.config().table(&format!(
        "[[source]]\nname = \"far\"\naddress = \"{}\"\nsocks5 = \"{}\"\nsocks5_user = \"mta\"\n\
         socks5_password_file = {file:?}\n",
        lab.ip(9),
        proxy_address(lab)
    ))
}

#[test]
fn mail_leaves_from_the_address_of_a_socks5_proxy() {
    let lab = Lab::new();
    let mx = lab.mx(2);
    lab.domain("example.test", &[2]);
    let _proxy = microsocks(&lab);
    let daemon = lab.daemon_with(far(&lab, SECRET));
    let id = lab.client(&daemon).send_simple(FROM, &["you@example.test"], "far");
    assert_eq!(mx.wait_accepted(1)[0].peer.ip(), lab.ip(9));
    let delivery = daemon.events().wait_kind("Delivery", &id, "you@example.test");
    assert_eq!(delivery["posthaste"]["source"], lab.ip(9).to_string(), "{delivery:#}");
    daemon.stop();
    let log = daemon.log_from(0).join("\n");
    assert!(!log.contains(SECRET), "the password is in the log");
}

#[test]
fn a_proxy_that_fails_is_named_and_the_host_is_not_to_blame() {
    let lab = Lab::new();
    let mx = lab.mx(2);
    lab.domain("example.test", &[2]);
    // Nobody listens there yet.
    let mut daemon = lab.daemon_with(far(&lab, "wrong"));
    let id = lab.client(&daemon).send_simple(FROM, &["you@example.test"], "late");
    let named = format!("proxy socks5 {}: ", proxy_address(&lab));
    let waits_for = |text: &str| {
        let has = |queue: &[serde_json::Value]| {
            queue.first().and_then(|message| message["waits_for"].as_str()).is_some_and(|reason| reason.contains(text))
        };
        daemon.wait_queue(text, has);
    };
    waits_for(&format!("{named}Connection refused"));
    let _proxy = microsocks(&lab);
    waits_for(&format!("{named}Password auth failure"));
    assert_eq!(mx.connections(), 0);
    std::fs::write(lab.dir().join("socks5.password"), SECRET).unwrap();
    daemon.reload(|config| config);
    assert_eq!(mx.wait_accepted(1)[0].peer.ip(), lab.ip(9));
    daemon.events().wait_kind("Delivery", &id, "you@example.test");
    let log = daemon.log_from(0).join("\n");
    assert!(!log.contains(SECRET) && !log.contains("wrong"), "a password is in the log");
}

#[test]
fn a_host_that_refuses_behind_a_proxy_is_to_blame_itself() {
    let lab = Lab::new();
    let mx = lab.mx(3);
    // Nobody listens at the first one.
    lab.domain("example.test", &[2, 3]);
    let _proxy = microsocks(&lab);
    let daemon = lab.daemon_with(far(&lab, SECRET));
    let id = lab.client(&daemon).send_simple(FROM, &["you@example.test"], "second");
    assert_eq!(mx.wait_accepted(1)[0].peer.ip(), lab.ip(9));
    let delivery = daemon.events().wait_kind("Delivery", &id, "you@example.test");
    assert_eq!(delivery["posthaste"]["attempt"], 1, "{delivery:#}");
}

/// HAProxy as docs/OPERATIONS.md shows it. Sending from an address that the header names takes rights, so that others look at
/// what it read from the header.
#[test]
fn haproxy_sends_from_the_source_to_the_host_that_the_header_names() {
    let lab = Lab::new();
    let mx = lab.mx(2);
    lab.domain("example.test", &[2]);
    let address = proxy_address(&lab);
    let source = if is_root() { "source 0.0.0.0 usesrc clientip" } else { "" };
    let config = format!(
        "global\n  log stdout format raw local0\ndefaults\n  mode tcp\n  timeout connect 30s\n  timeout client 60s\n\
         \x20 timeout server 60s\nlisten egress\n  bind {address} accept-proxy\n  log global\n\
         \x20 log-format \"from %ci to %fi:%fp\"\n  server any 0.0.0.0 {source}\n"
    );
    let file = lab.dir().join("haproxy.cfg");
    std::fs::write(&file, config).unwrap();
    let proxy = Background::start(Command::new(program("haproxy")).arg("-db").arg("-f").arg(&file));
    wait_for(address);
    let daemon = lab.daemon_with(
        lab.config()
            .table(&format!("[[source]]\nname = \"far\"\naddress = \"{}\"\nhaproxy = \"{address}\"\n", lab.ip(9))),
    );
    let id = lab.client(&daemon).send_simple(FROM, &["you@example.test"], "by header");
    let got = mx.wait_accepted(1);
    if is_root() {
        assert_eq!(got[0].peer.ip(), lab.ip(9));
    }
    let delivery = daemon.events().wait_kind("Delivery", &id, "you@example.test");
    assert_eq!(delivery["posthaste"]["source"], lab.ip(9).to_string(), "{delivery:#}");
    daemon.stop();
    let expected = format!("from {} to {}", lab.ip(9), mx.address());
    proxy.wait(|lines| lines.iter().any(|line| line.contains(&expected)).then_some(()));
}
