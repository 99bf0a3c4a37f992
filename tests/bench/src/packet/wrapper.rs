//! The program around the program that is measured.
//!
//! A repeated test run hands every pass the frame that the one before it left, so a translating
//! program would be measured on its own output. The wrapper restores length and headers
//! first, from the next of its [`Record`]s, and then continues with the program. Its own cost is
//! measured around an empty program and subtracted.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use anyhow::{Result, ensure};
use lb_tests::{
    frame::Tcp,
    kernel::{Action, Family},
};

use super::{
    assembly::{Helper, Instruction, Label, Program, R0, R1, R2, R3, R4, R5, R6, R7, R8, R9, R10, Width},
    syscall,
};

/// Bytes of a frame that are restored: the headers, which are translated, and as much payload as makes known a request
/// from a response. A shorter frame is padded, as short frames are on a wire.
const HEADERS: usize = 104;
const XDP_DROP: i32 = 1;
const XDP_PASS: i32 = 2;
const XDP_TX: i32 = 3;

/// The first bytes of one frame, and what each round over all records adds to its headers.
#[repr(C, align(8))]
#[derive(Clone, Copy, Debug)]
pub(crate) struct Record {
    headers: [u8; HEADERS],
    len: u32,
    /// To the source address, so that every round has clients of its own.
    source_step: u32,
    seq_step: u32,
    ack_step: u32,
}

/// Where in a record the length is.
const LEN: i16 = HEADERS as i16;
/// Where a step is, and where in the frame it goes.
const fn steps(family: Family) -> [(i16, i16); 3] {
    // The last word of the source address, and where TCP begins.
    let (source, tcp) = match family {
        Family::V4 => (14 + 12, 14 + 20),
        Family::V6 => (14 + 8 + 12, 14 + 40),
    };
    [(LEN + 4, source), (LEN + 8, tcp + 4), (LEN + 12, tcp + 8)]
}

impl Record {
    /// The same frame in every round. Checksums are right in the first round only, and nobody looks at them.
    pub(crate) fn new(frame: &Tcp) -> Self {
        let bytes = frame.bytes();
        let mut headers = [0; HEADERS];
        for (to, from) in headers.iter_mut().zip(&bytes) {
            *to = *from;
        }
        Self { headers, len: bytes.len() as u32, source_step: 0, seq_step: 0, ack_step: 0 }
    }

    #[must_use]
    pub(crate) fn next_round(mut self, seq_step: usize, ack_step: usize) -> Self {
        (self.seq_step, self.ack_step) = (seq_step as u32, ack_step as u32);
        self
    }

    #[must_use]
    pub(crate) fn other_client_next_round(mut self) -> Self {
        self.source_step = 1;
        self
    }
}

/// Where a wrapper stands: value of its own array of one.
#[repr(C)]
struct State {
    passes: u64,
    /// Number of records − 1; they are a power of two.
    mask: u64,
    shift: u64,
}

/// Where a program leaves frames longer or shorter than they came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Excess {
    Tail,
    /// It puts headers in front.
    Head,
}

/// A wrapper around one program.
#[derive(Debug)]
pub(crate) struct Wrapper {
    program: OwnedFd,
    state: OwnedFd,
    // The kernel forgets what they hold when they are closed.
    records: OwnedFd,
    _next: OwnedFd,
    frame: Vec<u8>,
}

impl Wrapper {
    /// `records` may be of at most this number.
    pub(crate) const MOST: u32 = 32_768;

    pub(crate) fn new(inner: impl AsFd, family: Family) -> Result<Self> {
        Self::of(inner.as_fd(), family, Excess::Tail, syscall::load)
    }

    /// Around a program of somebody else's.
    pub(crate) fn around_peer(inner: impl AsFd, family: Family, excess: Excess) -> Result<Self> {
        // Which of the two it is, only the kernel says.
        Self::of(inner.as_fd(), family, excess, syscall::load)
            .or_else(|_| Self::of(inner.as_fd(), family, excess, syscall::load_single))
    }

    fn of(
        inner: BorrowedFd<'_>,
        family: Family,
        excess: Excess,
        load: fn(&str, &[Instruction]) -> Result<OwnedFd>,
    ) -> Result<Self> {
        let state = syscall::array::<State>(1)?;
        let records = syscall::array::<Record>(Self::MOST)?;
        let next = syscall::program_array()?;
        let program = load("bench_wrapper", &code(&state, &records, &next, family, excess))?;
        syscall::write(&next, 0, &inner.as_raw_fd())?;
        Ok(Self { program, state, records, _next: next, frame: Vec::new() })
    }

    /// From now on these records, from the first, each with what lies behind its headers in `frame`.
    pub(crate) fn play(&mut self, records: &[Record], frame: &Tcp) -> Result<()> {
        let count = records.len() as u64;
        ensure!(count.is_power_of_two() && count <= Self::MOST.into(), "{count} records");
        self.frame = frame.bytes();
        self.frame.resize(self.frame.len().max(HEADERS), 0);
        let len = self.frame.len() as u32;
        for (index, record) in records.iter().enumerate() {
            ensure!(record.len <= len, "a record of {} bytes in a frame of {len}", record.len);
            syscall::write(&self.records, index as u32, &Record { len, ..*record })?;
        }
        let state = State { passes: 0, mask: count - 1, shift: count.ilog2().into() };
        syscall::write(&self.state, 0, &state)
    }

    /// For runs with live frames.
    pub(crate) fn live(&self) -> syscall::Live<'_> {
        syscall::Live { program: self.program.as_fd(), frame: &self.frame }
    }

    /// The average of `passes`, in nanoseconds, and what the last of them came to.
    pub(crate) fn run(&self, passes: u32) -> Result<(f64, Action)> {
        let (action, ns) = syscall::test_run(self.program.as_raw_fd(), &self.frame, passes)?;
        let action = Action::new(action);
        ensure!(action != Action::Aborted, "the wrapper could not restore the frame");
        Ok((f64::from(ns), action))
    }
}

/// A program that passes everything.
pub(crate) fn empty() -> Result<OwnedFd> {
    always("bench_empty", XDP_PASS)
}

/// A program that drops everything.
pub(crate) fn dropping() -> Result<OwnedFd> {
    always("bench_drop", XDP_DROP)
}

/// A program that sends everything back by the interface that it came by.
pub(crate) fn transmitting() -> Result<OwnedFd> {
    always("bench_tx", XDP_TX)
}

/// A program that does nothing but call this helper, which takes no arguments, so often.
pub(crate) fn calling(helper: Helper, times: u32) -> Result<OwnedFd> {
    let mut program = Program::default();
    for _ in 0..times {
        program.call(helper);
    }
    program.set(R0, XDP_PASS);
    program.exit();
    syscall::load("bench_call", &program.finish())
}

fn always(name: &str, action: i32) -> Result<OwnedFd> {
    let mut program = Program::default();
    program.set(R0, action);
    program.exit();
    syscall::load(name, &program.finish())
}

/// A program that sends everything on by this interface.
pub(crate) fn redirecting(ifindex: u32) -> Result<OwnedFd> {
    let mut program = Program::default();
    program.set(R1, ifindex as i32);
    program.set(R2, 0);
    program.call(Helper::Redirect);
    program.exit();
    syscall::load("bench_redirect", &program.finish())
}

/// The average of `passes` through a program without a wrapper, in nanoseconds.
pub(crate) fn bare(program: &OwnedFd, passes: u32) -> Result<f64> {
    let frame = [0; HEADERS];
    Ok(syscall::test_run(program.as_raw_fd(), &frame, passes)?.1.into())
}

/// A program that does nothing but put so many bytes in front of a frame.
pub(crate) fn growing(bytes: i32) -> Result<OwnedFd> {
    let mut program = Program::default();
    program.set(R2, -bytes);
    program.call(Helper::XdpAdjustHead);
    program.set(R0, XDP_PASS);
    program.exit();
    syscall::load("bench_grow", &program.finish())
}

fn code(
    state: &OwnedFd,
    records: &OwnedFd,
    next: &OwnedFd,
    family: Family,
    excess: Excess,
) -> Vec<Instruction> {
    let mut program = Program::default();
    let mut fail = Label::default();
    program.copy(R6, R1);
    // R8: which record. R9: which round.
    program.map_value(R7, state.as_raw_fd());
    program.load(Width::Double, R8, R7, 0);
    program.copy(R9, R8);
    program.load(Width::Double, R1, R7, 16);
    program.shift_right(R9, R1);
    program.load(Width::Double, R1, R7, 8);
    program.and(R8, R1);
    program.store(Width::Word, R10, -4, R8);
    program.map(R1, records.as_raw_fd());
    program.copy(R2, R10);
    program.add_constant(R2, -4);
    program.call(Helper::MapLookup);
    program.jump_if_zero(R0, &mut fail);
    program.copy(R8, R0);

    let mut right_length = Label::default();
    program.load(Width::Word, R1, R6, 0);
    program.load(Width::Word, R3, R6, 4);
    program.subtract(R3, R1);
    program.load(Width::Word, R2, R8, LEN);
    match excess {
        Excess::Tail => {
            program.subtract(R2, R3);
            program.jump_if_zero(R2, &mut right_length);
            program.copy(R1, R6);
            program.call(Helper::XdpAdjustTail);
        }
        Excess::Head => {
            program.subtract(R3, R2);
            program.copy(R2, R3);
            program.jump_if_zero(R2, &mut right_length);
            program.copy(R1, R6);
            program.call(Helper::XdpAdjustHead);
        }
    }
    program.place(right_length);

    program.load(Width::Word, R1, R6, 0);
    program.load(Width::Word, R2, R6, 4);
    program.copy(R3, R1);
    program.add_constant(R3, HEADERS as i32);
    program.jump_if_above(R3, R2, &mut fail);
    for offset in (0..LEN).step_by(8) {
        program.load(Width::Double, R4, R8, offset);
        program.store(Width::Double, R1, offset, R4);
    }
    for (step, field) in steps(family) {
        program.load(Width::Word, R4, R8, step);
        program.multiply(R4, R9);
        program.load(Width::Word, R5, R1, field);
        program.network_order(R5);
        program.add(R5, R4);
        program.network_order(R5);
        program.store(Width::Word, R1, field, R5);
    }

    // Counts the pass, and waits for the stores above: a frame that arrives lies in the cache or in memory, and the
    // program's loads would otherwise wait for stores that the wrapper has still under way.
    program.set(R1, 1);
    program.atomic_add(R7, 0, R1);

    program.copy(R1, R6);
    program.map(R2, next.as_raw_fd());
    program.set(R3, 0);
    program.call(Helper::TailCall);
    program.place(fail);
    program.set(R0, 0);
    program.exit();
    program.finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_code_knows_the_layout() {
        assert_eq!(std::mem::offset_of!(Record, len), HEADERS);
        let [source, seq, ack] = steps(Family::V6);
        assert_eq!(std::mem::offset_of!(Record, source_step), source.0 as usize);
        assert_eq!(std::mem::offset_of!(Record, seq_step), seq.0 as usize);
        assert_eq!(std::mem::offset_of!(Record, ack_step), ack.0 as usize);
        assert_eq!(size_of::<Record>(), HEADERS + 16);
        assert_eq!(std::mem::offset_of!(State, mask), 8);
        assert_eq!(std::mem::offset_of!(State, shift), 16);
    }
}
