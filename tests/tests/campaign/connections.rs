//! Ends of connections, windows, and segments at numbers where they do not belong.

use std::time::Duration;

use lb_tests::{
    crowd::Crowd,
    frame::{FIN, RST},
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

fn asked(crowd: &mut Crowd, request: &[u8]) {
    crowd.connect();
    crowd.say(0, request);
}

/// The server has waited for a request for long enough. Its reset answers the one that comes.
fn late_first(crowd: &mut Crowd, _: &Play<'_>) {
    crowd.connect();
    crowd.listen(IDLE);
    crowd.say(0, GET);
    crowd.listen(SHORT);
}

/// The server has closed for being idle, and the request does not acknowledge that.
fn late(crowd: &mut Crowd, _: &Play<'_>) {
    asked(crowd, GET);
    crowd.listen(SHORT);
    crowd.acknowledges = false;
    crowd.listen(IDLE);
    crowd.say(0, GET);
    crowd.listen(SHORT);
}

fn late_after_fin(crowd: &mut Crowd, _: &Play<'_>) {
    asked(crowd, GET);
    crowd.listen(SHORT + IDLE);
    crowd.say(0, GET);
    crowd.listen(SHORT);
}

/// The server's stack drops it, and owes no answer.
fn wrong_checksum(crowd: &mut Crowd, _: &Play<'_>) {
    crowd.connect();
    crowd.insert(GET, |shape| shape.wrong_checksum = true);
    crowd.listen(ANSWER);
    crowd.say(FIN, b"");
    crowd.listen(SHORT);
}

fn outside(crowd: &mut Crowd, _: &Play<'_>) {
    crowd.connect();
    crowd.insert(GET, |shape| shape.tcp.seq = shape.tcp.seq.wrapping_add(10 << 20));
    crowd.insert(GET, |shape| shape.tcp.seq = shape.tcp.seq.wrapping_sub(10 << 20));
    crowd.listen(ANSWER);
    crowd.say(RST, b"");
}

fn gap(crowd: &mut Crowd, _: &Play<'_>) {
    crowd.connect();
    crowd.insert(GET, |shape| shape.tcp.seq = shape.tcp.seq.wrapping_add(100));
    crowd.listen(ANSWER);
    crowd.say(FIN, b"");
    crowd.listen(SHORT);
}

/// Of bytes that the server has not sent.
fn acknowledges_more(crowd: &mut Crowd, _: &Play<'_>) {
    crowd.connect();
    crowd.insert(GET, |shape| shape.tcp.ack = shape.tcp.ack.wrapping_add(5000));
    crowd.listen(ANSWER);
    crowd.say(RST, b"");
}

fn again(crowd: &mut Crowd, _: &Play<'_>) {
    crowd.connect();
    crowd.insert(GET, |_| {});
    for _ in 0..4 {
        crowd.insert(GET, |_| {});
    }
    crowd.say(0, GET);
    crowd.listen(SHORT);
    // Behind the answer: old bytes, as from a client that lost every acknowledgement.
    crowd.insert(GET, |shape| shape.tcp.seq = shape.tcp.seq.wrapping_sub(GET.len() as u32));
    crowd.listen(ANSWER);
    crowd.say(FIN, b"");
    crowd.listen(SHORT);
}

/// The client asks and lets nothing in.
fn window_0(crowd: &mut Crowd, _: &Play<'_>) {
    crowd.connect();
    crowd.window = 0;
    crowd.insert(b"", |_| {});
    crowd.say(0, BIG);
    crowd.listen(ANSWER);
    crowd.say(RST, b"");
}

fn window_1(crowd: &mut Crowd, _: &Play<'_>) {
    crowd.window = 1;
    asked(crowd, BIG);
    crowd.acknowledges = false;
    crowd.listen(ANSWER);
    crowd.say(RST, b"");
}

fn half_closed(crowd: &mut Crowd, _: &Play<'_>) {
    crowd.connect();
    crowd.say(FIN, GET);
    crowd.listen(SHORT);
}

fn reset_in_the_answer(crowd: &mut Crowd, _: &Play<'_>) {
    crowd.connect();
    crowd.acknowledges = false;
    crowd.say(0, BIG);
    crowd.listen(Duration::from_millis(100));
    crowd.say(RST, b"");
    crowd.listen(SHORT);
}

/// Its FIN comes with half a head.
fn close_before(crowd: &mut Crowd, _: &Play<'_>) {
    asked(crowd, b"GET / HTTP/1.1\r\nHo");
    crowd.say(FIN, b"");
    crowd.listen(SHORT);
    crowd.say(0, b"st: x\r\n\r\n");
    crowd.listen(SHORT);
}
