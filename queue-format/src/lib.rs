//! Queue format.
