//! Headers that may lie between an IPv6 header and TCP.

use lb_common::reason::Reason;
use lb_tests::frame::{ACK, PSH, SYN};

use super::{
    edit::extended,
    harness::{Case, Outcome, Stage},
    world::World,
};

/// Types, and content without its first two bytes.
const HOPS: (u8, &[u8]) = (0, &[1, 4, 0, 0, 0, 0]);
const OPTIONS: (u8, &[u8]) = (60, &[1, 4, 0, 0, 0, 0]);
const LONG: (u8, &[u8]) = (60, &[0; 262]);
const LONGEST: (u8, &[u8]) = (60, &[0; 2046]);
/// A type of routing, no segments left, and no address.
const ARRIVED: (u8, &[u8]) = (43, &[0, 0, 0, 0, 0, 0]);
const SEGMENTS: (u8, &[u8]) = (43, &[4, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 9]);
const ON_ITS_WAY: (u8, &[u8]) = (43, &[4, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 9]);
const WHOLE: (u8, &[u8]) = (44, &[0, 0, 0, 0, 0, 5]);
const FIRST: (u8, &[u8]) = (44, &[0, 1, 0, 0, 0, 5]);
const LATER: (u8, &[u8]) = (44, &[0, 9, 0, 0, 0, 5]);
const LAST: (u8, &[u8]) = (44, &[0, 8, 0, 0, 0, 5]);

fn case(name: &'static str, outcome: Outcome, frames: fn(&World) -> Vec<Vec<u8>>) -> Case {
    Case::all(name, Stage::Nothing, outcome, frames).v6()
}

fn of_connection(name: &'static str, outcome: Outcome, frames: fn(&World) -> Vec<Vec<u8>>) -> Case {
    Case::all(name, Stage::Established, outcome, frames).v6()
}

fn syn(w: &World, extensions: &[(u8, &[u8])]) -> Vec<Vec<u8>> {
    vec![extended(w.syn(), extensions)]
}

pub(crate) fn cases() -> Vec<Case> {
    use Outcome::{Begins, Drop, Pass, Reset, ToBackend, ToClient};
    const OTHER: Outcome = Drop(Reason::IpOptions, 80);
    const FRAGMENT: Outcome = Drop(Reason::Fragment, 80);
    vec![
        case("hop-by-hop options", Begins, |w| syn(w, &[HOPS])),
        case("destination options", Begins, |w| syn(w, &[OPTIONS])),
        case("long options", Begins, |w| syn(w, &[LONG])),
        case("the longest options", Begins, |w| syn(w, &[LONGEST])),
        case("twice long options", Begins, |w| syn(w, &[LONG, LONG])),
        case("a routing header without segments left", Begins, |w| syn(w, &[ARRIVED])),
        case("a segment routing header without segments left", Begins, |w| syn(w, &[SEGMENTS])),
        case("hop-by-hop and destination options", Begins, |w| syn(w, &[HOPS, OPTIONS])),
        case("hop-by-hop options and a routing header", Begins, |w| syn(w, &[HOPS, ARRIVED])),
        case("a routing header and destination options", Begins, |w| syn(w, &[SEGMENTS, OPTIONS])),
        of_connection("one on a connection", ToBackend, |w| vec![extended(w.sent(ACK), &[HOPS])]),
        of_connection("two on a connection", ToBackend, |w| vec![extended(w.sent(ACK | PSH), &[HOPS, LONG])]),
        of_connection("one on a reply", ToClient, |w| vec![extended(w.answered(ACK), &[OPTIONS])]),
        of_connection("two on a reply", ToClient, |w| vec![extended(w.answered(ACK), &[LONG, OPTIONS])]),
        case("three", OTHER, |w| syn(w, &[HOPS, ARRIVED, OPTIONS])),
        case("four", OTHER, |w| syn(w, &[OPTIONS; 4])),
        case("six", OTHER, |w| syn(w, &[OPTIONS; 6])),
        case("more than anybody looks behind", Pass, |w| syn(w, &[OPTIONS; 7])),
        case("segments left", OTHER, |w| syn(w, &[ON_ITS_WAY])),
        case("segments left behind options", OTHER, |w| syn(w, &[HOPS, ON_ITS_WAY])),
        of_connection("three on a connection", OTHER, |w| vec![extended(w.sent(ACK), &[OPTIONS; 3])]),
        of_connection("three on a reply", OTHER, |w| vec![extended(w.answered(ACK), &[OPTIONS; 3])]),
        case("a fragment that is whole", FRAGMENT, |w| syn(w, &[WHOLE])),
        case("the first fragment", FRAGMENT, |w| syn(w, &[FIRST])),
        case("the first fragment behind options", FRAGMENT, |w| syn(w, &[HOPS, FIRST])),
        case("the first fragment before options", FRAGMENT, |w| syn(w, &[FIRST, OPTIONS])),
        case("a later fragment, which says no port", Pass, |w| syn(w, &[LATER])),
        case("the last fragment", Pass, |w| syn(w, &[LAST])),
        case("a later fragment behind options", Pass, |w| syn(w, &[HOPS, LATER])),
        case("an extension header that is cut", Pass, |w| {
            let frame = extended(w.syn(), &[LONG]);
            let begin = if w.tag.is_some() { 58 } else { 54 };
            (begin..begin + 264).step_by(11).map(|length| frame[..length].to_vec()).collect()
        }),
        case("a reset has none", Reset(Reason::NoFlow, 80), |w| {
            vec![extended(w.sent(ACK), &[HOPS, OPTIONS])]
        }),
        case("nonsense behind options", Drop(Reason::Flags, 80), |w| {
            let mut tcp = w.syn();
            tcp.flags = SYN | 1;
            vec![extended(tcp, &[HOPS])]
        }),
    ]
}
