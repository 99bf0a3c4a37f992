//! Whether an interface takes frames that XDP redirects to it. The kernel answers by the generic netlink family
//! `netdev` (Linux 6.3, Documentation/netlink/specs/netdev.yaml).

use std::{
    io,
    os::fd::{AsRawFd as _, OwnedFd},
};

use nix::sys::socket::{AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, recv, send, socket};

/// `NLM_F_REQUEST`.
const REQUEST: u16 = 1;
/// `NLMSG_ERROR`.
const ERROR: u16 = 2;
/// `nlmsghdr` and `genlmsghdr`.
const HEADERS: usize = 20;

/// `GENL_ID_CTRL`, `CTRL_CMD_GETFAMILY`, `CTRL_ATTR_FAMILY_NAME`, `CTRL_ATTR_FAMILY_ID`.
const CONTROL: (u16, u8, u16, u16) = (0x10, 3, 2, 1);
/// `NETDEV_CMD_DEV_GET`, `NETDEV_A_DEV_IFINDEX`, `NETDEV_A_DEV_XDP_FEATURES`.
const DEVICE: (u8, u16, u16) = (1, 1, 3);
/// `NETDEV_XDP_ACT_NDO_XMIT`.
const TAKES_REDIRECTED: u64 = 1 << 2;

/// An open socket to the kernel.
#[derive(Debug)]
pub(super) struct Redirects {
    socket: OwnedFd,
    family: u16,
}

impl Redirects {
    /// An error if the kernel is older.
    pub(super) fn open() -> io::Result<Self> {
        let socket = socket(
            AddressFamily::Netlink,
            SockType::Raw,
            SockFlag::SOCK_CLOEXEC,
            SockProtocol::NetlinkGeneric,
        )?;
        let (id, command, name, number) = CONTROL;
        let answer = ask(&socket, id, command, name, b"netdev\0")?;
        let family =
            attribute(&answer, number).and_then(|bytes| Some(u16::from_ne_bytes(bytes.try_into().ok()?)));
        let family = family.ok_or_else(|| io::Error::other("the kernel does not name its family"))?;
        Ok(Self { socket, family })
    }

    /// Whether an interface takes redirected frames now.
    pub(super) fn taken_by(&self, ifindex: u32) -> io::Result<bool> {
        let (command, which, features) = DEVICE;
        let answer = ask(&self.socket, self.family, command, which, &ifindex.to_ne_bytes())?;
        let features =
            attribute(&answer, features).and_then(|bytes| Some(u64::from_ne_bytes(bytes.try_into().ok()?)));
        features
            .map(|features| features & TAKES_REDIRECTED != 0)
            .ok_or_else(|| io::Error::other("the kernel does not name the features"))
    }
}

/// Sends one request with one attribute. Returns the answer without its headers. The kernel answers before `send` returns.
fn ask(socket: &OwnedFd, id: u16, command: u8, kind: u16, value: &[u8]) -> io::Result<Vec<u8>> {
    let mut attribute = Vec::new();
    attribute.extend(((4 + value.len()) as u16).to_ne_bytes());
    attribute.extend(kind.to_ne_bytes());
    attribute.extend(value);
    attribute.resize(attribute.len().next_multiple_of(4), 0);
    let mut message = Vec::new();
    message.extend(((HEADERS + attribute.len()) as u32).to_ne_bytes());
    message.extend(id.to_ne_bytes());
    message.extend(REQUEST.to_ne_bytes());
    message.extend([0; 8]);
    message.extend([command, 1, 0, 0]);
    message.extend(attribute);
    send(socket.as_raw_fd(), &message, MsgFlags::empty())?;
    let mut answer = vec![0; 8192];
    let length = recv(socket.as_raw_fd(), &mut answer, MsgFlags::MSG_DONTWAIT)?;
    answer.truncate(length);
    let kind = answer.get(4..6).map(|bytes| u16::from_ne_bytes([bytes[0], bytes[1]]));
    if length < HEADERS || kind == Some(ERROR) {
        return Err(io::Error::other("the kernel does not know"));
    }
    Ok(answer.split_off(HEADERS))
}

/// The value of the first attribute of this kind.
fn attribute(mut bytes: &[u8], wanted: u16) -> Option<&[u8]> {
    while let [a, b, c, d, ..] = *bytes {
        let (length, kind) = (usize::from(u16::from_ne_bytes([a, b])), u16::from_ne_bytes([c, d]));
        let value = bytes.get(4..length)?;
        if kind == wanted {
            return Some(value);
        }
        bytes = bytes.get(length.next_multiple_of(4)..)?;
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attributes_are_found_and_nonsense_is_none() {
        let bytes = [6, 0, 9, 0, 1, 2, 0, 0, 5, 0, 3, 0, 7];
        assert_eq!(attribute(&bytes, 9), Some([1, 2].as_slice()));
        assert_eq!(attribute(&bytes, 3), Some([7].as_slice()));
        assert_eq!(attribute(&bytes, 4), None);
        for broken in [&[3, 0, 9, 0][..], &[9, 0, 9, 0, 1], &[0, 0, 1, 0]] {
            assert_eq!(attribute(broken, 9), None);
        }
    }

    #[test]
    fn the_loopback_device_takes_none() {
        // Older kernels do not have the family, which is an error.
        if let Ok(redirects) = Redirects::open() {
            assert!(!redirects.taken_by(1).expect("the device is there"));
            assert!(redirects.taken_by(0).is_err());
        }
    }
}
