//! The XDP program. See ARCHITECTURE.md, "The packet path".
#![cfg_attr(target_arch = "bpf", no_std, no_main, feature(asm_experimental_arch))]

#[cfg(target_arch = "bpf")]
mod drops;
#[cfg(target_arch = "bpf")]
#[path = "hook/xdp.rs"]
mod hook;
#[cfg(target_arch = "bpf")]
mod program;

#[cfg(target_arch = "bpf")]
#[aya_ebpf::macros::xdp(frags)]
fn shunt(ctx: hook::Context) -> u32 {
    program::shunt(&ctx)
}

#[cfg(not(target_arch = "bpf"))]
fn main() {
    eprintln!("this program runs in the kernel: build it for target bpfel-unknown-none");
}
