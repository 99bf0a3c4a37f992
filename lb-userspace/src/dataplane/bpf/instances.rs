//! Other instances on this node: whether they own what this one wants.

use std::{
    collections::BTreeSet,
    fs, io,
    net::SocketAddr,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
};

use aya::maps::{HashMap, Map, MapData};
use lb_common::{
    ABI_VERSION,
    abi::{Service, ServiceKey, socket_addr},
};

use super::link::{self, is_link, namespace_of};

/// The network namespace of this process, by its inode.
pub(super) fn namespace() -> io::Result<u64> {
    Ok(fs::metadata("/proc/self/ns/net")?.ino())
}

/// Whether a pinned link is attached to an interface of a network namespace.
pub(super) fn is_attached_in(pin: &Path, namespace: u64) -> bool {
    namespace_of(pin) == Some(namespace) && link::interface(pin).is_ok_and(|index| index != 0)
}

/// Whether the pins in a folder are in use in another network namespace than this one: a link is attached there.
pub(super) fn belongs_elsewhere(dir: &Path, namespace: u64) -> bool {
    links(dir).any(|pin| {
        namespace_of(&pin) != Some(namespace) && link::interface(&pin).is_ok_and(|index| index != 0)
    })
}

/// The instances that have pins, in order.
pub fn instances(bpffs: &Path) -> Vec<String> {
    let entries = fs::read_dir(bpffs.join("shunt")).into_iter().flatten().flatten();
    let names: BTreeSet<String> =
        entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
    names.into_iter().collect()
}

/// The instances whose program is attached in this network namespace, each with its interfaces. An error says that the
/// pins cannot be read.
pub fn forwarding(bpffs: &Path) -> io::Result<Vec<(String, Vec<String>)>> {
    let here = namespace()?;
    let shunt = bpffs.join("shunt");
    if !shunt.try_exists()? {
        return Ok(Vec::new());
    }
    let mut all = Vec::new();
    for instance in fs::read_dir(&shunt)? {
        let instance = instance?;
        let mut interfaces = BTreeSet::new();
        for version in fs::read_dir(instance.path())? {
            for pin in links(&version?.path()).filter(|pin| namespace_of(pin) == Some(here)) {
                let index = link::interface(&pin)?;
                if index != 0 {
                    interfaces.insert(name_of(index).unwrap_or_else(|| format!("interface {index}")));
                }
            }
        }
        if !interfaces.is_empty() {
            let name = instance.file_name().to_string_lossy().into_owned();
            all.push((name, interfaces.into_iter().collect()));
        }
    }
    all.sort();
    Ok(all)
}

fn name_of(index: u32) -> Option<String> {
    Some(nix::net::if_::if_indextoname(index).ok()?.to_string_lossy().into_owned())
}

/// The first of these VIPs that another instance forwards in this network namespace, with that instance.
pub fn taken_vip(bpffs: &Path, instance: &str, vips: &[SocketAddr]) -> Option<(SocketAddr, String)> {
    let namespace = namespace().ok()?;
    for other in instances(bpffs).into_iter().filter(|other| other != instance) {
        let dir = bpffs.join("shunt").join(&other).join(format!("v{ABI_VERSION}"));
        if !links(&dir).any(|pin| is_attached_in(&pin, namespace)) {
            continue;
        }
        let theirs = pinned_vips(&dir).unwrap_or_default();
        if let Some(vip) = vips.iter().find(|vip| theirs.contains(vip)) {
            return Some((*vip, other));
        }
    }
    None
}

fn links(dir: &Path) -> impl Iterator<Item = PathBuf> {
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    entries.map(|entry| entry.path()).filter(|path| is_link(path))
}

fn pinned_vips(dir: &Path) -> Option<BTreeSet<SocketAddr>> {
    let map = Map::HashMap(MapData::from_pin(dir.join("SERVICES")).ok()?);
    let services: HashMap<_, ServiceKey, Service> = HashMap::try_from(map).ok()?;
    Some(services.keys().flatten().map(|key| socket_addr(key.addr, key.port)).collect())
}
