//! Packed.
