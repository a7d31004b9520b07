//! Tests of the public surface: golden files of every version, and properties of every record.

#[cfg(test)]
mod golden;
#[cfg(test)]
mod properties;
#[cfg(test)]
mod records;
