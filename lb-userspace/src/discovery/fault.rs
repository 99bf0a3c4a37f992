//! Why a set cannot be used.

use lb_core::codes::DiscoveryCode;

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{says}")]
pub struct Fault {
    pub code: DiscoveryCode,
    /// With the place in the file, where there is one.
    pub says: String,
}

impl Fault {
    pub fn new(code: DiscoveryCode, says: impl Into<String>) -> Self {
        Self { code, says: says.into() }
    }
}
