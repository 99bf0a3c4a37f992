//! Frames that the program answers with a reset.

use std::net::SocketAddr;

use lb_common::reason::Reason;
use lb_tests::{
    frame::{ACK, ECE, FIN, PSH, SYN, Tcp, URG},
    kernel::vip,
};

use super::{
    edit::padded,
    forwarded::{FULL, SACK, STAMPS},
    harness::{Case, Outcome, Stage},
    world::{EMPTY, Size, World},
};

fn unknown(name: &'static str, frames: fn(&World) -> Vec<Vec<u8>>) -> Case {
    Case::all(name, Stage::Nothing, Outcome::Reset(Reason::NoFlow, 80), frames)
}

fn nobody(name: &'static str, frames: fn(&World) -> Vec<Vec<u8>>) -> Case {
    Case::all(name, Stage::Nothing, Outcome::Reset(Reason::NoBackend, EMPTY), frames)
}

fn syn(w: &World) -> Tcp {
    w.segment(w.client(), SocketAddr::new(vip().ip(), EMPTY), SYN)
}

pub(crate) fn cases() -> Vec<Case> {
    vec![
        unknown("an acknowledgement of no connection", |w| vec![w.sent(ACK).bytes()]),
        unknown("data of no connection", |w| vec![w.sent(ACK | PSH).bytes()]),
        unknown("an end of no connection", |w| vec![w.sent(ACK | FIN).bytes()]),
        unknown("a SYN-ACK of no connection", |w| vec![w.sent(SYN | ACK).bytes()]),
        unknown("urgent data of no connection", |w| vec![Tcp { urgent: 1, ..w.sent(ACK | URG) }.bytes()]),
        unknown("with time stamps", |w| vec![Tcp { options: STAMPS.to_vec(), ..w.sent(ACK) }.bytes()]),
        unknown("with a selective acknowledgement", |w| {
            vec![Tcp { options: SACK.to_vec(), ..w.sent(ACK) }.bytes()]
        }),
        unknown("with forty bytes of options", |w| {
            vec![Tcp { options: FULL.to_vec(), ..w.sent(ACK) }.bytes()]
        }),
        unknown("DSCP and congestion marks are not answered alike", |w| {
            vec![Tcp { tos: 0xbb, ..w.sent(ACK | ECE) }.bytes()]
        }),
        unknown("acknowledgement number 0", |w| vec![w.sent(ACK).numbers(5, 0).bytes()]),
        unknown("the last numbers", |w| vec![w.sent(ACK).numbers(u32::MAX, u32::MAX).bytes()]),
        unknown("TTL 2", |w| vec![Tcp { ttl: 2, ..w.sent(ACK) }.bytes()]),
        unknown("a padded frame", |w| [60, 61, 64, 80, 100].map(|length| padded(w.sent(ACK), length)).into()),
        unknown("a backend's acknowledgement from far away", |w| {
            let from = SocketAddr::new(w.client().ip(), 8080);
            vec![w.segment(from, vip(), ACK).numbers(1, 2).bytes()]
        }),
        nobody("nobody serves", |w| vec![syn(w).bytes()]),
        nobody("nobody serves a SYN with options", |w| {
            vec![Tcp { options: FULL.to_vec(), ..syn(w) }.bytes()]
        }),
        nobody("nobody serves at the last number", |w| vec![Tcp { seq: u32::MAX, ..syn(w) }.bytes()]),
        nobody("nobody serves a SYN that is padded", |w| vec![padded(syn(w), 64)]),
        nobody("payloads of every length up to 64", |w| {
            (0..=64).map(|length| syn(w).payload(&vec![0x11; length]).bytes()).collect()
        })
        .sizes(&[Size::Odd]),
    ]
}
