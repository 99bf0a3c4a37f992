//! Limits of connections (`max_connections`), and how many there are.

/// Value of `LIMITS`: of a backend at its id, of a service at [`Limit::of_service`].
///
/// Only connections of services with a limit count (`service_flags::LIMITED`). A connection counts from its SYN on,
/// until it ends or goes into time-wait (`flow_state::COUNTED`).
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Limit {
    /// The connections that count, in the low half. How many of them are half-open handshakes, in the high half.
    pub open: u64,
    /// How many have ever counted.
    pub begun: u64,
    /// SYNs of the service that found everything full.
    pub refused: u64,
    /// How many may be open at a time. 0: no limit.
    pub most: u32,
    /// How many connections of the service have ended, modulo 2^32.
    pub ended: u32,
    /// `ended` when a SYN last found every backend full, and the timer interrupt of that moment. Until either moves
    /// no other SYN looks.
    pub full_ended: u32,
    pub full_at: u32,
    /// `refused` in this tick of 2^30 ns and in the one before: about how many clients wait.
    pub waiting: [u32; 2],
    pub waiting_tick: u32,
    pub zero: [u32; 3],
}

impl Limit {
    /// Entries of `LIMITS`.
    pub const ENTRIES: u32 = crate::MAX_BACKENDS + crate::MAX_SERVICES;

    /// In `open`: a connection.
    pub const ONE: u64 = 1;
    /// In `open`: a half-open handshake, beside being a connection.
    pub const HANDSHAKE: u64 = 1 << 32;

    /// The place of a service.
    #[inline(always)]
    pub const fn of_service(id: u16) -> u32 {
        crate::MAX_BACKENDS + id as u32
    }

    /// How many connections count. CPUs that step back may leave it one too low for a moment, so it has a sign.
    #[inline(always)]
    pub const fn connections(open: u64) -> i32 {
        open as u32 as i32
    }

    /// How many of them are half-open handshakes.
    #[inline(always)]
    pub const fn handshakes(open: u64) -> i32 {
        // A low half below zero has borrowed from the high one.
        (open.wrapping_sub(open as u32 as i32 as i64 as u64) >> 32) as i32
    }

    /// The part of `open` that a flow in this state is.
    #[inline(always)]
    pub const fn part(state: u32) -> u64 {
        if state & super::flow_state::ESTABLISHED == 0 { Self::ONE + Self::HANDSHAKE } else { Self::ONE }
    }
}

/// Entries of `PROVEN` and `WAITING`.
pub const RECENT_CLIENTS: u32 = 16_384;

layout! {
    Limit = 64,
}
