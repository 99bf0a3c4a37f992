//! Packet fixtures: the program in the kernel, frame by frame. Needs root.

#[path = "packet/concurrent.rs"]
mod concurrent;
#[path = "packet/connections.rs"]
mod connections;
#[path = "packet/dnat.rs"]
mod dnat;
#[path = "packet/endings.rs"]
mod endings;
#[path = "packet/evidence.rs"]
mod evidence;
#[path = "packet/explain.rs"]
mod explain;
#[path = "packet/failures.rs"]
mod failures;
#[path = "packet/floods.rs"]
mod floods;
#[path = "packet/icmp.rs"]
mod icmp;
#[path = "packet/large.rs"]
mod large;
#[path = "packet/refused.rs"]
mod refused;
#[path = "packet/silence.rs"]
mod silence;
#[path = "packet/sources.rs"]
mod sources;
#[path = "packet/steering.rs"]
mod steering;
#[path = "packet/table.rs"]
mod table;
#[path = "packet/trials.rs"]
mod trials;
#[path = "packet/verifier.rs"]
mod verifier;
