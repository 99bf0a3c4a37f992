//! Causes that can keep a backend's connections from working although its next hop answers.

use std::fmt;

/// This node can see each of them before the first connection fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum PathWarning {
    /// The interface says that it takes no frames that XDP redirects.
    NoRedirect,
    /// The mode is `dnat` and the backend is behind a router. The replies go to the clients' own addresses, so the
    /// router must send them to this node.
    BehindRouter,
}

impl PathWarning {
    /// For the operator, with the remedy.
    pub const fn message(self) -> &'static str {
        match self {
            Self::NoRedirect => {
                "the interface towards it takes no redirected frames, which vanish: on a veth switch GRO on at its \
                 other end (`ethtool -K DEVICE gro on`, after the device is up), else set xdp_mode = \"generic\""
            }
            Self::BehindRouter => {
                "it is behind a router, which must send its replies to clients back to this node (mode dnat): \
                 check the router's routes, or use mode = \"nat\""
            }
        }
    }
}

impl fmt::Display for PathWarning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.message())
    }
}
