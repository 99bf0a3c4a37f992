//! The states of a backend on its three axes (operator, probe, breaker), and the effective state that
//! follows from them.

use std::fmt;

use serde::{Deserialize, Serialize};

macro_rules! names {
    ($(#[$doc:meta])* $name:ident { $($(#[$vdoc:meta])* $variant:ident = $text:literal),+ $(,)? }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        pub enum $name { $($(#[$vdoc])* #[serde(rename = $text)] $variant),+ }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(match self { $(Self::$variant => $text),+ })
            }
        }
    };
}

names! {
    /// The operator's axis.
    OperatorState { Enabled = "enabled", Draining = "draining", Disabled = "disabled" }
}

names! {
    /// The probe's axis. `none`: the service has no probe.
    ProbeState { None = "none", Unknown = "unknown", Up = "up", Down = "down" }
}

names! {
    /// The breaker's axis.
    BreakerState { Closed = "closed", Open = "open", HalfOpen = "half-open" }
}

names! {
    /// The state that follows from the three axes. [`Effective::of`] derives it.
    Effective {
        Serving = "serving",
        Trial = "trial",
        Draining = "draining",
        Ejected = "ejected",
        Down = "down",
        Disabled = "disabled",
    }
}

impl Effective {
    /// The operator's axis decides first, then the probe's, then the breaker's. A backend whose first probe
    /// has no result yet (`unknown`) is used only while no proven one serves. The table has that preference;
    /// it is no state.
    pub const fn of(operator: OperatorState, probe: ProbeState, breaker: BreakerState) -> Self {
        match (operator, probe, breaker) {
            (OperatorState::Disabled, _, _) => Self::Disabled,
            (OperatorState::Draining, _, _) => Self::Draining,
            (OperatorState::Enabled, ProbeState::Down, _) => Self::Down,
            (
                OperatorState::Enabled,
                ProbeState::None | ProbeState::Unknown | ProbeState::Up,
                BreakerState::Open,
            ) => Self::Ejected,
            (
                OperatorState::Enabled,
                ProbeState::None | ProbeState::Unknown | ProbeState::Up,
                BreakerState::HalfOpen,
            ) => Self::Trial,
            (
                OperatorState::Enabled,
                ProbeState::None | ProbeState::Unknown | ProbeState::Up,
                BreakerState::Closed,
            ) => Self::Serving,
        }
    }
}

// The state names appear in events as text.
impl From<BreakerState> for String {
    fn from(state: BreakerState) -> Self {
        state.to_string()
    }
}

impl From<ProbeState> for String {
    fn from(state: ProbeState) -> Self {
        state.to_string()
    }
}

impl From<OperatorState> for String {
    fn from(state: OperatorState) -> Self {
        state.to_string()
    }
}
