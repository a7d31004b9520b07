//! The client of the admin API: one request, one connection over the daemon's Unix socket.
//!
//! Blocks; it runs its own small runtime. Answers are read up to a bound, so that whatever listens on the socket cannot
//! fill the memory of an administrator's shell.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::{Method, Request};
use hyper_util::rt::TokioIo;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::net::UnixStream;

use super::Failure;
use crate::daemon::admin::model::ErrorBody;
use crate::daemon::config::{Config, DEFAULT_PATH, DEFAULT_SOCKET};

/// Connecting to a Unix socket is immediate unless its backlog is full.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// Above the server's own limit, so that its error is seen rather than ours.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(40);
/// An action may touch the whole queue.
const ACTION_TIMEOUT: Duration = Duration::from_secs(3_600);
/// A page of 1,000 messages stays below 2 MiB. Above: an error.
const ANSWER_BYTES_MAX: usize = 16 << 20;

/// Where the daemon is, and how to print.
#[derive(Debug, clap::Args)]
pub(super) struct SocketArgs {
    /// Admin socket of the daemon [default: /run/posthaste/admin.sock].
    #[arg(long, value_name = "PATH", global = true)]
    socket: Option<PathBuf>,
    /// Config file of the daemon, to find its admin socket there (recover, and suppression without a daemon: its queue).
    #[arg(long, value_name = "PATH", global = true, conflicts_with = "socket")]
    config: Option<PathBuf>,
    /// Print the answer as JSON.
    #[arg(long, global = true)]
    pub(super) json: bool,
}

impl SocketArgs {
    /// Whether the socket was named by itself, so that nothing else may be meant.
    pub(super) fn names_socket(&self) -> bool {
        self.socket.is_some()
    }

    /// The config of `--config`, or the default one.
    pub(super) fn config_path(&self) -> &Path {
        self.config.as_deref().unwrap_or(Path::new(DEFAULT_PATH))
    }
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub(super) enum ClientError {
    /// Nobody listens, or we may not connect.
    #[error("cannot reach the daemon at {socket}: {error}; {hint}")]
    Unreachable { socket: String, error: io::Error, hint: &'static str },
    /// The daemon answered with an error.
    #[error("{message}")]
    Refused { code: String, message: String },
    /// The answer makes no sense.
    #[error("the daemon's answer cannot be understood: {0}; do both sides have the same version?")]
    Garbled(String),
}

/// Asks one daemon.
#[derive(Debug)]
pub(super) struct Client {
    socket: PathBuf,
}

impl Client {
    pub(super) fn new(socket: PathBuf) -> Self {
        Self { socket }
    }

    /// From `--socket`, or the config of `--config`, or the default.
    pub(super) fn locate(args: &SocketArgs) -> Result<Self, Failure> {
        if let Some(socket) = &args.socket {
            return Ok(Self::new(socket.clone()));
        }
        let Some(path) = &args.config else {
            return Ok(Self::new(PathBuf::from(DEFAULT_SOCKET)));
        };
        let config =
            Config::load(path).map_err(|errors| Failure::Failed(format!("the config has errors\n{errors}")))?;
        Ok(Self::new(config.admin.socket))
    }

    /// Whether anybody listens. `false` is certain: there is no socket, or one that a daemon left behind.
    pub(super) fn is_served(&self) -> bool {
        match std::os::unix::net::UnixStream::connect(&self.socket) {
            Ok(_) => true,
            Err(error) => !matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused),
        }
    }

    pub(super) fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, ClientError> {
        self.block_on(self.ask(Method::GET, path, Bytes::new()), ANSWER_TIMEOUT)
    }

    pub(super) fn post<T: DeserializeOwned>(&self, path: &str, body: &impl Serialize) -> Result<T, ClientError> {
        let body = serde_json::to_vec(body).map_err(|error| ClientError::Garbled(error.to_string()))?;
        self.block_on(self.ask(Method::POST, path, body.into()), ACTION_TIMEOUT)
    }

    fn block_on<T>(
        &self,
        request: impl Future<Output = Result<T, ClientError>>,
        timeout: Duration,
    ) -> Result<T, ClientError> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let runtime = runtime.map_err(|error| self.unreachable(error))?;
        let late = |_| self.unreachable(io::ErrorKind::TimedOut.into());
        runtime.block_on(async { tokio::time::timeout(timeout, request).await.map_err(late)? })
    }

    async fn ask<T: DeserializeOwned>(&self, method: Method, path: &str, body: Bytes) -> Result<T, ClientError> {
        let garbled = |error: hyper::Error| ClientError::Garbled(error.to_string());
        let connecting = tokio::time::timeout(CONNECT_TIMEOUT, UnixStream::connect(&self.socket)).await;
        let connected = connecting.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()));
        let stream = connected.map_err(|error| self.unreachable(error))?;
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header("host", "posthaste")
            .header("connection", "close")
            .body(Full::new(body))
            .map_err(|error| ClientError::Garbled(error.to_string()))?;
        let (mut sender, connection) =
            hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(garbled)?;
        let exchange = async {
            let response = sender.send_request(request).await.map_err(|error| self.turned_away(&error))?;
            let is_success = response.status().is_success();
            let body = Limited::new(response.into_body(), ANSWER_BYTES_MAX).collect().await;
            let body = body.map_err(|error| ClientError::Garbled(error.to_string()))?;
            Ok((is_success, body.to_bytes()))
        };
        let (exchanged, _) = tokio::join!(exchange, connection);
        let (is_success, body) = exchanged?;
        decode(is_success, &body)
    }

    fn unreachable(&self, error: io::Error) -> ClientError {
        let hint = match error.kind() {
            io::ErrorKind::PermissionDenied => {
                "run this as root, as the daemon's user, or as a member of its admin group"
            }
            io::ErrorKind::TimedOut => "it runs but does not answer; see its log",
            _ => "is it running? See: systemctl status posthaste; or name its socket with --socket or --config",
        };
        ClientError::Unreachable { socket: self.socket.display().to_string(), error, hint }
    }

    /// The daemon closes connections of users whom it does not serve without an answer.
    fn turned_away(&self, error: &hyper::Error) -> ClientError {
        if error.is_incomplete_message() || error.is_closed() || error.is_canceled() {
            return self.unreachable(io::ErrorKind::PermissionDenied.into());
        }
        ClientError::Garbled(error.to_string())
    }
}

fn decode<T: DeserializeOwned>(is_success: bool, body: &[u8]) -> Result<T, ClientError> {
    if is_success {
        return serde_json::from_slice(body).map_err(|error| ClientError::Garbled(error.to_string()));
    }
    match serde_json::from_slice::<ErrorBody>(body) {
        Ok(ErrorBody { error }) => Err(ClientError::Refused { code: error.code, message: error.message }),
        Err(_) => Err(ClientError::Garbled(String::from_utf8_lossy(body).chars().take(200).collect())),
    }
}

/// `?name=value&...` of the values that are set, percent-encoded (RFC 3986 §2.1).
pub(super) fn query_string(parameters: &[(&str, Option<String>)]) -> String {
    let set = parameters.iter().filter_map(|(name, value)| value.as_ref().map(|value| (name, value)));
    let pairs: Vec<String> = set.map(|(name, value)| format!("{name}={}", percent_encode(value))).collect();
    if pairs.is_empty() { String::new() } else { format!("?{}", pairs.join("&")) }
}

/// Leaves only the unreserved characters of RFC 3986 §2.3.
pub(super) fn percent_encode(text: &str) -> String {
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            encoded.push(char::from(byte));
        } else {
            encoded.push_str(&format!("%{byte:02X}"));
        }
    }
    encoded
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn query_values_are_percent_encoded() {
        let query = query_string(&[("sender", Some("a+b&c=d@e.test".to_owned())), ("domain", None)]);
        assert_eq!(query, "?sender=a%2Bb%26c%3Dd%40e.test");
        assert_eq!(query_string(&[("domain", None)]), "");
        assert_eq!(percent_encode("ü <>"), "%C3%BC%20%3C%3E");
    }

    #[test]
    fn an_answer_that_is_no_json_is_named_as_such() {
        let error = decode::<u32>(false, b"<html>").unwrap_err().to_string();
        assert!(error.contains("<html>"), "{error}");
        assert!(decode::<u32>(true, b"x").is_err());
    }
}
