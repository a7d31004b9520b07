//! Delivery: routes, connections to MX hosts, attempts.
//!
//! [`dispatch::Dispatcher`] drives the scheduler; a `worker` owns one connection; a `clerk` settles what needs none.

mod carriage;
mod clerk;
pub mod dispatch;
pub mod lanes;
mod outcome;
pub mod route;
pub mod session;
pub mod settings;
pub mod shared;
pub mod sources;
mod worker;
