//! The backend of a flow, its counters, and when it answered a SYN last.

use lb_common::abi::{Address, Backend, BackendCounters, Flow};

use super::{
    clock::coarse_ns,
    maps::{BACKEND_COUNTERS, BACKENDS, LAST_SYNACK},
};

/// The backend of a flow. `None`: its id belongs to another backend by now.
#[inline(always)]
pub(crate) fn backend_of<A: Address>(flow: &Flow<A>) -> Option<&'static Backend> {
    BACKENDS.get(flow.backend as u32).filter(|backend| backend.generation == flow.generation)
}

/// This CPU's counters of a backend.
#[inline(always)]
pub(crate) fn counters(backend: u16) -> Option<&'static mut BackendCounters> {
    let counters = BACKEND_COUNTERS.get_ptr_mut(backend as u32)?;
    // SAFETY: this CPU's own slot, see `count`; no second reference to it is alive
    // where this is called.
    Some(unsafe { &mut *counters })
}

/// The backend answers a SYN: a handshake that needs another backend prefers it.
#[inline(always)]
pub(crate) fn note_alive(backend: u16) {
    let Some(answered) = LAST_SYNACK.get_ptr_mut(backend as u32) else { return };
    // SAFETY: a word of a map; of two CPUs at once either may write last.
    unsafe { answered.write_volatile(coarse_ns()) };
}
