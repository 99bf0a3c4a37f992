//! Evidence: which segment of a backend holds the start of a response.
//!
//! Without pipelining the next response begins exactly at the acknowledgement number
//! of the request's segment: everything before it the client has. So the request
//! leaves that number with the flow (`head_seq`), and the one segment that covers it is
//! mirrored. A retransmitted request carries the same number and asks for nothing new; a
//! retransmitted response finds nothing wanted.

mod record;
mod request;
mod response;

pub(crate) use self::{
    request::note_request,
    response::{note_answer, note_refusal, note_silence},
};
