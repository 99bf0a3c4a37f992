//! Map values, built from the engine's words.

use std::{net::SocketAddr, num::NonZeroU8};

use lb_common::abi::{self, Backend, Port, Service, ServiceKey, backend_flags, service_flags};
use lb_core::{
    config::{Mode, NoBackend, Overflow, ServiceLimit},
    io::{Admit, BackendId, FlowReset, ServiceId},
};

pub(super) fn service_key(vip: SocketAddr) -> ServiceKey {
    ServiceKey { addr: vip.ip().into(), port: Port::new(vip.port()), proto: 6, zero: 0 }
}

/// `rules`: the flags that name the set of the service's source rules.
pub(super) fn service_value(
    id: ServiceId,
    (mode, no_backend): (Mode, NoBackend),
    (evidence, redispatch): (bool, bool),
    affinity: Option<NonZeroU8>,
    limit: Option<ServiceLimit>,
    rules: u16,
    trials: &[BackendId],
) -> Service {
    let mut flags = rules
        | match mode {
            Mode::Nat => 0,
            Mode::Dnat => service_flags::DNAT,
        }
        | match limit.map(|limit| limit.overflow) {
            None => 0,
            Some(Overflow::Reset) => service_flags::LIMITED,
            Some(Overflow::Drop) => service_flags::LIMITED | service_flags::OVERFLOW_DROP,
            Some(Overflow::QueueByRetry) => {
                service_flags::LIMITED | service_flags::OVERFLOW_DROP | service_flags::OVERFLOW_QUEUE
            }
        };
    if redispatch {
        flags |= service_flags::REDISPATCH;
    }
    if evidence {
        flags |= service_flags::EVIDENCE;
    }
    match no_backend {
        NoBackend::Drop => flags |= service_flags::NO_BACKEND_DROP,
        // With `any` the engine leaves a table empty only when no backend may be used at all.
        NoBackend::Reset | NoBackend::Any => {}
    }
    let mut value = Service {
        id: id.0,
        flags,
        affinity: affinity.map_or(0, |bits| bits.get().into()),
        ..Service::default()
    };
    for (slot, trial) in value.trials.iter_mut().zip(trials) {
        *slot = trial.0;
        value.trial_len += 1;
    }
    value
}

pub(super) fn backend_flags(admit: Admit, reset: FlowReset, redispatch: bool) -> u16 {
    let admit = match admit {
        Admit::All => backend_flags::ADMIT,
        Admit::Trials => backend_flags::TRIAL,
        Admit::None => 0,
    };
    let reset = match reset {
        FlowReset::Never => 0,
        FlowReset::AtRequest => backend_flags::RESET_AT_REQUEST,
        FlowReset::Now => backend_flags::RESET_NOW,
    };
    admit | reset | if redispatch { backend_flags::REDISPATCH } else { 0 }
}

pub(super) fn backend_address(value: &Backend) -> SocketAddr {
    abi::socket_addr(value.addr, value.port)
}
