//! Frames with a tag, and those that get one on their way.

use lb_common::reason::Reason;
use lb_tests::{
    frame::{ACK, FIN, SYN, Tcp},
    kernel::vip,
};

use super::{
    harness::{Case, Outcome, Stage},
    world::{Size, World},
};

const UNTAGGED: &[Option<u16>] = &[None];
const IN_10: &[Option<u16>] = &[Some(0xa00a)];
const LOOKED_AT: &[Option<u16>] = &[Some(10), Some(20), Some(0xe014), Some(0x300a), Some(0x100a)];
/// Another id, and the one that is reserved.
const OTHERS: &[Option<u16>] = &[Some(11), Some(30), Some(0xa01e), Some(0x0fff), Some(4094)];
/// The id that names no VLAN: the tag only gives a priority.
const PRIORITIES: &[Option<u16>] = &[Some(0), Some(0xe000), Some(0x1000), Some(0x2000)];

fn case(
    name: &'static str,
    tags: &'static [Option<u16>],
    stage: Stage,
    outcome: Outcome,
    frames: fn(&World) -> Vec<Vec<u8>>,
) -> Case {
    Case::all(name, stage, outcome, frames).tags(tags)
}

fn syn(w: &World) -> Vec<Vec<u8>> {
    vec![w.syn().bytes()]
}

/// A SYN for the VIP with these words between its link addresses and its own type.
fn tagged(w: &World, words: &[u16]) -> Vec<Vec<u8>> {
    let mut frame = Tcp { vlan: None, ..w.syn() }.bytes();
    frame.splice(12..12, words.iter().flat_map(|word| word.to_be_bytes()));
    vec![frame]
}

/// A reply that comes in another VLAN than its request went.
fn answered_in(w: &World, vlan: Option<u16>) -> Vec<Vec<u8>> {
    vec![Tcp { vlan, ..w.answered(ACK) }.bytes()]
}

pub(crate) fn cases() -> Vec<Case> {
    use Outcome::{Begins, Drop, Pass, Reset, ToBackend, ToClient};
    use Stage::{Established, Nothing};
    let plain = UNTAGGED;
    vec![
        case("a VLAN that is looked at", LOOKED_AT, Nothing, Begins, syn),
        case("a VLAN that is not looked at", OTHERS, Nothing, Pass, syn),
        case("every other VLAN", plain, Nothing, Pass, |w| {
            (1..4096u16).filter(|id| ![10, 20].contains(id)).flat_map(|id| tagged(w, &[0x8100, id])).collect()
        })
        .sizes(&[Size::Least]),
        case("a priority", PRIORITIES, Nothing, Begins, syn),
        case("a connection with a priority", PRIORITIES, Established, ToBackend, |w| {
            vec![w.sent(ACK).bytes()]
        }),
        case("replies with a priority", PRIORITIES, Established, ToClient, |w| vec![w.answered(ACK).bytes()]),
        case("replies without the client's priority", PRIORITIES, Established, ToClient, |w| {
            answered_in(w, None)
        }),
        case("further on without the priority of the SYN", PRIORITIES, Established, ToBackend, |w| {
            vec![Tcp { vlan: None, ..w.sent(ACK) }.bytes()]
        }),
        case("a priority, the backends in a VLAN", PRIORITIES, Nothing, Begins, syn).way(20),
        case("from a VLAN with a priority to a priority", PRIORITIES, Established, ToClient, |w| {
            answered_in(w, Some(0xc014))
        })
        .way(20),
        case("from a priority to a VLAN", IN_10, Established, ToClient, |w| answered_in(w, Some(0xc000)))
            .way(0),
        case("a reset keeps the priority", PRIORITIES, Nothing, Reset(Reason::NoFlow, 80), |w| {
            vec![w.sent(ACK).bytes()]
        }),
        case("nonsense with a priority", PRIORITIES, Nothing, Drop(Reason::Flags, 80), |w| {
            vec![Tcp { flags: 0, ..w.syn() }.bytes()]
        }),
        case("a priority for another port", PRIORITIES, Nothing, Pass, |w| {
            let mut other = vip();
            other.set_port(79);
            vec![w.segment(w.client(), other, SYN).bytes()]
        }),
        case("a priority and a tag", plain, Nothing, Pass, |w| tagged(w, &[0x8100, 0, 0x8100, 10])),
        case("a tag and a priority", plain, Nothing, Pass, |w| tagged(w, &[0x8100, 10, 0x8100, 0])),
        case("two tags", plain, Nothing, Pass, |w| tagged(w, &[0x8100, 10, 0x8100, 10])),
        case("two tags, the inner one looked at", plain, Nothing, Pass, |w| {
            tagged(w, &[0x8100, 30, 0x8100, 10])
        }),
        case("QinQ", plain, Nothing, Pass, |w| tagged(w, &[0x88a8, 10, 0x8100, 10])),
        case("QinQ of the old type", plain, Nothing, Pass, |w| tagged(w, &[0x9100, 10, 0x8100, 10])),
        case("a tag of a provider alone", plain, Nothing, Pass, |w| tagged(w, &[0x88a8, 10])),
        case("a provider's tag inside", plain, Nothing, Pass, |w| tagged(w, &[0x8100, 10, 0x88a8, 10])),
        case("three tags", plain, Nothing, Pass, |w| tagged(w, &[0x8100, 10, 0x8100, 20, 0x8100, 10])),
        case("a tag and no more", plain, Nothing, Pass, |w| {
            let frame = tagged(w, &[0x8100, 10]).remove(0);
            (14..=18).map(|length| frame[..length].to_vec()).collect()
        }),
        case("a connection in a VLAN", LOOKED_AT, Established, ToBackend, |w| vec![w.sent(ACK).bytes()]),
        case("its replies", LOOKED_AT, Established, ToClient, |w| vec![w.answered(ACK).bytes()]),
        case("its end", IN_10, Established, ToBackend, |w| vec![w.sent(ACK | FIN).bytes()]),
        case("in one VLAN, the backends in another", IN_10, Nothing, Begins, syn).way(20),
        case("further on from one VLAN to another", IN_10, Established, ToBackend, |w| {
            vec![w.sent(ACK).bytes()]
        })
        .way(20),
        case("back from one VLAN to another", IN_10, Established, ToClient, |w| answered_in(w, Some(20)))
            .way(20),
        case("back with a priority", IN_10, Established, ToClient, |w| answered_in(w, Some(0xc014))).way(20),
        case("in a VLAN, the backends in none", IN_10, Nothing, Begins, syn).way(0),
        case("further on from a VLAN to none", IN_10, Established, ToBackend, |w| vec![w.sent(ACK).bytes()])
            .way(0),
        case("back from none to a VLAN", IN_10, Established, ToClient, |w| answered_in(w, None)).way(0),
        case("in none, the backends in a VLAN", plain, Nothing, Begins, syn).way(20),
        case("further on from none to a VLAN", plain, Established, ToBackend, |w| vec![w.sent(ACK).bytes()])
            .way(20),
        case("back from a VLAN to none", plain, Established, ToClient, |w| answered_in(w, Some(20))).way(20),
        case("back from a VLAN with a priority to none", plain, Established, ToClient, |w| {
            answered_in(w, Some(0xe014))
        })
        .way(20),
        case("a client that goes on in another VLAN", IN_10, Established, ToBackend, |w| {
            vec![Tcp { vlan: Some(20), ..w.sent(ACK) }.bytes()]
        }),
        case("a client that goes on without a tag", IN_10, Established, ToBackend, |w| {
            vec![Tcp { vlan: None, ..w.sent(ACK) }.bytes()]
        }),
        case("a reset keeps the tag", LOOKED_AT, Nothing, Reset(Reason::NoFlow, 80), |w| {
            vec![w.sent(ACK).bytes()]
        }),
        case("a connection's segment in a VLAN that is not looked at", IN_10, Established, Pass, |w| {
            vec![Tcp { vlan: Some(30), ..w.sent(ACK) }.bytes()]
        }),
        case("nonsense in a VLAN", LOOKED_AT, Nothing, Drop(Reason::Flags, 80), |w| {
            vec![Tcp { flags: 0, ..w.syn() }.bytes()]
        }),
        case("TTL 1 in a VLAN", LOOKED_AT, Nothing, Drop(Reason::Ttl, 80), |w| {
            vec![Tcp { ttl: 1, flags: SYN, ..w.syn() }.bytes()]
        }),
    ]
}
