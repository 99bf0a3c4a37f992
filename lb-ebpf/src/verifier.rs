//! Code that only the kernel's verifier needs, and the compiler that works against it.
//!
//! On the host these functions return what they are given.

/// An address that the compiler computes once. Otherwise it may check one sum and use another, equal one, and
/// the verifier does not know that they are equal.
#[inline(always)]
pub(crate) fn one(at: usize) -> usize {
    #[cfg(target_arch = "bpf")]
    {
        let mut at = at;
        // SAFETY: a move of a register to itself.
        unsafe { core::arch::asm!("{0} = {0}", inout(reg) at, options(pure, nomem, nostack)) };
        at
    }
    #[cfg(not(target_arch = "bpf"))]
    at
}

/// A number of a header in host order. The verifier sees that it has 16 bits: at least up to Linux 6.12 it
/// knows nothing of a number whose bytes were exchanged.
#[inline(always)]
pub fn host_order(number: u16) -> u64 {
    #[cfg(target_arch = "bpf")]
    {
        let mut number = u16::from_be(number) as u64;
        // SAFETY: arithmetic in a register.
        unsafe {
            core::arch::asm!("{0} &= 65535", inout(reg) number, options(pure, nomem, nostack));
        }
        number
    }
    #[cfg(not(target_arch = "bpf"))]
    {
        u16::from_be(number) as u64
    }
}

/// The same number, of which the verifier knows nothing any more.
///
/// The verifier follows every path with every constant that the path has left. After a few branches that is
/// too much for it, unless the paths end with the same knowledge. `noise` is any number that it cannot know,
/// such as a word of the frame. It must be as long as the knowledge is to be wide: from 32 bits the verifier still
/// concludes how small the number is.
#[inline(always)]
pub fn forget(number: u32, noise: impl Into<u64>) -> u32 {
    #[cfg(target_arch = "bpf")]
    {
        let mut number = number as u64;
        // SAFETY: arithmetic in registers; it adds the noise combined with itself, which is 0.
        unsafe {
            core::arch::asm!(
                "{zero} = {noise}",
                "{zero} ^= {noise}",
                "{number} += {zero}",
                zero = out(reg) _,
                noise = in(reg) noise.into(),
                number = inout(reg) number,
                options(pure, nomem, nostack),
            );
        }
        number as u32
    }
    #[cfg(not(target_arch = "bpf"))]
    {
        let _ = noise;
        number
    }
}

/// The same number, of which the compiler knows nothing. The compiler proves that an index is inside its
/// table and drops the check. The verifier cannot follow the proof and needs the check.
#[inline(always)]
pub fn opaque(index: u32) -> u64 {
    #[cfg(target_arch = "bpf")]
    {
        let mut index = index as u64;
        // SAFETY: a move of a register to itself.
        unsafe {
            core::arch::asm!("{0} = {0}", inout(reg) index, options(nomem, nostack, preserves_flags));
        }
        index
    }
    #[cfg(not(target_arch = "bpf"))]
    {
        index as u64
    }
}

/// The same pointer, of which the compiler knows nothing.
#[inline(always)]
pub fn opaque_pointer<T>(pointer: *mut T) -> *mut T {
    #[cfg(target_arch = "bpf")]
    {
        let mut pointer = pointer;
        // SAFETY: a move of a register to itself.
        unsafe {
            core::arch::asm!("{0} = {0}", inout(reg) pointer, options(nomem, nostack, preserves_flags));
        }
        pointer
    }
    #[cfg(not(target_arch = "bpf"))]
    {
        pointer
    }
}
