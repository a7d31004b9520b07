//! Delivery: routes, connections to MX hosts, attempts.

pub mod session;
pub mod settings;
