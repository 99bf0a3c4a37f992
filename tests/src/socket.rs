//! Options of TCP sockets that the standard library does not have.

use std::{
    io,
    mem::{size_of, zeroed},
    net::{SocketAddr, TcpListener, TcpStream},
    os::fd::{AsRawFd, OwnedFd},
    time::Duration,
};

use nix::sys::socket::{
    AddressFamily, Backlog, SockFlag, SockType, SockaddrStorage, bind, connect, listen, setsockopt as set,
    socket,
    sockopt::{Linger, ReceiveTimeout, ReuseAddr, SendTimeout},
};

/// From now on this socket sees no segment with payload: each is dropped as if the network had lost it, after
/// everything that lies before the socket has seen it. Acknowledgements and FINs arrive.
pub fn lose_payload(socket: &impl AsRawFd) -> io::Result<()> {
    // For a socket filter of TCP, a frame begins with the TCP header (linux/net/ipv4/tcp_ipv4.c,
    // `tcp_filter`).
    filter(
        socket,
        &mut [
            // X = length of the header: the high half of byte 12, in words of four bytes.
            op(libc::BPF_LD | libc::BPF_B | libc::BPF_ABS, 0, 12),
            op(libc::BPF_ALU | libc::BPF_AND | libc::BPF_K, 0, 0xf0),
            op(libc::BPF_ALU | libc::BPF_RSH | libc::BPF_K, 0, 2),
            op(libc::BPF_MISC | libc::BPF_TAX, 0, 0),
            // A = length of the segment. Equal: there is no payload.
            op(libc::BPF_LD | libc::BPF_W | libc::BPF_LEN, 0, 0),
            op(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_X, 1, 0),
            op(libc::BPF_RET | libc::BPF_K, 0, u32::MAX),
            op(libc::BPF_RET | libc::BPF_K, 0, 0),
        ],
    )
}

/// The same for all segments: it also misses what acknowledges its own.
pub fn lose_everything(socket: &impl AsRawFd) -> io::Result<()> {
    filter(socket, &mut [op(libc::BPF_RET | libc::BPF_K, 0, 0)])
}

/// A connection from this very address and port, at once also after another one from there.
pub fn connect_from(from: SocketAddr, to: SocketAddr, limit: Duration) -> io::Result<TcpStream> {
    let socket = timed(to, limit)?;
    set(&socket, ReuseAddr, &true)?;
    bind(socket.as_raw_fd(), &SockaddrStorage::from(from))?;
    connect(socket.as_raw_fd(), &SockaddrStorage::from(to))?;
    Ok(socket.into())
}

/// A connection whose first write goes with the SYN (RFC 7413), once the server has given a cookie before.
pub fn connect_fast(to: SocketAddr, limit: Duration) -> io::Result<TcpStream> {
    let socket = timed(to, limit)?;
    set_number(&socket, libc::IPPROTO_TCP, libc::TCP_FASTOPEN_CONNECT, 1)?;
    connect(socket.as_raw_fd(), &SockaddrStorage::from(to))?;
    Ok(socket.into())
}

/// Lets clients of this listener do that.
pub fn accept_fast(listener: &TcpListener) -> io::Result<()> {
    set_number(listener, libc::IPPROTO_TCP, libc::TCP_FASTOPEN, 16)
}

/// Whether what was sent with the SYN was acknowledged with it.
pub fn was_fast(stream: &TcpStream) -> io::Result<bool> {
    const SYN_DATA: u8 = 32;
    Ok(info(stream)?.tcpi_options & SYN_DATA != 0)
}

/// A listener whose queue is full and stays so, as long as all of it is held: its system ignores further
/// SYNs.
pub fn deaf_listener(address: SocketAddr) -> io::Result<(TcpListener, Vec<TcpStream>)> {
    let listener = TcpListener::bind(address)?;
    listen(&listener, Backlog::new(0)?)?;
    let mut waiting = Vec::new();
    // A queue of length 0 holds one or two. More means that this system does not ignore SYNs.
    while let Ok(stream) = TcpStream::connect_timeout(&address, Duration::from_millis(200)) {
        waiting.push(stream);
        if waiting.len() > 64 {
            return Err(io::Error::other("a queue of no length takes 64 connections"));
        }
    }
    Ok((listener, waiting))
}

/// Makes the end of this socket a reset.
pub fn end_by_reset(stream: &TcpStream) -> io::Result<()> {
    let linger = libc::linger { l_onoff: 1, l_linger: 0 };
    Ok(set(stream, Linger, &linger)?)
}

/// Lets this process, and those that it starts, have so many files open; at most as many as it may allow
/// itself.
pub fn many_files(count: u64) -> io::Result<()> {
    use nix::sys::resource::{Resource, getrlimit, setrlimit};
    let (_, most) = getrlimit(Resource::RLIMIT_NOFILE)?;
    if count > most {
        return Err(io::Error::other(format!("{count} open files are needed, `ulimit -Hn` allows {most}")));
    }
    Ok(setrlimit(Resource::RLIMIT_NOFILE, count, most)?)
}

fn timed(to: SocketAddr, limit: Duration) -> io::Result<OwnedFd> {
    let family = if to.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 };
    let socket = socket(family, SockType::Stream, SockFlag::SOCK_CLOEXEC, None)?;
    let limit = nix::sys::time::TimeVal::new(limit.as_secs() as i64, i64::from(limit.subsec_micros()));
    set(&socket, ReceiveTimeout, &limit)?;
    // Also of the handshake.
    set(&socket, SendTimeout, &limit)?;
    Ok(socket)
}

fn set_number(socket: &impl AsRawFd, level: i32, option: i32, number: libc::c_int) -> io::Result<()> {
    // SAFETY: the kernel reads one integer.
    let done = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            level,
            option,
            (&raw const number).cast(),
            size_of::<libc::c_int>() as libc::socklen_t,
        )
    };
    if done == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

fn op(code: u32, jf: u8, k: u32) -> libc::sock_filter {
    libc::sock_filter { code: code as u16, jt: 0, jf, k }
}

fn filter(socket: &impl AsRawFd, program: &mut [libc::sock_filter]) -> io::Result<()> {
    let program = libc::sock_fprog { len: program.len() as u16, filter: program.as_mut_ptr() };
    // SAFETY: the kernel copies the program, which lives until the call returns.
    let done = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_ATTACH_FILTER,
            (&raw const program).cast(),
            size_of::<libc::sock_fprog>() as libc::socklen_t,
        )
    };
    if done == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// The end of [`lose_payload`] and [`lose_everything`].
pub fn lose_nothing(socket: &impl AsRawFd) -> io::Result<()> {
    let unused: libc::c_int = 0;
    // SAFETY: the kernel reads at most the integer that is pointed to.
    let done = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_DETACH_FILTER,
            (&raw const unused).cast(),
            size_of::<libc::c_int>() as libc::socklen_t,
        )
    };
    if done == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Bytes that were written and that the other end has not acknowledged yet.
pub fn unacknowledged(stream: &TcpStream) -> io::Result<u32> {
    let mut bytes: libc::c_int = 0;
    // SAFETY: the kernel writes one integer.
    let done = unsafe { libc::ioctl(stream.as_raw_fd(), libc::TIOCOUTQ, &raw mut bytes) };
    if done == 0 { Ok(bytes.cast_unsigned()) } else { Err(io::Error::last_os_error()) }
}

/// Segments that this end has sent more than once.
pub fn retransmissions(stream: &TcpStream) -> io::Result<u32> {
    Ok(info(stream)?.tcpi_total_retrans)
}

fn info(stream: &TcpStream) -> io::Result<libc::tcp_info> {
    // SAFETY: all fields are integers, for which zero is a value.
    let mut info: libc::tcp_info = unsafe { zeroed() };
    let mut size = size_of::<libc::tcp_info>() as libc::socklen_t;
    // SAFETY: the kernel writes at most `size` bytes.
    let done = unsafe {
        libc::getsockopt(
            stream.as_raw_fd(),
            libc::IPPROTO_TCP,
            libc::TCP_INFO,
            (&raw mut info).cast(),
            &raw mut size,
        )
    };
    if done == 0 { Ok(info) } else { Err(io::Error::last_os_error()) }
}
