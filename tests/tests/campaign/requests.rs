//! Requests that are not whole, that are no requests of HTTP/1, and that a healthy server refuses with 5xx.

use std::time::Duration;

use lb_tests::{crowd::Crowd, frame::FIN};

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
fn withhold(crowd: &mut Crowd, parts: &[&[u8]]) {
    crowd.connect();
    for part in parts {
        crowd.say(0, part);
        crowd.listen(Duration::from_millis(60));
    }
    crowd.listen(SERVER);
    crowd.say(FIN, b"");
    crowd.listen(SHORT);
}

fn post(crowd: &mut Crowd, _: &Play<'_>) {
    withhold(crowd, &[b"POST /up HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n"]);
}

fn get(crowd: &mut Crowd, _: &Play<'_>) {
    withhold(crowd, &[b"GET /up HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n"]);
}

fn delete(crowd: &mut Crowd, _: &Play<'_>) {
    withhold(crowd, &[b"DELETE /up HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n", b"half"]);
}

fn head(crowd: &mut Crowd, _: &Play<'_>) {
    withhold(crowd, &[b"GET / HTTP/1.1\r\nHost: x\r\n"]);
}

fn head_with_p(crowd: &mut Crowd, _: &Play<'_>) {
    withhold(crowd, &[b"PATCH / HTTP/1.1\r\nHost: x\r\n", b"Content-Length: 5\r\n"]);
}

fn chunks(crowd: &mut Crowd, _: &Play<'_>) {
    let first = b"POST /up HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n";
    withhold(crowd, &[first, b"5\r\nhello\r\n", b"5\r\nwor"]);
}

fn expect(crowd: &mut Crowd, _: &Play<'_>) {
    withhold(crowd, &[b"PUT /up HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 100\r\n\r\n"]);
}

/// The hello stands in two records, and the second one never comes.
fn tls_in_two(crowd: &mut Crowd, _: &Play<'_>) {
    let record = |body: &[u8]| [&[22, 3, 1, 0, body.len() as u8], body].concat();
    withhold(crowd, &[&record(&[1, 0, 0, 200, 3, 3, 7, 7, 7, 7])]);
}

fn tls_cut(crowd: &mut Crowd, _: &Play<'_>) {
    withhold(crowd, &[&[22, 3, 1, 2, 0, 1, 0, 1], &[252, 3, 3]]);
}

fn http2(crowd: &mut Crowd, _: &Play<'_>) {
    withhold(crowd, &[b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"]);
}

/// As a proxy in front sends it, and nothing behind it.
fn proxy_line(crowd: &mut Crowd, _: &Play<'_>) {
    withhold(crowd, &[b"PROXY TCP4 10.0.0.1 10.0.0.2 1000 80\r\n"]);
}

fn proxy_2(crowd: &mut Crowd, _: &Play<'_>) {
    withhold(crowd, &[b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c\x0a\0\0\x01\x0a\0\0\x02\x03\xe8\0\x50"]);
}

fn pipelined(crowd: &mut Crowd, _: &Play<'_>) {
    crowd.connect();
    crowd.say(0, &b"GET / HTTP/1.1\r\nHost: x\r\n\r\n".repeat(5));
    crowd.say(0, b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\nGET / HTTP/1.1\r\nHost: x\r\n\r\n");
    crowd.listen(SHORT);
    crowd.say(0, b"GET / HTTP/1.1\r\nHost: x\r\n\r\n");
    crowd.listen(SERVER);
}

fn whole(crowd: &mut Crowd, request: &[u8]) {
    for _ in 0..4 {
        crowd.connect();
        crowd.say(0, request);
        crowd.listen(SHORT);
        crowd.begin_again();
    }
    crowd.listen(SHORT);
}

fn http_2_0(crowd: &mut Crowd, _: &Play<'_>) {
    whole(crowd, b"GET / HTTP/2.0\r\nHost: x\r\n\r\n");
}

fn coding(crowd: &mut Crowd, _: &Play<'_>) {
    whole(crowd, b"GET / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: gzip\r\n\r\n");
}
