//! Reading a hash map whole, some thousand entries in a call (`BPF_MAP_LOOKUP_BATCH`, Linux 5.6).
//!
//! One by one, a full flow table would take half a million calls. Nor does this
//! count as use: an entry of an LRU map grows no younger by being looked at.

use std::{
    io,
    os::fd::{AsRawFd, BorrowedFd, OwnedFd},
};

use aya::Pod;

const BPF_MAP_LOOKUP_BATCH: libc::c_long = 24;
const BATCH: usize = 4096;
/// Larger than any bucket can be.
const MOST: usize = 1 << 20;

/// `union bpf_attr`, as that command takes it (linux/bpf.h).
#[repr(C)]
struct Attr {
    in_batch: u64,
    out_batch: u64,
    keys: u64,
    values: u64,
    count: u32,
    map_fd: u32,
    elem_flags: u64,
    flags: u64,
}

/// A map and the room its entries are read into.
pub(super) struct Walker<K, V> {
    map: OwnedFd,
    keys: Vec<K>,
    values: Vec<V>,
}

impl<K: Pod + Default, V: Pod + Default> Walker<K, V> {
    /// The map's keys and values must be of the size of these types.
    pub(super) fn new(map: BorrowedFd<'_>) -> io::Result<Self> {
        Ok(Self {
            map: map.try_clone_to_owned()?,
            keys: vec![K::default(); BATCH],
            values: vec![V::default(); BATCH],
        })
    }

    /// Shows every entry that is there throughout, once. One that comes or goes meanwhile may be missed.
    pub(super) fn each(&mut self, mut visit: impl FnMut(&K, &V)) -> io::Result<()> {
        let (mut from, mut to) = (0u64, 0u64);
        let mut first = true;
        loop {
            let (count, result) = self.batch((!first).then_some(&from), &mut to);
            let last = match result {
                Ok(()) => false,
                Err(error) if error.raw_os_error() == Some(libc::ENOENT) => true,
                // A bucket with more entries than there is room for.
                Err(error) if error.raw_os_error() == Some(libc::ENOSPC) && self.keys.len() < MOST => {
                    self.grow();
                    continue;
                }
                Err(error) if error.raw_os_error() == Some(libc::EINTR) => continue,
                Err(error) => return Err(error),
            };
            self.keys.iter().zip(&self.values).take(count).for_each(|(key, value)| visit(key, value));
            if last {
                return Ok(());
            }
            (from, first) = (to, false);
        }
    }

    fn grow(&mut self) {
        let size = self.keys.len() * 2;
        self.keys.resize(size, K::default());
        self.values.resize(size, V::default());
    }

    fn batch(&mut self, from: Option<&u64>, to: &mut u64) -> (usize, io::Result<()>) {
        let mut attr = Attr {
            in_batch: from.map_or(0, |from| std::ptr::from_ref(from) as u64),
            out_batch: std::ptr::from_mut(to) as u64,
            keys: self.keys.as_mut_ptr() as u64,
            values: self.values.as_mut_ptr() as u64,
            count: self.keys.len() as u32,
            map_fd: self.map.as_raw_fd() as u32,
            elem_flags: 0,
            flags: 0,
        };
        let size = size_of::<Attr>();
        // SAFETY: all pointers are to memory of ours that outlives the call, with room for `count` keys
        // and values and for the four bytes of a position; any bits make a key or a value.
        let done = unsafe { libc::syscall(libc::SYS_bpf, BPF_MAP_LOOKUP_BATCH, &raw mut attr, size) };
        let result = if done == 0 { Ok(()) } else { Err(io::Error::last_os_error()) };
        (attr.count as usize, result)
    }
}
