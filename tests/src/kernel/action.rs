//! The hook of every fixture, and what a program decides there.

use lb_userspace::dataplane::bpf;

/// The decision of the program.
#[derive(Clone, Copy, Debug, Eq)]
pub enum Action {
    Aborted,
    Drop,
    Pass,
    Tx,
    Redirect,
}

impl PartialEq for Action {
    /// At tc a frame that goes back is redirected like any other.
    fn eq(&self, other: &Self) -> bool {
        let sent = |action: &Self| matches!(action, Self::Tx | Self::Redirect);
        std::mem::discriminant(self) == std::mem::discriminant(other)
            || hook() == bpf::Hook::Tc && sent(self) && sent(other)
    }
}

/// See [`hook`].
pub fn at_tc() -> bool {
    hook() == bpf::Hook::Tc
}

/// Where the program of every fixture is: XDP, or tc with `SHUNT_LAB_TC=1`.
pub fn hook() -> bpf::Hook {
    if lb_lab::Style::get().tc { bpf::Hook::Tc } else { bpf::Hook::Xdp }
}

impl Action {
    /// As the program returned it.
    pub fn of(number: u32) -> Self {
        match (hook(), number.cast_signed()) {
            (bpf::Hook::Xdp, _) => Self::new(number),
            (bpf::Hook::Tc, -1) => Self::Pass,
            (bpf::Hook::Tc, 2) => Self::Drop,
            (bpf::Hook::Tc, 7) => Self::Redirect,
            (bpf::Hook::Tc, other) => panic!("no such action: {other}"),
        }
    }

    /// As an XDP program returned it.
    pub fn new(number: u32) -> Self {
        match number {
            0 => Self::Aborted,
            1 => Self::Drop,
            2 => Self::Pass,
            3 => Self::Tx,
            4 => Self::Redirect,
            other => panic!("no such action: {other}"),
        }
    }
}
