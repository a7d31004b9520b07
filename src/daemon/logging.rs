//! The log: lines on standard error, where journald or a supervisor takes them, as text or as JSON.
//!
//! The level is that of this crate; libraries are never louder than `warn`, unless the level is `trace`. It changes on
//! reload; the format does not. Does not: rotate, filter secrets (nothing logs any), or write events.

use std::io::{self, IsTerminal};

use tracing::Subscriber;
use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::layer::{Layer, SubscriberExt};
use tracing_subscriber::reload;
use tracing_subscriber::{Registry, fmt};

use crate::daemon::config::{LogFormat, LogLevel, LogSettings};

/// Changes the level of the running log.
#[derive(Clone, Debug)]
pub struct LogHandle(reload::Handle<Targets, Registry>);

/// A log was set up before, in the same process.
#[derive(Debug, thiserror::Error)]
#[error("cannot set up the log: {0}")]
pub struct LogError(String);

impl LogHandle {
    /// From the next line on.
    pub fn set_level(&self, level: LogLevel) {
        if let Err(error) = self.0.reload(filter(level)) {
            tracing::warn!(%error, "log level not changed");
        }
    }
}

/// Sets up the log of the whole process. Call once.
pub fn init(settings: LogSettings) -> Result<LogHandle, LogError> {
    let (subscriber, handle) = subscriber(settings, io::stderr, io::stderr().is_terminal());
    tracing::subscriber::set_global_default(subscriber).map_err(|error| LogError(error.to_string()))?;
    Ok(handle)
}

fn subscriber<W>(settings: LogSettings, writer: W, colours: bool) -> (impl Subscriber + Send + Sync, LogHandle)
where
    W: for<'a> MakeWriter<'a> + Send + Sync + 'static,
{
    let (filter, handle) = reload::Layer::new(filter(settings.level));
    let lines = match settings.format {
        LogFormat::Text => fmt::layer().with_writer(writer).with_ansi(colours).boxed(),
        LogFormat::Json => fmt::layer().json().flatten_event(true).with_writer(writer).boxed(),
    };
    (Registry::default().with(lines.with_filter(filter)), LogHandle(handle))
}

fn filter(level: LogLevel) -> Targets {
    let ours = match level {
        LogLevel::Error => LevelFilter::ERROR,
        LogLevel::Warn => LevelFilter::WARN,
        LogLevel::Info => LevelFilter::INFO,
        LogLevel::Debug => LevelFilter::DEBUG,
        LogLevel::Trace => LevelFilter::TRACE,
    };
    let libraries = if ours == LevelFilter::TRACE { LevelFilter::DEBUG } else { ours.min(LevelFilter::WARN) };
    Targets::new().with_default(libraries).with_target("posthaste", ours)
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use super::*;

    #[derive(Clone, Default)]
    struct Buffer(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Buffer {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    impl Buffer {
        fn text(&self) -> String {
            String::from_utf8(self.0.lock().unwrap().clone()).unwrap()
        }
    }

    fn logged(format: LogFormat, act: impl FnOnce(&LogHandle)) -> String {
        let buffer = Buffer::default();
        let writer = buffer.clone();
        let settings = LogSettings { level: LogLevel::Info, format };
        let (subscriber, handle) = subscriber(settings, move || writer.clone(), false);
        tracing::subscriber::with_default(subscriber, || act(&handle));
        buffer.text()
    }

    #[test]
    fn json_lines_parse_and_hold_their_fields() {
        let text = logged(LogFormat::Json, |_| tracing::info!(site = "mx.test", "site down"));
        let line: serde_json::Value = serde_json::from_str(text.trim_end()).unwrap();
        assert_eq!(
            (&line["level"], &line["message"], &line["site"]),
            (&"INFO".into(), &"site down".into(), &"mx.test".into())
        );
    }

    #[test]
    fn the_level_changes_while_running() {
        let text = logged(LogFormat::Text, |handle| {
            tracing::debug!("before");
            handle.set_level(LogLevel::Debug);
            tracing::debug!("between");
            handle.set_level(LogLevel::Error);
            tracing::warn!("after");
        });
        assert!(text.contains("between") && !text.contains("before") && !text.contains("after"), "{text}");
    }

    #[test]
    fn libraries_are_quieter_than_we_are() {
        let text = logged(LogFormat::Text, |_| {
            tracing::info!(target: "hickory_resolver", "chatter");
            tracing::warn!(target: "hickory_resolver", "trouble");
        });
        assert!(text.contains("trouble") && !text.contains("chatter"), "{text}");
    }
}
