//! What receivers of the warm-up world count and say, and what plans allow: an oracle that knows nothing of the product's code.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use crate::scheduler::SiteName;
use crate::scheduler::warmup::WarmupEntry;
use crate::types::{SourceName, Timestamp};

const DAY_S: u64 = 86_400;

/// What a receiver does with messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Mood {
    Fine,
    /// So many of 1,000.
    Defers(u32),
    Bounces(u32),
    /// All of them: the source is blocked.
    Blocks,
}

/// Of whom, for how long.
#[derive(Clone, Debug)]
struct Spell {
    mood: Mood,
    provider: usize,
    source: Option<SourceName>,
    until: Timestamp,
}

/// Source or `set:NAME`, site, Unix day or hour.
type Key = (String, SiteName, u64);

#[derive(Debug, Default)]
pub(super) struct Receivers {
    spells: Vec<Spell>,
    /// By the days of their own clocks.
    pub(super) by_day: BTreeMap<Key, u32>,
    pub(super) by_hour: BTreeMap<Key, u32>,
    /// By the clock of the sender, right or not.
    by_clock: BTreeMap<Key, u32>,
    /// Days on whose end the sender's clock was wrong, or on which it showed another day.
    unclear: BTreeSet<u64>,
    looked_at: u64,
    was_wrong: bool,
}

impl Receivers {
    pub(super) fn count(
        &mut self,
        site: &SiteName,
        source: &SourceName,
        set: &str,
        at: Timestamp,
        of_clock: Timestamp,
    ) {
        let mut names = vec![source.to_string()];
        if !set.is_empty() {
            names.push(format!("set:{set}"));
        }
        for name in names {
            *self.by_day.entry((name.clone(), site.clone(), at.seconds() / DAY_S)).or_default() += 1;
            *self.by_hour.entry((name.clone(), site.clone(), at.seconds() / 3_600)).or_default() += 1;
            *self.by_clock.entry((name, site.clone(), of_clock.seconds() / DAY_S)).or_default() += 1;
        }
    }

    /// Whether the sender's clock is right; to be told often.
    pub(super) fn look_at_clock(&mut self, now: Timestamp, ahead: Duration) {
        let (day, is_wrong) = (now.seconds() / DAY_S, !ahead.is_zero());
        if is_wrong || self.was_wrong {
            self.unclear.extend(self.looked_at..day);
        }
        if now.plus(ahead).seconds() / DAY_S != day {
            // It sends what is allowed on another day.
            self.unclear.insert(day);
        }
        (self.looked_at, self.was_wrong) = (day, is_wrong);
    }

    pub(super) fn begin(&mut self, mood: Mood, provider: usize, source: Option<&str>, until: Timestamp) {
        let source = source.map(|source| SourceName::parse(source).unwrap());
        self.spells.push(Spell { mood, provider, source, until });
    }

    pub(super) fn mood(&mut self, provider: usize, source: &SourceName, now: Timestamp) -> Mood {
        self.spells.retain(|spell| spell.until > now);
        let is_meant =
            |spell: &&Spell| spell.provider == provider && spell.source.as_ref().is_none_or(|meant| meant == source);
        self.spells.iter().rev().find(is_meant).map_or(Mood::Fine, |spell| spell.mood)
    }

    pub(super) fn end_all(&mut self) {
        self.spells.clear();
    }

    /// Messages of a source, or `set:NAME`, at a site on a day.
    pub(super) fn on(&self, name: &str, site: &SiteName, day: u64) -> u32 {
        self.by_day.get(&(name.to_owned(), site.clone(), day)).copied().unwrap_or_default()
    }

    pub(super) fn in_hour(&self, name: &str, site: &SiteName, hour: u64) -> u32 {
        self.by_hour.get(&(name.to_owned(), site.clone(), hour)).copied().unwrap_or_default()
    }

    /// Messages of a source to all sites, ever.
    pub(super) fn of(&self, name: &str) -> u32 {
        self.by_day.iter().filter(|((of, ..), _)| of == name).map(|(_, count)| count).sum()
    }

    /// Where more was counted than was allowed.
    pub(super) fn violations(&self, allowed: &Allowed) -> Vec<String> {
        let own = self.by_day.iter().filter(|((.., day), _)| !self.unclear.contains(day)).map(|row| ("own day", row));
        let of_clock = self.by_clock.iter().map(|row| ("day of the sender's clock", row));
        let is_above = |(whose, ((name, site, day), count)): (&str, (&Key, &u32))| {
            let cap = allowed.cap(name, site, *day)?;
            (*count > cap).then(|| format!("{name} at {site}, {whose} {day}: {count} of {cap}"))
        };
        own.chain(of_clock).filter_map(is_above).collect()
    }
}

/// Days and messages of a plan; the last cap holds up to this day.
#[derive(Clone, Debug)]
pub(super) struct Table {
    pub(super) steps: Vec<(u32, u32)>,
    pub(super) len: u32,
}

impl Table {
    /// `u32::MAX`: no cap.
    pub(super) fn cap(&self, position: u32) -> u32 {
        if position > self.len {
            return u32::MAX;
        }
        self.steps.iter().rev().find(|(day, _)| *day <= position).map_or(0, |(_, cap)| *cap)
    }
}

#[derive(Debug, Default)]
pub(super) struct Allowed {
    /// Plans by name.
    pub(super) tables: BTreeMap<String, Table>,
    /// What who begins may send on its first day; who is not in it has no plan.
    pub(super) first: BTreeMap<String, u32>,
    caps: BTreeMap<Key, u32>,
    /// The positions that were seen.
    pub(super) positions: BTreeMap<Key, u32>,
}

impl Allowed {
    pub(super) fn note(&mut self, entries: &[WarmupEntry], day: u64) {
        for entry in entries {
            let name = match (&entry.source, &entry.set) {
                (Some(source), _) => source.to_string(),
                (None, set) => format!("set:{}", set.as_deref().unwrap_or_default()),
            };
            let position = entry.report.position;
            let cap = self.tables[&*entry.report.plan].cap(position);
            let key = (name, entry.site.clone(), day);
            let known = self.caps.entry(key.clone()).or_default();
            *known = cap.max(*known);
            let known = self.positions.entry(key).or_default();
            *known = position.max(*known);
        }
    }

    /// `None`: no plan.
    fn cap(&self, name: &str, site: &SiteName, day: u64) -> Option<u32> {
        let first = self.first.get(name)?;
        let known = self.caps.get(&(name.to_owned(), site.clone(), day));
        Some(known.copied().unwrap_or(*first))
    }
}
