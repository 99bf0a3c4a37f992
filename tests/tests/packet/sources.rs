//! The source rules of a service, and how they change.

use std::net::SocketAddr;

use lb_common::{
    abi::{Addr, FlowKey, Port},
    reason::Reason,
};
use lb_core::config::{Prefix, Sources};
use lb_tests::{
    both_families,
    frame::{ACK, SYN, Tcp},
    kernel::{Action, Family, Kernel, address, family, vip},
};
use lb_userspace::dataplane::steering::Choice;

use crate::connections::Connection;

/// Clients by the third byte of their address.
fn client(third: u8, port: u16) -> SocketAddr {
    SocketAddr::new(address([10, 1, third, 7]), port)
}

/// All clients, or those of one third byte.
fn prefix(third: Option<u8>) -> Prefix {
    let (length, third) = (third.map(|_| 24), third.unwrap_or(0));
    match family() {
        Family::V4 => Prefix { address: [10, 1, third, 0].into(), length: length.unwrap_or(16) },
        Family::V6 => {
            let address = match length {
                Some(_) => format!("2001:db8:a:1:5a:0:{third:x}:0"),
                None => "2001:db8:a:1::".to_owned(),
            };
            Prefix {
                address: address.parse().expect("an address"),
                length: if length.is_some() { 112 } else { 64 },
            }
        }
    }
}

/// The program's action for a SYN. `explain` must have said so.
fn begins(kernel: &mut Kernel, from: SocketAddr) -> bool {
    let key = FlowKey {
        src: Addr::from(from.ip()),
        dst: vip().ip().into(),
        sport: Port::new(from.port()),
        dport: Port::new(vip().port()),
    };
    let said = kernel.steering(&key, &[]).expect("it is the VIP").choice;
    let before = kernel.drops(Reason::Denied);
    let action = kernel.run(&Tcp::new(from, vip(), SYN).bytes()).0;
    let denied = kernel.drops(Reason::Denied) - before;
    assert_eq!(said == Choice::Nobody(Reason::Denied), denied == 1, "{from}: {said:?}");
    assert_eq!(action, if denied == 1 { Action::Drop } else { Action::Redirect });
    denied == 0
}

both_families!(the_longest_prefix_decides);
fn the_longest_prefix_decides() {
    let mut kernel = Kernel::new(1);
    let all = prefix(None);
    let [one, other] = [1, 2].map(|third| prefix(Some(third)));
    let mut port = 1000;
    let mut taken = |kernel: &mut Kernel| {
        port += 1;
        [1, 2, 3].map(|third| begins(kernel, client(third, port)))
    };
    // Each is a reload: the former rules count for nothing afterwards.
    for (allow, deny, wanted) in [
        (vec![], vec![], [true, true, true]),
        (vec![], vec![one], [false, true, true]),
        (vec![one], vec![], [true, false, false]),
        (vec![all], vec![one, other], [false, false, true]),
        (vec![one], vec![all], [true, false, false]),
        (vec![other], vec![one], [false, true, false]),
        (vec![], vec![all], [false, false, false]),
        (vec![], vec![], [true, true, true]),
    ] {
        let sources = Sources { allow, deny };
        kernel.sources(sources.clone());
        assert_eq!(taken(&mut kernel), wanted, "{sources:?}");
        // A step may be repeated.
        kernel.sources(sources);
        assert_eq!(taken(&mut kernel), wanted);
    }
}

both_families!(a_connection_goes_on_when_its_source_is_denied);
fn a_connection_goes_on_when_its_source_is_denied() {
    let mut kernel = Kernel::new(1);
    let connection = Connection::open(&mut kernel, 1);
    let handshake = Connection::begin(&mut kernel, 2);
    kernel.sources(Sources { allow: Vec::new(), deny: vec![prefix(None)] });
    assert_eq!(connection.send(&mut kernel, ACK, b"x"), Action::Redirect);
    assert_eq!(connection.reply(&mut kernel, ACK, b"x"), Action::Redirect);
    handshake.complete(&mut kernel);
    assert_eq!(kernel.drops(Reason::Denied), 0);
    assert_eq!(Connection::try_begin(&mut kernel, 3).err(), Some(Action::Drop));
    assert_eq!(kernel.drops(Reason::Denied), 1);
}
