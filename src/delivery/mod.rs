//! Delivery: routes, connections to MX hosts, attempts.

pub mod route;
pub mod settings;
