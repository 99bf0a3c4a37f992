//! Responses in `status`, on real traffic: each is counted once, by its class, however it is cut into
//! segments.
//!
//! Every test ends with a response of a class of its own, 418. The ring keeps the order, so once
//! that one is counted nothing that came before it can still be under way, and counts are compared whole.

#[path = "evidence/opaque.rs"]
mod opaque;
#[path = "evidence/repeats.rs"]
mod repeats;
#[path = "evidence/responses.rs"]
mod responses;
#[path = "evidence/road.rs"]
mod road;
#[path = "evidence/stage.rs"]
mod stage;
