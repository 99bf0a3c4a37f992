//! An action of the hook with its VLAN, as one number.

/// The fate of a frame: an action of XDP, and the VLAN in which the frame leaves by it. 0: no VLAN.
#[repr(transparent)]
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct Action(u32);

impl Action {
    #[inline(always)]
    pub(crate) const fn new(code: u32, vlan: u16) -> Self {
        Self(code | (vlan as u32) << 16)
    }

    /// An action of XDP, or the result of the hook's `send`.
    #[inline(always)]
    pub(crate) const fn code(self) -> u32 {
        self.0 & 0xffff
    }

    #[inline(always)]
    pub(crate) const fn vlan(self) -> u16 {
        (self.0 >> 16) as u16
    }

    /// Both parts. The largest VLAN id has 12 bits, so the number is far below `u32::MAX`.
    #[inline(always)]
    pub(super) const fn bits(self) -> u32 {
        self.0
    }

    #[inline(always)]
    pub(super) const fn from_bits(bits: u32) -> Self {
        Self(bits)
    }
}
