//! The flow hash: which slot of a table a connection falls into.
//!
//! Only the tuple as the client sent it goes in, so every node that serves the
//! same VIP with the same backends picks the same slot.

use crate::{TABLE_SLOTS, abi::FlowKey};

const MULTIPLIER: u64 = 0x9e37_79b9_7f4a_7c15;

/// Hash of a client's tuple. All 64 bits are well mixed (splitmix64's finaliser,
/// Steele et al., OOPSLA 2014).
#[inline(always)]
pub const fn flow_hash(key: &FlowKey) -> u64 {
    let FlowKey { src, dst, sport, dport } = key;
    let mut hash = mix(0, pair(src.0[0], src.0[1]));
    hash = mix(hash, pair(src.0[2], src.0[3]));
    hash = mix(hash, pair(dst.0[0], dst.0[1]));
    hash = mix(hash, pair(dst.0[2], dst.0[3]));
    finish(mix(hash, pair(sport.0 as u32, dport.0 as u32)))
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
    use crate::abi::{Addr, Port};

    fn key(client: u32, port: u16) -> FlowKey {
        FlowKey {
            src: Addr::v4(client.to_be()),
            dst: Addr::v4(u32::from_ne_bytes([203, 0, 113, 10])),
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
        others[0].src = Addr::v4(2);
        others[1].dst = Addr::v4(2);
        others[2].sport = Port::new(1025);
        others[3].dport = Port::new(81);
        for other in others {
            assert_ne!(flow_hash(&base), flow_hash(&other));
        }
    }
}
