//! The contract of the XDP program and the daemon.
//!
//! It has the map keys and values ([`abi`]), the drop reasons ([`reason`]), the flow hash ([`hash`]) and
//! incremental checksums ([`checksum`]). One definition serves both sides. Sizes are asserted at compile
//! time, and [`ABI_VERSION`] moves with every change to them, because the maps outlive the process that made
//! them.
#![cfg_attr(not(test), no_std)]

pub mod abi;
pub mod checksum;
pub mod hash;
pub mod reason;

/// Version of the map layout. Names the directory the maps are pinned in.
pub const ABI_VERSION: u32 = 11;

/// Entries of a Maglev lookup table. Prime, and at least 100 × the largest
/// number of backends that should share evenly (Maglev, NSDI 2016, section 5.3).
pub const TABLE_SLOTS: usize = 65_537;

/// How many slots the program tries if the table still names a backend that was just ejected, or one whose
/// next hop does not answer. With half of the backends ejected (the default ceiling) all tries fail for one
/// SYN in 65 536, for the few milliseconds until the new table is in.
pub const SLOT_TRIES: u32 = 16;

/// How many slots the program tries for a service with limits, whose backends may be full. With every hundredth slot free
/// it misses one SYN in 30 000.
pub const LIMITED_TRIES: u32 = 1024;

/// Service ids run from 0 to this, exclusive.
pub const MAX_SERVICES: u32 = 1024;

/// Backend ids run from 0 to this, exclusive.
pub const MAX_BACKENDS: u32 = 16_384;

/// Source prefixes of all services together.
pub const MAX_SOURCES: u32 = 16_384;

/// A table slot that names no backend.
pub const NO_BACKEND: u16 = u16::MAX;
