//! The two programs: which one a hook needs, and how the kernel gets it.

use std::path::Path;

use aya::{Btf, Ebpf, EbpfLoader, programs::Program};
use lb_common::hash::HashKeys;

use super::{
    error::{OpenError, is_os_error},
    flow_spec::FlowSpec,
    idle::IdleTicks,
    maps::{Entries, MAPS, pinned_maps},
};
use crate::attach_mode::XdpMode;

/// The program, as `build.rs` embedded it, for each hook.
pub(super) static XDP_OBJECT: &[u8] = aya::include_bytes_aligned!(env!("SHUNT_BPF_OBJECT"));
pub(super) static TC_OBJECT: &[u8] = aya::include_bytes_aligned!(env!("SHUNT_BPF_TC_OBJECT"));

/// The name of the program in both object files.
pub(super) const PROGRAM: &str = "shunt";

/// Where the program runs. Each hook has a program of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hook {
    Xdp,
    Tc,
}

impl From<XdpMode> for Hook {
    fn from(mode: XdpMode) -> Self {
        match mode {
            XdpMode::Auto | XdpMode::Native | XdpMode::Generic => Self::Xdp,
            XdpMode::Tc => Self::Tc,
        }
    }
}

/// Loads the maps of an object file. `dir`: the directory of the pinned maps; those that are there already are adopted.
pub(super) fn load(
    hook: Hook,
    dir: Option<&Path>,
    flow_tables: FlowSpec,
    idle: IdleTicks,
    tx_by_redirect: bool,
) -> Result<Ebpf, OpenError> {
    let (tx_by_redirect, keys) = (u8::from(tx_by_redirect), HashKeys::from_seed(flow_tables.seed));
    let btf = Btf::from_sys_fs().ok();
    let mut loader = EbpfLoader::new();
    loader
        .btf(btf.as_ref())
        .override_global("CLIENT_SETS", &flow_tables.client_sets, true)
        .override_global("HASH_KEYS", &keys, true)
        .override_global("SILENCE", &idle.established, true);
    let object = match hook {
        Hook::Xdp => {
            loader.override_global("TX_BY_REDIRECT", &tx_by_redirect, true);
            XDP_OBJECT
        }
        Hook::Tc => TC_OBJECT,
    };
    for map in MAPS {
        match map.entries {
            Entries::Declared => {}
            Entries::PerClientSet(each) => {
                loader.map_max_entries(map.name, flow_tables.client_sets.saturating_mul(each));
            }
            Entries::PerCpu => {
                loader.map_max_entries(map.name, cpus()? as u32);
            }
        }
    }
    if let Some(dir) = dir {
        for name in pinned_maps() {
            loader.map_pin_path(name, dir.join(name));
        }
    }
    loader.load(object).map_err(|error| {
        if is_os_error(&error, libc::EPERM) { OpenError::NotPermitted } else { OpenError::Load(error) }
    })
}

/// Has the kernel verify and load the program. Returns how many instructions the verifier went through.
pub(super) fn verify(ebpf: &mut Ebpf) -> Result<Option<u32>, OpenError> {
    let program = ebpf.program_mut(PROGRAM).ok_or(OpenError::Object("program shunt"))?;
    let loaded = match program {
        Program::Xdp(program) => program.load(),
        Program::SchedClassifier(program) => program.load(),
        _ => return Err(OpenError::Object("program shunt for XDP or tc")),
    };
    loaded.map_err(|error| {
        if is_os_error(&error, libc::EPERM) { OpenError::NotPermitted } else { OpenError::Verifier(error) }
    })?;
    Ok(program.info().ok().and_then(|info| info.verified_instruction_count()))
}

/// How many CPUs this host can ever have.
pub(super) fn cpus() -> Result<usize, OpenError> {
    aya::util::nr_cpus().map_err(|(_, error)| OpenError::Descriptor(error))
}
