//! Counters of each backend.

/// Buckets of [`BackendCounters::ttfb`].
pub const TTFB_BUCKETS: usize = 16;

/// Upper bound of the first bucket of [`BackendCounters::ttfb`], in microseconds. Each further one is
/// twice as wide; the last has no bound.
pub const TTFB_FIRST_US: u32 = 64;

/// The bucket of a time to first byte.
#[inline(always)]
pub const fn ttfb_bucket(us: u32) -> usize {
    let mut rest = us / TTFB_FIRST_US;
    if rest >> (TTFB_BUCKETS - 2) != 0 {
        return TTFB_BUCKETS - 1;
    }
    // The place of the highest bit, by halves: BPF counts no leading zeros.
    let mut bucket = 0;
    let mut half = TTFB_BUCKETS / 2;
    while half > 0 {
        if rest >> (half - 1) != 0 {
            bucket += half;
            rest >>= half;
        }
        half /= 2;
    }
    bucket
}

/// Per-CPU value of `BACKEND_COUNTERS`. Totals of a service are the sums over
/// its backends.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct BackendCounters {
    pub packets_to: u64,
    pub bytes_to: u64,
    pub packets_from: u64,
    pub bytes_from: u64,
    /// Connections begun: SYNs that made an embryo.
    pub connections: u64,
    /// Of these, out of a half-open budget.
    pub trials: u64,
    /// Handshakes completed.
    pub established: u64,
    /// Heads mirrored.
    pub heads: u64,
    /// Heads that found the ring full.
    pub heads_lost: u64,
    /// Connections whose client does not speak HTTP/1 in the clear.
    pub opaque: u64,
    /// Connections on which a client pipelined.
    pub pipelined: u64,
    /// Responses by their time to first byte, see [`ttfb_bucket`]. A connection that is not HTTP/1
    /// counts once. Of those that are counted and not mirrored one each timer interrupt is timed, for all since the one before.
    pub ttfb: [u64; TTFB_BUCKETS],
    /// Connections whose client was told by a reset that they are over.
    pub resets: u64,
    /// Handshakes that went on with another backend.
    pub redispatched: u64,
    /// Responses that are not yet in `ttfb`: the next one that is timed stands for them.
    pub untimed: u32,
    /// The timer interrupt at which that happened last, as far as 32 bits go.
    pub timed_at: u32,
}

layout! {
    BackendCounters = 240,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn first_bytes_fall_into_buckets_of_doubling_width() {
        for (us, bucket) in [(0, 0), (63, 0), (64, 1), (127, 1), (128, 2), (1_048_575, 14), (1_048_576, 15)] {
            assert_eq!(ttfb_bucket(us), bucket, "{us}");
        }
        assert_eq!(ttfb_bucket(u32::MAX), TTFB_BUCKETS - 1);
    }
}
