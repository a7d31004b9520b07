//! The integration tests of posthaste: one binary, so that they link once.

#[cfg(test)]
mod fuzz_seeds;
#[cfg(test)]
mod tidy;
