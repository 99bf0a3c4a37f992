//! The edge of the packet path: what Shunt says, and does, when it cannot forward.

#[path = "edge/interfaces.rs"]
mod interfaces;
#[path = "edge/nat.rs"]
mod nat;
#[path = "edge/stage.rs"]
mod stage;
#[path = "edge/unreachable.rs"]
mod unreachable;
