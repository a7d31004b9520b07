//! Sessions over in-memory streams (with a paused clock) and over loopback sockets (with TLS), against a fake queue.

mod lifecycle;
mod limits;
mod login;
mod messages;
mod quotas;
mod reports;
mod rig;
mod tls;
