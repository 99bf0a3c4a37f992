//! Pseudo-random numbers: each is a function of a seed and of its purpose, so the order of draws does not
//! matter.

use std::net::{IpAddr, SocketAddr};

const GOLDEN: u64 = 0x9e37_79b9_7f4a_7c15;

/// One step of splitmix64 (Steele et al., OOPSLA 2014) over `seed` and `word`.
pub(crate) const fn draw(seed: u64, word: u64) -> u64 {
    let mut x = (seed ^ word.wrapping_mul(GOLDEN)).wrapping_add(GOLDEN);
    x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

/// Scales a draw to 0..=`max`, every value as likely as the others.
pub(crate) const fn up_to(draw: u64, max: u64) -> u64 {
    ((draw as u128 * (max as u128 + 1)) >> 64) as u64
}

/// A key of one address and port. IPv4 and its IPv4-mapped form are alike.
pub(crate) fn of_address(seed: u64, address: SocketAddr) -> u64 {
    let ip = match address.ip() {
        IpAddr::V4(v4) => v4.to_ipv6_mapped(),
        IpAddr::V6(v6) => v6,
    };
    let bits = ip.to_bits();
    let key = draw(seed, (bits >> 64) as u64);
    let key = draw(key, bits as u64);
    draw(key, u64::from(address.port()))
}

/// A key of a name.
pub(crate) fn of_name(seed: u64, name: &str) -> u64 {
    name.bytes().fold(draw(seed, name.len() as u64), |key, byte| draw(key, u64::from(byte)))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn scaled_draws_reach_both_ends_and_stay_inside() {
        let drawn: Vec<u64> = (0..10_000).map(|word| up_to(draw(7, word), 9)).collect();
        for value in 0..10 {
            let count = drawn.iter().filter(|drawn| **drawn == value).count();
            assert!((850..1150).contains(&count), "{value}: {count}");
        }
        assert_eq!(up_to(u64::MAX, u64::MAX), u64::MAX);
        assert_eq!(up_to(u64::MAX, 0), 0);
    }

    /// The first numbers of splitmix64 after these seeds.
    #[test]
    fn draws_are_those_of_splitmix64() {
        assert_eq!(draw(0, 0), 0xe220_a839_7b1d_cdaf);
        assert_eq!(draw(1_234_567, 0), 6_457_827_717_110_365_317);
        assert_eq!(draw(1_234_567 ^ GOLDEN, 1), draw(1_234_567, 0));
    }

    #[test]
    fn names_have_keys_of_their_own() {
        let keys: BTreeSet<u64> = ["", "a", "b", "ab", "ba"].map(|name| of_name(1, name)).into();
        assert_eq!(keys.len(), 5);
        assert_ne!(of_name(1, "a"), of_name(2, "a"));
    }

    #[test]
    fn an_address_has_one_key_in_both_forms() {
        let v4 = "10.0.0.1:80".parse().expect("literal");
        let mapped = "[::ffff:10.0.0.1]:80".parse().expect("literal");
        assert_eq!(of_address(1, v4), of_address(1, mapped));
        let other = "10.0.0.1:81".parse().expect("literal");
        assert_ne!(of_address(1, v4), of_address(1, other));
    }
}
