//! Affinity: one client address, one backend.

use std::{collections::BTreeSet, net::SocketAddr, num::NonZeroU8};

use lb_core::{
    config::Mode,
    io::{Admit, BackendId},
};
use lb_tests::{
    both_families,
    frame::{ACK, SYN, Tcp},
    kernel::{Action, Family, Kernel, ServiceSettings, address, family, vip},
};

use crate::{
    explain::{explain, members},
    steering::backend_of,
};

const BACKENDS: u16 = 5;

fn sticky(bits: u8, mode: Mode) -> Kernel {
    let mut kernel = Kernel::new(BACKENDS);
    let affinity = NonZeroU8::new(bits);
    kernel.serve(ServiceSettings { affinity, mode, ..ServiceSettings::default() });
    kernel
}

/// All bits of an address.
fn whole() -> u8 {
    if family() == Family::V4 { 32 } else { 128 }
}

fn client(host: [u8; 2], port: u16) -> SocketAddr {
    SocketAddr::new(address([172, 20, host[0], host[1]]), port)
}

fn syn(kernel: &mut Kernel, client: SocketAddr) -> u16 {
    let said = explain(kernel, client, &members(0..BACKENDS)).choice.backend();
    let (action, out) = kernel.run(&Tcp::new(client, vip(), SYN).bytes());
    assert_eq!(action, Action::Redirect);
    assert_eq!(said, Some(BackendId(backend_of(&out))));
    backend_of(&out)
}

both_families!(one_address_has_one_backend_and_all_backends_have_clients);
fn one_address_has_one_backend_and_all_backends_have_clients() {
    let mut kernel = sticky(whole(), Mode::Nat);
    let mut used = BTreeSet::new();
    for host in 0..60 {
        let of_host: BTreeSet<u16> =
            (0..8).map(|port| syn(&mut kernel, client([host, 1], 40_000 + port * 997))).collect();
        assert_eq!(of_host.len(), 1, "host {host}: {of_host:?}");
        used.extend(of_host);
    }
    assert_eq!(used.len(), usize::from(BACKENDS), "{used:?}");
}

both_families!(of_a_prefix_all_addresses_have_one_backend);
fn of_a_prefix_all_addresses_have_one_backend() {
    // The last byte of an address is the host in its prefix.
    let mut kernel = sticky(whole() - 8, Mode::Nat);
    let of = |kernel: &mut Kernel, prefix| -> BTreeSet<u16> {
        (1..20).map(|host| syn(kernel, client([prefix, host], 40_000 + u16::from(host)))).collect()
    };
    let all: Vec<BTreeSet<u16>> = (0..20).map(|prefix| of(&mut kernel, prefix)).collect();
    assert!(all.iter().all(|backends| backends.len() == 1), "{all:?}");
    assert!(all.iter().flatten().collect::<BTreeSet<_>>().len() > 2, "{all:?}");
}

both_families!(an_ejection_moves_its_own_clients_together_and_they_come_back);
fn an_ejection_moves_its_own_clients_together_and_they_come_back() {
    let mut kernel = sticky(whole(), Mode::Nat);
    let home: Vec<u16> = (0..60).map(|host| syn(&mut kernel, client([host, 1], 40_000))).collect();
    for swapped in [false, true] {
        kernel.admit(0, 1, Admit::None);
        if swapped {
            kernel.table(&[1, 2, 3, 4]);
        }
        for (host, before) in (0..60).zip(&home) {
            let port = 41_000 + 100 * u16::from(swapped);
            let moved: BTreeSet<u16> = (0..4)
                .map(|n| {
                    let (action, out) =
                        kernel.run(&Tcp::new(client([host, 1], port + n), vip(), SYN).bytes());
                    assert_eq!(action, Action::Redirect);
                    backend_of(&out)
                })
                .collect();
            assert_eq!(moved.len(), 1, "host {host}");
            // While the table still names it, the others stay where they are to a slot.
            assert!(*before == 0 || swapped || moved.contains(before), "host {host}: {before} to {moved:?}");
        }
    }
    kernel.admit(0, 1, Admit::All);
    kernel.table(&[0, 1, 2, 3, 4]);
    let again: Vec<u16> = (0..60).map(|host| syn(&mut kernel, client([host, 1], 42_000))).collect();
    assert_eq!(again, home);
}

both_families!(without_a_flow_segments_follow_the_same_slots);
/// In mode `dnat` a connection lives on without its flow.
fn without_a_flow_segments_follow_the_same_slots() {
    let mut kernel = sticky(whole(), Mode::Dnat);
    for host in 0..30 {
        let at = syn(&mut kernel, client([host, 1], 40_000));
        kernel.forget_connections();
        let (action, out) =
            kernel.run(&Tcp::new(client([host, 1], 40_001), vip(), ACK).numbers(5, 6).bytes());
        assert_eq!((action, backend_of(&out)), (Action::Redirect, at), "host {host}");
    }
}
