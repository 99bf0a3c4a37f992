//! Values of a kernel map in this process's memory.

use std::{io, num::NonZeroUsize, os::fd::AsFd, ptr::NonNull};

use nix::sys::mman::{MapFlags, ProtFlags, mmap, munmap};

/// The values of an array map made with `BPF_F_MMAPABLE`.
#[derive(Debug)]
pub(super) struct Mapped<T> {
    at: NonNull<T>,
    len: usize,
}

// SAFETY: the mapping belongs to this value alone, and everything in it is read and written as words that
// others write at the same time, from whatever thread.
unsafe impl<T> Send for Mapped<T> {}
// SAFETY: as above.
unsafe impl<T> Sync for Mapped<T> {}

impl<T: Copy> Mapped<T> {
    /// The map must have `len` values of this very type.
    pub(super) fn new(map: impl AsFd, len: usize) -> io::Result<Self> {
        assert!(size_of::<T>().is_multiple_of(8), "the kernel would space them further apart");
        let bytes = NonZeroUsize::new(len * size_of::<T>())
            .ok_or_else(|| io::Error::other("a map without entries"))?;
        // SAFETY: a new mapping at an address of the kernel's choice.
        let at = unsafe {
            mmap(None, bytes, ProtFlags::PROT_READ | ProtFlags::PROT_WRITE, MapFlags::MAP_SHARED, map, 0)
        };
        Ok(Self { at: at?.cast(), len })
    }

    pub(super) const fn len(&self) -> usize {
        self.len
    }

    pub(super) fn at(&self, index: usize) -> *mut T {
        assert!(index < self.len, "inside the map");
        // SAFETY: inside the mapping, by the line above.
        unsafe { self.at.as_ptr().add(index) }
    }

    pub(super) fn read(&self, index: usize) -> T {
        // SAFETY: readable, and any bits make a value; volatile because others write it.
        unsafe { self.at(index).read_volatile() }
    }
}

impl<T> Drop for Mapped<T> {
    fn drop(&mut self) {
        // SAFETY: the mapping was made by `new`, and nothing of it is handed out.
        if let Err(error) = unsafe { munmap(self.at.cast(), self.len * size_of::<T>()) } {
            tracing::debug!(%error, "a map stays mapped");
        }
    }
}
