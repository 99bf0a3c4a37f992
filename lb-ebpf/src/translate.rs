//! Giving a segment its new addresses.

use lb_common::{
    abi::{Address, FlowKey, Link},
    checksum::{self, fold},
};

use crate::{family::Family, frame::Frame};

/// The change of the TCP checksum and of the IPv4 header checksum by a translation, without the TTL. The way
/// back adds the complement of each. A sum does not depend on which end is the source.
#[inline(always)]
pub fn deltas<A: Address>(from: &FlowKey<A>, to: &FlowKey<A>) -> (u16, u16) {
    let addresses = from.src.negated_sum() + from.dst.negated_sum() + to.src.sum() + to.dst.sum();
    let ports = !from.sport.0 as u64 + !from.dport.0 as u64 + to.sport.0 as u64 + to.dport.0 as u64;
    (fold(addresses + ports), fold(addresses))
}

/// The new addresses of a segment, and the changes of its checksums.
pub struct Translation<'a, A> {
    pub src: &'a A,
    pub dst: &'a A,
    /// Source and destination port as they lie in the header.
    pub ports: u32,
    pub tcp_delta: u16,
    pub ip_delta: u16,
}

/// Rewrites link, addresses, ports, TTL and checksums. `frame` begins with the link header, `ip` with the IP
/// header, and `tcp` is the offset of the TCP header in `ip`.
/// `None`: the frame is shorter than its headers, and nothing was written.
#[inline(always)]
pub fn translate<F: Family>(
    frame: &Frame,
    ip: &Frame,
    tcp: usize,
    link: &Link,
    to: &Translation<'_, F::Addr>,
) -> Option<()> {
    let tcp = if F::FIXED { ip.from(tcp) } else { ip.from_any(tcp) };
    if !tcp.holds(20) || !ip.holds(F::HEADER) || !frame.holds(12) {
        return None;
    }
    let tcp_check = tcp.load::<u16>(16)?;
    frame.store(0, link.0[0]);
    frame.store(4, link.0[1]);
    frame.store(8, link.0[2]);
    F::pass_on(ip, to.ip_delta);
    F::store(ip, F::SRC, to.src);
    F::store(ip, F::DST, to.dst);
    tcp.store(0, to.ports);
    tcp.store(16, checksum::apply(tcp_check, to.tcp_delta));
    Some(())
}

#[cfg(test)]
#[path = "translate/tests.rs"]
mod tests;
