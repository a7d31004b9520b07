//! The durable state of every message, and the only writer of it.
//!
//! docs/QUEUE.md tells the whole story: states, keys, batches, recovery. Promises: `accept` returns after one synced
//! write holds the whole message; every change of state is one atomic batch with its events; a restart brings all back.

pub mod intake;

pub use intake::{AcceptError, Intake, NewBody, NewMessage};
