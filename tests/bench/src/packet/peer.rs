//! Another balancer's program, built elsewhere, measured with the same frames.
//!
//! A file in TOML says which object to load, what to write into its maps and which cases to play:
//!
//! ```toml
//! object = "balancer.o"         # beside this file
//! program = "balancer"
//! grows = [20, 40]              # bytes it puts in front of IPv4 and IPv6 frames; left out: none
//!
//! [[map]]                       # one value; bytes as they lie in memory
//! name = "vips"
//! key = "cb00710a 0050 06 00"
//! values = ["00000000"]
//!
//! [[map]]                       # keys are numbers: `count` of them from `first` on, with these values in turn
//! name = "ring"
//! first = 0
//! count = 65537
//! values = ["01000000", "02000000"]
//!
//! [[map]]                       # the values are maps, one for each key
//! name = "connections"
//! count = 2
//! inner = { kind = 9, key_bytes = 40, value_bytes = 16, entries = 131072 }
//!
//! [[case]]
//! name = "established"
//! frames = "ack"                # pass, syn, ack or request, to the VIP 203.0.113.10:80, or [2001:db8:cb:0:5a:0:71:a]:80
//! after = "syn"                 # played once before
//! action = 3                    # what becomes of each frame: 3 is XDP_TX
//! versus = "ack"                # the case of ours to compare with, of which the same number of connections is played
//! flows = [1, 1024]
//! families = ["v4", "v6"]
//! ```

use std::{
    fs,
    os::fd::{AsFd as _, OwnedFd},
    path::Path,
};

use anyhow::{Context, Result, bail, ensure};
use aya::{
    Ebpf,
    maps::MapInfo,
    programs::{ProgramInfo, Xdp},
};
use lb_tests::kernel::{Action, Family};
use serde::Deserialize;

use super::{
    EMPTY_PASSES,
    cases::Frames,
    syscall,
    wrapper::{self, Excess, Wrapper},
};
use crate::statistics::middle_mean;

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Manifest {
    object: String,
    program: String,
    grows: Option<[i32; 2]>,
    #[serde(default, rename = "map")]
    maps: Vec<Fill>,
    #[serde(rename = "case")]
    pub(crate) cases: Vec<Case>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Fill {
    name: String,
    key: Option<String>,
    #[serde(default)]
    first: u32,
    #[serde(default)]
    count: u32,
    #[serde(default)]
    values: Vec<String>,
    inner: Option<Inner>,
}

#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Inner {
    kind: u32,
    key_bytes: u32,
    value_bytes: u32,
    entries: u32,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Case {
    pub(crate) name: String,
    pub(crate) frames: Frames,
    pub(crate) after: Option<Frames>,
    pub(crate) action: u32,
    pub(crate) versus: String,
    pub(crate) flows: Vec<u32>,
    families: Vec<FamilyName>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
enum FamilyName {
    V4,
    V6,
}

impl Case {
    pub(crate) fn is_of(&self, family: Family) -> bool {
        let name = match family {
            Family::V4 => FamilyName::V4,
            Family::V6 => FamilyName::V6,
        };
        self.families.contains(&name)
    }
}

/// A loaded peer for one family.
pub(crate) struct Peer {
    program: OwnedFd,
    family: Family,
    excess: Excess,
    wrapper: Wrapper,
    around_empty: Wrapper,
    /// The cost of the wrapper's own work when it takes headers off again. An empty program causes none.
    restore_ns: f64,
    _loaded: Ebpf,
    _inner: Vec<OwnedFd>,
}

impl Manifest {
    pub(crate) fn read(path: &Path) -> Result<Self> {
        let text = fs::read_to_string(path).with_context(|| format!("reading {}", path.display()))?;
        toml::from_str(&text).with_context(|| path.display().to_string())
    }

    /// `path`: of this manifest.
    pub(crate) fn load(&self, path: &Path, family: Family) -> Result<Peer> {
        let object = path.parent().unwrap_or(Path::new(".")).join(&self.object);
        let mut loaded = Ebpf::load_file(&object).with_context(|| format!("loading {}", object.display()))?;
        let program = loaded.program_mut(&self.program);
        let program: &mut Xdp =
            program.with_context(|| format!("no program {}", self.program))?.try_into()?;
        program.load().with_context(|| format!("loading {}", self.program))?;
        let info = program.info()?;
        let mut inner = Vec::new();
        for fill in &self.maps {
            fill.write(&info, &mut inner).with_context(|| format!("filling map {}", fill.name))?;
        }
        let excess = if self.grows.is_some() { Excess::Head } else { Excess::Tail };
        let program = program.fd()?.as_fd().try_clone_to_owned().context("keeping the program")?;
        let wrapper = Wrapper::around_peer(&program, family, excess)?;
        let around_empty = Wrapper::around_peer(wrapper::empty()?, family, excess)?;
        let mut peer = Peer {
            program,
            family,
            excess,
            wrapper,
            around_empty,
            restore_ns: 0.0,
            _loaded: loaded,
            _inner: inner,
        };
        if let Some(grows) = self.grows {
            let bytes = match family {
                Family::V4 => grows[0],
                Family::V6 => grows[1],
            };
            peer.restore_ns = restore_ns(family, bytes)?;
        }
        Ok(peer)
    }
}

/// Half of what two moves of a frame's start cost: one is the wrapper's.
fn restore_ns(family: Family, bytes: i32) -> Result<f64> {
    let mut grown = Wrapper::around_peer(wrapper::growing(bytes)?, family, Excess::Head)?;
    let mut empty = Wrapper::around_peer(wrapper::empty()?, family, Excess::Head)?;
    let (records, frame) = Frames::Pass.records(1);
    grown.play(&records, &frame)?;
    empty.play(&records, &frame)?;
    let mut costs = Vec::new();
    for _ in 0..16 {
        costs.push((grown.run(EMPTY_PASSES)?.0 - empty.run(EMPTY_PASSES)?.0) / 2.0);
    }
    middle_mean(costs).context("no chunks")
}

impl Fill {
    fn write(&self, program: &ProgramInfo, inner: &mut Vec<OwnedFd>) -> Result<()> {
        // As the kernel keeps names.
        let short = &self.name[..self.name.len().min(15)];
        for id in program.map_ids()?.unwrap_or_default() {
            let map = MapInfo::from_id(id)?;
            if map.name_as_str() == Some(short) {
                return self.write_to(&map, inner);
            }
        }
        bail!("the program has no such map")
    }

    fn write_to(&self, map: &MapInfo, inner: &mut Vec<OwnedFd>) -> Result<()> {
        let fd = map.fd()?;
        let write = |key: &[u8], value: &[u8]| {
            ensure!(
                (key.len(), value.len()) == (map.key_size() as usize, map.value_size() as usize),
                "its keys have {} bytes and its values {}, not {} and {}",
                map.key_size(),
                map.value_size(),
                key.len(),
                value.len()
            );
            syscall::write_bytes(fd.as_fd(), key, value)
        };
        if let Some(key) = &self.key {
            let value = self.values.first().context("no value is given")?;
            return write(&bytes(key)?, &bytes(value)?);
        }
        let values = self.values.iter().map(|value| bytes(value)).collect::<Result<Vec<_>>>()?;
        for number in 0..self.count {
            let key = (self.first + number).to_ne_bytes();
            if let Some(Inner { kind, key_bytes, value_bytes, entries }) = self.inner {
                let made = syscall::create(kind, key_bytes, value_bytes, entries)?;
                write(&key, &std::os::fd::AsRawFd::as_raw_fd(&made).to_ne_bytes())?;
                inner.push(made);
            } else {
                ensure!(!values.is_empty(), "no values are given");
                write(&key, &values[number as usize % values.len()])?;
            }
        }
        Ok(())
    }
}

/// From hexadecimal digits; spaces are for the reader.
fn bytes(text: &str) -> Result<Vec<u8>> {
    let digits: Vec<u8> = text.bytes().filter(|byte| *byte != b' ').collect();
    let pairs = digits.chunks(2).map(|pair| {
        let pair = std::str::from_utf8(pair).ok().filter(|pair| pair.len() == 2);
        pair.and_then(|pair| u8::from_str_radix(pair, 16).ok())
    });
    pairs.collect::<Option<_>>().with_context(|| format!("`{text}` is not hexadecimal"))
}

impl Peer {
    pub(crate) fn prepare(&mut self, case: &Case, flows: u32, passes: u32) -> Result<()> {
        if let Some(before) = case.after {
            let (records, frame) = before.records(flows);
            self.wrapper.play(&records, &frame)?;
            self.wrapper.run(flows)?;
        }
        let (records, frame) = case.frames.records(flows);
        self.wrapper.play(&records, &frame)?;
        self.around_empty.play(&records, &frame)?;
        // Once through everything, as for ours.
        for _ in 0..=(flows / passes) {
            self.run(case, passes)?;
        }
        Ok(())
    }

    /// For live frames, on each of so many CPUs other connections. The kernel takes what the program puts in front of a
    /// frame off again, and a connection that its table does not know yet must come into it by any segment.
    pub(crate) fn live(&self, case: &Case, flows_of_each: u32, cpus: usize) -> Result<Vec<Wrapper>> {
        let (records, frame) = case.frames.records(flows_of_each * cpus.next_power_of_two() as u32);
        let parts = records.chunks(flows_of_each as usize).take(cpus);
        let wrappers = parts.map(|records| {
            let mut wrapper = Wrapper::around_peer(&self.program, self.family, self.excess)?;
            wrapper.play(records, &frame)?;
            Ok(wrapper)
        });
        wrappers.collect()
    }

    /// Nanoseconds a pass, without the wrapper's.
    pub(crate) fn run(&self, case: &Case, passes: u32) -> Result<f64> {
        let (empty_ns, _) = self.around_empty.run(passes)?;
        let (program_ns, action) = self.wrapper.run(passes)?;
        let expected = Action::new(case.action);
        ensure!(action == expected, "{}: the last frame came to {action:?}, not {expected:?}", case.name);
        Ok(program_ns - empty_ns - self.restore_ns)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_are_read_as_they_lie() {
        assert_eq!(bytes("cb00 0a").ok(), Some(vec![0xcb, 0, 0x0a]));
        assert!(bytes("cb0").is_err());
        assert!(bytes("xy").is_err());
        assert_eq!(bytes("").ok(), Some(Vec::new()));
    }

    #[test]
    fn a_manifest_says_all() {
        let text = r#"
            object = "x.o"
            program = "x"
            [[map]]
            name = "ring"
            count = 3
            values = ["01000000"]
            [[case]]
            name = "established"
            frames = "ack"
            after = "syn"
            action = 3
            versus = "ack"
            flows = [1]
            families = ["v4"]
        "#;
        let manifest: Manifest = toml::from_str(text).expect("it is complete");
        assert!(manifest.cases[0].is_of(Family::V4) && !manifest.cases[0].is_of(Family::V6));
        assert!(toml::from_str::<Manifest>(&text.replace("count", "counts")).is_err());
    }
}
