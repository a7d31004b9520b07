//! Names of the counters and positions in the meta family.

/// Version of the record layout: `queue_format::FORMAT_VERSION`.
pub(super) const FORMAT: &str = "format_version";
/// Messages in the queue.
pub(super) const MESSAGES: &str = "messages";
/// Jobs in the queue: a message and a destination domain each.
pub(super) const JOBS: &str = "jobs";
/// The last event that every file holds.
pub(super) const EVENTS_CONSUMED: &str = "events_consumed";
/// No event up to this one gets its id again: set by `queue recover`, where the outbox may have lost its end.
pub(super) const EVENTS_FLOOR: &str = "events_floor";
/// Time of the first start after the last unclean stop.
pub(super) const UNCLEAN_SINCE: &str = "unclean_since";
/// Time of the last clean stop; absent while running and after a crash.
pub(super) const CLEAN_STOP: &str = "clean_stop";
