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
    ensure!(storm.kept_by_the_floor > 0, "the floor had nothing to hold: {:?}", storm.events);
    ensure!(storm.unanswered == 0, "{} of {} requests got no answer", storm.unanswered, storm.requests);
    Ok(())
}
