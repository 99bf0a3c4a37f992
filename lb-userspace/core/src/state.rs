//! What outlives the daemon: open ejections, ejection numbers and operators' overrides.
//!
//! [`Engine::export`](crate::Engine::export) makes one at any time,
//! [`Settings::restored`](crate::Settings) takes it. Times are spans, so that
//! another clock can go on with them; who keeps a `State` says by
//! [`State::aged`] how long it lay. A backend is known by service, name and address.

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
    /// Those of which there is anything to remember.
    pub backends: Vec<BackendState>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BackendState {
    pub name: String,
    pub address: SocketAddr,
    /// The ejection number.
    pub ejection: u32,
    /// Ejections ever.
    pub ejections: u64,
    /// What is left of the ejection; 0 of one whose time is over, and of a half-open backend, which goes
    /// through another sweep.
    pub open_for: Option<Millis>,
    /// For what it was ejected.
    pub cause: Option<String>,
    pub operator: OperatorState,
    pub mandate: Option<MandateState>,
    pub weight: Option<(NonZeroU16, MandateState)>,
    /// It gets no new connections, and what is left of those that it has is reset after so long still.
    #[serde(default)]
    pub drains_for: Option<Millis>,
}

/// In whose name an override holds, why, and for how long still.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MandateState {
    pub actor: String,
    pub reason: Option<String>,
    pub left: Option<Millis>,
}

impl State {
    pub const VERSION: u32 = 1;

    /// The same, this much later.
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
            let weight = backend.weight.as_mut().map(|(_, mandate)| mandate);
            backend.mandate.iter_mut().chain(weight).for_each(|mandate| pass(&mut mandate.left));
        }
        self
    }
}
