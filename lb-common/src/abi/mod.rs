//! Keys and values of the BPF maps.
//!
//! Addresses and ports are in network byte order, so that the program copies them between packets and maps
//! without a swap. No type has padding: the kernel compares keys byte by byte.

macro_rules! layout {
    ($($type:ty = $size:literal),+ $(,)?) => {
        $(const _: () = assert!(size_of::<$type>() == $size);)+
        #[cfg(feature = "user")]
        mod pod {
            use super::*;
            // SAFETY: repr(C), Copy, made of integers, and free of padding: each
            // size above is the sum of the field sizes.
            $(unsafe impl aya::Pod for $type {})+
        }
    };
}

mod addr;
mod backend;
mod config;
mod counters;
mod evidence;
mod flow;
mod limit;
mod service;

pub use self::{addr::*, backend::*, config::*, counters::*, evidence::*, flow::*, limit::*, service::*};

#[cfg(test)]
mod tests;
