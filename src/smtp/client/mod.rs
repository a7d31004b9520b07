//! The machine of the sending side.
