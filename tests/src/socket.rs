//! What the standard library does not ask of TCP sockets.

use std::{
    io,
    mem::{size_of, zeroed},
    net::TcpStream,
    os::fd::AsRawFd,
};

/// From now on this socket sees no segment with payload: each is dropped as if the network had lost it, after everything
/// that lies before the socket has seen it. Acknowledgements and FINs arrive.
pub fn lose_payload(socket: &impl AsRawFd) -> io::Result<()> {
    // For a socket filter of TCP, a frame begins with the TCP header (linux/net/ipv4/tcp_ipv4.c, `tcp_filter`).
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
    if done == 0 { Ok(info.tcpi_total_retrans) } else { Err(io::Error::last_os_error()) }
}
