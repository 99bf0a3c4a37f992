//! Counters of each backend.

/// Buckets of [`BackendCounters::ttfb`].
pub const TTFB_BUCKETS: usize = 16;

/// Upper bound of the first bucket of [`BackendCounters::ttfb`], in microseconds. Each further bucket is
/// twice as wide. The last one has no bound.
pub const TTFB_FIRST_US: u32 = 64;

/// The bucket of a time to first byte.
#[inline(always)]
pub const fn ttfb_bucket(us: u32) -> usize {
    let mut rest = us / TTFB_FIRST_US;
    if rest >> (TTFB_BUCKETS - 2) != 0 {
        return TTFB_BUCKETS - 1;
    }
    // The index of the highest bit, by halves: BPF cannot count leading zeros.
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

/// Per-CPU value of `BACKEND_COUNTERS`. The totals of a service are the sums over its backends.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct BackendCounters {
    pub packets_to: u64,
    pub bytes_to: u64,
    pub packets_from: u64,
    pub bytes_from: u64,
    /// Connections begun: SYNs that made a flow.
    pub connections: u64,
    /// Of these, trials.
    pub trials: u64,
    /// Handshakes completed.
    pub established: u64,
    /// Heads mirrored.
    pub heads: u64,
    /// Heads that found the ring full.
    pub heads_lost: u64,
    /// Connections whose client does not speak HTTP/1 without encryption.
    pub opaque: u64,
    /// Connections on which a client pipelined.
    pub pipelined: u64,
    /// Responses by their time to first byte, see [`ttfb_bucket`]. A connection that is not HTTP/1 counts
    /// once. Of the responses that are counted and not mirrored, the program times one a timer interrupt, and
    /// counts the others with it.
    pub ttfb: [u64; TTFB_BUCKETS],
    /// Connections that the program reset at a client's segment (`CLIENT_RESET`).
    pub resets: u64,
    /// Handshakes that continued with another backend.
    pub redispatched: u64,
    /// SYNs that found it full and looked for another backend.
    pub spilled: u64,
    /// Responses that are not yet in `ttfb`: they are counted with the next one that is timed.
    pub untimed: u32,
    /// The timer interrupt at which the program last timed a response, modulo 2^32.
    pub timed_at: u32,
}

layout! {
    BackendCounters = 248,
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
