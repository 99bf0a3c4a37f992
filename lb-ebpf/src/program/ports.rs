//! The uses of a TCP port, and the service of a VIP. They turn most other frames away.

use lb_common::abi::{Address as _, FlowKey, Port, Service, ServiceKey, port_flags};
use lb_ebpf::verifier::host_order;

use super::maps::{PORTS, SERVICES, Tables};

/// The uses of this port: `port_flags`. 0: the frame is not Shunt's.
#[inline(always)]
pub(crate) fn kinds(port: Port) -> Option<u8> {
    let ports = PORTS.get_ptr(0)?;
    let index = host_order(port.0) as usize;
    // SAFETY: an index of 16 bits is inside; bytes may be read while the daemon writes them.
    Some(unsafe { (&raw const (*ports).0).cast::<u8>().add(index).read_volatile() })
}

/// Whether a frame from this port may be a reply in mode `dnat`.
#[inline(always)]
pub(crate) fn may_be_dnat_reply(source: Port) -> bool {
    kinds(source).is_some_and(|kinds| kinds & port_flags::DNAT != 0)
}

/// Whether any VIP has this port. A reply to a NAT address with such a port would be taken for a client's
/// segment.
#[inline(always)]
pub(crate) fn is_vip(port: Port) -> bool {
    kinds(port).is_none_or(|kinds| kinds & port_flags::VIP != 0)
}

/// The service that a segment is for.
#[inline(always)]
pub(crate) fn service_of<F: Tables>(key: &FlowKey<F::Addr>) -> Option<&'static Service> {
    let key = ServiceKey { addr: key.dst.wide(), port: key.dport, proto: 6, zero: 0 };
    // SAFETY: a service is replaced whole; a reader may see parts of the old and of the
    // new value, all of which are valid by themselves.
    unsafe { SERVICES.get(key) }
}
