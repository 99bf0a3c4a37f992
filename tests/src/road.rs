//! A bad road: a host that passes the frames of two devices on and loses, doubles and delays some of them.

use std::{
    io,
    mem::{size_of, zeroed},
    os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread::JoinHandle,
    time::Duration,
};

use lb_lab::{Host, Result, clock};

use crate::noise::Noise;

/// Of a hundred frames so many are lost, so many come twice, and so many come late.
#[derive(Clone, Copy, Debug)]
pub struct Faults {
    pub lost: usize,
    pub doubled: usize,
    pub late: usize,
}

/// Late frames come so much later: others overtake them.
const LATE: Duration = Duration::from_millis(3);
/// How long a thread waits for a frame before it looks at late ones.
const TICK_US: i64 = 500;
/// Longer than any frame without offloads.
const LONGEST: usize = 2048;

/// It passes frames until it is dropped.
#[derive(Debug)]
pub struct Road {
    ended: Arc<AtomicBool>,
    hurt: Arc<AtomicU64>,
    threads: Vec<JoinHandle<Result<io::Result<()>>>>,
}

impl Road {
    /// Between two devices of this host, which must have no other way from one to the other.
    pub fn open(host: &Host, devices: [&str; 2], faults: Faults) -> Self {
        let (ended, hurt) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let ways = [(devices[0], devices[1], 1), (devices[1], devices[0], 2)];
        let threads = ways.map(|(from, to, seed)| {
            let (from, to) = (from.to_owned(), to.to_owned());
            let (ended, hurt) = (Arc::clone(&ended), Arc::clone(&hurt));
            host.thread(move || pass(&from, &to, faults, Noise::new(seed), &ended, &hurt))
        });
        Self { ended, hurt, threads: threads.into() }
    }

    /// Frames that were lost, doubled or late so far.
    pub fn hurt(&self) -> u64 {
        self.hurt.load(Ordering::Relaxed)
    }
}

impl Drop for Road {
    fn drop(&mut self) {
        self.ended.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            // A road that has failed has let nothing through, which its test has seen.
            let _ = thread.join();
        }
    }
}

fn pass(
    from: &str,
    to: &str,
    faults: Faults,
    mut noise: Noise,
    ended: &AtomicBool,
    hurt: &AtomicU64,
) -> io::Result<()> {
    let (from, to) = (tap(from)?, tap(to)?);
    let mut late: Vec<(Duration, Vec<u8>)> = Vec::new();
    let mut bytes = vec![0; LONGEST];
    while !ended.load(Ordering::Relaxed) {
        let now = clock::now();
        while late.first().is_some_and(|(at, _)| *at <= now) {
            send(&to, &late.remove(0).1)?;
        }
        let Some(length) = receive(&from, &mut bytes)? else { continue };
        let frame = &bytes[..length];
        let fate = noise.below(100);
        if fate >= faults.lost + faults.doubled + faults.late {
            send(&to, frame)?;
            continue;
        }
        hurt.fetch_add(1, Ordering::Relaxed);
        if fate < faults.lost {
            continue;
        }
        if fate < faults.lost + faults.doubled {
            send(&to, frame)?;
        }
        late.push((clock::now() + LATE, frame.to_vec()));
    }
    Ok(())
}

/// A socket that sees every frame of a device, and sends by it.
fn tap(device: &str) -> io::Result<OwnedFd> {
    const ALL: u16 = (libc::ETH_P_ALL as u16).to_be();
    let index = nix::net::if_::if_nametoindex(device)?;
    // SAFETY: makes a descriptor, which the wrapper owns, or fails.
    let tap = unsafe {
        let fd = libc::socket(libc::AF_PACKET, libc::SOCK_RAW | libc::SOCK_CLOEXEC, i32::from(ALL));
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        OwnedFd::from_raw_fd(fd)
    };
    // SAFETY: plain integers, of which zero is valid.
    let mut address: libc::sockaddr_ll = unsafe { zeroed() };
    (address.sll_family, address.sll_protocol, address.sll_ifindex) =
        (libc::AF_PACKET as u16, ALL, index.cast_signed());
    let size = size_of::<libc::sockaddr_ll>() as libc::socklen_t;
    // SAFETY: the kernel reads an address of this size.
    if unsafe { libc::bind(tap.as_raw_fd(), (&raw const address).cast(), size) } != 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: as above.
    let mut all: libc::packet_mreq = unsafe { zeroed() };
    (all.mr_ifindex, all.mr_type) = (index.cast_signed(), libc::PACKET_MR_PROMISC as u16);
    option(&tap, libc::SOL_PACKET, libc::PACKET_ADD_MEMBERSHIP, &all)?;
    let tick = libc::timeval { tv_sec: 0, tv_usec: TICK_US };
    option(&tap, libc::SOL_SOCKET, libc::SO_RCVTIMEO, &tick)?;
    Ok(tap)
}

fn option<T>(tap: &OwnedFd, level: i32, name: i32, value: &T) -> io::Result<()> {
    let size = size_of::<T>() as libc::socklen_t;
    // SAFETY: the kernel reads a value of this size.
    let done =
        unsafe { libc::setsockopt(tap.as_raw_fd(), level, name, std::ptr::from_ref(value).cast(), size) };
    if done == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// A frame that has come, and not one that this host has sent. `None`: none came in time.
fn receive(tap: &OwnedFd, bytes: &mut [u8]) -> io::Result<Option<usize>> {
    // SAFETY: plain integers, of which zero is valid.
    let mut from: libc::sockaddr_ll = unsafe { zeroed() };
    let mut size = size_of::<libc::sockaddr_ll>() as libc::socklen_t;
    // SAFETY: the kernel writes within both lengths.
    let length = unsafe {
        libc::recvfrom(
            tap.as_raw_fd(),
            bytes.as_mut_ptr().cast(),
            bytes.len(),
            0,
            (&raw mut from).cast(),
            &raw mut size,
        )
    };
    match usize::try_from(length) {
        Ok(length) => Ok((from.sll_pkttype != libc::PACKET_OUTGOING).then_some(length)),
        Err(_) => match io::Error::last_os_error() {
            error if matches!(error.raw_os_error(), Some(libc::EAGAIN | libc::EINTR | libc::ENETDOWN)) => {
                Ok(None)
            }
            error => Err(error),
        },
    }
}

fn send(tap: &OwnedFd, frame: &[u8]) -> io::Result<()> {
    // SAFETY: the kernel reads the frame.
    let sent = unsafe { libc::send(tap.as_raw_fd(), frame.as_ptr().cast(), frame.len(), 0) };
    match io::Error::last_os_error() {
        error if sent < 0 && error.raw_os_error() != Some(libc::ENOBUFS) => Err(error),
        _ => Ok(()),
    }
}
