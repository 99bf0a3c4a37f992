//! Ends of connections, windows, and segments at numbers where they do not belong.

use std::time::Duration;

use lb_tests::{
    frame::{FIN, RST},
    swarm::Swarm,
};

use super::attack::{Attack, Kind, Play};

pub(super) const ATTACKS: &[Attack] = &[
    Attack { name: "late-first-request", service: Kind::Healthy, play: late_first },
    Attack { name: "late-request", service: Kind::Healthy, play: late },
    Attack { name: "late-request-after-the-fin", service: Kind::Healthy, play: late_after_fin },
    Attack { name: "request-of-wrong-checksum", service: Kind::Healthy, play: wrong_checksum },
    Attack { name: "request-outside-the-window", service: Kind::Healthy, play: outside },
    Attack { name: "request-behind-a-gap", service: Kind::Healthy, play: gap },
    Attack { name: "request-acknowledges-more", service: Kind::Healthy, play: acknowledges_more },
    Attack { name: "request-again-and-again", service: Kind::Healthy, play: again },
    Attack { name: "window-of-0", service: Kind::Healthy, play: window_0 },
    Attack { name: "window-of-1", service: Kind::Healthy, play: window_1 },
    Attack { name: "half-closed", service: Kind::Healthy, play: half_closed },
    Attack { name: "reset-in-the-answer", service: Kind::Healthy, play: reset_in_the_answer },
    Attack { name: "close-before-the-answer", service: Kind::Healthy, play: close_before },
];

const GET: &[u8] = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n";
const BIG: &[u8] = b"GET /big HTTP/1.1\r\nHost: x\r\n\r\n";
/// The servers' own is 2 s.
const IDLE: Duration = Duration::from_millis(2300);
/// Longer than `response_timeout`.
const ANSWER: Duration = Duration::from_millis(1800);
const SHORT: Duration = Duration::from_millis(300);

fn asked(swarm: &mut Swarm, request: &[u8]) {
    swarm.connect();
    swarm.say(0, request);
}

/// The server has waited for a request for long enough. Its reset answers the one that comes.
fn late_first(swarm: &mut Swarm, _: &Play<'_>) {
    swarm.connect();
    swarm.listen(IDLE);
    swarm.say(0, GET);
    swarm.listen(SHORT);
}

/// The server has closed for being idle, and the request does not acknowledge that.
fn late(swarm: &mut Swarm, _: &Play<'_>) {
    asked(swarm, GET);
    swarm.listen(SHORT);
    swarm.acknowledges = false;
    swarm.listen(IDLE);
    swarm.say(0, GET);
    swarm.listen(SHORT);
}

fn late_after_fin(swarm: &mut Swarm, _: &Play<'_>) {
    asked(swarm, GET);
    swarm.listen(SHORT + IDLE);
    swarm.say(0, GET);
    swarm.listen(SHORT);
}

/// The server's stack drops it, and owes no answer.
fn wrong_checksum(swarm: &mut Swarm, _: &Play<'_>) {
    swarm.connect();
    swarm.insert(GET, |shape| shape.wrong_checksum = true);
    swarm.listen(ANSWER);
    swarm.say(FIN, b"");
    swarm.listen(SHORT);
}

fn outside(swarm: &mut Swarm, _: &Play<'_>) {
    swarm.connect();
    swarm.insert(GET, |shape| shape.tcp.seq = shape.tcp.seq.wrapping_add(10 << 20));
    swarm.insert(GET, |shape| shape.tcp.seq = shape.tcp.seq.wrapping_sub(10 << 20));
    swarm.listen(ANSWER);
    swarm.say(RST, b"");
}

fn gap(swarm: &mut Swarm, _: &Play<'_>) {
    swarm.connect();
    swarm.insert(GET, |shape| shape.tcp.seq = shape.tcp.seq.wrapping_add(100));
    swarm.listen(ANSWER);
    swarm.say(FIN, b"");
    swarm.listen(SHORT);
}

/// Of bytes that the server has not sent.
fn acknowledges_more(swarm: &mut Swarm, _: &Play<'_>) {
    swarm.connect();
    swarm.insert(GET, |shape| shape.tcp.ack = shape.tcp.ack.wrapping_add(5000));
    swarm.listen(ANSWER);
    swarm.say(RST, b"");
}

fn again(swarm: &mut Swarm, _: &Play<'_>) {
    swarm.connect();
    swarm.insert(GET, |_| {});
    for _ in 0..4 {
        swarm.insert(GET, |_| {});
    }
    swarm.say(0, GET);
    swarm.listen(SHORT);
    // Behind the answer: old bytes, as from a client that lost every acknowledgement.
    swarm.insert(GET, |shape| shape.tcp.seq = shape.tcp.seq.wrapping_sub(GET.len() as u32));
    swarm.listen(ANSWER);
    swarm.say(FIN, b"");
    swarm.listen(SHORT);
}

/// The client asks and lets nothing in.
fn window_0(swarm: &mut Swarm, _: &Play<'_>) {
    swarm.connect();
    swarm.window = 0;
    swarm.insert(b"", |_| {});
    swarm.say(0, BIG);
    swarm.listen(ANSWER);
    swarm.say(RST, b"");
}

fn window_1(swarm: &mut Swarm, _: &Play<'_>) {
    swarm.window = 1;
    asked(swarm, BIG);
    swarm.acknowledges = false;
    swarm.listen(ANSWER);
    swarm.say(RST, b"");
}

fn half_closed(swarm: &mut Swarm, _: &Play<'_>) {
    swarm.connect();
    swarm.say(FIN, GET);
    swarm.listen(SHORT);
}

fn reset_in_the_answer(swarm: &mut Swarm, _: &Play<'_>) {
    swarm.connect();
    swarm.acknowledges = false;
    swarm.say(0, BIG);
    swarm.listen(Duration::from_millis(100));
    swarm.say(RST, b"");
    swarm.listen(SHORT);
}

/// Its FIN comes with half a head.
fn close_before(swarm: &mut Swarm, _: &Play<'_>) {
    asked(swarm, b"GET / HTTP/1.1\r\nHo");
    swarm.say(FIN, b"");
    swarm.listen(SHORT);
    swarm.say(0, b"st: x\r\n\r\n");
    swarm.listen(SHORT);
}
