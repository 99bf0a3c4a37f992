//! A service whose backends another program keeps in a file, with the real daemon and real traffic.

#[path = "discovery/changes.rs"]
mod changes;
#[path = "drain/pool.rs"]
mod pool;
#[path = "discovery/stage.rs"]
mod stage;
