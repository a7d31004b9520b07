//! What a start finds after a stop that was not orderly, where the clock was set back in between.

use std::time::Duration;

use super::DueKey;
use super::invariants::violations;
use super::sent_tests::{AT, Lab};
use crate::types::Timestamp;

const BACK: Duration = Duration::from_secs(600);

fn due_times(lab: &Lab) -> Vec<Timestamp> {
    let page = lab.queue.due(DueKey::START, DueKey::at(Timestamp::MAX), 10).unwrap();
    page.jobs.iter().map(|job| job.due_at).collect()
}

#[tokio::test(start_paused = true)]
async fn what_was_due_when_the_clock_stopped_is_due_at_the_start_by_an_earlier_one() {
    let mut lab = Lab::new();
    lab.accept(2).await;
    lab.store.crash();
    let start = AT.minus(BACK);
    let after = Lab::on(lab.store.clone(), start);
    assert_eq!(due_times(&after), [start, start]);
    assert_eq!(violations(&*lab.store).unwrap(), [""; 0]);
}

#[tokio::test(start_paused = true)]
async fn a_clock_that_goes_on_leaves_due_times_as_they_were() {
    let mut lab = Lab::new();
    lab.accept(1).await;
    lab.store.crash();
    let after = Lab::on(lab.store.clone(), AT.plus(BACK));
    assert_eq!(due_times(&after), [AT]);
}
