//! Differences that the program may make between the frame that came and the frame that leaves.

use std::net::{IpAddr, SocketAddr};

use super::reading::Segment;

/// Nothing.
pub(super) fn untouched(frame: &[u8], out: &[u8]) -> Result<(), String> {
    differences(frame, out, &[])
}

/// Link addresses, IP addresses, ports, and the TTL by one; and the checksums, which are right exactly if
/// they were, and wrong by the same amount otherwise.
pub(super) fn translated(
    frame: &[u8],
    segment: &Segment,
    (to, from): ([u8; 6], [u8; 6]),
    (src, dst): (SocketAddr, SocketAddr),
    out: &[u8],
) -> Result<(), String> {
    let mut wanted = frame.to_vec();
    let (ip, tcp) = (segment.ip, segment.tcp);
    wanted[..6].copy_from_slice(&to);
    wanted[6..12].copy_from_slice(&from);
    let v4 = src.is_ipv4();
    let addresses = if v4 { ip + 12 } else { ip + 8 };
    wanted[if v4 { ip + 8 } else { ip + 7 }] -= 1;
    let octets = [src.ip(), dst.ip()].map(octets).concat();
    wanted[addresses..addresses + octets.len()].copy_from_slice(&octets);
    wanted[tcp..tcp + 2].copy_from_slice(&src.port().to_be_bytes());
    wanted[tcp + 2..tcp + 4].copy_from_slice(&dst.port().to_be_bytes());
    let header = [ip + 10, ip + 11];
    let mut may_differ = vec![tcp + 16, tcp + 17];
    if v4 {
        may_differ.extend(header);
    }
    differences(&wanted, out, &may_differ)?;
    let [before, after] = [frame, out].map(|frame| sums(frame, segment, v4));
    if before != after {
        return Err(format!("checksums: off by {before:04x?} before and by {after:04x?} after"));
    }
    Ok(())
}

/// The reset that answers a segment (RFC 9293 section 3.10.7.1).
pub(super) fn reset(frame: &[u8], segment: &Segment, out: &[u8]) -> Result<(), String> {
    let (seq, ack, flags) = if segment.acks { (segment.ack, 0, 4) } else { (0, segment.end(), 4 | 16) };
    answer(frame, segment, out, (seq, ack, flags, 0))
}

/// The acknowledgement that answers a SYN on a living connection (RFC 5961 section 4).
pub(super) fn challenge(
    frame: &[u8],
    segment: &Segment,
    out: &[u8],
    (seq, ack): (u32, u32),
) -> Result<(), String> {
    answer(frame, segment, out, (seq, ack, 16, 2))
}

/// A frame of its own, no longer than what it answers. `window`: its upper byte.
fn answer(
    frame: &[u8],
    segment: &Segment,
    out: &[u8],
    (seq, ack, flags, window): (u32, u32, u8, u8),
) -> Result<(), String> {
    let mut wanted = [&frame[6..12], &frame[..6], &frame[12..14]].concat();
    let addresses = [segment.dst.ip(), segment.src.ip()].map(octets).concat();
    let v4 = segment.src.is_ipv4();
    if v4 {
        wanted.extend([0x45, 0, 0, 40, 0, 0, 0x40, 0, 64, 6, 0, 0]);
    } else {
        wanted.extend([0x60, 0, 0, 0, 0, 20, 6, 64]);
    }
    wanted.extend(addresses);
    let tcp = wanted.len();
    wanted.extend(segment.dst.port().to_be_bytes());
    wanted.extend(segment.src.port().to_be_bytes());
    wanted.extend(seq.to_be_bytes());
    wanted.extend(ack.to_be_bytes());
    wanted.extend([0x50, flags, window, 0, 0, 0, 0, 0]);
    let end = wanted.len();
    // Padding stays, and is zero.
    wanted.resize(end.max(frame.len().min(60)), 0);
    let mut may_differ = vec![tcp + 16, tcp + 17];
    if v4 {
        may_differ.extend([24, 25]);
    }
    differences(&wanted, out, &may_differ)?;
    let answer = Segment { ip: 14, tcp, end, ..segment.clone() };
    match sums(out, &answer, v4) {
        (0, 0) => Ok(()),
        wrong => Err(format!("checksums: off by {wrong:04x?}")),
    }
}

fn octets(address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(v4) => v4.octets().to_vec(),
        IpAddr::V6(v6) => v6.octets().to_vec(),
    }
}

fn differences(wanted: &[u8], out: &[u8], may_differ: &[usize]) -> Result<(), String> {
    if wanted.len() != out.len() {
        return Err(format!("{} bytes instead of {}", out.len(), wanted.len()));
    }
    let wrong: Vec<usize> =
        (0..out.len()).filter(|at| wanted[*at] != out[*at] && !may_differ.contains(at)).collect();
    if wrong.is_empty() {
        Ok(())
    } else {
        Err(format!("bytes {wrong:?}: {out:02x?}\ninstead of {wanted:02x?}"))
    }
}

/// By how much the IP header's and the TCP checksum are off, in one's complement: 0 when they are right.
fn sums(frame: &[u8], segment: &Segment, v4: bool) -> (u64, u64) {
    let Segment { ip, tcp, end, .. } = *segment;
    let (header, addresses) =
        if v4 { (sum(&frame[ip..ip + 20]), &frame[ip + 12..ip + 20]) } else { (0, &frame[ip + 8..ip + 40]) };
    let pseudo = sum(addresses) + 6 + (end - tcp) as u64;
    (header % 0xffff, (pseudo + sum(&frame[tcp..end])) % 0xffff)
}

fn sum(bytes: &[u8]) -> u64 {
    let word = |pair: &[u8]| u64::from(u16::from_be_bytes([pair[0], pair.get(1).copied().unwrap_or(0)]));
    bytes.chunks(2).map(word).sum()
}
