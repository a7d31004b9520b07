//! The integration tests of posthaste: one binary, so that they link once.

#[cfg(test)]
mod backlog;
#[cfg(test)]
mod crash_points;
#[cfg(test)]
mod credentials;
#[cfg(test)]
mod damage;
#[cfg(test)]
mod disk_faults;
#[cfg(test)]
mod dns;
#[cfg(test)]
mod docs;
#[cfg(test)]
mod doctor;
#[cfg(test)]
mod durability;
#[cfg(test)]
mod events_files;
#[cfg(test)]
mod explain;
#[cfg(test)]
mod feedback;
mod forwarding;
#[cfg(test)]
mod fuzz_seeds;
#[cfg(test)]
mod harness;
#[cfg(test)]
mod hostile;
#[cfg(test)]
mod lanes;
#[cfg(test)]
mod peers;
#[cfg(test)]
mod quotas;
#[cfg(test)]
mod recipient_headers;
#[cfg(test)]
mod reload;
#[cfg(test)]
mod replies;
#[cfg(test)]
mod reports_stream;
#[cfg(test)]
mod reputation;
#[cfg(test)]
mod restart;
#[cfg(test)]
mod return_path;
#[cfg(test)]
mod routing;
#[cfg(test)]
mod sent;
#[cfg(test)]
mod ses_replies;
#[cfg(test)]
mod signing;
#[cfg(test)]
mod simulation;
#[cfg(test)]
mod simulator;
#[cfg(test)]
mod smuggling;
#[cfg(test)]
mod sources;
#[cfg(test)]
mod submission;
#[cfg(test)]
mod suppression;
#[cfg(test)]
mod systemd;
#[cfg(test)]
mod tidy;
#[cfg(test)]
mod unsubscribe;
