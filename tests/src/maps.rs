//! The content of a map of any kind: read, compared, and made what it was.
//!
//! Values are bytes here. A map is handled by its kind alone, so that no map of the program can be forgotten.

use std::{
    collections::BTreeMap,
    io,
    num::NonZeroUsize,
    os::fd::{AsFd as _, AsRawFd as _, BorrowedFd},
    ptr::NonNull,
    slice,
};

use aya::maps::{Map, MapData, RingBuf};
use nix::{
    poll::{PollFd, PollFlags, PollTimeout, poll},
    sys::mman::{MapFlags, ProtFlags, mmap, munmap},
};

const LOOKUP: libc::c_long = 1;
const UPDATE: libc::c_long = 2;
const DELETE: libc::c_long = 3;
const NEXT_KEY: libc::c_long = 4;
const LOOKUP_BATCH: libc::c_long = 24;
const UPDATE_BATCH: libc::c_long = 26;

/// `BPF_F_MMAPABLE`: an array that this process can have in its own memory.
const MAPPABLE: u32 = 1 << 10;

/// `BPF_F_RDONLY_PROG`: constants, which the kernel keeps from changing.
const CONSTANT: u32 = 1 << 7;

/// `union bpf_attr` for one entry of a map.
#[repr(C)]
struct One {
    map: u32,
    pad: u32,
    key: u64,
    value: u64,
    flags: u64,
}

/// The same for many entries.
#[repr(C)]
struct Batch {
    from: u64,
    next: u64,
    keys: u64,
    values: u64,
    count: u32,
    map: u32,
    value_flags: u64,
    flags: u64,
}

/// # Safety
/// Every address in `attributes` must be valid for what the command does with it.
unsafe fn bpf<T>(command: libc::c_long, mut attributes: T) -> io::Result<()> {
    // SAFETY: the caller's; the size is that of the structure.
    let result = unsafe { libc::syscall(libc::SYS_bpf, command, &raw mut attributes, size_of::<T>()) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

fn address(of: &[u8]) -> u64 {
    of.as_ptr() as u64
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Content {
    /// Every value of an array, one behind the other; of each CPU if it has values for each.
    Values(Vec<u8>),
    Entries(BTreeMap<Vec<u8>, Vec<u8>>),
    /// Whether a ring has records that nobody has read.
    Unread(bool),
}

enum Kind {
    Array,
    /// Entries that can be removed.
    Keyed,
    /// Other maps by a number. A place can be empty.
    Maps,
    Ring,
}

/// A map and its sizes.
pub struct RawMap<'a> {
    data: &'a MapData,
    kind: Kind,
    key_size: usize,
    /// Bytes that the kernel copies for an entry.
    value_size: usize,
    entries: u32,
    flags: u32,
}

impl<'a> RawMap<'a> {
    pub fn new(map: &'a Map) -> Self {
        let (data, kind) = match map {
            Map::Array(data) | Map::PerCpuArray(data) => (data, Kind::Array),
            Map::HashMap(data) | Map::LpmTrie(data) => (data, Kind::Keyed),
            Map::ArrayOfMaps(data) => (data, Kind::Maps),
            Map::RingBuf(data) => (data, Kind::Ring),
            _ => panic!("a kind of map that this module cannot reset yet"),
        };
        let info = data.info().expect("the kernel describes its maps");
        let value_size = info.value_size() as usize;
        let value_size = match map {
            Map::PerCpuArray(_) => {
                value_size.next_multiple_of(8) * aya::util::nr_cpus().expect("the kernel counts its CPUs")
            }
            _ => value_size,
        };
        Self {
            data,
            kind,
            key_size: info.key_size() as usize,
            value_size,
            entries: info.max_entries(),
            flags: info.map_flags(),
        }
    }

    pub fn is_constant(&self) -> bool {
        self.flags & CONSTANT != 0
    }

    pub fn content(&self) -> Content {
        match self.kind {
            Kind::Array => Content::Values(self.values()),
            Kind::Keyed => Content::Entries(self.keys().into_iter().map(|key| self.entry(key)).collect()),
            Kind::Maps => Content::Entries(self.places().into_iter().map(|key| self.entry(key)).collect()),
            Kind::Ring => Content::Unread(self.has_records()),
        }
    }

    /// Makes the content what it was when the program was loaded: by then only arrays had any.
    pub fn reset(&self, fresh: &Content) {
        match (&self.kind, fresh) {
            (Kind::Array, Content::Values(fresh)) => {
                let same = || match Mapping::of(self) {
                    Some(mapping) => mapping.bytes() == *fresh,
                    None => self.values() == *fresh,
                };
                if !self.is_constant() && !same() {
                    self.write_values(fresh);
                }
            }
            (Kind::Keyed, _) => self.keys().iter().for_each(|key| self.remove(key)),
            (Kind::Maps, _) => self.places().iter().for_each(|key| self.remove(key)),
            (Kind::Ring, _) => self.drain(),
            (Kind::Array, other) => panic!("{other:?} is no array's content"),
        }
    }

    /// Changes every value, or adds an entry. A map of maps gets `inner` in its last place.
    pub fn scribble(&self, inner: BorrowedFd<'_>) {
        const BYTE: u8 = 0xa5;
        let value = vec![BYTE; self.value_size];
        match self.kind {
            Kind::Array => self.write_values(&vec![BYTE; self.value_size * self.entries as usize]),
            Kind::Keyed => {
                let mut key = vec![BYTE; self.key_size];
                if let Some(prefix) = self.is_trie().then(|| key.get_mut(..4)).flatten() {
                    prefix.copy_from_slice(&32u32.to_ne_bytes());
                }
                self.write(&key, &value);
            }
            Kind::Maps => {
                self.write(&(self.entries - 1).to_ne_bytes(), &inner.as_raw_fd().to_ne_bytes());
            }
            // Only a program can put a record there.
            Kind::Ring => {}
        }
    }

    fn is_trie(&self) -> bool {
        self.data.info().is_ok_and(|info| matches!(info.map_type(), Ok(aya::maps::MapType::LpmTrie)))
    }

    fn map(&self) -> u32 {
        self.data.fd().as_fd().as_raw_fd().cast_unsigned()
    }

    fn values(&self) -> Vec<u8> {
        if let Some(mapping) = Mapping::of(self) {
            return mapping.bytes().to_vec();
        }
        let mut keys = vec![0u8; self.key_size * self.entries as usize];
        let mut values = vec![0u8; self.value_size * self.entries as usize];
        let mut next = vec![0u8; self.key_size.max(4)];
        let attributes = Batch {
            from: 0,
            next: next.as_mut_ptr() as u64,
            keys: keys.as_mut_ptr() as u64,
            values: values.as_mut_ptr() as u64,
            count: self.entries,
            map: self.map(),
            value_flags: 0,
            flags: 0,
        };
        // SAFETY: keys and values have the size of all entries, and live until the call returns.
        let read = unsafe { bpf(LOOKUP_BATCH, attributes) };
        // A map of one entry has no next one.
        if let Err(error) = read.or_else(|error| match error.raw_os_error() {
            Some(libc::ENOENT) => Ok(()),
            _ => Err(error),
        }) {
            panic!("reading a map: {error}");
        }
        values
    }

    fn write_values(&self, values: &[u8]) {
        assert_eq!(values.len(), self.value_size * self.entries as usize, "a value for each entry");
        if let Some(mut mapping) = Mapping::of(self) {
            return mapping.bytes_mut().copy_from_slice(values);
        }
        let keys: Vec<u8> = (0..self.entries).flat_map(u32::to_ne_bytes).collect();
        let attributes = Batch {
            from: 0,
            next: 0,
            keys: address(&keys),
            values: address(values),
            count: self.entries,
            map: self.map(),
            value_flags: 0,
            flags: 0,
        };
        // SAFETY: keys and values are only read, have the size of all entries, and live until the call returns.
        unsafe { bpf(UPDATE_BATCH, attributes) }.expect("the kernel writes an array");
    }

    fn one(&self, key: u64, value: u64) -> One {
        One { map: self.map(), pad: 0, key, value, flags: 0 }
    }

    fn keys(&self) -> Vec<Vec<u8>> {
        let mut keys: Vec<Vec<u8>> = Vec::new();
        loop {
            let mut next = vec![0u8; self.key_size];
            let last = keys.last().map_or(0, |key| address(key));
            let attributes = self.one(last, next.as_mut_ptr() as u64);
            // SAFETY: both keys have the size of the map's, and live until the call returns.
            match unsafe { bpf(NEXT_KEY, attributes) } {
                Ok(()) => keys.push(next),
                Err(error) if error.raw_os_error() == Some(libc::ENOENT) => return keys,
                Err(error) => panic!("reading the keys of a map: {error}"),
            }
        }
    }

    /// Of a map of maps: the keys that lead to one.
    fn places(&self) -> Vec<Vec<u8>> {
        let keys = (0..self.entries).map(|index| index.to_ne_bytes().to_vec());
        keys.filter(|key| self.value(key).is_some()).collect()
    }

    fn value(&self, key: &[u8]) -> Option<Vec<u8>> {
        let mut value = vec![0u8; self.value_size];
        let attributes = self.one(address(key), value.as_mut_ptr() as u64);
        // SAFETY: key and value have the sizes of the map's, and live until the call returns.
        match unsafe { bpf(LOOKUP, attributes) } {
            Ok(()) => Some(value),
            Err(error) if error.raw_os_error() == Some(libc::ENOENT) => None,
            Err(error) => panic!("reading a map: {error}"),
        }
    }

    fn entry(&self, key: Vec<u8>) -> (Vec<u8>, Vec<u8>) {
        let value = self.value(&key).expect("nobody removes it meanwhile");
        (key, value)
    }

    fn write(&self, key: &[u8], value: &[u8]) {
        let attributes = self.one(address(key), address(value));
        // SAFETY: key and value have the sizes of the map's, and live until the call returns.
        unsafe { bpf(UPDATE, attributes) }.expect("the kernel writes a map");
    }

    fn remove(&self, key: &[u8]) {
        let attributes = self.one(address(key), 0);
        // SAFETY: the key has the size of the map's, and lives until the call returns.
        unsafe { bpf(DELETE, attributes) }.expect("the kernel removes an entry");
    }

    fn has_records(&self) -> bool {
        let mut ring = [PollFd::new(self.data.fd().as_fd(), PollFlags::POLLIN)];
        poll(&mut ring, PollTimeout::ZERO).expect("a ring can be polled") > 0
    }

    fn drain(&self) {
        let id = self.data.info().expect("the kernel describes its maps").id();
        let ring = MapData::from_id(id).and_then(Map::from_map_data).and_then(RingBuf::try_from);
        let mut ring = ring.expect("a ring can be opened twice");
        while ring.next().is_some() {}
    }
}

/// The values of an array in this process's memory. The kernel would copy each of them by itself: half of the time of all
/// fixtures went there.
struct Mapping {
    at: NonNull<u8>,
    length: usize,
}

impl Mapping {
    /// `None`: the array is not made for it, or has gaps between its values.
    fn of(map: &RawMap<'_>) -> Option<Self> {
        let length = map.value_size * map.entries as usize;
        let fits = map.flags & MAPPABLE != 0 && !map.is_constant() && map.value_size.is_multiple_of(8);
        let bytes = NonZeroUsize::new(length).filter(|_| fits)?;
        let access = ProtFlags::PROT_READ | ProtFlags::PROT_WRITE;
        // SAFETY: a new mapping at an address of the kernel's choice.
        let at = unsafe { mmap(None, bytes, access, MapFlags::MAP_SHARED, map.data.fd().as_fd(), 0) };
        Some(Self { at: at.ok()?.cast(), length })
    }

    fn bytes(&self) -> &[u8] {
        // SAFETY: the mapping has so many bytes. No program runs while a fixture is made.
        unsafe { slice::from_raw_parts(self.at.as_ptr(), self.length) }
    }

    fn bytes_mut(&mut self) -> &mut [u8] {
        // SAFETY: as above.
        unsafe { slice::from_raw_parts_mut(self.at.as_ptr(), self.length) }
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: the mapping was made by `of`, and nothing of it is handed out.
        unsafe { munmap(self.at.cast(), self.length) }.expect("it is mapped");
    }
}
