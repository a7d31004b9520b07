//! The integration tests of posthaste: one binary, so that they link once.

#[cfg(test)]
mod tidy;
