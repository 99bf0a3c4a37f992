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
