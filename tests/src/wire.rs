//! Frames of any kind, straight onto a link.

use std::{
    io,
    mem::{size_of, zeroed},
    os::fd::{AsRawFd, FromRawFd, OwnedFd},
};

use lb_lab::{Error, Host, Result};
use nix::net::if_::if_nametoindex;

/// A packet socket bound to one device. It receives nothing.
#[derive(Debug)]
pub struct Wire {
    socket: OwnedFd,
}

impl Wire {
    pub fn open(host: &Host, device: &str) -> Result<Self> {
        host.enter(|| open(device))?
            .map_err(|source| Error::Io { what: format!("a packet socket on {device}"), source })
    }

    /// As it is, with the Ethernet header that it brings.
    pub fn send(&self, frame: &[u8]) -> io::Result<()> {
        // SAFETY: the kernel reads the frame within its length.
        let sent = unsafe { libc::send(self.socket.as_raw_fd(), frame.as_ptr().cast(), frame.len(), 0) };
        match usize::try_from(sent) {
            Ok(sent) => {
                assert_eq!(sent, frame.len(), "a frame is sent whole");
                Ok(())
            }
            Err(_) => Err(io::Error::last_os_error()),
        }
    }
}

fn open(device: &str) -> io::Result<Wire> {
    let index = if_nametoindex(device)?;
    // Protocol 0: nothing is received.
    // SAFETY: a plain system call; the answer is checked before it is used.
    let fd = unsafe { libc::socket(libc::AF_PACKET, libc::SOCK_RAW | libc::SOCK_CLOEXEC, 0) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: a descriptor that was just made and that nobody else has.
    let socket = unsafe { OwnedFd::from_raw_fd(fd) };
    // SAFETY: all fields are integers, for which zero is a value.
    let mut address: libc::sockaddr_ll = unsafe { zeroed() };
    address.sll_family = libc::AF_PACKET as u16;
    address.sll_ifindex = index.cast_signed();
    // SAFETY: the kernel reads the address within its length.
    let bound = unsafe {
        libc::bind(
            socket.as_raw_fd(),
            (&raw const address).cast(),
            size_of::<libc::sockaddr_ll>() as libc::socklen_t,
        )
    };
    if bound == 0 { Ok(Wire { socket }) } else { Err(io::Error::last_os_error()) }
}
