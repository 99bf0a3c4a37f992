//! Sequence numbers: which one is later, and where a segment and an end lie among them.

use super::reading::Segment;

/// More than this is never under way.
pub(super) const FARTHEST: u32 = 1 << 24;

/// The end of what one side says.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Fin {
    /// The number that acknowledges it.
    number: Option<u32>,
    /// It does not lie behind a gap, or the other side has its number.
    pub(super) counts: bool,
    pub(super) acknowledged: bool,
}

impl Fin {
    /// A FIN that ends with `end`, if `next` is the number that its side would use next.
    pub(super) fn said(&mut self, place: Place, end: u32) {
        if self.counts || place == Place::Before {
            return;
        }
        self.number = Some(end);
        self.counts = place == Place::Next;
    }

    /// The other side has everything before this number.
    pub(super) fn heard(&mut self, ack: u32) {
        if self.number == Some(ack) {
            (self.counts, self.acknowledged) = (true, true);
        }
    }
}

/// Where a segment lies among what its side says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Place {
    Before,
    Next,
    Beyond,
}

pub(super) fn place(segment: &Segment, next: u32) -> Place {
    let ahead = |number: u32| number.wrapping_sub(next).cast_signed() > 0;
    match (ahead(segment.end()), ahead(segment.seq)) {
        (false, _) => Place::Before,
        (true, false) => Place::Next,
        (true, true) => Place::Beyond,
    }
}

/// `number`, if it is later than `than`. Of two numbers that are half of all numbers apart neither is later (RFC 1982
/// section 3.2).
pub(super) fn later(number: u32, than: u32) -> u32 {
    if number.wrapping_sub(than).cast_signed() > 0 { number } else { than }
}
