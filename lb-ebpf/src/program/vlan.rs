//! 802.1Q tags. A hook takes the tag off before the program looks at a frame, and puts one on before the
//! frame leaves.
//!
//! So no other code knows of tags, and a frame may come with one and leave with another, or with none. A
//! frame that passes leaves with the bytes that it came with.

use lb_ebpf::verifier::forget;

use super::maps::VLANS;

/// The bits of a tag's second half, in host order, that are not the id: priority and drop eligibility.
const PRIORITY: u16 = 0xf000;

/// The tag of a frame: its second half, in host order, and a bit that says that there is one.
#[derive(Clone, Copy)]
pub(crate) struct Tag(u32);

impl Tag {
    const PRESENT: u32 = 1 << 16;

    pub(crate) const NONE: Self = Self(0);

    #[inline(always)]
    pub(crate) const fn new(control: u16) -> Self {
        Self(Self::PRESENT | control as u32)
    }

    /// As [`bits`](Self::bits) gave it: a BPF function takes and returns numbers.
    #[inline(always)]
    pub(crate) const fn from_bits(bits: u32) -> Self {
        Self(bits)
    }

    #[inline(always)]
    pub(crate) const fn bits(self) -> u32 {
        self.0
    }

    /// The same tag. To the verifier it may also be none: so it follows the program once for both. `noise`: as of
    /// [`forget`].
    #[inline(always)]
    pub(crate) fn hidden(self, noise: u64) -> Self {
        Self(forget(self.0, noise))
    }

    #[inline(always)]
    pub(crate) const fn is_present(self) -> bool {
        self.0 != 0
    }

    /// The second half of the tag.
    #[inline(always)]
    pub(crate) const fn control(self) -> u16 {
        self.0 as u16
    }

    /// The id of the VLAN. 0: none, and if there is a tag it only gives a priority (IEEE 802.1Q, table 9-2).
    #[inline(always)]
    pub(crate) const fn id(self) -> u16 {
        self.control() & !PRIORITY
    }

    /// The tag with which a frame leaves that came with this one: the same priority with another id. A frame without
    /// a tag has no priority, and one that leaves a VLAN for none loses its tag.
    #[inline(always)]
    pub(crate) const fn moved_to(self, id: u16) -> Self {
        if id != 0 {
            Self::new(self.control() & PRIORITY | id)
        } else if self.id() != 0 {
            Self::NONE
        } else {
            self
        }
    }
}

/// Whether frames with this tag may be for a VIP.
#[inline(always)]
pub(crate) fn is_configured(tag: Tag) -> bool {
    let Some(vlans) = VLANS.get_ptr(0) else { return false };
    // SAFETY: an index of 12 bits is inside; bytes may be read while the daemon writes them.
    unsafe { (&raw const (*vlans).0[tag.id() as usize]).read_volatile() != 0 }
}
