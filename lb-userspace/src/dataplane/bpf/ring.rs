//! The ring of mirrored response heads, read record by record.

use std::os::fd::{AsRawFd, RawFd};

use aya::maps::{MapData, RingBuf};
use lb_common::abi::HeadRecord;
use tracing::error;

/// Readable when a failure was mirrored; other records wait to be looked for.
pub struct HeadRing(RingBuf<MapData>);

impl HeadRing {
    pub(super) fn new(ring: RingBuf<MapData>) -> Self {
        Self(ring)
    }

    /// The oldest record, taken out.
    pub fn pop(&mut self) -> Option<HeadRecord> {
        loop {
            let item = self.0.next()?;
            if item.len() == size_of::<HeadRecord>() {
                // SAFETY: the length is right, any bits make a `HeadRecord`, and the copy needs no alignment.
                return Some(unsafe { item.as_ptr().cast::<HeadRecord>().read_unaligned() });
            }
            error!(len = item.len(), "a record of unknown shape");
        }
    }
}

impl AsRawFd for HeadRing {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_raw_fd()
    }
}
