//! The flow hash: which slot of a table a connection falls into.
//!
//! Only the tuple as the client sent it goes in, so every node that serves the
//! same VIP with the same backends picks the same slot.

use crate::{
    TABLE_SLOTS,
    abi::{Address, FlowKey},
};

const MULTIPLIER: u64 = 0x9e37_79b9_7f4a_7c15;

/// Hash of a client's tuple. All 64 bits are well mixed (splitmix64's finaliser,
/// Steele et al., OOPSLA 2014).
#[inline(always)]
pub fn flow_hash<A: Address>(key: &FlowKey<A>) -> u64 {
    keyed_hash(key, 0)
}

/// The same with a key: where a flow is kept. With a key that nobody knows, nobody can fill a place of his choice.
#[inline(always)]
pub fn keyed_hash<A: Address>(key: &FlowKey<A>, seed: u64) -> u64 {
    let [a, b] = key.src.pairs();
    let [c, d] = key.dst.pairs();
    let ports = pair(key.sport.0 as u32, key.dport.0 as u32);
    let hash = if size_of::<A>() == 4 {
        // The two addresses fit into one step.
        mix(seed, b << 32 | d)
    } else {
        mix(mix(mix(mix(seed, a), b), c), d)
    };
    finish(mix(hash, ports))
}

/// Which of so many sets: the high half scaled, without a division.
#[inline(always)]
pub const fn set(hash: u64, sets: u32) -> u32 {
    (((hash >> 32) * sets as u64) >> 32) as u32
}

/// The other set that may hold a flow.
#[inline(always)]
pub const fn other_set(hash: u64, sets: u32) -> u32 {
    set(hash.wrapping_mul(MULTIPLIER), sets)
}

/// What tells the flows of a set apart: the low half, but never 0.
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
    use crate::abi::{Port, V4};

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

    #[test]
    fn every_field_counts() {
        let base = key(1, 1024);
        let mut others = [base; 4];
        others[0].src = V4(2);
        others[1].dst = V4(2);
        others[2].sport = Port::new(1025);
        others[3].dport = Port::new(81);
        for other in others {
            assert_ne!(flow_hash(&base), flow_hash(&other));
        }
    }
}
