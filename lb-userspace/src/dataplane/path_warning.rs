//! Causes that can keep a backend's connections from working although its next hop answers.

lb_core::codes! {
    /// A cause that can keep a backend's connections from working although its next hop answers. Beside `path_warning`.
    PathWarning {
        /// The interface says that it takes no frames that XDP redirects.
        NoRedirect = "no_redirect",
        /// Mode `dnat`: it is behind a router, which must send its replies to clients back to this node.
        BehindRouter = "behind_router",
    }
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
