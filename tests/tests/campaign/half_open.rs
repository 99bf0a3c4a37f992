//! A backend that answers 500 is out and comes up for trial. Nobody but a good answer may bring it back.

use std::time::Duration;

use lb_lab::clock;
use lb_tests::{
    frame::{FIN, RST},
    swarm::Swarm,
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
/// a large swarm share that time.
fn rounds(swarm: &mut Swarm, play: &Play<'_>, round: impl Fn(&mut Swarm)) {
    let time = if play.sources == Sources::Many { 4 } else { 13 };
    let end = clock::now() + Duration::from_secs(time);
    while clock::now() < end {
        round(swarm);
        swarm.begin_again();
    }
}

fn silent(swarm: &mut Swarm, play: &Play<'_>) {
    swarm.forget();
    rounds(swarm, play, |swarm| {
        swarm.syn(|_| {});
        swarm.listen(PAUSE / 5);
    });
}

fn dying(swarm: &mut Swarm, play: &Play<'_>) {
    rounds(swarm, play, |swarm| {
        swarm.syn(|shape| shape.tcp.ttl = 3);
        swarm.listen(PAUSE);
    });
}

fn handshakes(swarm: &mut Swarm, play: &Play<'_>) {
    rounds(swarm, play, |swarm| {
        swarm.connect();
        swarm.listen(PAUSE);
        swarm.say(FIN, b"");
        swarm.listen(Duration::from_millis(50));
    });
}

fn half_requests(swarm: &mut Swarm, play: &Play<'_>) {
    rounds(swarm, play, |swarm| {
        swarm.connect();
        swarm.say(0, b"GET / HTTP/1.1\r\nHost: x\r\n");
        swarm.listen(PAUSE);
        swarm.say(RST, b"");
    });
}

fn resets(swarm: &mut Swarm, play: &Play<'_>) {
    rounds(swarm, play, |swarm| {
        swarm.connect();
        swarm.say(RST, b"");
        swarm.listen(PAUSE);
    });
}
