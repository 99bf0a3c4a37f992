//! TCP reset frames.

use std::net::IpAddr;

use etherparse::PacketBuilder;
use lb_common::abi::{Address, FlowKey, Link};

const TTL: u8 = 64;

/// A frame that resets the connection of this tuple. `seq` and `ack`: the next number that the tuple's source would
/// send, and the next one that it expects. `vlan` (IEEE 802.1Q) 0: without a tag.
pub(super) fn reset_frame<A: Address>(
    link: &Link,
    tuple: &FlowKey<A>,
    (seq, ack): (u32, u32),
    vlan: u16,
) -> Vec<u8> {
    tagged(reset(link, tuple, (seq, ack)), vlan)
}

fn reset<A: Address>(link: &Link, tuple: &FlowKey<A>, (seq, ack): (u32, u32)) -> Vec<u8> {
    let ethernet = PacketBuilder::ethernet2(link.from(), link.to());
    let ip = match (IpAddr::from(tuple.src.wide()), IpAddr::from(tuple.dst.wide())) {
        (IpAddr::V4(src), IpAddr::V4(dst)) => ethernet.ipv4(src.octets(), dst.octets(), TTL),
        (src, dst) => ethernet.ipv6(octets(src), octets(dst), TTL),
    };
    let tcp = ip.tcp(tuple.sport.host(), tuple.dport.host(), seq, 0).rst().ack(ack);
    let mut frame = Vec::with_capacity(tcp.size(0));
    tcp.write(&mut frame, &[]).expect("a vector grows as needed");
    frame
}

fn tagged(mut frame: Vec<u8>, vlan: u16) -> Vec<u8> {
    const AFTER_ADDRESSES: usize = 12;
    if vlan != 0 {
        let [high, low] = vlan.to_be_bytes();
        frame.splice(AFTER_ADDRESSES..AFTER_ADDRESSES, [0x81, 0x00, high, low]);
    }
    frame
}

fn octets(address: IpAddr) -> [u8; 16] {
    match address {
        IpAddr::V4(v4) => v4.to_ipv6_mapped().octets(),
        IpAddr::V6(v6) => v6.octets(),
    }
}
