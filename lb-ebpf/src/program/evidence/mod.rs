//! Evidence: which segment of a backend holds the start of a response.
//!
//! Without pipelining the next response begins exactly at the acknowledgement number of the request's
//! segment, because the client has everything before it. So the program notes that number in the flow
//! (`head_seq`) and mirrors the one segment that covers it. A retransmitted request carries the same number
//! and changes nothing. After the response the flow awaits no head, so a retransmitted response is not
//! mirrored.
//!
//! A client must not make a backend look bad. So a failure counts only if the backend's stack has acknowledged
//! the whole request, and a time only if it is the backend's alone.

mod head_end;
mod record;
mod request;
mod response;

pub(crate) use self::{
    request::{note_request, note_waiting},
    response::{note_answer, note_refusal, note_silence},
};

use lb_common::abi::{Address, Flow, flow_state, head_state};

/// Whether the backend has sent its FIN.
#[inline(always)]
pub(super) const fn backend_closes<A: Address>(flow: &Flow<A>) -> bool {
    flow.state & flow_state::BACKEND_FIN != 0 || flow.head & head_state::BACKEND_FIN_BEYOND != 0
}
