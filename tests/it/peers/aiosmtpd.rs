//! aiosmtpd as a receiver: the SMTP server most used in Python.

use std::net::SocketAddr;
use std::path::Path;

use serde_json::Value;

use super::tools::{Background, python, script};

/// A running server that keeps what it got.
pub(crate) struct Aiosmtpd(Background);

/// A message with its envelope, as aiosmtpd saw it.
#[derive(Debug)]
pub(crate) struct Arrived {
    pub(crate) sender: String,
    pub(crate) recipients: Vec<String>,
    /// Parameters of MAIL, upper case.
    pub(crate) options: Vec<String>,
    pub(crate) is_tls: bool,
    pub(crate) content: Vec<u8>,
}

impl Aiosmtpd {
    /// `options`: see programs/aiosmtpd_receiver.py. Returns once it listens.
    pub(crate) fn start(address: SocketAddr, options: &[&str]) -> Self {
        let mut command = python();
        command.arg(script("aiosmtpd_receiver.py")).arg(address.ip().to_string()).arg(address.port().to_string());
        let server = Self(Background::start(command.args(options)));
        server.0.wait(|lines| lines.iter().any(|line| line == "listening").then_some(()));
        server
    }

    /// The same with STARTTLS, without which it takes no mail.
    pub(crate) fn start_tls(address: SocketAddr, certificate: &Path, key: &Path) -> Self {
        let (certificate, key) = (certificate.to_str().unwrap(), key.to_str().unwrap());
        Self::start(address, &["--certificate", certificate, "--key", key])
    }

    /// The first `count` messages.
    pub(crate) fn wait(&self, count: usize) -> Vec<Arrived> {
        self.0.wait(|lines| {
            let messages: Vec<_> =
                lines.iter().filter(|line| line.starts_with('{')).map(|line| arrived(line)).collect();
            (messages.len() >= count).then_some(messages)
        })
    }
}

fn arrived(line: &str) -> Arrived {
    let value: Value = serde_json::from_str(line).unwrap();
    let texts = |name: &str| -> Vec<String> {
        value[name].as_array().unwrap().iter().map(|text| text.as_str().unwrap().to_owned()).collect()
    };
    Arrived {
        sender: value["sender"].as_str().unwrap().to_owned(),
        recipients: texts("recipients"),
        options: texts("options"),
        is_tls: value["tls"].as_bool().unwrap(),
        // One character an octet.
        content: value["content"].as_str().unwrap().chars().map(|c| u8::try_from(u32::from(c)).unwrap()).collect(),
    }
}
