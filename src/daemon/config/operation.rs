//! How the daemon is watched and stopped: `[metrics]`, `[admin]`, `[log]`, `[shutdown]`.

use std::os::unix::ffi::OsStrExt;
use std::time::Duration;

use super::findings::{PathKind, Problem};
use super::intake::socket_address;
use super::section::Section;
use super::settings::{AdminSettings, LogFormat, LogLevel, LogSettings, MetricsSettings, ShutdownSettings};

/// `sun_path` of unix(7) holds 108 octets with the closing NUL.
const SOCKET_PATH_BYTES_MAX: usize = 107;

pub(super) fn metrics(mut section: Section<'_>) -> MetricsSettings {
    let address = section.optional("address", |value| socket_address(value, 9625));
    if let Some(address) = address.filter(|address| !address.ip().is_loopback()) {
        let problem = format!("{address} shows the metrics to everybody who can reach it");
        section.warn("address", Problem::new(problem, "write a loopback address, or guard it with a firewall"));
    }
    section.close();
    MetricsSettings { address }
}

pub(super) fn admin(mut section: Section<'_>) -> AdminSettings {
    let default = AdminSettings::default();
    let socket = section.path("socket", PathKind::Socket).unwrap_or(default.socket);
    if socket.as_os_str().as_bytes().len() > SOCKET_PATH_BYTES_MAX {
        let problem = format!("is longer than {SOCKET_PATH_BYTES_MAX} octets");
        section.error("socket", Problem::new(problem, "write a shorter path"));
    }
    let group = section.optional("group", |value| {
        let group = value.text()?;
        let usable = !group.is_empty() && !group.contains(|c: char| c.is_whitespace() || c.is_control() || c == ':');
        if usable {
            Ok(group.to_owned())
        } else {
            Err(value.expected("a group", "write a name of /etc/group, or a number"))
        }
    });
    let mode = section.word("mode", default.mode, &[("0600", 0o600), ("0660", 0o660)]);
    if group.is_some() && mode == 0o600 {
        let remedy = "write mode = \"0660\", or remove group";
        section.error("group", Problem::new("has no effect with mode 0600", remedy));
    }
    section.close();
    AdminSettings { socket, group, mode }
}

pub(super) fn log(mut section: Section<'_>) -> LogSettings {
    let levels = [
        ("error", LogLevel::Error),
        ("warn", LogLevel::Warn),
        ("info", LogLevel::Info),
        ("debug", LogLevel::Debug),
        ("trace", LogLevel::Trace),
    ];
    let formats = [("text", LogFormat::Text), ("json", LogFormat::Json)];
    let settings = LogSettings {
        level: section.word("level", LogLevel::default(), &levels),
        format: section.word("format", LogFormat::default(), &formats),
    };
    section.close();
    settings
}

pub(super) fn shutdown(mut section: Section<'_>) -> ShutdownSettings {
    let default = ShutdownSettings::default();
    let range = Duration::from_secs(1)..=Duration::from_secs(3_600);
    let settings = ShutdownSettings { deadline: section.duration("deadline", default.deadline, range) };
    section.close();
    settings
}
