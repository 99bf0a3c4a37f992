//! Frames that no stack sends, thousands of them: the daemon lives, and connections come through as before.

use std::{
    collections::BTreeMap,
    fs::File,
    io::{self, Read, Seek, SeekFrom},
    net::SocketAddr,
    os::unix::fs::OpenOptionsExt,
};

use anyhow::{Context, Result};
use lb_common::reason::Reason;
use lb_lab::until;
use lb_tests::{
    frame::{ACK, FIN, IP, PSH, RST, SYN, Tcp, set_checksums},
    http::{PATIENCE, ask, connect},
    lab::skipped,
    wire::Wire,
};

use crate::{
    control::Random,
    site::{Site, vip},
};

const FRAMES: usize = 3000;

/// The kernel's log from now on.
struct KernelLog(File);

impl KernelLog {
    fn open() -> io::Result<Self> {
        let mut file = File::options().read(true).custom_flags(libc::O_NONBLOCK).open("/dev/kmsg")?;
        file.seek(SeekFrom::End(0))?;
        Ok(Self(file))
    }

    /// Lines that report a fault. The rest may be lines of others.
    fn faults(&mut self) -> Vec<String> {
        let mut faults = Vec::new();
        let mut record = [0; 8192];
        // The kernel's buffer holds fewer. A log that grows faster than it is read has no end.
        for _ in 0..1_000_000 {
            match self.0.read(&mut record) {
                Ok(0) => return faults,
                Ok(length) => {
                    let line = String::from_utf8_lossy(&record[..length]).into_owned();
                    let words = ["BUG:", "WARNING:", "Oops", "Kernel panic", "general protection"];
                    if words.iter().any(|word| line.contains(word)) {
                        faults.push(line);
                    }
                }
                // A record was overwritten before it was read; the next read goes on behind it.
                Err(error) if error.raw_os_error() == Some(libc::EPIPE) => {}
                Err(_) => return faults,
            }
        }
        panic!("the kernel's log grows faster than it is read");
    }
}

fn macs(site: &Site) -> Result<([u8; 6], [u8; 6])> {
    let read = |path: &str, host: &lb_lab::Host| -> Result<[u8; 6]> {
        let text = host.ip(&format!("-brief link show {path}"))?;
        let mac = text.split_whitespace().nth(2).context("a link has an address")?;
        let bytes: Vec<u8> =
            mac.split(':').map(|byte| u8::from_str_radix(byte, 16)).collect::<Result<_, _>>()?;
        bytes.try_into().map_err(|_| anyhow::anyhow!("{mac} is not a MAC address"))
    };
    Ok((read("client", &site.topology.node)?, read("node", &site.topology.client)?))
}

fn drops(site: &Site) -> Result<BTreeMap<String, u64>> {
    Ok(site.shunt.status()?.drops.first().map(|drops| drops.reasons.clone()).unwrap_or_default())
}

#[test]
fn garbage_frames() -> Result<()> {
    if skipped("garbage_frames", &[]) {
        return Ok(());
    }
    let mut site = Site::new("frames", 1, 1)?;
    let mut kernel_log = KernelLog::open()?;
    // As large as a link with an XDP program takes them; those of the backends stay at 1500.
    for (host, device) in [(&site.topology.node, "client"), (&site.topology.client, "node")] {
        host.ip(&format!("link set {device} mtu 3400"))?;
    }
    let (to_mac, from_mac) = macs(&site)?;
    let wire = Wire::open(&site.topology.client, "node")?;
    let mut stream = connect(&site.topology.client, vip(), PATIENCE)?;
    assert_eq!(ask(&mut stream, "GET /")?.status, 200);
    let own = stream.local_addr()?;
    // A client that is on no host: what is answered to it ends at the client's stack, which forwards nothing.
    let ghost = |n: u64| SocketAddr::from(([10, 10, 0, 100 + (n % 100) as u8], 1024 + (n % 60_000) as u16));
    let base = |src: SocketAddr, flags: u8| Tcp { to_mac, from_mac, ..Tcp::new(src, vip(), flags) };

    // One frame for each reason that a frame alone can give.
    let tcp = IP + 20;
    let with = |at: usize, value: u8| {
        let mut frame = base(ghost(0), SYN).payload(b"hello").bytes();
        frame[at] = value;
        frame
    };
    // Ports behind four bytes of options.
    let mut options = with(IP, 0x46);
    options.splice(tcp..tcp, [1; 4]);
    options[IP + 2..IP + 4].copy_from_slice(&(20 + 4 + 20 + 5u16).to_be_bytes());
    let mut martian = base(ghost(0), SYN).bytes();
    martian[IP + 12..IP + 16].copy_from_slice(&[127, 0, 0, 1]);
    set_checksums(&mut martian);
    let exact = [
        (with(tcp + 12, 0xf0), Reason::Malformed),
        (with(IP + 6, 0x20), Reason::Fragment),
        (options, Reason::IpOptions),
        (with(IP + 8, 1), Reason::Ttl),
        (martian, Reason::Martian),
        (base(ghost(0), SYN | FIN).bytes(), Reason::Flags),
        (base(ghost(0), ACK).payload(b"GET / HTTP/1.1\r\n\r\n").bytes(), Reason::NoFlow),
        (base(ghost(0), RST).bytes(), Reason::NoFlow),
    ];
    let mut expected = drops(&site)?;
    for (frame, reason) in &exact {
        wire.send(frame)?;
        *expected.entry(reason.name().to_owned()).or_default() += 1;
    }
    until("each is counted", PATIENCE, || drops(&site).is_ok_and(|drops| drops == expected))
        .with_context(|| format!("{:?}, expected {expected:?}", drops(&site)))?;

    let mut random = Random(42);
    // Anything at all.
    for _ in 0..FRAMES {
        let length = 14 + random.below(3400);
        let mut frame: Vec<u8> = (0..length).map(|_| random.byte()).collect();
        // Half of it claims to be IPv4, so that it is looked into, and comes to us.
        if random.below(2) == 0 {
            frame[..6].copy_from_slice(&to_mac);
            frame[12..14].copy_from_slice(&[8, 0]);
        }
        wire.send(&frame)?;
    }
    // Frames for the VIP with a few bytes changed, cut or grown.
    let kinds = [SYN, ACK, ACK | PSH, FIN | ACK, RST, SYN | ACK, SYN | PSH];
    for number in 0..FRAMES as u64 {
        let flags = kinds[random.below(kinds.len())];
        // Some on the tuple of the connection that is open, but far from its numbers: its ends ignore them
        // (RFC 5961).
        let mine = number % 8 == 0 && flags & (RST | FIN | SYN) == 0;
        let src = if mine { own } else { ghost(number) };
        let payload: Vec<u8> = (0..random.below(64)).map(|_| random.byte()).collect();
        let mut frame =
            base(src, flags).numbers(random.next() as u32, random.next() as u32).payload(&payload).bytes();
        if !mine {
            for _ in 0..=random.below(8) {
                // Not the addresses of the frame itself: it has to arrive.
                let at = 12 + random.below(frame.len() - 12);
                frame[at] = random.byte();
            }
        }
        match random.below(4) {
            0 => frame.truncate(14 + random.below(frame.len() - 14)),
            1 => frame.resize(frame.len() + random.below(1500), random.byte()),
            _ => {}
        }
        wire.send(&frame)?;
    }
    // Larger than the backends' links take.
    for number in 0..200 {
        let large = base(ghost(number), if number % 2 == 0 { SYN } else { ACK | PSH });
        wire.send(&large.payload(&vec![b'x'; 1461 + random.below(1800)]).bytes())?;
    }
    let after = drops(&site)?;
    for name in ["malformed", "martian", "flags", "no_flow"] {
        assert!(after[name] > expected[name], "{name}: {after:?} after {expected:?}");
    }
    let dropped = after.values().sum::<u64>() - expected.values().sum::<u64>();
    assert!(dropped > FRAMES as u64 / 10, "only {dropped}: {after:?}");
    // The connection that was open, and new ones.
    assert_eq!(ask(&mut stream, "GET /")?.status, 200);
    site.answers(20)?;
    assert_eq!(site.shunt.process().ended(), None);
    let log = site.shunt.log();
    assert!(!log.contains("panicked") && !log.contains("ERROR"), "{log}");
    assert_eq!(kernel_log.faults(), Vec::<String>::new());
    Ok(())
}
