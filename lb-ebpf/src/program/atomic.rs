//! Atomic operations on map values (BPF_ATOMIC, Linux 5.12).
//!
//! `core` has none for this target, which it believes to lack compare-and-swap.

/// Adds to `*at` and returns what was there.
///
/// # Safety
/// `at` must be an aligned and writable i64 of a map.
#[inline(always)]
pub(super) unsafe fn fetch_add(at: *mut i64, value: i64) -> i64 {
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

/// Sets bits of `*at`; those that another CPU sets at the same time stay.
#[inline(always)]
pub(super) fn set(at: &mut u32, bits: u32) {
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
