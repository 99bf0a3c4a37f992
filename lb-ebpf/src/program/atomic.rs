//! Atomic operations on map values (BPF_ATOMIC, Linux 5.12).
//!
//! `core` has none for this target: it assumes that the target lacks compare-and-swap.

/// Adds to `*at` and returns what was there.
///
/// # Safety
/// `at` must be an aligned and writable i64 of a map.
#[inline(always)]
pub(crate) unsafe fn fetch_add(at: *mut i64, value: i64) -> i64 {
    let mut value = value;
    // SAFETY: the caller's.
    unsafe {
        core::arch::asm!(
            "{value} = atomic_fetch_add((u64 *)({at} + 0), {value})",
            at = in(reg) at,
            value = inout(reg) value,
            options(nostack),
        );
    }
    value
}

/// Sets bits of `*at`. Bits that another CPU sets at the same time stay.
#[inline(always)]
pub(crate) fn set(at: &mut u32, bits: u32) {
    let at: *mut u32 = at;
    // SAFETY: the reference makes it an aligned and writable word.
    unsafe {
        core::arch::asm!(
            "lock *(u32 *)({at} + 0) |= {bits}",
            at = in(reg) at,
            bits = in(wreg) bits,
            options(nostack),
        );
    }
}

/// Sets bits of `*at`, as [`set`] does.
///
/// # Safety
/// `at` must be an aligned and writable word of a map.
#[inline(always)]
pub(crate) unsafe fn set64(at: *mut u64, bits: u64) {
    // SAFETY: the caller's.
    unsafe {
        core::arch::asm!(
            "lock *(u64 *)({at} + 0) |= {bits}",
            at = in(reg) at,
            bits = in(reg) bits,
            options(nostack),
        );
    }
}

/// Clears bits of `*at`. Bits that another CPU sets at the same time stay.
#[inline(always)]
pub(crate) fn clear(at: &mut u32, bits: u32) {
    let at: *mut u32 = at;
    // SAFETY: the reference makes it an aligned and writable word.
    unsafe {
        core::arch::asm!(
            "lock *(u32 *)({at} + 0) &= {bits}",
            at = in(reg) at,
            bits = in(wreg) !bits,
            options(nostack),
        );
    }
}

/// Sets bits of `*at` and returns what was there.
#[inline(always)]
pub(crate) fn fetch_set(at: &mut u32, bits: u32) -> u32 {
    let at: *mut u32 = at;
    let mut bits = bits;
    // SAFETY: the reference makes it an aligned and writable word.
    unsafe {
        core::arch::asm!(
            "{bits} = atomic_fetch_or((u32 *)({at} + 0), {bits})",
            at = in(reg) at,
            bits = inout(wreg) bits,
            options(nostack),
        );
    }
    bits
}

/// Adds to `*at`.
///
/// # Safety
/// `at` must be an aligned and writable word of a map.
#[inline(always)]
pub(crate) unsafe fn add32(at: *mut u32, value: u32) {
    // SAFETY: the caller's.
    unsafe {
        core::arch::asm!(
            "lock *(u32 *)({at} + 0) += {value}",
            at = in(reg) at,
            value = in(wreg) value,
            options(nostack),
        );
    }
}

/// Replaces `old` by `new`. If there is another value, it writes nothing and returns false.
///
/// # Safety
/// `at` must be an aligned and writable word of a map.
#[inline(always)]
pub(crate) unsafe fn replace32(at: *mut u32, old: u32, new: u32) -> bool {
    let mut seen = old;
    // SAFETY: the caller's.
    unsafe {
        core::arch::asm!(
            "w0 = cmpxchg32_32({at} + 0, w0, {new})",
            at = in(reg) at,
            new = in(wreg) new,
            inout("w0") seen,
            options(nostack),
        );
    }
    seen == old
}

/// The same for 64 bits.
///
/// # Safety
/// As above.
#[inline(always)]
pub(crate) unsafe fn replace64(at: *mut u64, old: u64, new: u64) -> bool {
    let mut seen = old;
    // SAFETY: the caller's.
    unsafe {
        core::arch::asm!(
            "r0 = cmpxchg_64({at} + 0, r0, {new})",
            at = in(reg) at,
            new = in(reg) new,
            inout("r0") seen,
            options(nostack),
        );
    }
    seen == old
}

/// Writes a word after everything that was written before it.
///
/// # Safety
/// `at` must be an aligned and writable word of a map.
#[inline(always)]
pub(crate) unsafe fn publish(at: *mut u32, value: u32) {
    // SAFETY: the caller's.
    unsafe {
        core::arch::asm!(
            "{value} = xchg32_32({at} + 0, {value})",
            at = in(reg) at,
            value = inout(wreg) value => _,
            options(nostack),
        );
    }
}
