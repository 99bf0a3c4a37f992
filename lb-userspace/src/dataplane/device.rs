//! Properties of a network device. The kernel answers without privileges, and nothing is changed.

mod features;

use std::{
    io,
    os::fd::{AsRawFd, OwnedFd},
};

use nix::sys::socket::{AddressFamily, SockFlag, SockType, socket};

pub use features::{XdpFeatures, xdp_features};

// linux/sockios.h, linux/ethtool.h.
const SIOCETHTOOL: libc::Ioctl = 0x8946;
const ETHTOOL_GDRVINFO: u32 = 0x03;
const ETHTOOL_GTXCSUM: u32 = 0x16;
const ETHTOOL_GFLAGS: u32 = 0x25;
const ETHTOOL_GGRO: u32 = 0x2b;
const ETH_FLAG_LRO: u32 = 1 << 15;
const ETH_FLAG_RXVLAN: u32 = 1 << 8;

/// Offloads that change a frame before a program sees it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Offloads {
    /// The device completes the checksums of frames that this node sends.
    pub tx_checksum: bool,
    /// The stack merges received frames.
    pub gro: bool,
    /// The device merges received frames.
    pub lro: bool,
    /// The device removes the VLAN tag of received frames.
    pub rx_vlan: bool,
}

/// The driver's name: `veth`, `virtio_net`, `mlx5_core`.
pub fn driver(name: &str) -> io::Result<String> {
    // `struct ethtool_drvinfo`.
    #[repr(C)]
    struct DriverInfo {
        cmd: u32,
        driver: [u8; 32],
        rest: [u8; 160],
    }
    let mut info = DriverInfo { cmd: ETHTOOL_GDRVINFO, driver: [0; 32], rest: [0; 160] };
    ethtool(name, &mut info)?;
    let len = info.driver.iter().position(|byte| *byte == 0).unwrap_or(info.driver.len());
    Ok(String::from_utf8_lossy(&info.driver[..len]).into_owned())
}

/// Whether frames may come with unfinished checksums from a sender on the same hypervisor (`VIRTIO_NET_F_GUEST_CSUM`).
/// `None`: it is no virtio device, or its driver does not say.
pub fn unfinished_checksums(name: &str) -> Option<bool> {
    const GUEST_CSUM: usize = 1;
    // A character for each bit, the first one first.
    let bits = std::fs::read_to_string(format!("/sys/class/net/{name}/device/features")).ok()?;
    Some(bits.as_bytes().get(GUEST_CSUM)? == &b'1')
}

pub fn offloads(name: &str) -> io::Result<Offloads> {
    let flags = value(name, ETHTOOL_GFLAGS)?;
    Ok(Offloads {
        tx_checksum: value(name, ETHTOOL_GTXCSUM)? != 0,
        gro: value(name, ETHTOOL_GGRO)? != 0,
        lro: flags & ETH_FLAG_LRO != 0,
        rx_vlan: flags & ETH_FLAG_RXVLAN != 0,
    })
}

pub fn mtu(name: &str) -> io::Result<u32> {
    let mut request = request(name)?;
    ioctl(libc::SIOCGIFMTU as libc::Ioctl, &mut request)?;
    // SAFETY: the call above has filled in this member.
    let mtu = unsafe { request.ifr_ifru.ifru_mtu };
    u32::try_from(mtu).map_err(io::Error::other)
}

/// The MAC address. Zeros where the device has none.
pub fn mac(name: &str) -> io::Result<[u8; 6]> {
    let mut request = request(name)?;
    ioctl(libc::SIOCGIFHWADDR as libc::Ioctl, &mut request)?;
    // SAFETY: the call above has filled in this member.
    let bytes = unsafe { request.ifr_ifru.ifru_hwaddr.sa_data };
    Ok(std::array::from_fn(|at| bytes[at] as u8))
}

fn value(name: &str, cmd: u32) -> io::Result<u32> {
    // `struct ethtool_value`.
    #[repr(C)]
    struct Value {
        cmd: u32,
        data: u32,
    }
    let mut value = Value { cmd, data: 0 };
    ethtool(name, &mut value)?;
    Ok(value.data)
}

/// `command` must be the structure that its first word, the command, stands for.
fn ethtool<T>(name: &str, command: &mut T) -> io::Result<()> {
    let mut request = request(name)?;
    request.ifr_ifru.ifru_data = std::ptr::from_mut(command).cast();
    ioctl(SIOCETHTOOL, &mut request)
}

fn request(name: &str) -> io::Result<libc::ifreq> {
    // SAFETY: integers, arrays of them and pointers: zeros are values of all.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    // The last byte stays zero, because it ends the name.
    if name.len() >= request.ifr_name.len() {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    for (to, from) in request.ifr_name.iter_mut().zip(name.bytes()) {
        *to = from as libc::c_char;
    }
    Ok(request)
}

fn ioctl(number: libc::Ioctl, request: &mut libc::ifreq) -> io::Result<()> {
    let socket: OwnedFd = socket(AddressFamily::Inet, SockType::Datagram, SockFlag::SOCK_CLOEXEC, None)?;
    // SAFETY: all requests made here take an `ifreq`, and what it points to, if anything, is alive and as
    // large as the kernel expects.
    if unsafe { libc::ioctl(socket.as_raw_fd(), number, request) } < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_loopback_device_is_known() {
        assert!(mtu("lo").expect("there is one") >= 1280);
        offloads("lo").expect("it has some");
        xdp_features(1).expect("the kernel answers, or is too old to");
    }

    #[test]
    fn an_absent_device_is_an_error() {
        for name in ["", "no-such-device", "a name that is far too long for a device"] {
            mtu(name).expect_err(name);
            driver(name).expect_err(name);
            offloads(name).expect_err(name);
        }
    }
}
