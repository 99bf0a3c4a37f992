//! The holder of the XDP hook of an interface: for the message of a start that finds it taken.

use std::{
    fmt, fs,
    os::fd::AsRawFd as _,
    path::{Path, PathBuf},
    thread,
};

use aya::programs::{ProgramInfo, SchedClassifier, TcAttachType};
use futures_util::TryStreamExt as _;
use netlink_packet_route::link::{LinkAttribute, LinkXdp};

use super::{
    link,
    pins::{Owner, owner},
};

/// So many pins are looked at, and folders so deep.
const MOST_PINS: usize = 4096;
const DEEPEST: usize = 6;

/// A program that is not Shunt's, or another instance's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Holder {
    pub id: u32,
    pub name: Option<String>,
    /// Where it, or its link, is pinned.
    pub pin: Option<PathBuf>,
}

impl fmt::Display for Holder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "program {}", self.id)?;
        if let Some(name) = &self.name {
            write!(f, " `{name}`")?;
        }
        match &self.pin {
            Some(pin) => write!(f, ", pinned at {}", pin.display()),
            None => write!(f, ", which nobody has pinned"),
        }
    }
}

/// The program on an interface. `None`: none is there any more, or the kernel does not say.
pub(super) fn holder(bpffs: &Path, index: u32) -> Option<Holder> {
    let id = program_on(index)?;
    let mut programs = aya::programs::loaded_programs().flatten();
    let name = programs.find(|info| info.id() == id).and_then(|info| info.name_as_str().map(str::to_owned));
    Some(Holder { id, name, pin: pin_of(bpffs, id) })
}

/// The programs at tc ingress of an interface. Before Linux 6.6 the kernel lists none.
pub fn at_tc_ingress(interface: &str) -> Vec<u32> {
    let found = SchedClassifier::query_tcx(interface, TcAttachType::Ingress);
    found.map(|(_, programs)| programs.iter().map(ProgramInfo::id).collect()).unwrap_or_default()
}

/// The programs on an interface, by XDP and at tc ingress, that are not this instance's.
pub fn also_attached(bpffs: &Path, instance: &str, interface: &str) -> Vec<String> {
    let index = nix::net::if_::if_nametoindex(interface).ok();
    let all = index.and_then(program_on).into_iter().chain(at_tc_ingress(interface));
    let named = all.filter_map(|program| match owner(bpffs, program) {
        Ok(Owner::Instance(name)) if name == instance => None,
        Ok(Owner::Instance(name)) => Some(format!("shunt's instance {name} (program {program})")),
        Ok(Owner::Other(Some(name))) => Some(format!("`{name}` (program {program})")),
        Ok(Owner::Other(None)) | Err(_) => Some(format!("program {program}")),
    });
    named.collect()
}

/// Where a program, or a link of it, is pinned.
pub fn pin_of(bpffs: &Path, program: u32) -> Option<PathBuf> {
    let mut left = MOST_PINS;
    search(bpffs, program, DEEPEST, &mut left)
}

/// On a thread of its own, because the caller may be inside a runtime.
fn program_on(index: u32) -> Option<u32> {
    let ask = move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().ok()?;
        runtime.block_on(async {
            let (connection, handle, _) = rtnetlink::new_connection().ok()?;
            let connection = tokio::spawn(connection);
            let link = handle.link().get().match_index(index).execute().try_next().await.ok().flatten();
            connection.abort();
            let xdp = link?.attributes.into_iter().find_map(|attribute| match attribute {
                LinkAttribute::Xdp(xdp) => Some(xdp),
                _ => None,
            })?;
            xdp.iter().find_map(|part| match part {
                LinkXdp::ProgId(id)
                | LinkXdp::DrvProgId(id)
                | LinkXdp::SkbProgId(id)
                | LinkXdp::HwProgId(id) => (*id != 0).then_some(*id),
                _ => None,
            })
        })
    };
    thread::Builder::new().spawn(ask).ok()?.join().ok()?
}

/// A pin of a program, or of a link of it. Links in the file system are not followed.
fn search(folder: &Path, program: u32, depth: usize, left: &mut usize) -> Option<PathBuf> {
    for entry in fs::read_dir(folder).ok()?.flatten() {
        *left = left.checked_sub(1)?;
        let kind = entry.file_type().ok()?;
        if kind.is_dir() && depth > 0 {
            if let Some(pin) = search(&entry.path(), program, depth - 1, left) {
                return Some(pin);
            }
        } else if kind.is_file() && names(&entry.path(), program) {
            return Some(entry.path());
        }
    }
    None
}

/// Whether the object that is pinned there is this program, or a link of it.
fn names(pin: &Path, program: u32) -> bool {
    let Ok(object) = link::open(pin) else { return false };
    let info = fs::read_to_string(format!("/proc/self/fdinfo/{}", object.as_raw_fd())).unwrap_or_default();
    let id = info.lines().find_map(|line| line.strip_prefix("prog_id:"));
    id.and_then(|id| id.trim().parse::<u32>().ok()) == Some(program)
}
