//! A swarm of clients on one link. Each is an address and a port; their stacks are played here, as far as an attack wants
//! them to be. No kernel has these addresses, so nothing resets their connections.

use std::{
    collections::HashMap,
    io,
    mem::{size_of, zeroed},
    net::SocketAddr,
    os::fd::{AsRawFd, FromRawFd, OwnedFd},
    time::Duration,
};

use lb_lab::{Error, Host, Result, clock};
use nix::{net::if_::if_nametoindex, sys::socket::sockopt::RcvBuf};

use crate::{
    frame::{ACK, FIN, PSH, RST, SYN, Tcp, layout, set_checksums},
    noise::Noise,
};

/// Segments that are sent before the answers are read again. Fewer than a link's queue takes.
const BURST: usize = 64;

/// A packet socket that sends frames from one device and hears the IPv4 that arrives there.
#[derive(Debug)]
pub struct Line {
    socket: OwnedFd,
    own: [u8; 6],
    peer: [u8; 6],
}

impl Line {
    /// `own` and `peer`: the hardware addresses of the two ends of the link.
    pub fn open(host: &Host, device: &str, own: [u8; 6], peer: [u8; 6]) -> Result<Self> {
        let socket = host
            .enter(|| open(device))?
            .map_err(|source| Error::Io { what: format!("a packet socket on {device}"), source })?;
        Ok(Self { socket, own, peer })
    }

    /// Sends a frame as it is. A queue that is full loses it, as a link does.
    pub fn send(&self, frame: &[u8]) {
        // SAFETY: the kernel reads the frame within its length.
        unsafe { libc::send(self.socket.as_raw_fd(), frame.as_ptr().cast(), frame.len(), 0) };
    }

    /// Sends a segment with this window, over this link.
    pub fn segment(&self, shape: &Shape) {
        let mut tcp = shape.tcp.clone();
        (tcp.from_mac, tcp.to_mac) = (self.own, self.peer);
        let mut frame = tcp.bytes();
        let at = layout(&frame).expect("a TCP frame").tcp;
        frame[at + 14..at + 16].copy_from_slice(&shape.window.to_be_bytes());
        set_checksums(&mut frame);
        if shape.wrong_checksum {
            frame[at + 16] ^= 0x55;
        }
        self.send(&frame);
    }

    /// The hardware addresses of a frame that leaves here: to, from.
    pub fn ends(&self) -> ([u8; 6], [u8; 6]) {
        (self.peer, self.own)
    }

    /// `None`: nothing arrived within that time.
    fn receive(&self, frame: &mut [u8], patience: Duration) -> Option<usize> {
        let mut poll = libc::pollfd { fd: self.socket.as_raw_fd(), events: libc::POLLIN, revents: 0 };
        // SAFETY: one entry, which lives during the call.
        if unsafe { libc::poll(&raw mut poll, 1, patience.as_millis() as libc::c_int) } <= 0 {
            return None;
        }
        // SAFETY: the kernel writes within the length of the buffer.
        let read = unsafe {
            libc::recv(self.socket.as_raw_fd(), frame.as_mut_ptr().cast(), frame.len(), libc::MSG_DONTWAIT)
        };
        usize::try_from(read).ok()
    }
}

/// A segment, and what [`Tcp`] does not choose.
#[derive(Clone, Debug)]
pub struct Shape {
    pub tcp: Tcp,
    pub window: u16,
    pub wrong_checksum: bool,
}

/// One client with its connection.
#[derive(Clone, Debug)]
pub struct Member {
    pub own: SocketAddr,
    /// Our next number, and the next one that we expect. A client that hears nothing has made the latter up.
    pub next: u32,
    pub theirs: u32,
    /// The handshake is complete, as far as this client knows.
    pub open: bool,
    /// The other end has sent FIN, or a reset.
    pub closed: bool,
    pub reset: bool,
    pub received: usize,
}

#[derive(Debug)]
pub struct Swarm {
    pub line: Line,
    pub to: SocketAddr,
    pub members: Vec<Member>,
    places: HashMap<SocketAddr, usize>,
    /// The clients hear what is sent to them. Otherwise their addresses are forged, and they go on blindly.
    hears: bool,
    /// They acknowledge data and FIN.
    pub acknowledges: bool,
    pub window: u16,
    pub noise: Noise,
    /// That they have completed.
    pub handshakes: usize,
}

impl Swarm {
    pub fn new(
        line: Line,
        to: SocketAddr,
        clients: impl Iterator<Item = SocketAddr>,
        hears: bool,
        seed: u64,
    ) -> Self {
        let mut noise = Noise::new(seed);
        let members: Vec<Member> = clients
            .map(|own| Member {
                own,
                next: noise.word() as u32,
                theirs: noise.word() as u32,
                open: false,
                closed: false,
                reset: false,
                received: 0,
            })
            .collect();
        let places = members.iter().enumerate().map(|(place, member)| (member.own, place)).collect();
        Self { line, to, members, places, hears, acknowledges: true, window: 0x4000, noise, handshakes: 0 }
    }

    /// Each begins a connection with a SYN, which `alter` may make odd.
    pub fn syn(&mut self, alter: impl Fn(&mut Shape)) {
        self.round(
            |member| !member.open,
            |member, shape| {
                shape.tcp.flags = SYN;
                shape.tcp.ack = 0;
                shape.tcp.options = vec![2, 4, 5, 180];
                alter(shape);
                member.next = shape.tcp.seq.wrapping_add(1 + shape.tcp.payload.len() as u32);
            },
        );
    }

    /// A handshake as every client does it, with two more SYNs where a server's queue was full. Those that hear nothing
    /// send the rest of it blindly.
    pub fn connect(&mut self) {
        for attempt in 0..3 {
            if attempt > 0 && (!self.hears || self.members.iter().all(|member| member.open)) {
                break;
            }
            for member in self.members.iter_mut().filter(|member| attempt > 0 && !member.open) {
                member.next = member.next.wrapping_sub(1);
            }
            self.syn(|_| {});
            self.listen(Duration::from_millis(300));
        }
        if !self.hears {
            self.round(
                |_| true,
                |member, shape| {
                    shape.tcp.flags = ACK;
                    member.open = true;
                },
            );
        }
    }

    /// Each sends this and moves on by it.
    pub fn say(&mut self, flags: u8, payload: &[u8]) {
        self.round(
            |member| member.open && !member.reset,
            |member, shape| {
                shape.tcp.flags = flags | ACK;
                if !payload.is_empty() {
                    shape.tcp.flags |= PSH;
                }
                shape.tcp.payload = payload.to_vec();
                let fin = u32::from(flags & FIN != 0);
                member.next = member.next.wrapping_add(payload.len() as u32 + fin);
            },
        );
    }

    /// Each sends this as `alter` makes it, and its numbers stay.
    pub fn insert(&mut self, payload: &[u8], alter: impl Fn(&mut Shape)) {
        self.round(
            |member| member.open && !member.reset,
            |_, shape| {
                shape.tcp.flags = ACK | PSH;
                shape.tcp.payload = payload.to_vec();
                alter(shape);
            },
        );
    }

    /// Hears and answers for so long.
    pub fn listen(&mut self, time: Duration) {
        let end = clock::now() + time;
        let mut frame = [0; 2048];
        loop {
            let left = end.saturating_sub(clock::now());
            match self.line.receive(&mut frame, left.min(Duration::from_millis(50))) {
                Some(read) => self.heard(&frame[..read]),
                None if clock::now() >= end => return,
                None => {}
            }
            if clock::now() >= end + Duration::from_secs(2) {
                return;
            }
        }
    }

    /// From now on they answer nothing, as if their addresses were forged.
    pub fn forget(&mut self) {
        self.hears = false;
    }

    /// Each becomes another connection, from the next port.
    pub fn begin_again(&mut self) {
        for member in &mut self.members {
            let mut own = member.own;
            own.set_port(own.port().wrapping_add(997) | 1024);
            *member = Member {
                own,
                next: self.noise.word() as u32,
                theirs: self.noise.word() as u32,
                open: false,
                closed: false,
                reset: false,
                received: 0,
            };
        }
        self.places = self.members.iter().enumerate().map(|(place, member)| (member.own, place)).collect();
    }

    fn round(&mut self, which: impl Fn(&Member) -> bool, mut act: impl FnMut(&mut Member, &mut Shape)) {
        for place in 0..self.members.len() {
            if which(&self.members[place]) {
                let mut shape = self.shape(place, ACK);
                act(&mut self.members[place], &mut shape);
                self.line.segment(&shape);
            }
            if place % BURST == BURST - 1 {
                self.listen(Duration::from_millis(4));
            }
        }
    }

    fn shape(&self, place: usize, flags: u8) -> Shape {
        let member = &self.members[place];
        let tcp = Tcp::new(member.own, self.to, flags).numbers(member.next, member.theirs);
        Shape { tcp, window: self.window, wrong_checksum: false }
    }

    fn heard(&mut self, frame: &[u8]) {
        if !self.hears {
            return;
        }
        let Some(tcp) = Tcp::read(frame) else { return };
        let Some(place) = self.places.get(&tcp.dst).copied() else { return };
        if tcp.src != self.to {
            return;
        }
        let member = &mut self.members[place];
        if tcp.flags & RST != 0 {
            member.reset = true;
            return;
        }
        if tcp.flags & SYN != 0 {
            if tcp.flags & ACK != 0 {
                self.handshakes += usize::from(!member.open);
                (member.theirs, member.open) = (tcp.seq.wrapping_add(1), true);
                let shape = self.shape(place, ACK);
                self.line.segment(&shape);
            }
            return;
        }
        if tcp.seq != member.theirs || !self.acknowledges {
            return;
        }
        let fin = tcp.flags & FIN != 0;
        member.received += tcp.payload.len();
        member.theirs = member.theirs.wrapping_add(tcp.payload.len() as u32 + u32::from(fin));
        member.closed |= fin;
        if fin || !tcp.payload.is_empty() {
            let shape = self.shape(place, ACK);
            self.line.segment(&shape);
        }
    }
}

fn open(device: &str) -> io::Result<OwnedFd> {
    let index = if_nametoindex(device)?;
    let protocol = (libc::ETH_P_IP as u16).to_be();
    // SAFETY: a plain system call; the answer is checked before it is used.
    let fd = unsafe {
        libc::socket(libc::AF_PACKET, libc::SOCK_RAW | libc::SOCK_CLOEXEC, libc::c_int::from(protocol))
    };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: a descriptor that was just made and that nobody else has.
    let socket = unsafe { OwnedFd::from_raw_fd(fd) };
    nix::sys::socket::setsockopt(&socket, RcvBuf, &(8 << 20))?;
    // SAFETY: all fields are integers, for which zero is a value.
    let mut address: libc::sockaddr_ll = unsafe { zeroed() };
    address.sll_family = libc::AF_PACKET as u16;
    address.sll_protocol = protocol;
    address.sll_ifindex = index.cast_signed();
    // SAFETY: the kernel reads the address within its length.
    let bound = unsafe {
        libc::bind(
            socket.as_raw_fd(),
            (&raw const address).cast(),
            size_of::<libc::sockaddr_ll>() as libc::socklen_t,
        )
    };
    if bound == 0 { Ok(socket) } else { Err(io::Error::last_os_error()) }
}
