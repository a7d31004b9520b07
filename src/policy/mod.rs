//! Stub.

pub mod routing;
