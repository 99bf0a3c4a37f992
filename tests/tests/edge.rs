//! The edge of the packet path: what Shunt says, and does, when it cannot forward.

#[path = "edge/instances.rs"]
mod instances;
#[path = "edge/interfaces.rs"]
mod interfaces;
#[path = "edge/nat.rs"]
mod nat;
#[path = "edge/reload.rs"]
mod reload;
#[path = "edge/stage.rs"]
mod stage;
#[path = "edge/start.rs"]
mod start;
#[path = "edge/unreachable.rs"]
mod unreachable;
