//! Bits of a mask that has one for each way of a set.

use lb_ebpf::verifier::opaque;

/// How many bits of at most 16 are set.
#[inline(always)]
pub(crate) const fn ones(mask: u32) -> u32 {
    let pairs = mask - (mask >> 1 & 0x5555);
    let fours = (pairs & 0x3333) + (pairs >> 2 & 0x3333);
    let eights = (fours + (fours >> 4)) & 0x0f0f;
    (eights + (eights >> 8)) & 0x1f
}

/// 1 for 0, otherwise 0. It has no branch, because the verifier would follow both sides for each way of a
/// set.
#[inline(always)]
pub(crate) fn is_zero(number: u32) -> u32 {
    (opaque(number).wrapping_sub(1) >> 63) as u32
}

/// The index of the lowest bit of a mask of at most 16 bits, also without a branch.
#[inline(always)]
pub(crate) fn lowest(mask: u32) -> u64 {
    let bit = mask & mask.wrapping_neg();
    let half = |ones: u32| 1 - is_zero(bit & ones);
    opaque(half(0xff00) << 3 | half(0xf0f0) << 2 | half(0xcccc) << 1 | half(0xaaaa))
}
