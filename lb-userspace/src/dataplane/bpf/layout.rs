//! Whether the pinned maps have the layout that this build expects.

use std::path::Path;

use aya::maps::MapInfo;

use super::{
    error::OpenError,
    flow_spec::FlowSpec,
    idle::IdleTimeouts,
    maps::{is_flow_table, map_info, pinned_maps},
    program::{Hook, load},
};

/// The loader adopts a pinned map as it is, so its layout is compared first.
pub(super) fn check_layouts(dir: &Path) -> Result<(), OpenError> {
    let fresh = match pinned_maps().any(|name| dir.join(name).exists()) {
        true => load(
            Hook::Xdp,
            None,
            FlowSpec { client_sets: 1, seed: 0 },
            IdleTimeouts::default().into(),
            false,
        )?,
        false => return Ok(()),
    };
    for name in pinned_maps() {
        let path = dir.join(name);
        if !path.exists() {
            continue;
        }
        let wanted = fresh.map(name).ok_or(OpenError::Object(name))?;
        let wanted = map_info(wanted).map_err(OpenError::Map)?;
        let pinned = MapInfo::from_pin(&path).map_err(OpenError::Map)?;
        // The number of flows may differ: the tables keep the size of the earlier run until a detach.
        let same = pinned.map_type().ok() == wanted.map_type().ok()
            && pinned.key_size() == wanted.key_size()
            && pinned.value_size() == wanted.value_size()
            && (is_flow_table(name) || pinned.max_entries() == wanted.max_entries());
        if !same {
            return Err(OpenError::Layout { name, dir: dir.to_owned() });
        }
    }
    Ok(())
}
