//! 802.1Q tags. A hook takes the tag off before the program looks at a frame, and puts one on before the
//! frame leaves.
//!
//! So no other code knows of tags, and a frame may come with one and leave with another, or with none. A
//! frame that passes leaves with the bytes that it came with.

use super::maps::VLANS;

/// The bits of a tag's second half, in host order, that are not the id: priority and drop eligibility.
const PRIORITY: u16 = 0xf000;

/// The second half of the tag, in host order.
#[derive(Clone, Copy)]
pub(crate) struct Tag(pub(crate) u16);

impl Tag {
    /// No tag: no id is 0.
    pub(crate) const NONE: Self = Self(0);

    /// The id of the VLAN. 0: none.
    #[inline(always)]
    pub(crate) const fn id(self) -> u16 {
        self.0 & !PRIORITY
    }

    /// A tag of the same priority with another id. A frame without a tag has no priority.
    #[inline(always)]
    pub(crate) const fn moved_to(self, id: u16) -> Self {
        Self(self.0 & PRIORITY | id)
    }
}

/// Whether frames of this VLAN may be for a VIP.
#[inline(always)]
pub(crate) fn is_configured(tag: Tag) -> bool {
    let Some(vlans) = VLANS.get_ptr(0) else { return false };
    // SAFETY: an index of 12 bits is inside; bytes may be read while the daemon writes them.
    unsafe { (&raw const (*vlans).0[tag.id() as usize]).read_volatile() != 0 }
}
