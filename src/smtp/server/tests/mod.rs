//! Dialogues from files, properties, tables of attacks.

mod content;
mod dialogues;
mod driver;
mod properties;
mod smuggling;
