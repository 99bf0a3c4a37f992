//! Packet fixtures: the program in the kernel, frame by frame. Needs root.

#[path = "packet/concurrent.rs"]
mod concurrent;
#[path = "packet/connections.rs"]
mod connections;
#[path = "packet/evidence.rs"]
mod evidence;
#[path = "packet/explain.rs"]
mod explain;
#[path = "packet/failures.rs"]
mod failures;
#[path = "packet/floods.rs"]
mod floods;
#[path = "packet/refused.rs"]
mod refused;
#[path = "packet/silence.rs"]
mod silence;
#[path = "packet/steering.rs"]
mod steering;
