//! The flow hash: the slot of a connection in a Maglev table.
//!
//! Only the tuple as the client sent it goes in, so all nodes that serve the same VIP with the same backends
//! choose the same slot.

use crate::{
    TABLE_SLOTS,
    abi::{Address, FlowKey, Port},
};

const MULTIPLIER: u64 = 0x9e37_79b9_7f4a_7c15;

/// Hash of a client's tuple. All 64 bits are well mixed (splitmix64's finaliser,
/// Steele et al., OOPSLA 2014).
#[inline(always)]
pub fn flow_hash<A: Address>(key: &FlowKey<A>) -> u64 {
    let [a, b] = key.src.pairs();
    let [c, d] = key.dst.pairs();
    let ports = pair(key.sport.0 as u32, key.dport.0 as u32);
    let hash = if size_of::<A>() == 4 {
        // The two addresses fit into one step.
        mix(0, b << 32 | d)
    } else {
        mix(mix(mix(mix(0, a), b), c), d)
    };
    finish(mix(hash, ports))
}

/// The same for a service with affinity: all connections of a source prefix have one slot.
#[inline(always)]
pub fn source_hash<A: Address>(key: &FlowKey<A>, bits: u32) -> u64 {
    // No client has port 0.
    flow_hash(&FlowKey { src: key.src.masked(bits), sport: Port::default(), ..*key })
}

/// The acknowledgement number of a challenge: a client sends it back only if it receives at its address. `hash`: of the
/// tuple, by keys that nobody else knows.
#[inline(always)]
pub const fn cookie(hash: u64, key: u64) -> u32 {
    finish(hash ^ key) as u32
}

/// The keys of [`keyed_hash`]: random numbers that nobody else knows.
#[repr(transparent)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HashKeys(pub [u64; HashKeys::COUNT]);

impl HashKeys {
    /// One for each word of an IPv6 tuple, and one more.
    pub const COUNT: usize = 10;

    /// Stretched from one of them (splitmix64).
    pub const fn from_seed(seed: u64) -> Self {
        let mut keys = [0; Self::COUNT];
        let (mut state, mut i) = (seed, 0);
        while i < keys.len() {
            state = state.wrapping_add(MULTIPLIER);
            keys[i] = finish(state);
            i += 1;
        }
        Self(keys)
    }
}

#[cfg(feature = "user")]
// SAFETY: an array of integers.
unsafe impl aya::Pod for HashKeys {}

/// The hash that selects a flow's set. Without the keys nobody can choose tuples that fall together more
/// often than others: pair-multiply-shift (Thorup, "High Speed Hashing for Integers and Strings", arXiv
/// 1504.06804). Its products do not wait for each other. It is linear, so consecutive ports would fall into
/// consecutive sets; one more step prevents that.
#[inline(always)]
pub fn keyed_hash<A: Address>(key: &FlowKey<A>, keys: &HashKeys) -> u64 {
    keyed_hash_by(key, |number| keys.0[number])
}

/// The same, where each key is asked for when it is needed: IPv4 needs few of them.
#[inline(always)]
pub fn keyed_hash_by<A: Address>(key: &FlowKey<A>, keys: impl Fn(usize) -> u64) -> u64 {
    let product = |first: usize, a: u32, b: u32| {
        keys(first).wrapping_add(a as u64).wrapping_mul(keys(first + 1).wrapping_add(b as u64))
    };
    let [a, b] = key.src.pairs();
    let [c, d] = key.dst.pairs();
    let ports = (key.sport.0 as u32) << 16 | key.dport.0 as u32;
    let mut sum = product(0, b as u32, d as u32).wrapping_add(product(2, ports, 0));
    if size_of::<A>() != 4 {
        let further =
            product(4, a as u32, c as u32).wrapping_add(product(6, (a >> 32) as u32, (c >> 32) as u32));
        sum = sum.wrapping_add(further).wrapping_add(product(8, (b >> 32) as u32, (d >> 32) as u32));
    }
    mix(sum ^ (sum >> 32), 0)
}

/// The bit of a client's prefix and that of its address in a
/// [`SeenClients`](crate::abi::SeenClients). Without the keys nobody can choose sources that have many bits, or
/// one bit together.
#[inline(always)]
pub fn seen_bits<A: Address>(source: &A, keys: [u64; 2]) -> [u64; 2] {
    let bit = |hash: u64| 1 << (hash >> 58);
    [bit(finish(keys[0] ^ source.prefix())), bit(keyed_address_hash(source, keys[1]))]
}

/// A keyed hash of an address.
#[inline(always)]
pub fn keyed_address_hash<A: Address>(address: &A, key: u64) -> u64 {
    let [a, b] = address.pairs();
    finish(mix(mix(key, a), b))
}

/// A small hash: most addresses differ by it from those of a small set.
#[inline(always)]
pub fn address_hash<A: Address>(address: &A) -> u16 {
    let [a, b] = address.pairs();
    ((a.rotate_left(32) ^ b).wrapping_mul(MULTIPLIER) >> 48) as u16
}

/// One of this many sets: the high half scaled, without a division.
#[inline(always)]
pub const fn set(hash: u64, sets: u32) -> u32 {
    (((hash >> 32) * sets as u64) >> 32) as u32
}

/// The other set that may hold a flow.
#[inline(always)]
pub const fn other_set(hash: u64, sets: u32) -> u32 {
    set(hash.wrapping_mul(MULTIPLIER), sets)
}

/// The tag by which the flows of a set differ: the low half, but never 0.
#[inline(always)]
pub const fn tag(hash: u64) -> u32 {
    hash as u32 | 1
}

/// A further hash of the same connection, for the next try.
#[inline(always)]
pub const fn rehash(hash: u64) -> u64 {
    finish(hash ^ MULTIPLIER)
}

/// The slot of a hash: its high half scaled to the table, without a division.
#[inline(always)]
pub const fn slot(hash: u64) -> u32 {
    (((hash >> 32) * TABLE_SLOTS as u64) >> 32) as u32
}

#[inline(always)]
const fn pair(a: u32, b: u32) -> u64 {
    (a as u64) << 32 | b as u64
}

#[inline(always)]
const fn mix(hash: u64, word: u64) -> u64 {
    let mixed = (hash ^ word).wrapping_mul(MULTIPLIER);
    mixed ^ (mixed >> 32)
}

#[inline(always)]
const fn finish(mut hash: u64) -> u64 {
    hash = (hash ^ (hash >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    hash = (hash ^ (hash >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    hash ^ (hash >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::abi::{Addr, Port, V4};

    fn key(client: u32, port: u16) -> FlowKey<V4> {
        FlowKey {
            src: V4(client.to_be()),
            dst: V4(u32::from_ne_bytes([203, 0, 113, 10])),
            sport: Port::new(port),
            dport: Port::new(80),
        }
    }

    #[test]
    fn slots_stay_inside_and_spread() {
        // Sequential ports and sequential addresses, as real clients have them.
        let mut buckets = [0u32; 64];
        for client in 0..64u32 {
            for port in 1024..2048 {
                let slot = slot(flow_hash(&key(0x0a00_0000 + client, port))) as usize;
                assert!(slot < TABLE_SLOTS);
                buckets[slot * 64 / TABLE_SLOTS] += 1;
            }
        }
        // 65 536 flows in 64 buckets: mean 1024, standard deviation 32.
        for count in buckets {
            assert!((824..1224).contains(&count), "{buckets:?}");
        }
    }

    fn of<A: Address>(src: A, sport: u16, dst: A, dport: u16) -> (u64, u32) {
        let hash = flow_hash(&FlowKey { src, dst, sport: Port::new(sport), dport: Port::new(dport) });
        (hash, slot(hash))
    }

    /// All nodes of a VIP have to choose alike, also while some run an older version. The numbers were computed apart
    /// from this code, from the definition of the hash, for hosts that store the lowest byte first.
    #[cfg(target_endian = "little")]
    #[test]
    fn the_hash_is_the_same_in_all_versions() {
        let v4 = |bytes: [u8; 4]| V4(u32::from_ne_bytes(bytes));
        let vip = v4([203, 0, 113, 10]);
        assert_eq!(of(v4([198, 51, 100, 7]), 41234, vip, 80), (0x2f9d_4996_04e4_feb2, 12_189));
        assert_eq!(of(v4([10, 0, 0, 1]), 1024, vip, 80), (0xfffa_8bfe_e95f_0001, 65_531));
        assert_eq!(of(v4([10, 0, 0, 1]), 1025, vip, 80), (0xffe1_8c85_26e1_f656, 65_506));
        let v6 = |text: &str| Addr::from(text.parse::<std::net::IpAddr>().expect("literal"));
        let shop = of(v6("2001:db8::7"), 41234, v6("2001:db8:1::10"), 443);
        assert_eq!(shop, (0x4f3f_e7b8_1986_00d9, 20_288));
        assert_eq!(of(v6("fd00::1"), 65535, v6("fd99::10"), 80), (0x2d47_936a_6dff_4dc7, 11_591));
    }

    /// Computed apart from this code too. The program and the daemon use the same numbers for the same maps.
    #[cfg(target_endian = "little")]
    #[test]
    fn what_is_derived_from_a_hash() {
        for (hash, again, other) in [
            (0, 0xe220_a839_7b1d_cdaf, 0),
            (1, 0xe4d9_7177_1b65_2c20, 618),
            (0x0123_4567_89ab_cdef, 0x8e39_8032_3f3d_ce39, 49),
        ] {
            assert_eq!((rehash(hash), other_set(hash, 1000)), (again, other), "{hash:#x}");
        }
        assert_eq!([0, 1 << 63, u64::MAX].map(|hash| set(hash, 1000)), [0, 500, 999]);
        assert_eq!([0, 4, 7, 7 << 32 | 6].map(tag), [1, 5, 7, 7]);
        let v4 = |bytes: [u8; 4]| V4(u32::from_ne_bytes(bytes));
        assert_eq!(address_hash(&v4([192, 0, 2, 7])), 0xaf89);
        assert_eq!(address_hash(&Addr([1, 2, 3, 4])), 0x965f);
        let (src, dst) = (v4([192, 0, 2, 7]), v4([203, 0, 113, 10]));
        let key = FlowKey { src, dst, sport: Port::new(41234), dport: Port::new(80) };
        assert_eq!(keyed_hash(&key, &HashKeys::from_seed(1)), 0xc042_6808_2936_c368);
    }

    #[test]
    fn of_a_source_prefix_all_connections_have_one_slot() {
        let of = |client, port, bits| source_hash(&key(client, port), bits);
        let one = of(0x0a00_0001, 1024, 32);
        assert_eq!(one, of(0x0a00_0001, 65_535, 32));
        assert_ne!(one, of(0x0a00_0002, 1024, 32));
        assert_eq!(of(0x0a00_0001, 1, 24), of(0x0a00_00ff, 2, 24));
        assert_ne!(of(0x0a00_0001, 1, 24), of(0x0a00_0101, 1, 24));
        let elsewhere = FlowKey { dport: Port::new(81), ..key(0x0a00_0001, 1024) };
        assert_ne!(one, source_hash(&elsewhere, 32), "another service");
        let mut slots = [0u32; 64];
        for client in 0..65_536 {
            slots[slot(of(0x0a00_0000 + client, 1, 32)) as usize * 64 / TABLE_SLOTS] += 1;
        }
        assert!(slots.iter().all(|count| (824..1224).contains(count)), "{slots:?}");
    }

    #[test]
    fn every_field_counts() {
        let base = key(1, 1024);
        let mut others = [base; 4];
        others[0].src = V4(2);
        others[1].dst = V4(2);
        others[2].sport = Port::new(1025);
        others[3].dport = Port::new(81);
        let keys = HashKeys::from_seed(1);
        for other in others {
            assert_ne!(flow_hash(&base), flow_hash(&other));
            assert_ne!(keyed_hash(&base, &keys), keyed_hash(&other, &keys));
        }
        assert_ne!(keyed_hash(&base, &keys), keyed_hash(&base, &HashKeys::from_seed(2)));
    }

    #[test]
    fn every_word_of_ipv6_counts() {
        let base = FlowKey { src: Addr([1, 2, 3, 4]), dst: Addr([5, 6, 7, 8]), ..FlowKey::default() };
        let keys = HashKeys::from_seed(1);
        for word in 0..4 {
            let (mut source, mut destination) = (base, base);
            source.src.0[word] ^= 1 << 20;
            destination.dst.0[word] ^= 1 << 20;
            for other in [source, destination] {
                assert_ne!(flow_hash(&base), flow_hash(&other));
                assert_ne!(keyed_hash(&base, &keys), keyed_hash(&other, &keys));
            }
        }
    }

    #[test]
    fn sources_share_the_bits_evenly() {
        let HashKeys(keys) = HashKeys::from_seed(3);
        let keys = [keys[0], keys[1]];
        let mut addresses = [0u32; 64];
        let mut prefixes = [0u32; 64];
        for number in 0..64 * 256u32 {
            let [prefix, address] = seen_bits(&V4((0x0a00_0000 + number).to_be()), keys);
            assert_eq!((prefix.count_ones(), address.count_ones()), (1, 1));
            addresses[address.trailing_zeros() as usize] += 1;
            prefixes[prefix.trailing_zeros() as usize] += 1;
        }
        // 256 each: the standard deviation is 16.
        assert!(addresses.iter().all(|count| (176..336).contains(count)), "{addresses:?}");
        // 64 prefixes, each in one piece: as if thrown, 40 of the bits.
        let bits = prefixes.iter().filter(|count| **count > 0).count();
        assert!((30..52).contains(&bits), "{prefixes:?}");
        let one = Addr([1, 2, 3, 4]);
        let both = |address: Addr| seen_bits(&address, keys);
        assert_eq!(both(one)[0], both(Addr([1, 2, 7, 9]))[0]);
        let others = (0..20).map(|last| both(Addr([1, 2, 3, 5 + last]))[1]);
        assert!(others.filter(|bit| *bit == both(one)[1]).count() < 5);
    }

    /// Sets are as unequal as if flows fell into them at random, and no more, for all keys: also the flows of
    /// one address with consecutive ports, and those of neighbours with the same port.
    #[test]
    fn flows_fall_into_sets_as_if_thrown() {
        const SETS: u32 = 4_096;
        let crowds: [fn(u32) -> FlowKey<V4>; 3] = [
            |number| key(0x0a00_0001, 1024 + number as u16),
            |number| key(0x0a00_0000 + number, 40_000),
            |number| key(0x0a00_0001 + ((number / 64) << 8), 40_000 + (number % 64) as u16),
        ];
        for seed in 0..16 {
            let keys = HashKeys::from_seed(seed);
            for crowd in crowds {
                for which in [set, other_set] {
                    let mut loads = [0u32; SETS as usize];
                    // Eight a set; the tags are not all the same either.
                    let mut tags = std::collections::BTreeSet::new();
                    for number in 0..8 * SETS {
                        let hash = keyed_hash(&crowd(number), &keys);
                        loads[which(hash, SETS) as usize] += 1;
                        tags.insert(tag(hash));
                    }
                    let most = loads.iter().max().copied().unwrap_or(0);
                    let squares: u32 = loads.iter().map(|load| load.abs_diff(8).pow(2)).sum();
                    // Poisson: a variance of 8, and more than 27 in one of a million sets.
                    assert!(
                        (7 * SETS..9 * SETS).contains(&squares),
                        "seed {seed}: variance {}",
                        squares / SETS
                    );
                    assert!(most < 32, "seed {seed}: {most} in one set");
                    assert!(tags.len() > 8 * SETS as usize - 8, "seed {seed}: {} tags", tags.len());
                }
            }
        }
    }
}
