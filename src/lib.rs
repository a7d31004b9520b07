//! posthaste: an outbound mail server that keeps every message it answered 250 for, and says what became of it.
//!
//! The package is a library and a thin `main.rs`, so that tests and benches run the code that ships. Data flows one way
//! through the modules, in this order; docs/ARCHITECTURE.md has the map and `tests/it/tidy.rs` guards it.

pub mod types;

pub mod tables;

pub mod smtp;

pub mod message;

pub mod policy;

pub mod events;

pub mod queue;

pub mod net;

pub mod admission;

pub mod scheduler;

pub mod feedback;

pub mod reception;

pub mod delivery;

pub mod simulator;

pub mod daemon;

pub mod cli;
