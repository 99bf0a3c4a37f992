//! A network namespace in which the interface exists that frames of backends come by.

use std::{
    fs::File,
    os::fd::{AsFd as _, OwnedFd},
    process::Command,
    sync::OnceLock,
    thread,
};

use nix::sched::{CloneFlags, setns, unshare};

use lb_userspace::dataplane::bpf::Hook;

use super::{ELSEWHERE, action::hook};

/// The calling thread is in there until this is dropped.
pub struct Side {
    before: OwnedFd,
}

impl Side {
    pub fn enter() -> Self {
        let before = own();
        setns(side(), CloneFlags::CLONE_NEWNET).expect("a namespace can be entered");
        Self { before }
    }
}

impl Drop for Side {
    fn drop(&mut self) {
        setns(&self.before, CloneFlags::CLONE_NEWNET).expect("the thread has been there");
    }
}

/// Made once. It goes with the process.
fn side() -> &'static OwnedFd {
    static SIDE: OnceLock<OwnedFd> = OnceLock::new();
    SIDE.get_or_init(|| {
        let make = || {
            unshare(CloneFlags::CLONE_NEWNET).expect("root may make a namespace");
            // The first two indices behind the loopback device, unless the kernel has given them away.
            let made = Command::new("ip").args(["link", "add", "name", "side", "type", "veth"]).status();
            assert!(made.is_ok_and(|status| status.success()), "no interface {ELSEWHERE}");
            own()
        };
        thread::spawn(make).join().expect("no panic")
    })
}

fn own() -> OwnedFd {
    let file = File::open("/proc/thread-self/ns/net").expect("a thread has a namespace");
    file.as_fd().try_clone_to_owned().expect("a descriptor can be copied")
}

/// The kernel's context of a frame of this length that comes by this interface, as the hook has it.
pub fn context(length: usize, ingress: u32) -> Vec<u8> {
    let words = match hook() {
        // `struct xdp_md`: data, data_end, data_meta, ingress_ifindex, rx_queue_index, egress_ifindex.
        Hook::Xdp => vec![0, length as u32, 0, ingress, 0, 0],
        // `struct __sk_buff` up to ifindex.
        Hook::Tc => [[0; 10].as_slice(), &[ingress]].concat(),
    };
    words.into_iter().flat_map(u32::to_ne_bytes).collect()
}
