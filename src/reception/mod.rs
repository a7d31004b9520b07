//! Listeners and sessions: the server's side of SMTP.

pub mod settings;
