//! Floods from addresses that nobody has harm no other client. `SHUNT_FLOOD` is the number of frames of each,
//! which is small unless it is set.

use std::{
    collections::VecDeque,
    env,
    sync::atomic::{AtomicU64, Ordering},
    thread,
    time::Duration,
};

use lb_common::reason::Reason;
use lb_lab::clock;
use lb_tests::{
    both_families,
    cpu::stay_on,
    frame::{ACK, IP, RST, SYN, Tcp, checksums},
    kernel::{Action, Family, Kernel, NAT_PORTS, family, vip},
    noise::Noise,
    test_run::Runner,
};

use crate::{connections::Connection, steering::client};

const BACKENDS: u16 = 10;
/// As it is when nothing is configured.
const MAX_FLOWS: u32 = 131_072;
const NEW_FLOWS: u32 = 500_000;
/// Between a SYN and the rest of its handshake.
const ROUND_TRIP: Duration = Duration::from_millis(20);
/// A handshake that takes longer, because this machine had no time for it, is one that nobody was promised:
/// an half-open handshake has some 200 ms at the most that two CPUs may begin.
const LONGEST: Duration = Duration::from_millis(100);
const LIVING: u16 = 1000;

/// Frames of a flood. Five million take a minute or two.
fn size() -> u64 {
    env::var("SHUNT_FLOOD").map_or(200_000, |text| text.parse().expect("SHUNT_FLOOD is a number"))
}

/// Segments with these flags, whose senders nobody is. `checked` gets each answer.
fn pour(runner: &Runner, family: Family, (seed, flags, count): (u64, u8, u64), checked: impl Fn(u32, &[u8])) {
    let mut noise = Noise::new(seed);
    let sample = lb_tests::kernel::in_family(family, || Tcp::new(client(0), vip(), flags).bytes());
    let mut frame = sample.clone();
    let (host, tcp) = match family {
        // Never 10, 127, or what is no host's.
        Family::V4 => (IP + 12, IP + 20),
        Family::V6 => (IP + 8 + 8, IP + 40),
    };
    let mut out = [0; 256];
    for _ in 0..count {
        let words = [noise.word().to_le_bytes(), noise.word().to_le_bytes()];
        match family {
            Family::V4 => {
                frame[host..host + 4].copy_from_slice(&words[0][..4]);
                frame[host] = 11 + frame[host] % 100;
            }
            Family::V6 => frame[host..host + 8].copy_from_slice(&words[0]),
        }
        // Source port, sequence number, acknowledgement number.
        frame[tcp..tcp + 2].copy_from_slice(&words[1][..2]);
        frame[tcp] |= 4;
        frame[tcp + 4..tcp + 8].copy_from_slice(&words[1][2..6]);
        frame[tcp + 8..tcp + 10].copy_from_slice(&words[1][6..]);
        let (action, length) = runner.run(&frame, &mut out).expect("the kernel runs it");
        checked(action, &out[..length]);
    }
}

/// Traffic during a flood.
struct Life<'a> {
    kernel: &'a mut Kernel,
    living: Vec<Connection>,
    begun: VecDeque<(Duration, Connection)>,
    next: u16,
    /// SYNs that were not sent on at once.
    repeated: u64,
    completed: u64,
    /// Took longer than [`LONGEST`].
    late: u64,
    exchanges: u64,
}

impl<'a> Life<'a> {
    fn new(kernel: &'a mut Kernel) -> Self {
        let living = (0..LIVING).map(|n| Connection::open(kernel, n)).collect();
        Self {
            kernel,
            living,
            begun: VecDeque::new(),
            next: LIVING,
            repeated: 0,
            completed: 0,
            late: 0,
            exchanges: 0,
        }
    }

    /// One living connection says something and is answered, one handshake begins, and those whose time has
    /// come complete.
    fn goes_on(&mut self) {
        let one = &self.living[self.exchanges as usize % self.living.len()];
        assert_eq!(one.send(self.kernel, ACK, b"GET / HTTP/1.1\r\n\r\n"), Action::Redirect);
        assert_eq!(one.reply(self.kernel, ACK, b"HTTP/1.1 200 OK\r\n\r\n"), Action::Redirect);
        self.exchanges += 1;
        if self.next < 60_000 {
            match Connection::try_begin(self.kernel, self.next) {
                Ok(begun) => {
                    self.begun.push_back((clock::now() + ROUND_TRIP, begun));
                    self.next += 1;
                }
                // Its client repeats it.
                Err(action) => {
                    assert_eq!(action, Action::Drop);
                    self.repeated += 1;
                }
            }
        }
        let now = clock::now();
        while self.begun.front().is_some_and(|(due, _)| *due <= now) {
            self.completes();
        }
    }

    fn completes(&mut self) {
        if let Some((due, begun)) = self.begun.pop_front() {
            if clock::now() > due + LONGEST - ROUND_TRIP {
                self.late += 1;
                return;
            }
            // It checks what becomes of each segment.
            let open = begun.complete(self.kernel);
            assert_eq!(open.send(self.kernel, ACK, b"hello"), Action::Redirect);
            assert_eq!(open.reply(self.kernel, ACK, b"world"), Action::Redirect);
            // Over, so that their number stays what it is.
            assert_eq!(open.send(self.kernel, RST | ACK, b""), Action::Redirect);
            self.completed += 1;
        }
    }

    fn ends(&mut self) {
        while !self.begun.is_empty() {
            self.completes();
        }
        for one in &self.living {
            assert_eq!(one.send(self.kernel, ACK, b"still here"), Action::Redirect);
            assert_eq!(one.reply(self.kernel, ACK, b"so am I"), Action::Redirect);
        }
    }
}

/// Both CPUs pour, while life goes on.
fn flood(life: &mut Life<'_>, flags: u8, checked: impl Fn(u32, &[u8]) + Sync) {
    let (family, runner) = (family(), life.kernel.runner());
    thread::scope(|scope| {
        let (runner, checked) = (&runner, &checked);
        let halves = [0, 1].map(|cpu| {
            scope.spawn(move || {
                stay_on(cpu);
                pour(runner, family, (1 + cpu as u64, flags, size() / 2), checked);
            })
        });
        while halves.iter().any(|half| !half.is_finished()) {
            life.goes_on();
        }
    });
    life.ends();
}

both_families!(a_flood_of_syns_harms_nobody_else);
fn a_flood_of_syns_harms_nobody_else() {
    let mut kernel = Kernel::paced(BACKENDS, NAT_PORTS, &[], MAX_FLOWS, NEW_FLOWS);
    let mut life = Life::new(&mut kernel);
    let (sent_on, dropped) = (AtomicU64::new(0), AtomicU64::new(0));
    let before = clock::now();
    flood(&mut life, SYN, |action, _| match Action::of(action) {
        Action::Redirect => _ = sent_on.fetch_add(1, Ordering::Relaxed),
        Action::Drop => _ = dropped.fetch_add(1, Ordering::Relaxed),
        other => panic!("{other:?}"),
    });
    let took = clock::now() - before;
    let Life { repeated, completed, late, exchanges, .. } = life;
    assert!(completed > late && exchanges > 0, "{completed} handshakes in time, {late} late");
    // Only the limit refuses a SYN: half-open handshakes are evicted.
    let (sent_on, dropped) = (sent_on.into_inner(), dropped.into_inner());
    // Or, rarely, that another CPU takes the place that was just chosen: who is dropped then says it again.
    let raced = kernel.drops(Reason::TableFull);
    assert!(raced <= 1 + size() / 100_000, "{raced}");
    assert_eq!(kernel.drops(Reason::SynRate) + raced, dropped + repeated);
    for reason in [Reason::NatPorts, Reason::NoFlow] {
        assert_eq!(kernel.drops(reason), 0, "{}", reason.name());
    }
    let census = kernel.flows().counts();
    assert_eq!(census.established, u64::from(LIVING));
    assert!(kernel.flows().inconsistencies().is_empty());
    println!(
        "{sent_on} SYNs sent on and {dropped} dropped in {took:.1?}, {} half-open; meanwhile {completed} handshakes \
         completed ({repeated} SYNs said again, {late} late) and {exchanges} exchanges on {LIVING} connections",
        census.handshakes
    );
}

both_families!(a_flood_of_acknowledgements_makes_no_state);
fn a_flood_of_acknowledgements_makes_no_state() {
    let mut kernel = Kernel::paced(BACKENDS, NAT_PORTS, &[], MAX_FLOWS, NEW_FLOWS);
    let mut life = Life::new(&mut kernel);
    let resets = AtomicU64::new(0);
    let longest = Tcp::new(client(0), vip(), ACK).bytes().len().max(60);
    flood(&mut life, ACK, |action, out| {
        // One answer each, no longer than what it answers, and from the VIP: nobody gains by it.
        assert_eq!(Action::of(action), Action::Tx);
        assert!(out.len() <= longest, "{}", out.len());
        if resets.fetch_add(1, Ordering::Relaxed).is_multiple_of(1000) {
            let reset = Tcp::read(out).expect("tcp");
            assert_eq!((reset.src, reset.flags, reset.payload.len()), (vip_of(&reset), RST, 0));
            assert_eq!(checksums(out), (true, true));
        }
    });
    let (completed, late, repeated) = (life.completed, life.late, life.repeated);
    assert_eq!(kernel.drops(Reason::NoFlow), resets.into_inner());
    let census = kernel.flows().counts();
    assert_eq!((census.established, census.handshakes), (u64::from(LIVING), late));
    // Those that were reset above, as far as their ports were not taken again.
    assert!(census.time_wait <= completed, "{census:?}");
    assert_eq!(repeated, kernel.drops(Reason::SynRate));
}

/// The VIP of the family of this segment: threads of a flood have no family of their own.
fn vip_of(segment: &Tcp) -> std::net::SocketAddr {
    let family = if segment.src.is_ipv4() { Family::V4 } else { Family::V6 };
    lb_tests::kernel::in_family(family, vip)
}

both_families!(connections_begin_as_fast_as_they_may);
fn connections_begin_as_fast_as_they_may() {
    const RATE: u32 = 1000;
    // More than one SYN may come at once as long as the pace allows it, see `lb-ebpf/src/program/pace.rs`.
    const BURST: u64 = 33;
    stay_on(0);
    let mut kernel = Kernel::paced(1, NAT_PORTS, &[], 4096, RATE);
    let living = Connection::open(&mut kernel, 0);
    let begun = clock::now();
    let mut admitted = Vec::new();
    for n in 1..2000 {
        match Connection::try_begin(&mut kernel, n) {
            Ok(connection) => admitted.push(connection),
            Err(action) => assert_eq!(action, Action::Drop),
        }
        // A connection that lives is not slowed down, nor is a handshake under way.
        assert_eq!(living.send(&mut kernel, ACK, b"x"), Action::Redirect);
    }
    let most = BURST + 1 + (clock::now() - begun).as_millis() as u64 * u64::from(RATE) / 1000 + 20;
    let refused = kernel.drops(Reason::SynRate);
    assert_eq!(admitted.len() as u64 + refused, 1999);
    assert!(admitted.len() as u64 >= BURST - 1, "{}", admitted.len());
    assert!(admitted.len() as u64 <= most, "{} of at most {most}", admitted.len());
    assert!(refused > 0, "this machine is too slow to try");
    for connection in admitted {
        connection.complete(&mut kernel);
    }
    assert_eq!(kernel.drops(Reason::SynRate), refused);
}
