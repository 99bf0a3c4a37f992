//! How the program is attached to an interface: as the operator asks, as it turned out, and how the interface is now.
//!
//! Pure data that several edges share: the configuration parses [`XdpMode`], the dataplane takes it and answers
//! with [`AttachMode`], and `shunt status` shows that.

use std::fmt;

use lb_core::codes::EventReason;
use serde::{Deserialize, Serialize};

/// The attach mode that the operator asks for: the key `xdp_mode`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum XdpMode {
    /// Native XDP. If the driver has none, the way that [`Fallback`] says, and a warning.
    #[default]
    Auto,
    /// Native XDP or an error.
    Native,
    /// Generic XDP, also where the driver has native XDP.
    Generic,
    /// tc ingress instead of XDP.
    Tc,
}

impl XdpMode {
    /// Whether an interface that is attached like this has the mode that is asked for.
    pub const fn accepts(self, attached: AttachMode) -> bool {
        match self {
            Self::Auto => matches!(attached, AttachMode::Native | AttachMode::Generic),
            Self::Native => matches!(attached, AttachMode::Native),
            Self::Generic => matches!(attached, AttachMode::Generic),
            Self::Tc => matches!(attached, AttachMode::Tc),
        }
    }
}

/// The way of `auto` where an interface takes no native XDP.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fallback {
    Generic,
    /// Generic XDP would take unfinished checksums for finished ones.
    Tc,
    /// The same, and the kernel has no tcx.
    None,
}

impl Fallback {
    /// `unfinished`: frames may come with unfinished checksums; `None`: not known.
    pub fn of(driver: &str, unfinished: Option<bool>, has_tcx: bool) -> Self {
        /// Drivers of virtual machines, whose frames never were on a wire.
        const GUESTS: [&str; 2] = ["virtio_net", "xen_netfront"];
        match (GUESTS.contains(&driver) && unfinished != Some(false), has_tcx) {
            (false, _) => Self::Generic,
            (true, true) => Self::Tc,
            (true, false) => Self::None,
        }
    }
}

impl fmt::Display for XdpMode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Auto => "auto",
            Self::Native => "native",
            Self::Generic => "generic",
            Self::Tc => "tc",
        })
    }
}

/// How the program is attached to an interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum AttachMode {
    /// In the driver.
    Native,
    /// In the network stack, after the kernel has made its buffer: slower.
    Generic,
    /// At tc ingress.
    Tc,
}

impl AttachMode {
    pub const ALL: [Self; 3] = [Self::Native, Self::Generic, Self::Tc];

    pub const fn name(self) -> &'static str {
        match self {
            Self::Native => "native",
            Self::Generic => "generic",
            Self::Tc => "tc",
        }
    }
}

impl fmt::Display for AttachMode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// The condition of an interface of the configuration. The names are stable codes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Condition {
    /// The program is attached, and the interface has a link.
    #[default]
    Attached,
    /// The program is attached, and the interface is down or has no carrier.
    NoLink,
    /// The program is attached, and the interface has another name now.
    Renamed,
    /// There is no such interface.
    Gone,
    /// The interface is there, and the program cannot be attached.
    NotAttached,
}

impl From<Condition> for EventReason {
    fn from(condition: Condition) -> Self {
        match condition {
            Condition::Attached => Self::Attached,
            Condition::NoLink => Self::NoLink,
            Condition::Renamed => Self::Renamed,
            Condition::Gone => Self::Gone,
            Condition::NotAttached => Self::NotAttached,
        }
    }
}

impl fmt::Display for Condition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Attached => "attached",
            Self::NoLink => "no_link",
            Self::Renamed => "renamed",
            Self::Gone => "gone",
            Self::NotAttached => "not_attached",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn auto_never_takes_unfinished_checksums_for_finished_ones() {
        for (driver, unfinished, has_tcx, expected) in [
            ("virtio_net", Some(true), true, Fallback::Tc),
            ("virtio_net", None, true, Fallback::Tc),
            ("virtio_net", Some(true), false, Fallback::None),
            ("virtio_net", None, false, Fallback::None),
            ("virtio_net", Some(false), false, Fallback::Generic),
            ("xen_netfront", None, false, Fallback::None),
            ("e1000e", None, false, Fallback::Generic),
            ("vmxnet3", None, true, Fallback::Generic),
        ] {
            assert_eq!(
                Fallback::of(driver, unfinished, has_tcx),
                expected,
                "{driver} {unfinished:?} {has_tcx}"
            );
        }
    }
}
