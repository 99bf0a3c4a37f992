//! Datagrams for tests, made and checked the long way: every checksum over all of its bytes.

/// From the IP header on: `10.0.0.1` to `203.0.113.10`, or `2001:db8::1` to `2001:db8:7::a`.
pub(crate) const CLIENT4: [u8; 4] = [10, 0, 0, 1];
pub(crate) const VIP4: [u8; 4] = [203, 0, 113, 10];
pub(crate) const CLIENT6: [u8; 16] = [0x20, 1, 0xd, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1];
pub(crate) const VIP6: [u8; 16] = [0x20, 1, 0xd, 0xb8, 0, 7, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xa];

pub(crate) const TCP: u8 = 6;

/// The Internet checksum of parts with an even length, all but the last.
pub(crate) fn checksum(parts: &[&[u8]]) -> u16 {
    let mut sum = 0u32;
    for word in parts.iter().flat_map(|part| part.chunks(2)) {
        sum += u32::from(u16::from_be_bytes([word[0], *word.get(1).unwrap_or(&0)]));
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !(sum as u16)
}

/// Port 40000 to 80, number 1000, acknowledging 2000. Its checksum is right for these addresses.
pub(crate) fn segment(src: &[u8], dst: &[u8], flags: u8, payload: &[u8]) -> Vec<u8> {
    let mut bytes =
        vec![0x9c, 0x40, 0, 80, 0, 0, 3, 0xe8, 0, 0, 7, 0xd0, 0x50, flags, 0xff, 0xff, 0, 0, 0, 0];
    bytes.extend(payload);
    let sum = checksum(&[&pseudo(src, dst, TCP, bytes.len()), &bytes]);
    bytes[16..18].copy_from_slice(&sum.to_be_bytes());
    bytes
}

fn pseudo(src: &[u8], dst: &[u8], protocol: u8, length: usize) -> Vec<u8> {
    let mut bytes = [src, dst].concat();
    bytes.extend((length as u16).to_be_bytes());
    bytes.extend([0, protocol]);
    bytes
}

/// With TTL 64, the flag "don't fragment" and no identification. `options` are a multiple of four bytes.
pub(crate) fn ip4(src: [u8; 4], dst: [u8; 4], protocol: u8, options: &[u8], body: &[u8]) -> Vec<u8> {
    let length = (20 + options.len() + body.len()) as u16;
    let [high, low] = length.to_be_bytes();
    let mut bytes = vec![0x45 + options.len() as u8 / 4, 0, high, low, 0, 0, 0x40, 0, 64, protocol, 0, 0];
    bytes.extend([src, dst].concat());
    bytes.extend(options);
    let sum = checksum(&[&bytes]);
    bytes[10..12].copy_from_slice(&sum.to_be_bytes());
    bytes.extend(body);
    bytes
}

/// With hop limit 64. `first`: the protocol of what follows, which begins with the extension headers.
pub(crate) fn ip6(src: [u8; 16], dst: [u8; 16], first: u8, body: &[u8]) -> Vec<u8> {
    let [high, low] = (body.len() as u16).to_be_bytes();
    let mut bytes = vec![0x60, 0, 0, 0, high, low, first, 64];
    bytes.extend([src, dst].concat());
    bytes.extend(body);
    bytes
}

/// A plain segment of a client to the VIP.
pub(crate) fn tcp4(flags: u8, payload: &[u8]) -> Vec<u8> {
    ip4(CLIENT4, VIP4, TCP, &[], &segment(&CLIENT4, &VIP4, flags, payload))
}

pub(crate) fn tcp6(flags: u8, payload: &[u8]) -> Vec<u8> {
    ip6(CLIENT6, VIP6, TCP, &segment(&CLIENT6, &VIP6, flags, payload))
}

/// Behind a link header.
pub(crate) fn linked(datagram: &[u8]) -> Vec<u8> {
    let kind = if datagram[0] >> 4 == 4 { [8, 0] } else { [0x86, 0xdd] };
    [&[2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2], &kind[..], datagram].concat()
}

/// Whether the checksums of a datagram without options or extension headers are right: of its header, and of what it
/// carries.
pub(crate) fn is_right(datagram: &[u8]) -> bool {
    let is_v4 = datagram[0] >> 4 == 4;
    let (header, protocol, addresses) =
        if is_v4 { (20, datagram[9], 12..20) } else { (40, datagram[6], 8..40) };
    let length =
        u16::from_be_bytes(if is_v4 { [datagram[2], datagram[3]] } else { [datagram[4], datagram[5]] });
    let body = &datagram[header..if is_v4 { length.into() } else { header + usize::from(length) }];
    // The checksum of ICMP does not cover the addresses.
    let pseudo = if protocol == 1 { vec![] } else { pseudo(&datagram[addresses], &[], protocol, body.len()) };
    (!is_v4 || checksum(&[&datagram[..20]]) == 0) && checksum(&[&pseudo, body]) == 0
}
