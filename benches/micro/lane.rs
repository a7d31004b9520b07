//! What a lane costs for one message: whether it may go, that it goes, that it went; with a limit of each kind.

use std::hint::black_box;
use std::time::Duration;

use criterion::Criterion;
use posthaste::policy::lane::Lane;
use posthaste::policy::limits::{LaneLimits, Rates};

/// Messages in one millisecond, about a million a second.
const IN_A_MILLISECOND: u32 = 1_000;

pub(crate) fn decide(criterion: &mut Criterion) {
    // High enough that nothing waits.
    let rates = Rates {
        second: Some(4_000_000),
        minute: Some(200_000_000),
        hour: Some(2_000_000_000),
        day: Some(4_000_000_000),
    };
    let limits = LaneLimits { rates, ..LaneLimits::default() };
    let mut now = super::NOW;
    let mut lane = Lane::new(limits, now);
    let mut count = 0;
    criterion.bench_function("lane/decide", |bencher| {
        bencher.iter(|| {
            count += 1;
            if count == IN_A_MILLISECOND {
                count = 0;
                now = now.plus(Duration::from_millis(1));
            }
            let window = lane.window(now);
            if lane.admits(1, now).is_err() {
                let _ = lane.save(now);
                lane.saved(true, now);
            }
            lane.take(1, now);
            lane.done(1, 1, now);
            black_box(window)
        });
    });
}
