//! A backend that answers 500 is out and comes up for trial. Nobody but a good answer may bring it back.

use std::time::Duration;

use lb_lab::clock;
use lb_tests::{
    crowd::Crowd,
    frame::{FIN, RST},
};

use super::attack::{Attack, Kind, Play, Sources};

pub(super) const ATTACKS: &[Attack] = &[
    Attack { name: "trials-spent-by-silent-syns", service: Kind::Bad, play: silent },
    Attack { name: "trials-spent-by-syns-that-die", service: Kind::Bad, play: dying },
    Attack { name: "trials-spent-by-handshakes", service: Kind::Bad, play: handshakes },
    Attack { name: "trials-spent-by-half-requests", service: Kind::Bad, play: half_requests },
    Attack { name: "trials-spent-by-resets", service: Kind::Bad, play: resets },
];

const PAUSE: Duration = Duration::from_millis(350);

/// Plays rounds through an ejection of 2 s and the three sweeps after which a backend without trials would return. Batches of
/// a large crowd share that time.
fn rounds(crowd: &mut Crowd, play: &Play<'_>, round: impl Fn(&mut Crowd)) {
    let time = if play.sources == Sources::Many { 4 } else { 13 };
    let end = clock::now() + Duration::from_secs(time);
    while clock::now() < end {
        round(crowd);
        crowd.begin_again();
    }
}

fn silent(crowd: &mut Crowd, play: &Play<'_>) {
    crowd.forget();
    rounds(crowd, play, |crowd| {
        crowd.syn(|_| {});
        crowd.listen(PAUSE / 5);
    });
}

fn dying(crowd: &mut Crowd, play: &Play<'_>) {
    rounds(crowd, play, |crowd| {
        crowd.syn(|shape| shape.tcp.ttl = 3);
        crowd.listen(PAUSE);
    });
}

fn handshakes(crowd: &mut Crowd, play: &Play<'_>) {
    rounds(crowd, play, |crowd| {
        crowd.connect();
        crowd.listen(PAUSE);
        crowd.say(FIN, b"");
        crowd.listen(Duration::from_millis(50));
    });
}

fn half_requests(crowd: &mut Crowd, play: &Play<'_>) {
    rounds(crowd, play, |crowd| {
        crowd.connect();
        crowd.say(0, b"GET / HTTP/1.1\r\nHost: x\r\n");
        crowd.listen(PAUSE);
        crowd.say(RST, b"");
    });
}

fn resets(crowd: &mut Crowd, play: &Play<'_>) {
    rounds(crowd, play, |crowd| {
        crowd.connect();
        crowd.say(RST, b"");
        crowd.listen(PAUSE);
    });
}
