//! The fixture table: what becomes of each kind of frame, as data.
//!
//! A case names its frames and what becomes of them; the harness makes them in every family, size and with
//! and without a VLAN tag, and checks what holds for all of them: what passes is unchanged to the byte and
//! leaves no trace in any map; of what is forwarded exactly the named fields change, and its checksums are
//! right exactly when they were before; what is dropped or answered is counted once, by its reason, and
//! nothing else is.

#[path = "table/dropped.rs"]
mod dropped;
#[path = "table/edit.rs"]
mod edit;
#[path = "table/extensions.rs"]
mod extensions;
#[path = "table/forwarded.rs"]
mod forwarded;
#[path = "table/harness.rs"]
mod harness;
#[path = "table/not_ours.rs"]
mod not_ours;
#[path = "table/replies.rs"]
mod replies;
#[path = "table/resets.rs"]
mod resets;
#[path = "table/vlan.rs"]
mod vlan;
#[path = "table/world.rs"]
mod world;

use harness::{Case, run};

/// Its name, and what it has.
type Group = (&'static str, fn() -> Vec<Case>);

/// Every group with its cases.
const GROUPS: [Group; 7] = [
    ("not ours", not_ours::cases),
    ("dropped for a VIP", dropped::cases),
    ("forwarded to a backend", forwarded::cases),
    ("forwarded to a client", replies::cases),
    ("answered by a reset", resets::cases),
    ("VLAN", vlan::cases),
    ("extension headers", extensions::cases),
];

#[test]
fn there_are_many_cases_and_each_has_a_name_of_its_own() {
    let mut names = std::collections::BTreeSet::new();
    for (group, cases) in GROUPS {
        let cases = cases();
        println!("{group}: {} cases", cases.len());
        for case in cases {
            assert!(names.insert((group, case.name)), "{group}: {} is there twice", case.name);
        }
    }
    println!("{} cases in all", names.len());
    assert!(names.len() >= 150, "only {} cases", names.len());
}

#[test]
fn frames_that_are_not_ours_pass() {
    run(not_ours::cases());
}

#[test]
fn a_wrong_frame_for_a_vip_is_dropped_and_counted() {
    run(dropped::cases());
}

#[test]
fn a_segment_of_a_client_reaches_its_backend() {
    run(forwarded::cases());
}

#[test]
fn an_answer_of_a_backend_reaches_its_client() {
    run(replies::cases());
}

#[test]
fn a_segment_that_nobody_can_have_is_answered_by_a_reset() {
    run(resets::cases());
}

#[test]
fn tags_are_kept_or_changed_as_the_way_says() {
    run(vlan::cases());
}

#[test]
fn two_extension_headers_are_taken_and_no_more() {
    run(extensions::cases());
}
