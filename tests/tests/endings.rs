//! What becomes of living connections when their backend goes out, with the real daemon and real clients.

#[path = "endings/boundary.rs"]
mod boundary;
#[path = "endings/pool.rs"]
mod pool;
#[path = "endings/stage.rs"]
mod stage;
