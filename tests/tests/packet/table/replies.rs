//! Frames that go back to a client.

use lb_tests::frame::{ACK, CWR, ECE, FIN, PSH, RST, SYN, Tcp, URG};

use super::{
    edit::{padded, summed, with, with_tcp, zero_sum},
    forwarded::{FULL, SACK, STAMPS},
    harness::{Case, Outcome, Stage},
    world::{Size, World},
};

fn comes(name: &'static str, frames: fn(&World) -> Vec<Vec<u8>>) -> Case {
    Case::all(name, Stage::Established, Outcome::ToClient, frames)
}

fn early(name: &'static str, frames: fn(&World) -> Vec<Vec<u8>>) -> Case {
    Case::all(name, Stage::Begun, Outcome::ToClient, frames)
}

pub(crate) fn cases() -> Vec<Case> {
    vec![
        early("the answer to a SYN", |w| vec![w.answered(SYN | ACK).bytes()]),
        early("the same with options", |w| {
            vec![Tcp { options: FULL.to_vec(), ..w.answered(SYN | ACK) }.bytes()]
        }),
        early("the same with ECN", |w| vec![w.answered(SYN | ACK | ECE).bytes()]),
        early("a refusal", |w| vec![w.answered(RST | ACK).bytes()]),
        early("a challenge to a SYN", |w| vec![w.answered(ACK).numbers(77, 78).bytes()]),
        comes("an acknowledgement of a backend", |w| vec![w.answered(ACK).bytes()]),
        comes("data of a backend", |w| vec![w.answered(ACK | PSH).bytes()]),
        comes("data with time stamps", |w| vec![Tcp { options: STAMPS.to_vec(), ..w.answered(ACK) }.bytes()]),
        comes("a selective acknowledgement", |w| {
            vec![Tcp { options: SACK.to_vec(), ..w.answered(ACK) }.bytes()]
        }),
        comes("urgent data", |w| vec![Tcp { urgent: 9, ..w.answered(ACK | URG) }.bytes()]),
        comes("a mark of congestion, and its echo", |w| {
            vec![Tcp { tos: 3, ..w.answered(ACK | ECE | CWR) }.bytes()]
        }),
        comes("every DSCP and ECN", |w| {
            (0..=255).step_by(3).map(|tos| Tcp { tos, ..w.answered(ACK) }.bytes()).collect()
        })
        .sizes(&[Size::Odd]),
        comes("the backend's end", |w| vec![w.answered(ACK | FIN).bytes()]),
        comes("a reset of a backend", |w| vec![w.answered(RST).bytes()]),
        comes("a repeated SYN-ACK", |w| vec![w.answered(SYN | ACK).bytes()]),
        comes("TTL 2", |w| vec![Tcp { ttl: 2, ..w.answered(ACK) }.bytes()]),
        comes("TTL 255", |w| vec![Tcp { ttl: 255, ..w.answered(ACK) }.bytes()]),
        comes("window 0", |w| vec![with_tcp(w.answered(ACK), &[(14, 0), (15, 0)])]),
        comes("a flow label", |w| vec![with(w.answered(ACK), &[(1, 0x0b), (2, 0xad), (3, 0xee)])]).v6(),
        comes("a frame that is padded to 60 bytes", |w| vec![padded(w.answered(ACK), 60)]),
        comes("a wrong checksum", |w| vec![summed(w.answered(ACK), 0x1234)]),
        comes("checksum 0 where that is wrong", |w| vec![summed(w.answered(ACK), 0)]),
        comes("checksum 0xffff where that is wrong", |w| vec![summed(w.answered(ACK), 0xffff)]),
        comes("a right checksum of 0", |w| vec![summed(zero_sum(w.answered(ACK)), 0)]),
        comes("the same written as 0xffff", |w| vec![summed(zero_sum(w.answered(ACK)), 0xffff)]),
        comes("a wrong IPv4 checksum", |w| vec![with(w.answered(ACK), &[(10, 0x55), (11, 0xaa)])]).v4(),
        comes("payloads of every length up to 64", |w| {
            (0..=64).map(|length| w.answered(ACK).payload(&vec![0x5a; length]).bytes()).collect()
        })
        .sizes(&[Size::Odd]),
    ]
}
