//! The integration tests of posthaste: one binary, so that they link once.

#[cfg(test)]
mod dns;
#[cfg(test)]
mod durability;
#[cfg(test)]
mod harness;
#[cfg(test)]
mod restart;
#[cfg(test)]
mod routing;
#[cfg(test)]
mod tidy;
