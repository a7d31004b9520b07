//! What comes home: bounces, complaints, requests to unsubscribe, reports of receivers.
//!
//! [`report`] reads a message and says what it is. It takes bytes and gives plain data: it knows no socket, clock or store.

pub mod addresses;
pub mod desk;
pub mod effects;
pub mod forward;
pub mod kept;
pub mod receivers;
pub mod report;
pub mod rows;
