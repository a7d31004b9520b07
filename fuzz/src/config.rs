//! The configuration file.

use posthaste::daemon::config::Config;

/// A config file: good, or refused with at least one sentence an error.
pub fn config(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    match Config::parse(text, "fuzz.toml") {
        Ok(config) => {
            assert!(!config.listeners.is_empty(), "a config without listeners is not good");
            assert!(config.needs_restart(&config).is_empty(), "a config differs from itself");
        }
        Err(found) => {
            assert!(!found.errors.is_empty(), "refused without an error");
            for error in &found.errors {
                assert!(!error.problem.is_empty() && !error.remedy.is_empty(), "{error}");
            }
        }
    }
}
