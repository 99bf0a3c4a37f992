//! The ring `EVIDENCE`, read record by record.

use std::os::fd::{AsRawFd, RawFd};

use aya::maps::{MapData, RingBuf};
use lb_common::abi::ExchangeRecord;
use tracing::error;

/// Its descriptor becomes readable when the program has mirrored a failure. Other records wait until the daemon reads.
pub struct EvidenceRing(RingBuf<MapData>);

impl EvidenceRing {
    pub(super) fn new(ring: RingBuf<MapData>) -> Self {
        Self(ring)
    }

    /// The oldest record, taken out.
    pub fn pop(&mut self) -> Option<ExchangeRecord> {
        loop {
            let item = self.0.next()?;
            if item.len() == size_of::<ExchangeRecord>() {
                // SAFETY: the length is right, any bits make an `ExchangeRecord`, and the copy needs no alignment.
                return Some(unsafe { item.as_ptr().cast::<ExchangeRecord>().read_unaligned() });
            }
            error!(len = item.len(), "a record of unknown size");
        }
    }
}

impl AsRawFd for EvidenceRing {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_raw_fd()
    }
}
