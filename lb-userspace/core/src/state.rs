//! The state that outlives the daemon: open ejections, ejection numbers and operators' overrides.
//!
//! [`Engine::export`](crate::Engine::export) makes one at any time, and [`Settings::restored`](crate::Settings)
//! takes it. Times are spans, so that another clock can continue them. [`State::aged`] subtracts the time that
//! a state lay in a file. Service, name, address and
//! identity identify a backend.

use std::{net::SocketAddr, num::NonZeroU16};

use serde::{Deserialize, Serialize};

use crate::{states::OperatorState, time::Millis};

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct State {
    /// Of this format. The engine ignores a state of another one.
    pub version: u32,
    pub services: Vec<ServiceState>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServiceState {
    pub name: String,
    /// Only backends with something to remember.
    pub backends: Vec<BackendState>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BackendState {
    pub name: String,
    pub address: SocketAddr,
    /// The identity that discovery gave it: another incarnation remembers nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub identity: Option<String>,
    /// The ejection number.
    pub ejection: u32,
    /// Ejections ever.
    pub ejections: u64,
    /// The rest of the ejection time. 0: the time is over, or the backend is half-open; it then waits for
    /// another sweep.
    pub open_for: Option<Millis>,
    /// The cause of the ejection.
    pub cause: Option<String>,
    /// The name of the detector that ejected it. `None`: an operator did, or an earlier version wrote the state.
    #[serde(default)]
    pub detector: Option<String>,
    pub operator: OperatorState,
    /// Why `operator` is not `enabled`. The alias is its name in state files of earlier versions.
    #[serde(rename = "override", alias = "mandate")]
    pub operator_override: Option<OverrideState>,
    pub weight: Option<(NonZeroU16, OverrideState)>,
    /// It drains, and the connections that are left after this time are reset.
    #[serde(default)]
    pub drains_for: Option<Millis>,
}

/// Actor and reason of an override, and how long it still holds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OverrideState {
    pub actor: String,
    pub reason: Option<String>,
    pub left: Option<Millis>,
}

impl State {
    pub const VERSION: u32 = 1;

    /// The state as it is this much later.
    #[must_use]
    pub fn aged(mut self, by: Millis) -> Self {
        let pass = |left: &mut Option<Millis>| {
            if let Some(left) = left {
                left.0 = left.0.saturating_sub(by.0);
            }
        };
        for backend in self.services.iter_mut().flat_map(|service| &mut service.backends) {
            pass(&mut backend.open_for);
            pass(&mut backend.drains_for);
            let weight = backend.weight.as_mut().map(|(_, order)| order);
            backend.operator_override.iter_mut().chain(weight).for_each(|order| pass(&mut order.left));
        }
        self
    }
}
