//! What may keep a backend's connections from working although its next hop answers, as far as this node can tell.

use std::fmt;

/// Each is known before the first connection suffers from it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum PathWarning {
    /// The way there leaves by an interface that the program is not attached to, so nothing sees the replies.
    NotAttached,
    /// The interface says that it takes no frames that XDP redirects.
    NoRedirect,
    /// In `dnat` replies go to the clients' own addresses; here by way of a router, which has to send them here.
    BehindRouter,
}

impl PathWarning {
    /// With the remedy.
    pub const fn told(self) -> &'static str {
        match self {
            Self::NotAttached => {
                "its replies arrive by an interface that shunt is not attached to: add that to `interfaces`"
            }
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
        f.write_str(self.told())
    }
}
