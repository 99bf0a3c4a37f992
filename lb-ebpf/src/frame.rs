//! Bounds-checked access to the bytes of a frame.

use crate::{head::Ends, verifier::one};

/// Length of an Ethernet header.
pub const LINK: usize = 14;

/// A frame's bytes: `start` to `end`, exclusive.
///
/// Offsets given to [`Frame::load`] and [`Frame::store`] must be constants, or
/// bounded by the caller in a way that the verifier can follow.
#[derive(Clone, Copy)]
pub struct Frame {
    start: usize,
    end: usize,
}

impl Frame {
    /// # Safety
    /// The bytes from `start` to `end` must be readable and writable for as long
    /// as the frame is used, and nothing else may refer to them.
    #[inline(always)]
    pub const unsafe fn new(start: usize, end: usize) -> Self {
        Self { start, end }
    }

    /// The rest from `offset` on, where `offset` is no constant.
    #[inline(always)]
    pub fn from_any(&self, offset: usize) -> Self {
        Self { start: one(self.start + offset), end: self.end }
    }

    /// The rest from `offset` on. Nothing is checked: an empty or impossible rest holds nothing.
    #[inline(always)]
    pub const fn from(&self, offset: usize) -> Self {
        Self { start: self.start + offset, end: self.end }
    }

    #[inline(always)]
    pub const fn len(&self) -> usize {
        self.end - self.start
    }

    #[inline(always)]
    pub const fn is_empty(&self) -> bool {
        self.start == self.end
    }

    /// Whether the first `len` bytes are there.
    #[inline(always)]
    pub const fn holds(&self, len: usize) -> bool {
        self.start + len <= self.end
    }

    /// The value at `offset`, in the byte order of the frame.
    #[inline(always)]
    pub fn load<T: Word>(&self, offset: usize) -> Option<T> {
        if self.start + offset + size_of::<T>() > self.end {
            return None;
        }
        let at = (self.start + offset) as *const T;
        // SAFETY: the line above keeps it inside the frame, and any bits make a `Word`.
        Some(unsafe { read(at) })
    }

    /// `N` bytes from `offset` on, behind one check.
    #[inline(always)]
    pub fn bytes<const N: usize>(&self, offset: usize) -> Option<[u8; N]> {
        let at = one(self.start + offset);
        if at + N > self.end {
            return None;
        }
        let at = at as *const [u8; N];
        // SAFETY: the line above keeps it inside the frame; bytes need no alignment.
        Some(unsafe { *at })
    }

    /// Both ends of `N` bytes from `offset` on, behind one check.
    #[inline(always)]
    pub fn ends<const N: usize>(&self, offset: usize) -> Option<Ends> {
        const { assert!(N >= 8) };
        let at = one(self.start + offset);
        if at + N > self.end {
            return None;
        }
        // SAFETY: the line above keeps both inside the frame, and any bits make a number.
        unsafe {
            Some([u64::from_le(read(at as *const u64)), u64::from_le(read((at + N - 8) as *const u64))])
        }
    }

    /// Overwrites `N` bytes from `offset` on. Beyond the end it writes nothing and returns false.
    #[inline(always)]
    pub fn put<const N: usize>(&self, offset: usize, bytes: [u8; N]) -> bool {
        let at = one(self.start + offset);
        if at + N > self.end {
            return false;
        }
        let at = at as *mut [u8; N];
        // SAFETY: as above.
        unsafe { *at = bytes };
        true
    }

    /// Overwrites the value at `offset`. Beyond the end it writes nothing and returns false.
    #[inline(always)]
    pub fn store<T: Word>(&self, offset: usize, value: T) -> bool {
        if self.start + offset + size_of::<T>() > self.end {
            return false;
        }
        let at = (self.start + offset) as *mut T;
        // SAFETY: the line above keeps it inside the frame.
        unsafe { write(at, value) };
        true
    }
}

/// An integer that is read and written whole.
pub trait Word: Copy {}
impl Word for u8 {}
impl Word for u16 {}
impl Word for u32 {}
impl Word for u64 {}

/// # Safety
/// `at` must be readable.
#[inline(always)]
unsafe fn read<T: Word>(at: *const T) -> T {
    // An IPv4 header lies at offset 14, so its words are not aligned. The BPF
    // verifier allows that in packets where the CPU does (and refuses the program
    // where it does not), but the compiler splits an access that it knows is
    // unaligned into bytes: four loads instead of one on every field.
    #[cfg(target_arch = "bpf")]
    // SAFETY: the caller's.
    return unsafe { *at };
    #[cfg(not(target_arch = "bpf"))]
    // SAFETY: the caller's.
    return unsafe { at.read_unaligned() };
}

/// # Safety
/// `at` must be writable.
#[inline(always)]
unsafe fn write<T: Word>(at: *mut T, value: T) {
    #[cfg(target_arch = "bpf")]
    // SAFETY: the caller's; see `read` for the alignment.
    unsafe {
        *at = value;
    }
    #[cfg(not(target_arch = "bpf"))]
    // SAFETY: the caller's.
    unsafe {
        at.write_unaligned(value);
    }
}

#[cfg(test)]
pub(crate) fn of(bytes: &mut [u8]) -> Frame {
    let range = bytes.as_mut_ptr_range();
    // SAFETY: the tests keep the slice alive and untouched while they use the frame.
    unsafe { Frame::new(range.start as usize, range.end as usize) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_beyond_the_end() {
        let mut bytes = [1u8, 2, 3, 4, 5];
        let frame = of(&mut bytes);
        assert_eq!(frame.load::<u32>(1), Some(u32::from_ne_bytes([2, 3, 4, 5])));
        assert_eq!(frame.load::<u32>(2), None);
        assert!(!frame.store(4, 7u16));
        assert!(frame.store(4, 7u8));
        assert!(!frame.put(3, [9; 3]));
        assert!(frame.put(0, [8; 3]));
        assert_eq!(bytes, [8, 8, 8, 4, 7]);
    }

    #[test]
    fn each_access_ends_with_the_frame() {
        let mut bytes = [1u8, 2, 3, 4, 5, 6, 7, 8, 9];
        let frame = of(&mut bytes);
        assert_eq!((frame.len(), frame.is_empty()), (9, false));
        let rest = frame.from(5);
        assert_eq!((rest.len(), rest.load::<u8>(0), frame.from_any(5).load::<u8>(0)), (4, Some(6), Some(6)));
        assert!(rest.holds(4) && !rest.holds(5));
        assert!(frame.from(9).is_empty());
        assert_eq!((frame.bytes::<4>(5), frame.bytes::<4>(6)), (Some([6, 7, 8, 9]), None));
        let ends = |at: usize| u64::from_le_bytes(core::array::from_fn(|i| (at + i + 1) as u8));
        assert_eq!(frame.ends::<9>(0), Some([ends(0), ends(1)]));
        assert_eq!(frame.ends::<8>(1), Some([ends(1), ends(1)]));
        assert_eq!((frame.ends::<9>(1), frame.ends::<8>(2)), (None, None));
        assert!(frame.put(5, [0; 4]) && !frame.put(6, [9; 4]));
        assert_eq!(bytes, [1, 2, 3, 4, 5, 0, 0, 0, 0]);
    }
}
