//! `BPF_PROG_TEST_RUN` without ceremony: for millions of frames, and from several threads.

use std::{
    io,
    os::fd::{AsRawFd, OwnedFd},
};

const PROG_TEST_RUN: libc::c_long = 10;

/// The kernel's parameters (`union bpf_attr`, `test`), as far as they are used here.
#[repr(C)]
struct Attributes {
    program: u32,
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
}

/// A handle to a loaded program.
#[derive(Debug)]
pub struct Runner {
    program: OwnedFd,
}

impl Runner {
    pub fn new(program: OwnedFd) -> Self {
        Self { program }
    }

    /// Runs it on a frame: what it returned, and the length of what it made of it, which begins `out`.
    /// Nothing is copied out when `out` is empty.
    pub fn run(&self, frame: &[u8], out: &mut [u8]) -> io::Result<(u32, usize)> {
        self.run_in(frame, out, &[])
    }

    /// The same with a context that names another interface of the thread's namespace than the loopback device.
    pub fn run_in(&self, frame: &[u8], out: &mut [u8], context: &[u8]) -> io::Result<(u32, usize)> {
        /// The kernel is short of memory for a moment, not for ever.
        const MOST_TRIES: usize = 10_000;
        let mut tries = 0;
        loop {
            let mut attributes = Attributes {
                program: self.program.as_raw_fd().cast_unsigned(),
                result: 0,
                size_in: frame.len() as u32,
                size_out: out.len() as u32,
                data_in: frame.as_ptr() as u64,
                data_out: if out.is_empty() { 0 } else { out.as_mut_ptr() as u64 },
                repeat: 1,
                duration: 0,
                context_size_in: context.len() as u32,
                context_size_out: 0,
                context_in: if context.is_empty() { 0 } else { context.as_ptr() as u64 },
                context_out: 0,
            };
            // SAFETY: frame and context are read and `out` is written within their lengths, and all live until the call
            // returns.
            let answer = unsafe {
                libc::syscall(libc::SYS_bpf, PROG_TEST_RUN, &raw mut attributes, size_of::<Attributes>())
            };
            if answer == 0 {
                return Ok((attributes.result, attributes.size_out as usize));
            }
            let error = io::Error::last_os_error();
            // Interrupted before it ran, or the kernel was short of memory for a moment.
            tries += 1;
            if tries == MOST_TRIES || !matches!(error.raw_os_error(), Some(libc::EINTR | libc::EAGAIN)) {
                return Err(error);
            }
        }
    }
}
