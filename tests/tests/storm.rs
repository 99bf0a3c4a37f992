//! The storm for a minute. How late the loop is at most, `cargo xtask bench storm` measures.

use std::time::Duration;

use anyhow::{Result, ensure};
use lb_tests::{
    lab::{shunt, skipped},
    storm::{self, BACKENDS},
};

#[test]
fn two_hundred_backends_flap_for_a_minute() -> Result<()> {
    if skipped("two_hundred_backends_flap_for_a_minute", &[]) {
        return Ok(());
    }
    let storm = storm::run("storm", shunt(), Duration::from_secs(60))?;
    println!("{storm:?}");
    ensure!(storm.flapped == BACKENDS, "only {} of them flapped", storm.flapped);
    ensure!(storm.events.get("eject").is_some_and(|ejections| *ejections > 1000), "{:?}", storm.events);
    ensure!(storm.kept_by_the_floor > 100, "the floor had nothing to hold: {:?}", storm.events);
    ensure!(storm.unanswered == 0, "{} of {} requests got no answer", storm.unanswered, storm.requests);
    // No measurement: a loop that hangs.
    ensure!(storm.worst_lag_ms < 2000, "the loop was {} ms late", storm.worst_lag_ms);
    Ok(())
}
