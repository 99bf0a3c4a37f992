//! The program against a model of it, on frames that nobody thought of. Needs root.
//!
//! `cargo xtask fuzz packet` runs it for as long as one likes: `SHUNT_FRAMES` is how many frames,
//! `SHUNT_SEED` which. Without a number of frames the seed is a fixed one: then a change of the program or of the model
//! decides whether the test passes, and not chance.

use std::{
    collections::{BTreeMap, BTreeSet},
    env,
    net::IpAddr,
};

use lb_common::{abi::Link, reason::Reason};
use lb_core::{
    config::{NoBackend, Prefix, Sources},
    io::{Admit, BackendId, Generation, Member, ServiceId, Step},
};
use lb_lab::clock;
use lb_tests::{
    kernel::{
        Action, ELSEWHERE, Family, Kernel, NAT_PORTS, OWN_MAC, ServiceSettings, Side, VLANS, backend_address,
        backend_mac, context, in_family, vip,
    },
    model::{Backend, Generator, Model, Rare, Service, Verdict},
    noise::Noise,
};

const FRAMES: u64 = 200_000;
const SEED: u64 = 1;
/// After so many frames every connection is forgotten, and one begins again with few.
const ROUND: u64 = 4_000;
/// After so many the counters are looked at, and somebody is admitted or ejected.
const LOOK: u64 = 500;
/// Few enough that no set of the tables is ever full.
const MAX_FLOWS: u32 = 65_536;

fn number(name: &str) -> Option<u64> {
    env::var(name).ok().map(|text| text.parse().unwrap_or_else(|_| panic!("{name} is a number")))
}

/// Of each family a service with backends, one that answers without them and one that does not.
struct World {
    kernel: Kernel,
    model: Model,
    drops: Drops,
}

impl World {
    fn new() -> Self {
        let mut kernel = Kernel::with(0, NAT_PORTS, MAX_FLOWS);
        let mut services = Vec::new();
        for (family, first) in [(Family::V4, 10), (Family::V6, 20)] {
            in_family(family, || {
                for (number, backends, silent) in [(0, 3, false), (1, 0, false), (2, 0, true)] {
                    let id = ServiceId(first + number);
                    let mut vip = vip();
                    vip.set_port(80 + number);
                    let ids: Vec<u16> = (0..backends).map(|number| first + number).collect();
                    for id in &ids {
                        let link = Link::new(backend_mac(*id), OWN_MAC);
                        kernel.next_hop_in(*id, link, ELSEWHERE, vlan_of(*id));
                    }
                    let of = |id: u16| Backend {
                        address: backend_address(id),
                        mac: backend_mac(id),
                        vlan: vlan_of(id),
                        admitted: true,
                    };
                    let backends = ids.iter().map(|id| of(*id)).collect();
                    // Some of the clients of the generator, of those who have a backend.
                    let denied = (number == 0).then(|| match family {
                        Family::V4 => (IpAddr::from([10, 1, 0, 32]), 29),
                        Family::V6 => (IpAddr::from([0x2001, 0xdb8, 1, 0, 0, 0, 0, 0x20]), 125),
                    });
                    let prefix = |(address, length)| Prefix { address, length };
                    let sources =
                        Sources { allow: Vec::new(), deny: denied.into_iter().map(prefix).collect() };
                    let service = Service { id: id.0, vip, silent, denied, backends };
                    for number in 0..ids.len() {
                        kernel.apply(&admission(&service, number));
                    }
                    let members = ids
                        .iter()
                        .map(|id| Member { id: BackendId(*id), weight: 100, address: backend_address(*id) })
                        .collect();
                    kernel.apply(&Step::Table { service: id, members });
                    kernel.serve(ServiceSettings {
                        id,
                        vip,
                        no_backend: if silent { NoBackend::Drop } else { NoBackend::Reset },
                        sources,
                        ..ServiceSettings::default()
                    });
                    services.push(service);
                }
            });
        }
        Self {
            kernel,
            model: Model::new(services, VLANS.to_vec(), OWN_MAC, NAT_PORTS),
            drops: Drops::default(),
        }
    }

    /// Nobody is ejected, or one, or all: then the table still names them, and every SYN finds out.
    fn change(&mut self, noise: &mut Noise) {
        let service = noise.below(self.model.services.len());
        let service = &mut self.model.services[service];
        let ejected = noise.below(service.backends.len() + 3);
        for number in 0..service.backends.len() {
            service.backends[number].admitted = ejected != number && ejected != service.backends.len();
            self.kernel.apply(&admission(service, number));
        }
    }

    /// Whether the counters say what was expected since the last look.
    fn look(&mut self) -> Result<(), String> {
        let counted = self.kernel.counters().drops;
        let now = counted.into_iter().map(|(id, reason, count)| ((id.0, reason), count)).collect();
        self.drops.look(now)
    }
}

/// Every second backend is in a VLAN.
fn vlan_of(id: u16) -> u16 {
    if id % 2 == 1 { VLANS[1] } else { 0 }
}

fn admission(service: &Service, number: usize) -> Step {
    let backend = &service.backends[number];
    Step::Backend {
        // As `World::new` numbers them.
        id: BackendId(service.id + number as u16),
        service: ServiceId(service.id),
        address: backend.address,
        generation: Generation(1),
        admit: if backend.admitted { Admit::All } else { Admit::None },
        flow_reset: lb_core::io::FlowReset::Never,
        count_successes: false,
        redispatch: false,
        max_connections: 0,
    }
}

/// The drops, by service and reason.
#[derive(Default)]
struct Drops {
    seen: BTreeMap<(u16, Reason), u64>,
    /// Since then, and the reasons that it may be for.
    expected: BTreeMap<(u16, BTreeSet<Reason>), u64>,
}

impl Drops {
    fn expect(&mut self, service: u16, reasons: &BTreeSet<Reason>) {
        *self.expected.entry((service, reasons.clone())).or_default() += 1;
    }

    /// Every drop is counted, once, for its service and for a reason that it may have.
    fn look(&mut self, now: BTreeMap<(u16, Reason), u64>) -> Result<(), String> {
        let expected = std::mem::take(&mut self.expected);
        let more = |key: &(u16, Reason)| now.get(key).unwrap_or(&0) - self.seen.get(key).unwrap_or(&0);
        let services: BTreeSet<u16> =
            expected.keys().map(|(id, _)| *id).chain(now.keys().map(|(id, _)| *id)).collect();
        for id in services {
            let mine = || expected.iter().filter(|((service, _), _)| *service == id);
            let all: u64 = mine().map(|(_, count)| count).sum();
            let counted: u64 = Reason::ALL.iter().map(|reason| more(&(id, *reason))).sum();
            if counted != all {
                return Err(format!("service {id}: {counted} drops counted instead of {all}"));
            }
            for reason in Reason::ALL {
                let at_most: u64 =
                    mine().filter(|((_, set), _)| set.contains(&reason)).map(|(_, count)| count).sum();
                let at_least: u64 = mine()
                    .filter(|((_, set), _)| set.len() == 1 && set.contains(&reason))
                    .map(|(_, count)| count)
                    .sum();
                let counted = more(&(id, reason));
                if !(at_least..=at_most).contains(&counted) {
                    let name = reason.name();
                    return Err(format!(
                        "service {id}: {counted} of {name} counted, of {at_least} to {at_most}"
                    ));
                }
            }
        }
        self.seen = now;
        Ok(())
    }
}

#[test]
fn the_program_does_what_the_model_says() {
    let any = || if number("SHUNT_FRAMES").is_some() { clock::now().as_nanos() as u64 } else { SEED };
    let frames = number("SHUNT_FRAMES").unwrap_or(FRAMES);
    let seed = number("SHUNT_SEED").unwrap_or_else(any);
    println!("seed {seed}: SHUNT_SEED={seed} SHUNT_FRAMES={frames} tries the same frames again");
    let mut world = World::new();
    let runner = world.kernel.runner();
    // Here both interfaces exist.
    let _side = Side::enter();
    let mut generator = Generator::new(seed);
    let mut noise = Noise::new(seed ^ 1);
    let mut out = vec![0; 4096];
    let mut became = BTreeMap::<&str, u64>::new();
    let begun = clock::now();
    for number in 0..frames {
        if number % LOOK == 0 {
            if let Err(error) = world.look() {
                panic!("seed {seed}, in the {LOOK} frames before frame {number}: {error}");
            }
            world.kernel.forget_heads();
            world.change(&mut noise);
        }
        if number % ROUND == 0 {
            world.kernel.forget_connections();
            world.model.forget();
        }
        let (frame, behind) = generator.frame(&world.model);
        let by = if behind { context(frame.len(), ELSEWHERE) } else { Vec::new() };
        let (action, length) = runner.run_in(&frame, &mut out, &by).expect("the kernel runs it");
        let verdict = match world.model.judge(&frame, behind, Action::of(action), &out[..length]) {
            Ok(verdict) => verdict,
            Err(error) => panic!("seed {seed}, frame {number}: {frame:02x?}\nmust be {error}"),
        };
        let name = match verdict {
            Verdict::Pass => "passed",
            Verdict::Drop(service, reasons) => {
                world.drops.expect(service, &reasons);
                "dropped"
            }
            Verdict::Reset(service, reasons) => {
                world.drops.expect(service, &reasons);
                "reset"
            }
            Verdict::Challenge(service, _) => {
                world.drops.expect(service, &[Reason::Ejected].into());
                "challenged"
            }
            Verdict::Begin(..) => "begun",
            Verdict::ToBackend(_) => "to a backend",
            Verdict::ToClient(_) => "to a client",
        };
        *became.entry(name).or_default() += 1;
    }
    world.look().unwrap_or_else(|error| panic!("seed {seed}, at the end: {error}"));
    assert!(world.kernel.flows().inconsistencies().is_empty());
    let (established, handshakes, resting) = world.model.census();
    let census = world.kernel.flows().counts();
    assert_eq!(
        (census.established, census.handshakes, census.time_wait),
        (established as u64, handshakes as u64, resting as u64),
        "seed {seed}"
    );
    let played = world.model.played();
    println!("{frames} frames in {:.1?}: {became:?}, {played:?}", clock::now() - begun);
    // Of each enough that it was tried at all.
    for name in ["passed", "dropped", "reset", "begun", "to a backend", "to a client"] {
        assert!(became.get(name).is_some_and(|count| count * 200 > frames), "{name}: {became:?}");
    }
    // A SYN on a living connection of a backend that is out is rare.
    assert!(became.contains_key("challenged"), "{became:?}");
    for rare in Rare::ALL {
        assert!(played.get(&rare).is_some_and(|count| count * 5_000 > frames), "{rare:?}: {played:?}");
    }
}
