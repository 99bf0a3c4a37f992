//! The parts of the XDP program that need no kernel: they read headers, rewrite them, and make resets. They
//! work on a [`frame::Frame`], which is a packet in the program and a slice in a test.
#![cfg_attr(target_arch = "bpf", no_std, feature(asm_experimental_arch))]

pub mod family;
pub mod frame;
pub mod head;
pub mod icmp;
pub mod reset;
#[cfg(test)]
mod samples;
pub mod segment;
pub mod stamps;
pub mod syn;
pub mod translate;
pub mod verifier;
