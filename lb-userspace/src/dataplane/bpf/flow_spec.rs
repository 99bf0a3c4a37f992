//! The size of the flow tables and the seed of their hash. Both stay as long as the pinned tables live.

use std::{io, path::Path};

use aya::maps::{Array, Map, MapData, MapError, MapInfo};
use lb_common::{
    ABI_VERSION,
    abi::{CLIENT_WAYS, Config},
};

use super::sizing::client_sets;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct FlowSpec {
    pub(super) client_sets: u32,
    pub(super) seed: u64,
}

impl FlowSpec {
    pub(super) fn new(max_flows: u32) -> io::Result<Self> {
        let mut seed = [0; 8];
        // SAFETY: the kernel writes at most so many bytes.
        let got = unsafe { libc::getrandom(seed.as_mut_ptr().cast(), seed.len(), 0) };
        if got != seed.len() as isize {
            return Err(io::Error::last_os_error());
        }
        let client_sets = u32::try_from(client_sets(max_flows)).map_err(io::Error::other)?;
        Ok(Self { client_sets, seed: u64::from_ne_bytes(seed) })
    }

    /// As many connections as find a way in these tables.
    pub(super) const fn max_flows(self) -> u32 {
        self.client_sets.saturating_mul(CLIENT_WAYS as u32 * 2) / 3
    }

    /// The pinned tables of an earlier run. `None`: there are none.
    pub(super) fn pinned(dir: &Path) -> Result<Option<Self>, MapError> {
        let (config, clients) = (dir.join("CONFIG"), dir.join("CLIENTS4"));
        if !config.exists() || !clients.exists() {
            return Ok(None);
        }
        let client_sets = MapInfo::from_pin(clients)?.max_entries();
        let config = Array::<_, Config>::try_from(Map::Array(MapData::from_pin(config)?))?;
        Ok(Some(Self { client_sets, seed: config.get(&0, 0)?.seed }))
    }
}

/// The size of the pinned flow tables of an instance, if it is another one than `max_flows` asks for.
pub fn other_max_flows(bpffs: &Path, instance: &str, max_flows: u32) -> Option<u32> {
    let dir = bpffs.join("shunt").join(instance).join(format!("v{ABI_VERSION}"));
    let pinned = FlowSpec::pinned(&dir).ok().flatten()?;
    (u64::from(pinned.client_sets) != client_sets(max_flows)).then(|| pinned.max_flows())
}
