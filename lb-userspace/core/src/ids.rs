//! How maps, engine and edges name services and backends.

use std::{fmt, net::SocketAddr};

use serde::{Deserialize, Serialize};

/// Index of a service in the maps. Below `lb_common::MAX_SERVICES`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct ServiceId(pub u16);

/// Index of a backend in the maps. Below `lb_common::MAX_BACKENDS`. After a
/// backend was removed another one may get its id. The generation distinguishes them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct BackendId(pub u16);

impl fmt::Display for ServiceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Display for BackendId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Grows with each owner of a [`BackendId`]. Never 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Generation(pub u32);

/// A backend that the maps of an earlier run still hold. The engine gives the
/// same id and generation to a configured backend with the same VIP and address,
/// so that its flows stay its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Adopted {
    pub service: ServiceId,
    /// `None`: the service is no longer in the maps, and this backend was about to leave them.
    pub vip: Option<SocketAddr>,
    /// It gets new connections. Of two backends with one address the engine adopts this one.
    pub admits: bool,
    pub id: BackendId,
    pub generation: Generation,
    pub address: SocketAddr,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_shown_as_its_number() {
        assert_eq!(format!("{} {:>3}", ServiceId(7), BackendId(12)), "7  12");
    }
}
