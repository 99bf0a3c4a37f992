//! Incremental Internet checksums (RFC 1624).
//!
//! A translation that is constant for a flow changes each checksum by a
//! constant, so it is computed once, when the flow is made. The sum is in one's
//! complement and hence blind to byte order (RFC 1071 section 2(B)): everything
//! here works on 16-bit words as they lie in memory. A wrong checksum stays
//! wrong by the same amount.

/// Folds carries back in, down to 16 bits.
#[inline(always)]
pub const fn fold(sum: u64) -> u16 {
    let sum = (sum & 0xffff_ffff) + (sum >> 32);
    let sum = (sum & 0xffff) + (sum >> 16);
    let sum = (sum & 0xffff) + (sum >> 16);
    let sum = (sum & 0xffff) + (sum >> 16);
    sum as u16
}

/// The unfolded sum of a 32-bit word that leaves and one that takes its place.
#[inline(always)]
pub const fn replace32(old: u32, new: u32) -> u64 {
    !old as u64 + new as u64
}

/// The same for 16-bit words.
#[inline(always)]
pub const fn replace16(old: u16, new: u16) -> u64 {
    !old as u64 + new as u64
}

/// The change of the IPv4 header checksum when the TTL falls by one. The TTL is the first byte of its word.
pub const TTL_STEP: u16 = !u16::from_be(0x0100);

/// `HC' = ~(~HC + ~m + m')` (RFC 1624, equation 3).
#[inline(always)]
pub const fn apply(checksum: u16, delta: u16) -> u16 {
    let sum = !checksum as u32 + delta as u32;
    !((sum & 0xffff) + (sum >> 16)) as u16
}

/// The same with two changes at once.
#[inline(always)]
pub const fn apply_both(checksum: u16, first: u16, second: u16) -> u16 {
    let sum = !checksum as u32 + first as u32 + second as u32;
    let sum = (sum & 0xffff) + (sum >> 16);
    !(sum + (sum >> 16)) as u16
}

#[cfg(test)]
mod tests {
    use super::*;

    fn full(words: &[u16]) -> u16 {
        !fold(words.iter().map(|w| u64::from(*w)).sum())
    }

    /// Each of these needs one carry more, or none, and a sum of zeros stays zero.
    /// Every step of a hop and every way in which the sum can carry.
    #[test]
    fn two_changes_at_once_are_one_after_the_other() {
        let edges = [0, 1, 2, 0x00ff, 0x0100, 0x7fff, 0x8000, 0xfefe, 0xfeff, 0xff00, 0xfffe, 0xffff];
        for checksum in 0..=u16::MAX {
            for first in edges {
                let both = apply_both(checksum, first, TTL_STEP);
                assert_eq!(both, apply(checksum, fold(first as u64 + TTL_STEP as u64)), "{checksum} {first}");
            }
        }
    }

    #[test]
    fn fold_brings_every_carry_back() {
        for (sum, folded) in [
            (0, 0),
            (0xffff, 0xffff),
            (0x1_0000, 1),
            (0x1_fffe, 0xffff),
            (0x1_ffff, 1),
            (0xffff_0000, 0xffff),
            (0xffff_0001, 1),
            (0xffff_ffff, 0xffff),
            (0x1_0000_0000, 1),
            (0x1_ffff_ffff, 1),
            (0x0001_0000_ffff_ffff, 1),
            (u64::MAX, 0xffff),
        ] {
            assert_eq!(fold(sum), folded, "{sum:#x}");
        }
    }

    /// As one's complement has it: the remainder by 0xffff, which is 0xffff itself where the sum is not zero.
    #[test]
    fn fold_is_the_remainder() {
        let mut seed = 7u64;
        for _ in 0..100_000 {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            // Long runs of ones and zeros, where the carries are.
            let sum = seed | seed.rotate_left(7) | if seed & 1 == 0 { 0xffff_0000 } else { 0xffff_ffff_0000 };
            let expected = match sum % 0xffff {
                0 => 0xffff,
                rest => rest as u16,
            };
            assert_eq!(fold(sum), expected, "{sum:#x}");
        }
    }

    #[test]
    fn incremental_equals_full() {
        let mut seed = 1u64;
        let mut next = move || {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (seed >> 33) as u16
        };
        for round in 0..100_000 {
            let mut words: [u16; 10] = core::array::from_fn(|_| next());
            if round % 7 == 0 {
                words[3] = 0xffff;
            }
            let before = full(&words);
            let old = words[4];
            words[4] = if round % 5 == 0 { 0 } else { next() };
            let after = apply(before, fold(replace16(old, words[4])));
            let want = full(&words);
            // 0x0000 and 0xffff are the same number in one's complement.
            assert!(
                after == want || (after ^ want == 0xffff && (after == 0 || want == 0)),
                "{before:04x} {old:04x} -> {after:04x}, want {want:04x}"
            );
        }
    }

    #[test]
    fn ttl_step_lowers_the_first_byte() {
        let words = [u16::from_ne_bytes([64, 6]), 0x1234];
        let lower = [u16::from_ne_bytes([63, 6]), 0x1234];
        assert_eq!(apply(full(&words), TTL_STEP), full(&lower));
    }

    #[test]
    fn a_bad_checksum_stays_bad_by_the_same_amount() {
        let delta = fold(replace32(0x0102_0304, 0x0a0b_0c0d));
        let good = apply(0x1111, delta);
        let bad = apply(0x1112, delta);
        assert_eq!(bad.wrapping_sub(good), 1);
    }
}
