//! Delivery: routes, connections to MX hosts, attempts.

pub mod settings;
