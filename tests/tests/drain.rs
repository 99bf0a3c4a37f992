//! Living connections whose backend is ejected, drained or removed, with the real daemon and real clients.

#[path = "drain/boundary.rs"]
mod boundary;
#[path = "drain/changes.rs"]
mod changes;
#[path = "drain/clients.rs"]
mod clients;
#[path = "drain/deploy.rs"]
mod deploy;
#[path = "drain/fallback.rs"]
mod fallback;
#[path = "drain/idle.rs"]
mod idle;
#[path = "drain/pauses.rs"]
mod pauses;
#[path = "drain/pool.rs"]
mod pool;
#[path = "drain/removal.rs"]
mod removal;
#[path = "drain/restart.rs"]
mod restart;
#[path = "drain/shares.rs"]
mod shares;
#[path = "drain/stage.rs"]
mod stage;
#[path = "drain/timeout.rs"]
mod timeout;
#[path = "drain/uploads.rs"]
mod uploads;
