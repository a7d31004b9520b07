//! Names of all metrics, in one place, so that no two modules spell one differently. Label sets are bounded: names of the config
//! (listeners, sources, pools, providers) and words of this code, never addresses, domains, sites or anything a peer chose.

/// Counter: messages answered 250.
pub const MESSAGES_ACCEPTED: &str = "posthaste_messages_accepted_total";
/// Counter: recipients of those messages.
pub const RECIPIENTS_ACCEPTED: &str = "posthaste_recipients_accepted_total";
/// Counter, label `code`: refusals sent to clients, by reply code.
pub const REFUSALS: &str = "posthaste_smtp_refusals_total";
/// Counter, labels `scope` (server, tenant, credential, configuration_set), `limit` (daily, rate): 454s for a quota.
pub const QUOTA_REFUSALS: &str = "posthaste_quota_refusals_total";
/// Counter, label `algorithm` (rsa, ed25519): DKIM signatures made.
pub const DKIM_SIGNATURES: &str = "posthaste_dkim_signatures_total";
/// Gauge: recipients that all senders together were charged in the last 24 hours.
pub const QUOTA_RECIPIENTS: &str = "posthaste_quota_recipients";
/// Gauge, label `scope`: of all scopes of this kind with a daily limit, the share that the fullest used; 1 is all of it.
pub const QUOTA_SHARE: &str = "posthaste_quota_share_max";
/// Gauge, label `listener`: open client connections.
pub const CLIENT_CONNECTIONS: &str = "posthaste_client_connections";
/// Counter, labels `listener`, `outcome` (accepted, refused): client connections.
pub const CLIENT_CONNECTIONS_TOTAL: &str = "posthaste_client_connections_total";
/// Counter, label `outcome` (waited, refused): TLS handshakes of clients whose handshakes lead to nothing.
pub const TLS_HANDSHAKES_HELD_UP: &str = "posthaste_tls_handshakes_held_up_total";
/// Counter, label `outcome` (accepted, refused, deferred): attempts to log in.
pub const AUTH_ATTEMPTS: &str = "posthaste_auth_attempts_total";
/// Counter, label `result` (hit, miss): whether the secret of a login was known to be right.
pub const AUTH_CACHE: &str = "posthaste_auth_cache_total";
/// Gauge: verifications of secrets that run or wait for a core.
pub const AUTH_WAITING: &str = "posthaste_auth_verifications_waiting";
/// Histogram, seconds: from the final dot to the durable commit.
pub const ACCEPT_SECONDS: &str = "posthaste_accept_seconds";
/// Histogram: operations in one commit batch.
pub const COMMIT_OPERATIONS: &str = "posthaste_commit_batch_operations";
/// Histogram, seconds: one store write, label `synced` (yes, no).
pub const COMMIT_SECONDS: &str = "posthaste_commit_seconds";
/// Counter: store errors.
pub const STORE_ERRORS: &str = "posthaste_store_errors_total";
/// Counter, label `record` (message, due, hold, outbox, counter, suppression, lane, source, history, sent, reputation): records that could not be read and were worked around.
pub const DAMAGED_RECORDS: &str = "posthaste_damaged_records_total";
/// Gauge: messages in the queue.
pub const QUEUE_MESSAGES: &str = "posthaste_queue_messages";
/// Gauge: deliveries (message and destination domain) that wait or are in flight.
pub const QUEUE_DELIVERIES: &str = "posthaste_queue_deliveries";
/// Gauge, seconds: age of the oldest message.
pub const QUEUE_OLDEST_AGE: &str = "posthaste_queue_oldest_age_seconds";
/// Gauge: bytes that the file system of the queue has free.
pub const QUEUE_FREE_BYTES: &str = "posthaste_queue_free_bytes";
/// Gauge: deliveries ready, in memory.
pub const READY_DELIVERIES: &str = "posthaste_ready_deliveries";
/// Gauge: sites known.
pub const SITES: &str = "posthaste_sites";
/// Gauge: sites with more due deliveries than their share of memory; the others wait on disk.
pub const SITES_BEHIND: &str = "posthaste_sites_behind";
/// Gauge: connections to MX hosts.
pub const OUTBOUND_CONNECTIONS: &str = "posthaste_outbound_connections";
/// Counter, label `outcome` (connected, refused, timeout, tls, dns): connection attempts.
pub const OUTBOUND_CONNECTIONS_TOTAL: &str = "posthaste_outbound_connections_total";
/// Gauge, label `priority` (high, normal, bulk): deliveries ready at their sites, in memory.
pub const READY_BY_PRIORITY: &str = "posthaste_ready_deliveries_by_priority";
/// Gauge, labels `source`, `provider` (`none`: sites of no provider's rule): lanes in memory.
pub const LANES: &str = "posthaste_lanes";
/// Gauge, labels `source`, `provider`, `state` (blocked, suspended, unreachable, slowed): lanes that are held back.
pub const LANES_HELD_BACK: &str = "posthaste_lanes_held_back";
/// Gauge, label `pool`: sites at which all sources of the pool are blocked.
pub const POOL_BLOCKED_SITES: &str = "posthaste_pool_blocked_sites";
/// Counter, label `change` (blocked, backed_off, unblocked, pool_blocked, pool_unblocked): changes of lanes, as events tell them.
pub const LANE_CHANGES: &str = "posthaste_lane_changes_total";
/// Counter, label `change`: changes of warm-ups.
pub const WARMUP_CHANGES: &str = "posthaste_warmup_changes_total";
/// Gauge, labels `source`, `provider` and `mode`: lanes that warm up.
pub const WARMUP_LANES: &str = "posthaste_warmup_lanes";
/// Gauge, labels `source` and `provider`: messages that lanes that warm up may send on this UTC day, all together.
pub const WARMUP_CAP: &str = "posthaste_warmup_cap";
/// Gauge, labels `source` and `provider`: of those, sent.
pub const WARMUP_USED: &str = "posthaste_warmup_used";
/// Gauge, labels `source` and `life`: 1 for where a source stands in its life, 0 for the others.
pub const SOURCE_LIFE: &str = "posthaste_source_life";
/// Counter: lanes that were forgotten as there were too many.
pub const LANES_FORGOTTEN: &str = "posthaste_lanes_forgotten_total";
/// Counter, labels `source`, `provider`, `outcome` (delivered, deferred, bounced): recipients of attempts.
pub const SOURCE_OUTCOMES: &str = "posthaste_source_outcomes_total";
/// Counter, labels `provider`, `class`: recipients of attempts that were deferred, by class of the reply.
pub const DEFERRALS: &str = "posthaste_deferrals_total";
/// Counter, label `outcome` (delivered, deferred, bounced, expired, cancelled): recipients settled.
pub const OUTCOMES: &str = "posthaste_recipient_outcomes_total";
/// Histogram, seconds: from acceptance to delivery.
pub const DELIVERY_SECONDS: &str = "posthaste_delivery_seconds";
/// Counter, labels `type` (mx, address), `result` (ok, negative, error, cached, stale): DNS questions.
pub const DNS_LOOKUPS: &str = "posthaste_dns_lookups_total";
/// Counter, label `kind`: events written to files.
pub const EVENTS_WRITTEN: &str = "posthaste_events_written_total";
/// Gauge: events committed and not yet in every file.
pub const EVENTS_PENDING: &str = "posthaste_events_pending";
/// Counter: failed writes to event files.
pub const EVENT_WRITE_ERRORS: &str = "posthaste_event_write_errors_total";
/// Counter, labels `tier` (global, tenant, configuration_set), `reason` (bounce, complaint): recipients held back.
pub const SUPPRESSED_RECIPIENTS: &str = "posthaste_suppressed_recipients_total";
/// Gauge, label `tier`: entries of suppression lists.
pub const SUPPRESSION_ENTRIES: &str = "posthaste_suppression_entries";
/// Counter: recipients of which it was written down to whom and how their message was sent.
pub const SENT_RECORDS: &str = "posthaste_sent_records_total";
/// Counter: removals of all such records that are older than is kept, one range each.
pub const SENT_SWEEPS: &str = "posthaste_sent_sweeps_total";
/// Counter, labels `kind` (bounce, complaint, unsubscribe, remark), `effect` (applied, duplicate, unknown): what reports said of single
/// recipients.
pub const FEEDBACK: &str = "posthaste_feedback_total";
/// Counter, label `report` (bounce, delay, success, auto-reply, complaint, unsubscribe, dmarc, tls-rpt, not-understood): messages that came
/// home.
pub const FEEDBACK_MESSAGES: &str = "posthaste_feedback_messages_total";
/// Counter: HTTP connections that were closed, since their client had too many.
pub const HTTP_REFUSED: &str = "posthaste_http_refused_total";
/// Counter, label `outcome`: requests at links that unsubscribe: `done`, `page`, `unknown`, `bad`, `error`.
pub const UNSUBSCRIBE_REQUESTS: &str = "posthaste_unsubscribe_requests_total";
/// Counter, labels `report` (dmarc, tls-rpt), `effect` (taken, duplicate, empty, misdated, too-large): reports of receivers. The last two are
/// kept for the operator.
pub const REPORTS: &str = "posthaste_reports_total";
/// Counter, labels `domain`, `result` (pass, fail), `disposition` (none, pass, quarantine, reject, unsaid): messages that DMARC reports
/// speak of. Domains that are not ours are `other`.
pub const DMARC_MESSAGES: &str = "posthaste_dmarc_messages_total";
/// Counter, labels `domain`, `result` (success, a type of failure, unsaid): sessions that TLS reports speak of.
pub const TLS_SESSIONS: &str = "posthaste_tls_sessions_total";
/// Counter, label `kind` (bounce, complaint, remark): feedback that was mailed on to the sender of its message.
pub const FEEDBACK_FORWARDED: &str = "posthaste_feedback_forwarded_total";
/// Gauge: messages that nobody understood and that are kept for the operator, when the last one was.
pub const FEEDBACK_KEPT: &str = "posthaste_feedback_kept";
/// Gauge, labels `scope` (server, tenant, configuration_set, pool, source, provider), `name`: hard bounces over a representative
/// volume; 1 is all.
pub const REPUTATION_BOUNCE_RATE: &str = "posthaste_reputation_bounce_rate";
/// Gauge, the same labels: complaints of what was delivered.
pub const REPUTATION_COMPLAINT_RATE: &str = "posthaste_reputation_complaint_rate";
/// Gauge, the same labels: 1 while its new mail is refused.
pub const REPUTATION_PAUSED: &str = "posthaste_reputation_paused";
/// Gauge, labels `scope` (with credential and identity), `state` (healthy, warned, critical, paused): how many there are.
pub const REPUTATION_SCOPES: &str = "posthaste_reputation_scopes";
/// Counter, labels `scope`, `to`: changes of state, as events tell them.
pub const REPUTATION_CHANGES: &str = "posthaste_reputation_changes_total";
/// Counter: sums that were not judged as there were too many scopes.
pub const REPUTATION_UNJUDGED: &str = "posthaste_reputation_unjudged_total";
/// Gauge: 1 while the daemon is healthy.
pub const HEALTHY: &str = "posthaste_healthy";
