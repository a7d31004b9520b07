//! dev shim
#![allow(missing_docs)]
#[cfg(test)]
#[path = "../it/simulation/mod.rs"]
mod simulation;
