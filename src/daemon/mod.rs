//! The daemon around the mail: configuration, wiring, lifecycle, signals, and what operators see and steer it with.

pub mod admin;
mod assembly;
mod backend;
pub mod config;
mod explaining;
mod feedback;
mod http;
pub mod instance;
pub mod lint;
pub mod lists;
pub mod logging;
pub mod metrics_exporter;
mod monitor;
pub mod notify;
mod pauses;
mod places;
mod quotas;
mod reputation;
pub mod run;
pub mod signing;
mod simulating;
pub mod stamp;
pub mod suppressing;
mod token_keys;
mod unsubscribe;
mod warming;

pub use assembly::outlets;
