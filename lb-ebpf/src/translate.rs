//! Giving a segment its new addresses.

use lb_common::{
    abi::{Flow, FlowKey, Link},
    checksum::{self, TTL_STEP, fold, replace16, replace32},
};
use network_types::{eth::EthHdr, ip::Ipv4Hdr};

use crate::frame::Frame;

const IP: usize = EthHdr::LEN;
const TCP: usize = IP + Ipv4Hdr::LEN;

/// What a translation adds to the TCP and to the IPv4 header checksum.
///
/// Mapped prefixes are alike on both sides and cancel out, so only the last
/// address words and the ports count.
#[inline(always)]
pub const fn deltas(from: &FlowKey, to: &FlowKey) -> (u16, u16) {
    let addresses =
        replace32(from.src.v4_word(), to.src.v4_word()) + replace32(from.dst.v4_word(), to.dst.v4_word());
    let ports = replace16(from.sport.0, to.sport.0) + replace16(from.dport.0, to.dport.0);
    (fold(addresses + ports), fold(addresses + TTL_STEP))
}

/// Rewrites link, addresses, ports, TTL and checksums as the flow says.
/// `None`: the frame is shorter than its headers, and nothing was written.
#[inline(always)]
pub fn translate(frame: &Frame, flow: &Flow, link: &Link) -> Option<()> {
    if !frame.holds(TCP + 20) {
        return None;
    }
    let ip_check = frame.load::<u16>(IP + 10)?;
    let tcp_check = frame.load::<u16>(TCP + 16)?;
    let ttl = frame.load::<u8>(IP + 8)?;
    frame.store(0, link.0[0]);
    frame.store(4, link.0[1]);
    frame.store(8, link.0[2]);
    frame.store(IP + 8, ttl.wrapping_sub(1));
    frame.store(IP + 10, checksum::apply(ip_check, flow.ip_delta));
    frame.store(IP + 12, flow.to.src.v4_word());
    frame.store(IP + 16, flow.to.dst.v4_word());
    frame.store(TCP, flow.to.sport.0);
    frame.store(TCP + 2, flow.to.dport.0);
    frame.store(TCP + 16, checksum::apply(tcp_check, flow.tcp_delta));
    Some(())
}
