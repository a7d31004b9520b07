//! The daemon around the mail: configuration, wiring, lifecycle, signals, and what operators see and steer it with.

pub mod admin;
pub mod config;
pub mod demo;
mod http;
pub mod logging;
pub mod metrics_exporter;
pub mod notify;
pub mod run;
