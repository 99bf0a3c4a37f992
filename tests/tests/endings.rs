//! What becomes of living connections when their backend goes out, with the real daemon and real clients.

#[path = "endings/boundary.rs"]
mod boundary;
#[path = "endings/clients.rs"]
mod clients;
#[path = "endings/drain.rs"]
mod drain;
#[path = "endings/fallback.rs"]
mod fallback;
#[path = "endings/idle.rs"]
mod idle;
#[path = "endings/pauses.rs"]
mod pauses;
#[path = "endings/pool.rs"]
mod pool;
#[path = "endings/removal.rs"]
mod removal;
#[path = "endings/restart.rs"]
mod restart;
#[path = "endings/shares.rs"]
mod shares;
#[path = "endings/stage.rs"]
mod stage;
#[path = "endings/uploads.rs"]
mod uploads;
