//! The XDP features of a driver, by the generic netlink family `netdev` (Linux 6.3).

use std::{
    io,
    os::fd::{AsRawFd, OwnedFd},
};

use nix::{
    errno::Errno,
    sys::{
        socket::{
            AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, recv, send, setsockopt, socket,
            sockopt::ReceiveTimeout,
        },
        time::TimeVal,
    },
};

// linux/netlink.h, linux/genetlink.h, linux/netdev.h.
const NLMSG_ERROR: u16 = 2;
const NLM_F_REQUEST: u16 = 1;
const GENL_ID_CTRL: u16 = 16;
const CTRL_CMD_GETFAMILY: u8 = 3;
const CTRL_ATTR_FAMILY_ID: u16 = 1;
const CTRL_ATTR_FAMILY_NAME: u16 = 2;
const NETDEV_CMD_DEV_GET: u8 = 1;
const NETDEV_A_DEV_IFINDEX: u16 = 1;
const NETDEV_A_DEV_XDP_FEATURES: u16 = 3;

/// `struct nlmsghdr` and `struct genlmsghdr`.
const HEADERS: usize = 20;

/// Bits of `NETDEV_A_DEV_XDP_FEATURES`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct XdpFeatures(pub u64);

impl XdpFeatures {
    /// It runs a program on received frames and carries out the program's action.
    pub const NATIVE: Self = Self(0b11);
    /// Frames may be redirected to it.
    pub const TARGET: Self = Self(1 << 2);
    /// A frame may span several buffers.
    pub const FRAGS: Self = Self(1 << 5);

    pub const fn has(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }
}

/// The features of a device's driver. `None`: the kernel is too old to report them.
pub fn xdp_features(ifindex: u32) -> io::Result<Option<XdpFeatures>> {
    let netlink = Netlink::open()?;
    let name = (CTRL_ATTR_FAMILY_NAME, b"netdev\0".as_slice());
    let family = match netlink.ask(GENL_ID_CTRL, CTRL_CMD_GETFAMILY, name) {
        Ok(answer) => attribute(&answer, CTRL_ATTR_FAMILY_ID).map(u16::from_ne_bytes),
        Err(error) if error.raw_os_error() == Some(libc::ENOENT) => return Ok(None),
        Err(error) => return Err(error),
    };
    let family = family.ok_or_else(garbled)?;
    let index = ifindex.to_ne_bytes();
    let answer = netlink.ask(family, NETDEV_CMD_DEV_GET, (NETDEV_A_DEV_IFINDEX, &index))?;
    let bits = attribute(&answer, NETDEV_A_DEV_XDP_FEATURES).map(u64::from_ne_bytes);
    bits.map(|bits| Some(XdpFeatures(bits))).ok_or_else(garbled)
}

struct Netlink(OwnedFd);

impl Netlink {
    fn open() -> io::Result<Self> {
        let protocol = SockProtocol::NetlinkGeneric;
        let socket = socket(AddressFamily::Netlink, SockType::Raw, SockFlag::SOCK_CLOEXEC, protocol)?;
        // The kernel answers before `send` returns. The limit is for a kernel that does not.
        setsockopt(&socket, ReceiveTimeout, &TimeVal::new(1, 0))?;
        Ok(Self(socket))
    }

    /// Sends one message with one attribute. Returns the attributes of the answer.
    fn ask(&self, kind: u16, command: u8, (attribute, value): (u16, &[u8])) -> io::Result<Vec<u8>> {
        let mut message = Vec::new();
        let padded = value.len().next_multiple_of(4);
        message.extend(((HEADERS + 4 + padded) as u32).to_ne_bytes());
        message.extend(kind.to_ne_bytes());
        message.extend(NLM_F_REQUEST.to_ne_bytes());
        // Number and port: zero is enough, because the socket has one request at a time.
        message.extend([0; 8]);
        message.extend([command, 1, 0, 0]);
        message.extend(((4 + value.len()) as u16).to_ne_bytes());
        message.extend(attribute.to_ne_bytes());
        message.extend(value);
        message.resize(HEADERS + 4 + padded, 0);
        send(self.0.as_raw_fd(), &message, MsgFlags::empty())?;
        let mut answer = vec![0; 16 << 10];
        let len = recv(self.0.as_raw_fd(), &mut answer, MsgFlags::empty())?;
        answer.truncate(len);
        let kind = answer.get(4..6).and_then(|bytes| bytes.try_into().ok()).map(u16::from_ne_bytes);
        if kind == Some(NLMSG_ERROR) {
            let code = answer.get(16..20).and_then(|bytes| bytes.try_into().ok()).map(i32::from_ne_bytes);
            return Err(Errno::from_raw(-code.ok_or_else(garbled)?).into());
        }
        answer.get(HEADERS..).map(<[u8]>::to_vec).ok_or_else(garbled)
    }
}

/// The value of the first attribute of this kind, if it has this length.
fn attribute<const N: usize>(mut attributes: &[u8], wanted: u16) -> Option<[u8; N]> {
    while let [a, b, c, d, ..] = *attributes {
        let len = usize::from(u16::from_ne_bytes([a, b]));
        let value = attributes.get(4..len)?;
        if u16::from_ne_bytes([c, d]) == wanted {
            return value.try_into().ok();
        }
        attributes = attributes.get(len.next_multiple_of(4)..)?;
    }
    None
}

fn garbled() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, "the kernel's answer is not understood")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attributes_are_found_and_nothing_else() {
        let bytes = [6, 0, 1, 0, 7, 7, 0, 0, 8, 0, 3, 0, 1, 2, 3, 4];
        assert_eq!(attribute(&bytes, 3), Some([1, 2, 3, 4]));
        assert_eq!(attribute(&bytes, 1), Some([7, 7]));
        assert_eq!(attribute::<4>(&bytes, 1), None, "of another length");
        assert_eq!(attribute::<4>(&bytes, 9), None);
        for len in 0..bytes.len() {
            assert_eq!(attribute::<4>(&bytes[..len], 3), None, "{len}");
        }
        assert_eq!(attribute::<2>(&[3, 0, 1, 0], 1), None, "shorter than its own header");
        assert_eq!(attribute::<2>(&[0, 0, 0, 0, 0, 0], 1), None);
    }

    #[test]
    fn features_are_sets() {
        assert!(XdpFeatures(0b111).has(XdpFeatures::NATIVE));
        assert!(!XdpFeatures(0b001).has(XdpFeatures::NATIVE));
        assert!(XdpFeatures(0b100).has(XdpFeatures::TARGET));
    }
}
