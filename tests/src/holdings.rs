//! The resources of a running daemon: memory, files and threads of its process, entries in its maps, and its
//! program.

use std::{
    fs,
    os::fd::AsFd as _,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result};
use aya::{
    maps::{Array, Map, MapData},
    programs::{
        links::{FdLink, PinnedLink},
        loaded_programs,
    },
};
use lb_common::abi::{ClientSet, Flow, ReplySet, V4, flow_state};
use lb_lab::Shunt;

use crate::test_run::Runner;

/// Of a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Process {
    pub memory_kib: u64,
    pub files: usize,
    pub threads: usize,
    /// CPU time so far, in the kernel and outside, in hundredths of a second.
    pub cpu: u64,
}

impl Process {
    pub fn read(pid: u32) -> Result<Self> {
        let folder = Path::new("/proc").join(pid.to_string());
        let status = fs::read_to_string(folder.join("status"))?;
        let memory = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("VmRSS")?;
        let memory = memory.trim().trim_end_matches(" kB").parse()?;
        let stat = fs::read_to_string(folder.join("stat"))?;
        // The name, in brackets, may hold anything; utime and stime are the 14th and 15th (proc_pid_stat(5)).
        let (_, fields) = stat.rsplit_once(')').context("the name is in brackets")?;
        let cpu = fields.split_whitespace().skip(11).take(2).map(str::parse::<u64>).sum::<Result<_, _>>()?;
        let count = |of: &str| -> Result<usize> { Ok(fs::read_dir(folder.join(of))?.count()) };
        Ok(Self { memory_kib: memory, files: count("fd")?, threads: count("task")?, cpu })
    }
}

/// Of IPv4, in the maps.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Places {
    pub established: usize,
    pub handshakes: usize,
    /// Over: their NAT ports rest.
    pub resting: usize,
    /// Places that are taken, by what leads to them from either end.
    pub by_client: usize,
    pub by_reply: usize,
}

impl Places {
    pub fn read(shunt: &Shunt) -> Result<Self> {
        let mut places = Self::default();
        for flow in values::<Flow<V4>>(shunt, "FLOWS4")?.into_iter().filter(Flow::is_live) {
            if flow.state & flow_state::TIME_WAIT != 0 {
                places.resting += 1;
            } else if flow.state & flow_state::ESTABLISHED != 0 {
                places.established += 1;
            } else {
                places.handshakes += 1;
            }
        }
        let clients = values::<ClientSet>(shunt, "CLIENTS4")?;
        places.by_client = clients.iter().flat_map(|set| set.tags).filter(|tag| *tag != 0).count();
        let replies = values::<ReplySet>(shunt, "REPLIES4")?;
        places.by_reply = replies.iter().flat_map(|set| set.ways).filter(|way| *way != 0).count();
        Ok(places)
    }
}

/// New connections that each half-open backend may still be given, by its id.
pub fn tokens(shunt: &Shunt) -> Result<Vec<i64>> {
    values(shunt, "TRIAL_BUDGETS")
}

/// The program that the daemon has attached, the same to all interfaces.
pub fn attached(shunt: &Shunt) -> Result<Runner> {
    let pins = fs::read_dir(pins(shunt))?.collect::<Result<Vec<_>, _>>()?;
    let link = pins.iter().find(|pin| pin.file_name().to_string_lossy().starts_with("link-"));
    let link: FdLink = PinnedLink::from_pin(link.context("nothing is attached")?.path())?.into();
    let id = link.info()?.program_id();
    let program = loaded_programs().flatten().find(|program| program.id() == id);
    let program = program.context("what is attached is not loaded")?.fd()?;
    Ok(Runner::new(program.as_fd().try_clone_to_owned()?))
}

fn pins(shunt: &Shunt) -> PathBuf {
    shunt.pins().join(format!("v{}", lb_common::ABI_VERSION))
}

fn values<T: aya::Pod>(shunt: &Shunt, map: &str) -> Result<Vec<T>> {
    let path = pins(shunt).join(map);
    let data = MapData::from_pin(&path).with_context(|| path.display().to_string())?;
    let array = Array::<_, T>::try_from(Map::Array(data))?;
    Ok(array.iter().collect::<Result<_, _>>()?)
}
