//! The states of a backend on its three axes (operator, probe, breaker), its path, and the effective state that
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

        // The names appear in events as text.
        impl From<$name> for String {
            fn from(state: $name) -> Self {
                state.to_string()
            }
        }
    };
}

names! {
    /// The operator's axis.
    OperatorState { Enabled = "enabled", Draining = "draining", Disabled = "disabled" }
}

names! {
    /// The opinion of discovery about a backend. Where the operator has no order, it counts like one.
    #[derive(Default)]
    Standing {
        #[default]
        Ready = "ready",
        /// No new connections.
        Draining = "draining",
        /// Out, also in a panic.
        Out = "out",
    }
}

impl OperatorState {
    /// The order that holds for a backend of this standing: the operator's own, or else that of discovery.
    #[must_use]
    pub const fn or_discovery(self, standing: Standing) -> Self {
        match (self, standing) {
            (Self::Enabled, Standing::Draining) => Self::Draining,
            (Self::Enabled, Standing::Out) => Self::Disabled,
            (order, Standing::Ready | Standing::Draining | Standing::Out) => order,
        }
    }
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
    /// Whether the packet path can reach the backend: a fact of this node, and nobody's opinion. The names are stable
    /// codes.
    PathState {
        /// It can, as far as the daemon knows.
        Ok = "ok",
        /// The address is one of the node's own.
        Local = "local",
        /// The node has no route to it.
        NoRoute = "no_route",
        /// The route is to no single host.
        NotUnicast = "not_unicast",
        /// The next hop has never answered.
        NoNeighbour = "no_neighbour",
        /// The interface towards it has no link.
        NoLink = "no_link",
        /// The program is not attached to the interface towards it.
        NotAttached = "not_attached",
        /// Its replies come in a VLAN whose frames the program does not look at.
        VlanNotListed = "vlan_not_listed",
        /// The node has none of the NAT addresses.
        NoNatAddress = "no_nat_address",
    }
}

impl PathState {
    pub const ALL: [Self; 9] = [
        Self::Ok,
        Self::Local,
        Self::NoRoute,
        Self::NotUnicast,
        Self::NoNeighbour,
        Self::NoLink,
        Self::NotAttached,
        Self::VlanNotListed,
        Self::NoNatAddress,
    ];

    /// The cause and the remedy, for the operator.
    pub const fn message(self) -> &'static str {
        match self {
            Self::Ok => "frames reach it",
            Self::Local => {
                "it is on this node, and shunt forwards to other hosts only: move it to another host, or to a network \
                 namespace with a route of its own"
            }
            Self::NoRoute => {
                "this node has no route to it: `ip route get ADDRESS` says the same; add a route"
            }
            Self::NotUnicast => {
                "its address is a broadcast or multicast address on this node: name the address of one host"
            }
            Self::NoNeighbour => {
                "its next hop does not answer ARP or neighbour discovery: check the host, its cable and its address \
                 (`ip neighbour`)"
            }
            Self::NoLink => {
                "the interface towards it has no link: check the cable and the other end (`ip link`)"
            }
            Self::NotAttached => {
                "its replies arrive by an interface that shunt is not attached to: add that to `interfaces`"
            }
            Self::VlanNotListed => {
                "its replies come in a VLAN that shunt does not look at: add the VLAN's id to `vlans`"
            }
            Self::NoNatAddress => {
                "this node has none of the `nat_addresses` of its family, so its replies go nowhere: \
                 `ip address add ADDRESS/32 dev lo`, or correct the key"
            }
        }
    }
}

names! {
    /// The state that follows from the three axes and the path. [`Effective::of`] derives it.
    Effective {
        Serving = "serving",
        Trial = "trial",
        Draining = "draining",
        Ejected = "ejected",
        Down = "down",
        Unreachable = "unreachable",
        Disabled = "disabled",
    }
}

names! {
    /// Why a service uses more backends than serve.
    Panic {
        /// With `no_backend = "any"`.
        NobodyServes = "nobody_serves",
        /// Less than `panic_threshold` percent serve.
        FewServe = "few_serve",
        /// So many probes fail at once that they say more about themselves.
        ProbesFail = "probes_fail",
    }
}

impl Effective {
    /// The operator's axis decides first, then the path, then the probe's axis, then the breaker's. A backend whose
    /// first probe has no result yet (`unknown`) is used only while no proven one serves. The table has that
    /// preference; it is no state.
    pub const fn of(
        operator: OperatorState,
        path: PathState,
        probe: ProbeState,
        breaker: BreakerState,
    ) -> Self {
        match (operator, probe, breaker) {
            (OperatorState::Disabled, _, _) => Self::Disabled,
            (OperatorState::Draining, _, _) => Self::Draining,
            (OperatorState::Enabled, _, _) if !matches!(path, PathState::Ok) => Self::Unreachable,
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

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn each_state_of_the_path_has_its_own_words() {
        let words: BTreeSet<&str> = PathState::ALL.into_iter().map(PathState::message).collect();
        assert_eq!(words.len(), PathState::ALL.len());
        assert!(PathState::NoNatAddress.message().contains("ip address add"));
    }
}
