//! Who is served when: due messages, site queues, connections, settlement of outcomes.
