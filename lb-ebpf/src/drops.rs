//! Drop reasons, counted and logged.
//!
//! The file lies here, and not beside its callers, because each log line carries the path of its file and of its
//! module: the shorter they are, the fewer instructions the verifier goes through for each drop.

use aya_log_ebpf::warn;
use lb_common::reason::Reason;

use crate::{
    hook::{Context, Raw},
    program::maps::DROPS,
};

/// Target of the log lines.
const TARGET: &str = concat!(env!("CARGO_CRATE_NAME"), "::program");

/// Counts a drop. The log gets the 1st, 2nd, 4th, 8th … of each reason and CPU, so that a flood of frames
/// cannot flood it.
#[inline(always)]
pub(crate) fn count(ctx: &Context, service: u16, reason: Reason) {
    count_one(ctx.ctx, service as u32, reason as u32);
}

// A function of its own, so that the verifier follows it once and not for each drop.
#[inline(never)]
fn count_one(ctx: *mut Raw, service: u32, reason: u32) -> u32 {
    let index = service * Reason::COUNT as u32 + reason;
    let (Some(counter), Some(reason)) = (DROPS.get_ptr_mut(index), Reason::from_number(reason as u8)) else {
        return 0;
    };
    let ctx = &Context::new(ctx);
    // SAFETY: this CPU's own slot; XDP programs on one CPU do not interrupt each other.
    let seen = unsafe {
        *counter += 1;
        *counter
    };
    if seen & (seen - 1) != 0 {
        return 0;
    }
    match reason {
        Reason::NoBackend => {
            warn!(
                ctx,
                target: TARGET,
                "xdp: service {}: no backend may serve ({} SYNs on this cpu)", service, seen
            )
        }
        Reason::NatPorts => {
            warn!(
                ctx,
                target: TARGET,
                "xdp: service {}: no NAT port is free ({} SYNs on this cpu)", service, seen
            )
        }
        Reason::Neighbour => {
            warn!(
                ctx,
                target: TARGET,
                "xdp: service {}: next hop unknown ({} frames on this cpu)", service, seen
            )
        }
        Reason::TableFull => {
            warn!(
                ctx,
                target: TARGET,
                "xdp: service {}: the flow table is full ({} on this cpu)", service, seen
            )
        }
        Reason::Martian => {
            warn!(
                ctx,
                target: TARGET,
                "xdp: service {}: impossible source ({} frames on this cpu)", service, seen
            )
        }
        Reason::SynRate => {
            warn!(
                ctx,
                target: TARGET,
                "xdp: service {}: too many new connections at once ({} SYNs on this cpu)", service, seen
            )
        }
        // Usual in a network, or the moment of a table swap: only counted. The daemon logs it when a source
        // holds too much.
        Reason::Malformed
        | Reason::Fragment
        | Reason::IpOptions
        | Reason::Ttl
        | Reason::Flags
        | Reason::NoFlow
        | Reason::Denied
        | Reason::Swapping
        | Reason::Hairpin
        | Reason::IcmpRate
        | Reason::Ejected
        | Reason::SourceShare
        | Reason::IcmpStray
        | Reason::PathMtu
        | Reason::Full
        | Reason::Unproven => {}
    }
    0
}
