//! Clients whose SYNs no backend answers, and rightly: they say nothing about a backend.

use std::{io, net::SocketAddr, os::fd::AsRawFd as _, time::Duration};

use anyhow::Result;
use lb_core::event::EventKind;
use lb_tests::{
    lab::skipped,
    site::{Site, VIP},
};
use nix::sys::socket::{
    AddressFamily, SockFlag, SockType, SockaddrStorage, connect, setsockopt, socket, sockopt,
};

/// `struct tcp_md5sig` of linux/tcp.h.
#[repr(C)]
struct Md5 {
    address: libc::sockaddr_storage,
    flags: u8,
    prefix: u8,
    length: u16,
    ifindex: i32,
    key: [u8; 80],
}

/// A connection with signed segments (RFC 2385): a server without the key ignores them.
fn connect_signed(to: SocketAddr, patience: Duration) -> io::Result<()> {
    let socket = socket(AddressFamily::Inet, SockType::Stream, SockFlag::SOCK_CLOEXEC, None)?;
    let SocketAddr::V4(v4) = to else { return Err(io::ErrorKind::Unsupported.into()) };
    // SAFETY: all fields are integers, for which zero is a value.
    let mut md5: Md5 = unsafe { std::mem::zeroed() };
    let at = (&raw mut md5.address).cast::<libc::sockaddr_in>();
    // SAFETY: a storage holds every kind of address.
    unsafe {
        (*at).sin_family = libc::AF_INET as u16;
        (*at).sin_addr.s_addr = u32::from_ne_bytes(v4.ip().octets());
    }
    md5.length = 3;
    md5.key[..3].copy_from_slice(b"key");
    // SAFETY: the kernel reads so many bytes of a value that lives.
    let done = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::IPPROTO_TCP,
            libc::TCP_MD5SIG,
            (&raw const md5).cast(),
            size_of::<Md5>() as u32,
        )
    };
    if done != 0 {
        return Err(io::Error::last_os_error());
    }
    let limit = nix::sys::time::TimeVal::new(patience.as_secs() as i64, 0);
    setsockopt(&socket, sockopt::SendTimeout, &limit)?;
    Ok(connect(socket.as_raw_fd(), &SockaddrStorage::from(v4))?)
}

#[test]
fn clients_that_no_backend_answers_eject_nobody() -> Result<()> {
    if skipped("clients_that_no_backend_answers_eject_nobody", &[]) {
        return Ok(());
    }
    let keys = "redispatch = true\nbreaker.consecutive_5xx = 3\n";
    let site = Site::with_keys("unanswerable", 4, keys, "")?;
    site.reachable()?;
    let events = site.shunt.events()?;
    let vip: SocketAddr = VIP.parse()?;
    let clients: Vec<_> = (0..64)
        .map(|_| site.topology.client.thread(move || connect_signed(vip, Duration::from_secs(4))))
        .collect();
    for client in clients {
        let outcome = client.join().expect("it does not panic")?;
        // The end of SO_SNDTIMEO: nobody answers a SYN whose key nobody has.
        let kind = outcome.map_err(|error| error.raw_os_error()).err().flatten();
        assert_eq!(kind, Some(libc::EINPROGRESS));
    }
    let ejected: Vec<_> =
        events.since(0).into_iter().filter(|one| one.event.kind == EventKind::Eject).collect();
    let names: Vec<_> = ejected
        .iter()
        .map(|one| (one.event.backend.clone(), one.event.evidence.last.last().map(|l| l.failure)))
        .collect();
    assert!(ejected.is_empty(), "{names:?}");
    Ok(())
}
