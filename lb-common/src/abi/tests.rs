mod addresses;

use core::net::IpAddr;

use super::*;

fn wide(text: &str) -> Addr {
    text.parse::<IpAddr>().expect("literal").into()
}

fn v4(text: &str) -> V4 {
    V4::narrow(&wide(text))
}

/// That no two share a bit, and each has one.
fn are_bits(flags: &[u32]) {
    let mut all = 0;
    for flag in flags {
        assert_eq!((flag.count_ones(), all & flag), (1, 0), "{flag:#x} among {flags:x?}");
        all |= flag;
    }
}

#[test]
fn flags_are_bits_of_their_own() {
    {
        use flow_state::*;
        let flags = [
            LIVE,
            ANSWERED,
            ESTABLISHED,
            CLIENT_FIN,
            CLIENT_FIN_ACKED,
            BACKEND_FIN,
            BACKEND_FIN_ACKED,
            TIME_WAIT,
            TRIAL,
            EVIDENCE,
            OPAQUE,
            SPOKEN,
            CLIENT_RESET,
            COUNTED,
            REFUSED,
        ];
        are_bits(&flags);
        let others = incarnation(u64::MAX) | in_vlan(0, 0xfff);
        assert!(flags.iter().all(|flag| flag & others == 0));
    }
    {
        use head_state::*;
        are_bits(&[
            WANTED,
            KNOWN,
            CONTINUES,
            PIPELINED,
            SERVED,
            BODY,
            UNREAD,
            CONNECTING,
            OWED,
            UNTIMED,
            EARLY,
            CLIENT_FIN_BEYOND,
            BACKEND_FIN_BEYOND,
            SYN_AGAIN,
            NARROW,
            PART,
        ]);
        assert_eq!(AWAITED, WANTED + UNREAD);
    }
    {
        use backend_flags::*;
        are_bits(&[ADMIT, TRIAL, RESET_AT_REQUEST, RESET_NOW, REDISPATCH].map(u32::from));
    }
    {
        use service_flags::*;
        let flags = [EVIDENCE, NO_BACKEND_DROP, SOURCES, SECOND_SET, LISTED_ONLY, DNAT, REDISPATCH];
        let limits = [LIMITED, OVERFLOW_DROP, OVERFLOW_QUEUE];
        are_bits(&flags.iter().chain(&limits).map(|flag| u32::from(*flag)).collect::<Vec<_>>());
    }
    {
        use record_flags::*;
        are_bits(&[CONTINUES, UNFINISHED, PIPELINED, TRIAL, LATE].map(u32::from));
    }
    are_bits(&[port_flags::VIP, port_flags::NAT, port_flags::DNAT].map(u32::from));
}

#[test]
fn the_vlan_and_the_incarnation_lie_beside_the_state() {
    use flow_state::*;
    let incarnations: std::collections::BTreeSet<u32> =
        (0..32).map(|step| incarnation(step << 24 | 0xff_ffff)).collect();
    assert_eq!(incarnations.len(), 32, "all of five bits");
    assert_eq!(incarnation(32 << 24), incarnation(0));
    for state in [0, LIVE | REFUSED, u32::MAX] {
        for id in [0, 1, 0x800, 0xfff] {
            let there = in_vlan(state, id);
            assert_eq!(vlan(there), id);
            assert_eq!(in_vlan(there, 0), in_vlan(state, 0), "nothing else changes");
        }
    }
    assert_eq!(in_vlan(incarnation(u64::MAX) | LIVE, 5) & !(0xfff << 16), incarnation(u64::MAX) | LIVE);
}

#[test]
fn what_a_flow_says_of_itself() {
    let flow = |state, head| Flow::<V4> { state, head, ..Flow::default() };
    assert!(flow(flow_state::LIVE, 0).is_live() && !flow(flow_state::ANSWERED, 0).is_live());
    let (client, backend) = (flow_state::CLIENT_FIN, flow_state::BACKEND_FIN);
    let (client_beyond, backend_beyond) = (head_state::CLIENT_FIN_BEYOND, head_state::BACKEND_FIN_BEYOND);
    for (state, head, closes) in [
        (0, 0, (false, false)),
        (client, 0, (true, false)),
        (0, client_beyond, (true, false)),
        (backend, 0, (false, true)),
        (0, backend_beyond, (false, true)),
        (client | backend, client_beyond | backend_beyond, (true, true)),
        (!client & !backend, !client_beyond & !backend_beyond, (false, false)),
    ] {
        let flow = flow(state, head);
        assert_eq!((flow.client_closes(), flow.backend_closes()), closes, "{state:#x} {head:#x}");
    }
    let mut flow = flow(0, 0);
    flow.client.src = V4(1);
    assert!(!flow.is_preserved());
    flow.reply.dst = V4(1);
    assert!(flow.is_preserved());
}

/// The backend may have acknowledged what the program has not seen, and the numbers begin again at zero.
#[test]
fn the_clients_next_number() {
    for client_end in [1000, 0, u32::MAX] {
        let flow = |acked: u32| Flow::<V4> { acked, client_end, ..Flow::default() };
        let [behind, ahead] = [client_end.wrapping_sub(1), client_end.wrapping_add(1)];
        let all = [behind, client_end, ahead].map(|acked| flow(acked).backend_has_all());
        assert_eq!(all, [false, true, true], "{client_end}");
        let next = [behind, client_end, ahead].map(|acked| flow(acked).client_next());
        assert_eq!(next, [client_end, client_end, ahead], "{client_end}");
    }
}

#[test]
fn crowds_of_both_families_are_distinct() {
    let four = CrowdKey::new(&v4("192.0.2.1"), 7);
    assert_eq!(four, CrowdKey { prefix: v4("192.0.2.9").prefix(), backend: 7, v6: 0, zero: 0 });
    let six = CrowdKey::new(&wide("2001:db8:1::1"), 7);
    assert_eq!(six, CrowdKey { prefix: wide("2001:db8:1::9").prefix(), backend: 7, v6: 1, zero: 0 });
}

#[test]
fn an_own_address_leads_by_its_ways() {
    let mut own = OwnAddr::default();
    assert!(own.is_vip());
    own.ways[0] = OwnWay { ifindex: 3, vlan: 0, zero: 0 };
    own.ways[1] = OwnWay { ifindex: 4, vlan: 9, zero: 0 };
    assert!(!own.is_vip());
    for (ifindex, vlan, leads) in
        [(3, 0, true), (4, 9, true), (3, 9, false), (4, 0, false), (5, 0, false), (5, 9, false)]
    {
        assert_eq!(own.leads_by(ifindex, vlan), leads, "{ifindex} {vlan}");
    }
}

#[test]
fn the_usual_address_of_each_interface() {
    let mac = |ifindex, last| OwnMac::new(ifindex, [2, 0, 0, 0, 0, last]);
    let usual = UsualMacs::of([mac(3, 1), mac(70, 2)]);
    // The bytes behind the address in a frame do not matter.
    let first = |last, noise| u64::from_ne_bytes([2, 0, 0, 0, 0, last, noise, noise]);
    for noise in [0, 0xff] {
        assert_eq!(UsualMacs::entry(first(1, noise), 3), usual.0[3]);
        assert_eq!(UsualMacs::entry(first(2, noise), 70), usual.0[6]);
        assert_ne!(UsualMacs::entry(first(2, noise), 3), usual.0[3], "another address");
        assert_ne!(UsualMacs::entry(first(1, noise), 67), usual.0[3], "an interface of the same place");
        assert_ne!(UsualMacs::entry(first(1, noise), 3 + 64 * 0x100), usual.0[3]);
    }
    assert_eq!(UsualMacs::place(67), 3);
    assert_ne!(UsualMacs::entry(u64::MAX, 3), UsualMacs::NONE.0[3], "a broadcast is nobody's");
    assert_eq!(UsualMacs::entry(first(1, 0), 64 << 16), UsualMacs::entry(first(1, 0), 0));
    assert!((0..64).filter(|at| *at != 3 && *at != 6).all(|at| usual.0[at] == u64::MAX));
}

#[test]
fn both_counts_of_a_limit_are_in_one_word() {
    let word = |connections: i64, handshakes: i64| {
        (handshakes as u64).wrapping_mul(Limit::HANDSHAKE).wrapping_add(connections as u64)
    };
    for (connections, handshakes) in [(0, 0), (1, 0), (5, 3), (-1, 0), (-1, 2), (i32::MAX.into(), 7)] {
        let open = word(connections, handshakes);
        let found = (Limit::connections(open), Limit::handshakes(open));
        assert_eq!(found, (connections as i32, handshakes as i32), "{open:#x}");
    }
    assert_eq!(Limit::part(flow_state::LIVE), word(1, 1));
    assert_eq!(Limit::part(flow_state::LIVE | flow_state::ESTABLISHED), word(1, 0));
    assert_eq!(Limit::of_service(0), crate::MAX_BACKENDS);
    assert_eq!(Limit::of_service(crate::MAX_SERVICES as u16 - 1), Limit::ENTRIES - 1);
}

#[test]
fn an_address_is_masked_to_its_first_bits() {
    for (address, bits, masked) in [
        ("192.0.2.129", 32, "192.0.2.129"),
        ("192.0.2.129", 25, "192.0.2.128"),
        ("192.0.2.129", 24, "192.0.2.0"),
        ("192.0.2.129", 1, "128.0.0.0"),
        ("192.0.2.129", 0, "0.0.0.0"),
    ] {
        assert_eq!(v4(address).masked(bits), v4(masked), "{address}/{bits}");
    }
    for (bits, masked) in [
        (128, "2001:db8:8000:ffff::ffff:1"),
        (127, "2001:db8:8000:ffff::ffff:0"),
        (96, "2001:db8:8000:ffff::"),
        (64, "2001:db8:8000:ffff::"),
        (49, "2001:db8:8000:8000::"),
        (33, "2001:db8:8000::"),
        (32, "2001:db8::"),
        (3, "2000::"),
    ] {
        assert_eq!(wide("2001:db8:8000:ffff::ffff:1").masked(bits), wide(masked), "/{bits}");
    }
}

#[test]
fn kinds_of_exchanges_are_their_numbers() {
    for kind in ExchangeKind::ALL {
        assert_eq!(ExchangeKind::of(kind as u16), Some(kind));
    }
    assert_eq!(ExchangeKind::of(ExchangeKind::ALL.len() as u16), None);
    // SAFETY: integers, of which zero is one.
    let mut record: ExchangeRecord = unsafe { core::mem::zeroed() };
    assert_eq!(record.kind(), Some(ExchangeKind::Head));
    record.kind = 9;
    assert_eq!(record.kind(), None);
}
