//! Packet fixtures: the program in the kernel, frame by frame. Needs root.

#[path = "packet/affinity.rs"]
mod affinity;
#[path = "packet/concurrent.rs"]
mod concurrent;
#[path = "packet/connections.rs"]
mod connections;
#[path = "packet/dnat.rs"]
mod dnat;
#[path = "packet/evidence.rs"]
mod evidence;
#[path = "packet/explain.rs"]
mod explain;
#[path = "packet/failures.rs"]
mod failures;
#[path = "packet/fast_open.rs"]
mod fast_open;
#[path = "packet/floods.rs"]
mod floods;
#[path = "packet/icmp.rs"]
mod icmp;
#[path = "packet/large.rs"]
mod large;
#[path = "packet/limits.rs"]
mod limits;
#[path = "packet/numbers.rs"]
mod numbers;
#[path = "packet/orders.rs"]
mod orders;
#[path = "packet/origins.rs"]
mod origins;
#[path = "packet/path_mtu.rs"]
mod path_mtu;
#[path = "packet/proxied.rs"]
mod proxied;
#[path = "packet/readers.rs"]
mod readers;
#[path = "packet/redispatch.rs"]
mod redispatch;
#[path = "packet/refused.rs"]
mod refused;
#[path = "packet/reset_sender.rs"]
mod reset_sender;
#[path = "packet/resets.rs"]
mod resets;
#[path = "packet/resting.rs"]
mod resting;
#[path = "packet/reuse.rs"]
mod reuse;
#[path = "packet/shares.rs"]
mod shares;
#[path = "packet/silence.rs"]
mod silence;
#[path = "packet/sources.rs"]
mod sources;
#[path = "packet/stations.rs"]
mod stations;
#[path = "packet/steering.rs"]
mod steering;
#[path = "packet/success_counts.rs"]
mod success_counts;
#[path = "packet/table.rs"]
mod table;
#[path = "packet/timeouts.rs"]
mod timeouts;
#[path = "packet/trials.rs"]
mod trials;
#[path = "packet/untimed.rs"]
mod untimed;
#[path = "packet/verifier.rs"]
mod verifier;
#[path = "packet/ways.rs"]
mod ways;
#[path = "packet/withheld.rs"]
mod withheld;
