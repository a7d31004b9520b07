//! Any record of each kind, and any record of any kind as bytes.

use proptest::collection::vec;
use proptest::prelude::*;
use queue_format::{
    CounterRecord, DueEntry, HistoryRecord, HoldEntry, LaneBlock, LaneConnections, LaneCounts, LaneLearning,
    LaneRecord, LaneSlow, LaneTold, LaneWarmup, LaneWarmupDay, MessageRecord, OutboxRecord, RecipientEntry,
    RecipientOutcome, RecipientState, ReputationPause, ReputationRecord, Ret, SentRecord, SourceLifeRecord,
    SuppressionRecord, WARMUP_PARTS_MAX, encode_body, encode_meta_number, encode_meta_text,
};

pub(crate) fn text() -> impl Strategy<Value = String> {
    prop_oneof![Just(String::new()), "[a-z0-9@.]{1,30}", "\\PC{0,200}"]
}

pub(crate) fn number() -> impl Strategy<Value = u64> {
    prop_oneof![Just(0), Just(u64::MAX), 0..300_u64, any::<u64>()]
}

prop_compose! {
    pub(crate) fn recipient(domains: usize)(
        address in text(),
        index in any::<prop::sample::Index>(),
        notify in prop::option::of(0..=7_u8),
        orcpt in prop::option::of((text(), text())),
    ) -> RecipientEntry {
        RecipientEntry { address, domain_index: u16::try_from(index.index(domains)).unwrap(), notify, orcpt }
    }
}

prop_compose! {
    pub(crate) fn message()(domains in vec(text(), 0..5))(
        recipients in if domains.is_empty() {
            Just(Vec::new()).boxed()
        } else {
            vec(recipient(domains.len()), 0..8).boxed()
        },
        domains in Just(domains),
        texts in (text(), text(), prop::option::of(text())),
        origin in (text(), text(), text(), prop_oneof![Just(0_u8), any::<u8>()]),
        times in (number(), number()),
        flags in (any::<bool>(), any::<bool>(), any::<bool>(), any::<bool>()),
        ret in prop::option::of(prop_oneof![Just(Ret::Full), Just(Ret::Headers)]),
        sizes in (any::<u32>(), number(), any::<u32>()),
        mail_json in vec(any::<u8>(), 0..2_000),
    ) -> MessageRecord {
        MessageRecord {
            accepted_at_ms: times.0,
            expires_at_ms: times.1,
            reverse_path: texts.0,
            recipients,
            domains,
            eight_bit: flags.0,
            smtputf8: flags.1,
            ret,
            envid: texts.2,
            header_bytes: sizes.0,
            body_bytes: sizes.1,
            body_parts: sizes.2,
            tenant: if flags.0 { texts.1.clone() } else { String::new() },
            configuration_set: if flags.1 { texts.1.clone() } else { String::new() },
            tls_required: flags.0 != flags.1,
            identity: origin.0,
            return_path_domain: origin.1,
            return_path_per_message: flags.2,
            recipient_headers: flags.3,
            pool: origin.2,
            priority: origin.3,
            prefers_warming: flags.1,
            set_warms_up: flags.3,
            caller: texts.1,
            mail_json,
        }
    }
}

pub(crate) fn outcome() -> impl Strategy<Value = RecipientOutcome> {
    use RecipientOutcome::{Bounced, Cancelled, Delivered, Expired, Pending};
    prop::sample::select(vec![Pending, Delivered, Bounced, Expired, Cancelled])
}

prop_compose! {
    pub(crate) fn state()(
        outcome in outcome(),
        attempts in any::<u32>(),
        times in (number(), number(), number()),
        texts in (text(), text(), text()),
        delay_notices in any::<u8>(),
    ) -> RecipientState {
        RecipientState {
            outcome,
            attempts,
            first_attempt_ms: times.0,
            last_attempt_ms: times.1,
            last_reply: texts.0,
            last_rule: texts.1,
            last_host: texts.2,
            delay_notices,
            failing_since_ms: times.2,
            ambiguous: times.0 % 2 == 1,
            next_attempt_ms: times.1 ^ times.2,
        }
    }
}

prop_compose! {
    pub(crate) fn due()(
        texts in (text(), text(), text(), text(), text()),
        expires_at_ms in number(),
        attempts in any::<u32>(),
        priority in any::<u8>(),
    ) -> DueEntry {
        DueEntry {
            domain: texts.0,
            expires_at_ms,
            attempts,
            pool: texts.1,
            tenant: texts.2,
            priority,
            source: texts.3,
            prefers_warming: priority % 2 == 1,
            set: texts.4,
        }
    }
}

prop_compose! {
    pub(crate) fn hold()(due in due(), due_at_ms in number(), held_at_ms in number(), reason in text()) -> HoldEntry {
        HoldEntry { due, due_at_ms, held_at_ms, reason }
    }
}

prop_compose! {
    pub(crate) fn outbox()(json in vec(any::<u8>(), 0..500))(
        id_at in 0..=u32::try_from(json.len()).unwrap(),
        json in Just(json),
        kind in any::<u8>(),
    ) -> OutboxRecord {
        OutboxRecord { kind, id_at, json }
    }
}

pub(crate) fn counter() -> impl Strategy<Value = CounterRecord> {
    (text(), number()).prop_map(|(scope, count)| CounterRecord { scope, count })
}

prop_compose! {
    pub(crate) fn suppression()(
        reason in any::<u8>(),
        updated_at_ms in number(),
        texts in (text(), text(), text()),
    ) -> SuppressionRecord {
        SuppressionRecord { reason, updated_at_ms, scope: texts.0, address: texts.1, origin: texts.2 }
    }
}

pub(crate) fn learning() -> impl Strategy<Value = LaneLearning> {
    (any::<u32>(), number(), any::<u8>()).prop_map(|(count, held_until_ms, level)| LaneLearning {
        count,
        held_until_ms,
        level,
    })
}

pub(crate) fn lane_counts() -> impl Strategy<Value = LaneCounts> {
    (number(), number(), number(), vec(any::<u32>(), 0..40))
        .prop_map(|(span_ms, part_ms, newest_end_ms, counts)| LaneCounts { span_ms, part_ms, newest_end_ms, counts })
}

prop_compose! {
    pub(crate) fn lane_connections()(
        window in any::<u32>(),
        refused_at_ms in number(),
        ceiling in prop::option::of(learning()),
    ) -> LaneConnections {
        LaneConnections { window, refused_at_ms, ceiling }
    }
}

prop_compose! {
    fn warmup_day()(
        counts in any::<[u32; 4]>(),
        cap in prop::option::of(any::<u32>()),
        held in any::<bool>(),
    ) -> LaneWarmupDay {
        let [day, position, used, delivered] = counts;
        LaneWarmupDay { day, position, cap, used, delivered, held }
    }
}

prop_compose! {
    pub(crate) fn warmup()(
        texts in (text(), text()),
        position in (any::<u32>(), any::<u32>()),
        counts in (any::<u32>(), any::<u32>(), any::<u32>()),
        octets in (any::<u8>(), any::<u32>(), any::<u8>(), any::<bool>(), any::<bool>()),
        times in (number(), number(), number(), prop::option::of(number())),
        days in (prop::option::of(any::<u32>()), prop::option::of(warmup_day()), prop::option::of(any::<(u32, u32)>())),
        maybe in (prop::option::of(number()), prop::option::of(number()), prop::option::of(number())),
        parts in vec(any::<[u32; 4]>(), 0..=WARMUP_PARTS_MAX),
    ) -> LaneWarmup {
        LaneWarmup {
            plan: texts.0,
            position: position.0,
            cap: days.0,
            before: days.1,
            ahead: days.2,
            day: position.1,
            used: counts.0,
            hour: octets.1,
            used_this_hour: counts.1,
            delivered_today: counts.2,
            held_today: octets.3,
            mode: octets.0,
            paused: octets.4,
            since_ms: times.1,
            set_at_ms: times.2,
            until_ms: maybe.0,
            reason: maybe.0.map(|_| texts.1),
            last_sent_at_ms: times.3,
            stepped_back_at_ms: maybe.1,
            frozen_at_ms: maybe.2,
            freezes: octets.2,
            newest_end_ms: times.0,
            parts,
        }
    }
}

prop_compose! {
    pub(crate) fn history()(
        names in (text(), text(), prop::option::of(text())),
        counts in any::<[u32; 5]>(),
        bounced in prop::collection::btree_map(any::<u8>(), any::<u32>(), 0..20),
        plan in (prop::option::of(any::<u32>()), prop::option::of(any::<u32>())),
    ) -> HistoryRecord {
        let [sent, delivered, deferred, complained, blocked] = counts;
        let (source, site, provider) = names;
        let bounced = bounced.into_iter().collect();
        let (cap, position) = plan;
        HistoryRecord { source, site, provider, sent, delivered, deferred, bounced, complained, blocked, cap, position }
    }
}

prop_compose! {
    pub(crate) fn sent()(
        outcome in outcome(),
        ended_at_ms in number(),
        paths in (text(), text()),
        owners in (text(), text(), text(), text()),
        way in (text(), text(), text()),
        mail_json in vec(any::<u8>(), 0..300),
    ) -> SentRecord {
        let (recipient, reverse_path) = paths;
        let (caller, tenant, identity, configuration_set) = owners;
        let (pool, source, site) = way;
        SentRecord {
            outcome, ended_at_ms, recipient, reverse_path, caller, tenant, identity, configuration_set, pool, source, site,
            mail_json,
        }
    }
}

prop_compose! {
    pub(crate) fn reputation()(
        scope in text(),
        level in any::<u8>(),
        since_ms in number(),
        forgiven_through in any::<u32>(),
        pause in prop::option::of((any::<u8>(), number(), text())),
    ) -> ReputationRecord {
        let pause = pause.map(|(by, since_ms, reason)| ReputationPause { by, since_ms, reason });
        ReputationRecord { scope, level, since_ms, forgiven_through, pause }
    }
}

pub(crate) fn source_life() -> impl Strategy<Value = SourceLifeRecord> {
    (text(), any::<u8>(), number(), any::<u32>()).prop_map(|(source, life, since_ms, low_days)| SourceLifeRecord {
        source,
        life,
        since_ms,
        low_days,
    })
}

prop_compose! {
    pub(crate) fn lane()(
        names in (text(), text()),
        numbers in (number(), any::<bool>(), any::<u32>(), any::<u32>(), any::<u32>()),
        learned in (prop::option::of(lane_connections()), prop::option::of(learning())),
        untils in (prop::option::of(number()), prop::option::of(number())),
        fewer in prop::option::of((any::<u32>(), number())),
        slow in prop::option::of((any::<u32>(), number(), number())),
        block in prop::option::of((number(), number(), prop::option::of(number()))),
        told in prop::option::of((any::<u8>(), prop::option::of(text()), text())),
        counts in vec(lane_counts(), 0..5),
        warmup in prop::option::of(warmup()),
    ) -> LaneRecord {
        LaneRecord {
            source: names.0,
            site: names.1,
            saved_at_ms: numbers.0,
            is_last: numbers.1,
            connections: learned.0,
            messages: learned.1,
            failures: numbers.2,
            ramp: numbers.3,
            unreachable_until_ms: untils.0,
            fewer,
            slow: slow.map(|(count, per_ms, until_ms)| LaneSlow { count, per_ms, until_ms }),
            suspended_until_ms: untils.1,
            block: block.map(|(until_ms, lasts_ms, returned_at_ms)| LaneBlock { until_ms, lasts_ms, returned_at_ms }),
            told: told.map(|(mode, rule, words)| LaneTold { mode, rule, words }),
            outstanding: numbers.4,
            counts,
            warmup,
        }
    }
}

/// Any record of any kind, encoded.
pub(crate) fn encoded() -> impl Strategy<Value = Vec<u8>> {
    fn bytes<T>(encode: impl Fn(&T, &mut Vec<u8>)) -> impl Fn(T) -> Vec<u8> {
        move |value| {
            let mut out = Vec::new();
            encode(&value, &mut out);
            out
        }
    }
    prop_oneof![
        message().prop_map(bytes(MessageRecord::encode)),
        state().prop_map(bytes(RecipientState::encode)),
        due().prop_map(bytes(DueEntry::encode)),
        hold().prop_map(bytes(HoldEntry::encode)),
        outbox().prop_map(bytes(OutboxRecord::encode)),
        suppression().prop_map(bytes(SuppressionRecord::encode)),
        vec(any::<u8>(), 0..500).prop_map(bytes(|body: &Vec<u8>, out: &mut Vec<u8>| encode_body(body, out))),
        number().prop_map(bytes(|number: &u64, out: &mut Vec<u8>| encode_meta_number(*number, out))),
        text().prop_map(bytes(|text: &String, out: &mut Vec<u8>| encode_meta_text(text, out))),
        counter().prop_map(bytes(CounterRecord::encode)),
        lane().prop_map(bytes(LaneRecord::encode)),
        history().prop_map(bytes(HistoryRecord::encode)),
        reputation().prop_map(bytes(ReputationRecord::encode)),
        source_life().prop_map(bytes(SourceLifeRecord::encode)),
        sent().prop_map(bytes(SentRecord::encode)),
    ]
}
