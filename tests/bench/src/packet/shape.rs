//! How large the program and its maps are in the kernel.

use std::{
    fmt::Write as _,
    fs,
    os::fd::{AsFd, AsRawFd as _},
};

use anyhow::{Context, Result};
use aya::{maps::MapInfo, programs::Program};
use lb_common::abi::Table;
use serde::Serialize;

use super::syscall;

#[derive(Clone, Debug, Serialize)]
pub(crate) struct Shape {
    /// Instructions that the verifier went through; absent where the kernel does not say (before 5.16).
    pub(crate) verified_instructions: Option<u32>,
    pub(crate) translated_bytes: Option<u32>,
    pub(crate) machine_code_bytes: u32,
    /// Changes with the program's instructions, and with nothing else.
    pub(crate) tag: String,
    pub(crate) maps: Vec<Map>,
}

#[derive(Clone, Debug, Serialize)]
pub(crate) struct Map {
    /// As the kernel keeps it: at most 15 letters.
    pub(crate) name: String,
    pub(crate) kind: String,
    pub(crate) key_bytes: u32,
    pub(crate) value_bytes: u32,
    pub(crate) entries: u32,
    /// The kernel's own account of its memory.
    pub(crate) bytes: Option<u64>,
}

pub(crate) fn read(program: &Program) -> Result<Shape> {
    let info = program.info().context("asking for the program")?;
    let mut maps = Vec::new();
    for id in info.map_ids().context("asking for the program's maps")?.unwrap_or_default() {
        maps.push(map(&MapInfo::from_id(id).context("asking for a map")?)?);
    }
    maps.sort_by(|a, b| a.name.cmp(&b.name));
    // The tables themselves are maps inside of TABLES, and the program does not name them.
    let table = syscall::array::<Table>(1).context("making a table")?;
    maps.push(Map {
        name: "a service's table".to_owned(),
        kind: "Array".to_owned(),
        key_bytes: 4,
        value_bytes: size_of::<Table>() as u32,
        entries: 1,
        bytes: memory(&table)?,
    });
    Ok(Shape {
        verified_instructions: info.verified_instruction_count(),
        translated_bytes: info.size_translated(),
        machine_code_bytes: info.size_jitted(),
        tag: format!("{:016x}", info.tag()),
        maps,
    })
}

fn map(info: &MapInfo) -> Result<Map> {
    Ok(Map {
        name: info.name_as_str().unwrap_or("?").to_owned(),
        kind: info.map_type().map_or_else(|_| "?".to_owned(), |kind| format!("{kind:?}")),
        key_bytes: info.key_size(),
        value_bytes: info.value_size(),
        entries: info.max_entries(),
        bytes: memory(info.fd().context("opening a map")?)?,
    })
}

fn memory(map: impl AsFd) -> Result<Option<u64>> {
    let path = format!("/proc/self/fdinfo/{}", map.as_fd().as_raw_fd());
    let account = fs::read_to_string(&path).with_context(|| format!("reading {path}"))?;
    Ok(account.lines().find_map(|line| line.strip_prefix("memlock:")?.trim().parse().ok()))
}

impl Shape {
    pub(super) fn table(&self) -> String {
        let unknown = || "?".to_owned();
        let mut text = format!(
            "program: {} verified instructions, {} bytes translated, {} bytes of machine code, tag {}\n",
            self.verified_instructions.map_or_else(unknown, |count| count.to_string()),
            self.translated_bytes.map_or_else(unknown, |bytes| bytes.to_string()),
            self.machine_code_bytes,
            self.tag,
        );
        let columns = ["map", "kind", "entries", "key", "value", "memory"];
        let [name, kind, entries, key, value, memory] = columns;
        write!(text, "  {name:<18} {kind:<12} {entries:>8} {key:>4} {value:>8} {memory:>12}")
            .expect("a string takes everything");
        for Map { name, kind, key_bytes, value_bytes, entries, bytes } in &self.maps {
            let bytes = bytes.map_or_else(unknown, |bytes| bytes.to_string());
            write!(
                text,
                "\n  {name:<18} {kind:<12} {entries:>8} {key_bytes:>4} {value_bytes:>8} {bytes:>12}"
            )
            .expect("a string takes everything");
        }
        text
    }

    pub(super) fn implausible(&self) -> Vec<String> {
        let mut found = Vec::new();
        if self.translated_bytes.is_none_or(|bytes| bytes == 0) {
            found.push("the program's size is not known".to_owned());
        }
        if self.machine_code_bytes == 0 {
            found.push(
                "the program is not compiled to machine code: is net.core.bpf_jit_enable 1?".to_owned(),
            );
        }
        // A trie has what its entries take, and there are none.
        let sized = |map: &Map| map.bytes.is_some_and(|bytes| bytes > 0 || map.kind == "LpmTrie");
        let empty = self.maps.iter().filter(|map| map.entries == 0 || !sized(map));
        found.extend(empty.map(|map| format!("map {}: no size", map.name)));
        found
    }
}
