//! The time at the last timer interrupt: cheap, and some milliseconds old.
//!
//! The kernel counts these interrupts in a word that a program reads without a call (`bpf_jiffies64`, which
//! the verifier inlines). So the first CPU after each interrupt asks the clock, and the others read its
//! answer.

use aya_ebpf::helpers::{bpf_jiffies64, bpf_ktime_get_coarse_ns, bpf_ktime_get_ns};

/// The last answer of the clock, and the interrupt at which it was asked.
static mut SAID: Said = Said { jiffies: 0, ns: 0, us: 0 };

struct Said {
    jiffies: u64,
    ns: u64,
    /// The same in microseconds: saving a division is worth it.
    us: u64,
}

#[inline(always)]
pub(crate) fn coarse_ns() -> u64 {
    let said = said();
    // SAFETY: an aligned word that all CPUs read and write.
    unsafe { (&raw const (*said).ns).read_volatile() }
}

/// In microseconds, modulo 2^32.
#[inline(always)]
pub(crate) fn coarse_us() -> u32 {
    let said = said();
    // SAFETY: as above.
    unsafe { (&raw const (*said).us).read_volatile() as u32 }
}

/// Asks the clock, unless a CPU has asked it since the last interrupt.
#[inline(always)]
fn said() -> *const Said {
    let said = &raw mut SAID;
    // SAFETY: plain helper calls (Linux 5.5, 5.11), and aligned words that all CPUs read and write. The
    // interrupt is written last: who finds it beside another one's time is an interrupt late, as is who asks
    // while the clock is being set.
    unsafe {
        let jiffies = bpf_jiffies64();
        if (&raw const (*said).jiffies).read_volatile() != jiffies {
            let ns = bpf_ktime_get_coarse_ns();
            (&raw mut (*said).ns).write_volatile(ns);
            (&raw mut (*said).us).write_volatile(ns / 1000);
            (&raw mut (*said).jiffies).write_volatile(jiffies);
        }
    }
    said
}

/// The number of the last timer interrupt, modulo 2^32.
#[inline(always)]
pub(crate) fn interrupt() -> u32 {
    // SAFETY: a plain helper call.
    unsafe { bpf_jiffies64() as u32 }
}

/// In ticks of 2^30 ns, about seconds.
#[inline(always)]
pub(crate) const fn ticks(ns: u64) -> u32 {
    (ns >> 30) as u32
}

#[inline(always)]
pub(crate) fn now_us() -> u32 {
    // SAFETY: a plain helper call.
    (unsafe { bpf_ktime_get_ns() } / 1000) as u32
}
