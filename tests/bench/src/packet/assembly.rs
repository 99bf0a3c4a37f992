//! Instructions of the BPF machine (RFC 9669): as many as the bench's own programs need.

/// One instruction as the kernel takes it.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Instruction {
    code: u8,
    /// Destination in the low half, source in the high one.
    registers: u8,
    offset: i16,
    immediate: i32,
}

/// R0 to R10.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Register(u8);

pub(crate) const R0: Register = Register(0);
pub(crate) const R1: Register = Register(1);
pub(crate) const R2: Register = Register(2);
pub(crate) const R3: Register = Register(3);
pub(crate) const R4: Register = Register(4);
pub(crate) const R5: Register = Register(5);
pub(crate) const R6: Register = Register(6);
pub(crate) const R7: Register = Register(7);
pub(crate) const R8: Register = Register(8);
pub(crate) const R9: Register = Register(9);
/// The frame pointer.
pub(crate) const R10: Register = Register(10);

/// How many bytes a load or store moves.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Width {
    Word = 0x00,
    Double = 0x18,
}

/// Helper functions by their numbers (include/uapi/linux/bpf.h).
#[derive(Clone, Copy, Debug)]
pub(crate) enum Helper {
    MapLookup = 1,
    KtimeGetNs = 5,
    TailCall = 12,
    Redirect = 23,
    XdpAdjustHead = 44,
    XdpAdjustTail = 65,
    KtimeGetCoarseNs = 160,
}

/// A program in the making. Jumps go forward, to a [`Label`] that is placed later.
#[derive(Debug, Default)]
pub(crate) struct Program {
    instructions: Vec<Instruction>,
}

/// The jumps that lead to one place.
#[derive(Debug, Default)]
pub(crate) struct Label(Vec<usize>);

impl Program {
    pub(crate) fn finish(self) -> Vec<Instruction> {
        self.instructions
    }

    fn push(&mut self, code: u8, to: Register, from: Register, offset: i16, immediate: i32) {
        let registers = from.0 << 4 | to.0;
        self.instructions.push(Instruction { code, registers, offset, immediate });
    }

    pub(crate) fn set(&mut self, to: Register, value: i32) {
        self.push(0xb7, to, R0, 0, value);
    }

    pub(crate) fn copy(&mut self, to: Register, from: Register) {
        self.push(0xbf, to, from, 0, 0);
    }

    pub(crate) fn add(&mut self, to: Register, from: Register) {
        self.push(0x0f, to, from, 0, 0);
    }

    pub(crate) fn add_constant(&mut self, to: Register, value: i32) {
        self.push(0x07, to, R0, 0, value);
    }

    pub(crate) fn subtract(&mut self, to: Register, from: Register) {
        self.push(0x1f, to, from, 0, 0);
    }

    pub(crate) fn multiply(&mut self, to: Register, from: Register) {
        self.push(0x2f, to, from, 0, 0);
    }

    pub(crate) fn and(&mut self, to: Register, from: Register) {
        self.push(0x5f, to, from, 0, 0);
    }

    pub(crate) fn shift_right(&mut self, to: Register, from: Register) {
        self.push(0x7f, to, from, 0, 0);
    }

    /// Between the machine's byte order and the network's, 32 bits.
    pub(crate) fn network_order(&mut self, of: Register) {
        self.push(0xdc, of, R0, 0, 32);
    }

    pub(crate) fn load(&mut self, width: Width, to: Register, at: Register, offset: i16) {
        self.push(0x61 | width as u8, to, at, offset, 0);
    }

    pub(crate) fn store(&mut self, width: Width, at: Register, offset: i16, from: Register) {
        self.push(0x63 | width as u8, at, from, offset, 0);
    }

    /// Adds to memory in one step. On x86 everything stored before it is then in the cache.
    pub(crate) fn atomic_add(&mut self, at: Register, offset: i16, from: Register) {
        self.push(0xdb, at, from, offset, 0);
    }

    /// The address of a map, for helpers.
    pub(crate) fn map(&mut self, to: Register, fd: i32) {
        self.wide(to, Register(1), fd);
    }

    /// The address of the first value of an array map.
    pub(crate) fn map_value(&mut self, to: Register, fd: i32) {
        self.wide(to, R2, fd);
    }

    fn wide(&mut self, to: Register, kind: Register, fd: i32) {
        self.push(0x18, to, kind, 0, fd);
        self.push(0, R0, R0, 0, 0);
    }

    pub(crate) fn jump_if_zero(&mut self, of: Register, label: &mut Label) {
        label.0.push(self.instructions.len());
        self.push(0x15, of, R0, 0, 0);
    }

    pub(crate) fn jump_if_above(&mut self, of: Register, than: Register, label: &mut Label) {
        label.0.push(self.instructions.len());
        self.push(0x2d, of, than, 0, 0);
    }

    /// The label's jumps lead here.
    pub(crate) fn place(&mut self, label: Label) {
        for jump in label.0 {
            let distance = self.instructions.len() - jump - 1;
            self.instructions[jump].offset = i16::try_from(distance).expect("these programs are short");
        }
    }

    pub(crate) fn call(&mut self, helper: Helper) {
        self.push(0x85, R0, R0, 0, helper as i32);
    }

    pub(crate) fn exit(&mut self) {
        self.push(0x95, R0, R0, 0, 0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn jumps_skip_what_lies_between() {
        let mut program = Program::default();
        let mut end = Label::default();
        program.jump_if_zero(R1, &mut end);
        program.set(R0, 7);
        program.place(end);
        program.exit();
        let code = program.finish();
        assert_eq!(code[0], Instruction { code: 0x15, registers: 1, offset: 1, immediate: 0 });
        assert_eq!(code[1], Instruction { code: 0xb7, registers: 0, offset: 0, immediate: 7 });
    }

    #[test]
    fn registers_share_a_byte() {
        let mut program = Program::default();
        program.store(Width::Double, R10, -8, R3);
        assert_eq!(
            program.finish()[0],
            Instruction { code: 0x7b, registers: 0x3a, offset: -8, immediate: 0 }
        );
    }
}
