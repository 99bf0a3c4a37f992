//! Requests that are not whole, that are no requests of HTTP/1, and that a healthy server refuses with 5xx.

use std::time::Duration;

use lb_tests::{frame::FIN, swarm::Swarm};

use super::attack::{Attack, Kind, Play};

pub(super) const ATTACKS: &[Attack] = &[
    Attack { name: "withheld-body-of-post", service: Kind::Healthy, play: post },
    Attack { name: "withheld-body-of-get", service: Kind::Healthy, play: get },
    Attack { name: "withheld-body-of-delete", service: Kind::Healthy, play: delete },
    Attack { name: "withheld-head", service: Kind::Healthy, play: head },
    Attack { name: "withheld-head-with-p", service: Kind::Healthy, play: head_with_p },
    Attack { name: "chunks-without-end", service: Kind::Healthy, play: chunks },
    Attack { name: "expect-and-no-body", service: Kind::Healthy, play: expect },
    Attack { name: "tls-hello-in-two", service: Kind::Tls, play: tls_in_two },
    Attack { name: "tls-hello-cut", service: Kind::Tls, play: tls_cut },
    Attack { name: "http2-preface-alone", service: Kind::Healthy, play: http2 },
    Attack { name: "proxy-line", service: Kind::Healthy, play: proxy_line },
    Attack { name: "proxy-version-2", service: Kind::Healthy, play: proxy_2 },
    Attack { name: "pipelined", service: Kind::Healthy, play: pipelined },
    Attack { name: "status-505", service: Kind::Healthy, play: http_2_0 },
    Attack { name: "status-501", service: Kind::Healthy, play: coding },
];

/// The servers wait 2 s for the rest of a request.
const SERVER: Duration = Duration::from_millis(2600);
const SHORT: Duration = Duration::from_millis(300);

/// Sends this and waits until the server has had enough.
fn withhold(swarm: &mut Swarm, parts: &[&[u8]]) {
    swarm.connect();
    for part in parts {
        swarm.say(0, part);
        swarm.listen(Duration::from_millis(60));
    }
    swarm.listen(SERVER);
    swarm.say(FIN, b"");
    swarm.listen(SHORT);
}

fn post(swarm: &mut Swarm, _: &Play<'_>) {
    withhold(swarm, &[b"POST /up HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n"]);
}

fn get(swarm: &mut Swarm, _: &Play<'_>) {
    withhold(swarm, &[b"GET /up HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n"]);
}

fn delete(swarm: &mut Swarm, _: &Play<'_>) {
    withhold(swarm, &[b"DELETE /up HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n", b"half"]);
}

fn head(swarm: &mut Swarm, _: &Play<'_>) {
    withhold(swarm, &[b"GET / HTTP/1.1\r\nHost: x\r\n"]);
}

fn head_with_p(swarm: &mut Swarm, _: &Play<'_>) {
    withhold(swarm, &[b"PATCH / HTTP/1.1\r\nHost: x\r\n", b"Content-Length: 5\r\n"]);
}

fn chunks(swarm: &mut Swarm, _: &Play<'_>) {
    let first = b"POST /up HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n";
    withhold(swarm, &[first, b"5\r\nhello\r\n", b"5\r\nwor"]);
}

fn expect(swarm: &mut Swarm, _: &Play<'_>) {
    withhold(swarm, &[b"PUT /up HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 100\r\n\r\n"]);
}

/// The hello stands in two records, and the second one never comes.
fn tls_in_two(swarm: &mut Swarm, _: &Play<'_>) {
    let record = |body: &[u8]| [&[22, 3, 1, 0, body.len() as u8], body].concat();
    withhold(swarm, &[&record(&[1, 0, 0, 200, 3, 3, 7, 7, 7, 7])]);
}

fn tls_cut(swarm: &mut Swarm, _: &Play<'_>) {
    withhold(swarm, &[&[22, 3, 1, 2, 0, 1, 0, 1], &[252, 3, 3]]);
}

fn http2(swarm: &mut Swarm, _: &Play<'_>) {
    withhold(swarm, &[b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"]);
}

/// As a proxy in front sends it, and nothing behind it.
fn proxy_line(swarm: &mut Swarm, _: &Play<'_>) {
    withhold(swarm, &[b"PROXY TCP4 10.0.0.1 10.0.0.2 1000 80\r\n"]);
}

fn proxy_2(swarm: &mut Swarm, _: &Play<'_>) {
    withhold(swarm, &[b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c\x0a\0\0\x01\x0a\0\0\x02\x03\xe8\0\x50"]);
}

fn pipelined(swarm: &mut Swarm, _: &Play<'_>) {
    swarm.connect();
    swarm.say(0, &b"GET / HTTP/1.1\r\nHost: x\r\n\r\n".repeat(5));
    swarm.say(0, b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\nGET / HTTP/1.1\r\nHost: x\r\n\r\n");
    swarm.listen(SHORT);
    swarm.say(0, b"GET / HTTP/1.1\r\nHost: x\r\n\r\n");
    swarm.listen(SERVER);
}

fn whole(swarm: &mut Swarm, request: &[u8]) {
    for _ in 0..4 {
        swarm.connect();
        swarm.say(0, request);
        swarm.listen(SHORT);
        swarm.begin_again();
    }
    swarm.listen(SHORT);
}

fn http_2_0(swarm: &mut Swarm, _: &Play<'_>) {
    whole(swarm, b"GET / HTTP/2.0\r\nHost: x\r\n\r\n");
}

fn coding(swarm: &mut Swarm, _: &Play<'_>) {
    whole(swarm, b"GET / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: gzip\r\n\r\n");
}
