//! The bpf(2) commands that the bench's own programs need, for which aya would want an ELF object.

use std::{
    io,
    os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd},
};

use anyhow::{Context, Result, bail};

use super::assembly::Instruction;

const MAP_CREATE: libc::c_long = 0;
const MAP_LOOKUP: libc::c_long = 1;
const MAP_UPDATE: libc::c_long = 2;
const PROG_LOAD: libc::c_long = 5;
const PROG_TEST_RUN: libc::c_long = 10;
const LINK_CREATE: libc::c_long = 28;

const ARRAY: u32 = 2;
const PROG_ARRAY: u32 = 3;
const XDP: u32 = 6;
/// `BPF_XDP`, the attach type; programs of one `PROG_ARRAY` must agree in it.
const ATTACH_XDP: u32 = 37;

/// Room for the verifier's reasons.
const LOG_BYTES: usize = 64 << 10;

#[repr(C)]
struct MapCreate {
    kind: u32,
    key_size: u32,
    value_size: u32,
    max_entries: u32,
}

/// Of look-ups too.
#[repr(C)]
struct MapUpdate {
    fd: u32,
    pad: u32,
    key: u64,
    value: u64,
    flags: u64,
}

#[repr(C)]
struct ProgLoad {
    kind: u32,
    count: u32,
    instructions: u64,
    license: u64,
    log_level: u32,
    log_size: u32,
    log: u64,
    kernel_version: u32,
    flags: u32,
    name: [u8; 16],
    ifindex: u32,
    attach_type: u32,
}

#[repr(C)]
struct ProgTestRun {
    fd: u32,
    result: u32,
    size_in: u32,
    size_out: u32,
    data_in: u64,
    data_out: u64,
    repeat: u32,
    duration: u32,
    context_size_in: u32,
    context_size_out: u32,
    context_in: u64,
    context_out: u64,
    flags: u32,
    cpu: u32,
    /// Frames that are redirected together. 0: 64.
    batch_size: u32,
    pad: u32,
}

/// `struct xdp_md` of linux/bpf.h.
#[repr(C)]
struct XdpContext {
    data: u32,
    data_end: u32,
    data_meta: u32,
    ingress_ifindex: u32,
    rx_queue: u32,
    egress_ifindex: u32,
}

#[repr(C)]
struct LinkCreate {
    program: u32,
    target_ifindex: u32,
    attach_type: u32,
    flags: u32,
}

/// # Safety
/// Every address in `attributes` must be valid for what the command does with it.
unsafe fn bpf<T>(command: libc::c_long, attributes: &mut T) -> io::Result<RawFd> {
    // SAFETY: the caller's; the size is that of the structure.
    let answer =
        unsafe { libc::syscall(libc::SYS_bpf, command, std::ptr::from_mut(attributes), size_of::<T>()) };
    if answer < 0 { Err(io::Error::last_os_error()) } else { Ok(answer as RawFd) }
}

/// # Safety
/// `fd` must be open and owned by nobody else.
unsafe fn owned(fd: RawFd) -> OwnedFd {
    // SAFETY: the caller's.
    unsafe { OwnedFd::from_raw_fd(fd) }
}

fn address<T: ?Sized>(of: &T) -> u64 {
    std::ptr::from_ref(of).cast::<u8>() as u64
}

/// An array map of `T`.
pub(crate) fn array<T>(entries: u32) -> Result<OwnedFd> {
    create(ARRAY, 4, size_of::<T>() as u32, entries)
}

/// An array of programs to continue with.
pub(crate) fn program_array() -> Result<OwnedFd> {
    create(PROG_ARRAY, 4, 4, 1)
}

/// A map of a kind by its number (`enum bpf_map_type`).
pub(crate) fn create(kind: u32, key_size: u32, value_size: u32, max_entries: u32) -> Result<OwnedFd> {
    let mut attributes = MapCreate { kind, key_size, value_size, max_entries };
    // SAFETY: no addresses; the answer is a new descriptor.
    unsafe { bpf(MAP_CREATE, &mut attributes).map(|fd| owned(fd)) }.context("creating a map")
}

/// Writes one value. The map must have been made for `T`.
pub(crate) fn write<T>(map: &OwnedFd, index: u32, value: &T) -> Result<()> {
    let fd = map.as_raw_fd() as u32;
    let mut attributes = MapUpdate { fd, pad: 0, key: address(&index), value: address(value), flags: 0 };
    // SAFETY: key and value live until the call returns, and have the sizes that the map was made with.
    unsafe { bpf(MAP_UPDATE, &mut attributes) }.context("writing a map")?;
    Ok(())
}

/// Writes one value of a map whose keys and values are as long as these.
pub(crate) fn write_bytes(map: BorrowedFd<'_>, key: &[u8], value: &[u8]) -> Result<()> {
    let fd = map.as_raw_fd() as u32;
    let mut attributes = MapUpdate { fd, pad: 0, key: address(key), value: address(value), flags: 0 };
    // SAFETY: as above; the caller compared the lengths.
    unsafe { bpf(MAP_UPDATE, &mut attributes) }.context("writing a map")?;
    Ok(())
}

/// The 32-bit number that a map has at an index.
pub(crate) fn read(map: BorrowedFd<'_>, index: u32) -> Result<u32> {
    let mut value = 0u32;
    let fd = map.as_raw_fd() as u32;
    let value_at = std::ptr::from_mut(&mut value) as u64;
    let mut attributes = MapUpdate { fd, pad: 0, key: address(&index), value: value_at, flags: 0 };
    // SAFETY: key and value live until the call returns; the caller's map has values of four bytes.
    unsafe { bpf(MAP_LOOKUP, &mut attributes) }.context("reading a map")?;
    Ok(value)
}

/// `BPF_F_XDP_HAS_FRAGS` of linux/bpf.h: only such a program may go on with another such.
const HAS_FRAGS: u32 = 1 << 5;

/// Loads an XDP program; an error has the verifier's reasons.
pub(crate) fn load(name: &str, instructions: &[Instruction]) -> Result<OwnedFd> {
    load_with(name, instructions, HAS_FRAGS)
}

/// The same that takes frames of one buffer only.
pub(crate) fn load_single(name: &str, instructions: &[Instruction]) -> Result<OwnedFd> {
    load_with(name, instructions, 0)
}

fn load_with(name: &str, instructions: &[Instruction], flags: u32) -> Result<OwnedFd> {
    let mut log = vec![0u8; LOG_BYTES];
    let mut attributes = ProgLoad {
        kind: XDP,
        count: instructions.len() as u32,
        instructions: address(instructions),
        license: address(c"Dual MIT/GPL".to_bytes_with_nul()),
        log_level: 1,
        log_size: LOG_BYTES as u32,
        log: log.as_mut_ptr() as u64,
        kernel_version: 0,
        flags,
        name: [0; 16],
        ifindex: 0,
        attach_type: ATTACH_XDP,
    };
    attributes.name[..name.len()].copy_from_slice(name.as_bytes());
    // SAFETY: instructions, license and log live until the call returns; the answer is a new descriptor.
    let loaded = unsafe { bpf(PROG_LOAD, &mut attributes).map(|fd| owned(fd)) };
    loaded.with_context(|| {
        let log = String::from_utf8_lossy(&log);
        format!("loading the bench's program `{name}`: {}", log.trim_end_matches('\0'))
    })
}

/// One test run: what the last of its passes returned, and the kernel's average for one, in nanoseconds.
pub(crate) fn test_run(program: RawFd, frame: &[u8], repeat: u32) -> Result<(u32, u32)> {
    loop {
        let mut attributes = ProgTestRun::new(program, frame, repeat);
        // SAFETY: the frame is only read, and lives until the call returns.
        match unsafe { bpf(PROG_TEST_RUN, &mut attributes) } {
            Ok(_) => return Ok((attributes.result, attributes.duration)),
            // A signal: how many passes were made is not known, so the caller cannot go on counting.
            Err(error) if error.kind() == io::ErrorKind::Interrupted => bail!("interrupted"),
            Err(error) if error.raw_os_error() == Some(libc::EAGAIN) => {}
            Err(error) => return Err(error).context("running a program"),
        }
    }
}

/// Linux 5.18: what the program decides is done, as if the frames had come by the interface.
const LIVE_FRAMES: u32 = 1 << 1;

/// A program, and the frame that live test runs of it begin with.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Live<'a> {
    pub(crate) program: BorrowedFd<'a>,
    pub(crate) frame: &'a [u8],
}

impl Live<'_> {
    /// Sends so many frames through the program, as if they came by this interface of the caller's namespace, and from
    /// there to wherever it sends them. The interface must have an XDP program.
    pub(crate) fn run(&self, frames: u32, ifindex: u32) -> Result<()> {
        let data_end = self.frame.len() as u32;
        let (data, data_meta, rx_queue, egress_ifindex) = (0, 0, 0, 0);
        let context =
            XdpContext { data, data_end, data_meta, ingress_ifindex: ifindex, rx_queue, egress_ifindex };
        let mut attributes = ProgTestRun::new(self.program.as_raw_fd(), self.frame, frames);
        attributes.context_size_in = size_of::<XdpContext>() as u32;
        attributes.context_in = address(&context);
        attributes.flags = LIVE_FRAMES;
        // SAFETY: frame and context are only read, and live until the call returns.
        unsafe { bpf(PROG_TEST_RUN, &mut attributes) }.context("sending live frames through a program")?;
        Ok(())
    }
}

impl ProgTestRun {
    fn new(program: RawFd, frame: &[u8], repeat: u32) -> Self {
        Self {
            fd: program as u32,
            result: 0,
            size_in: frame.len() as u32,
            size_out: 0,
            data_in: address(frame),
            data_out: 0,
            repeat,
            duration: 0,
            context_size_in: 0,
            context_size_out: 0,
            context_in: 0,
            context_out: 0,
            flags: 0,
            cpu: 0,
            batch_size: 0,
            pad: 0,
        }
    }
}

/// Attaches an XDP program to an interface of the caller's namespace, until the answer is closed.
pub(crate) fn attach(program: &OwnedFd, ifindex: u32) -> Result<OwnedFd> {
    let program = program.as_raw_fd() as u32;
    let mut attributes = LinkCreate { program, target_ifindex: ifindex, attach_type: ATTACH_XDP, flags: 0 };
    // SAFETY: no addresses; the answer is a new descriptor.
    unsafe { bpf(LINK_CREATE, &mut attributes).map(|fd| owned(fd)) }
        .with_context(|| format!("attaching a program to interface {ifindex}"))
}
