//! Every order in which up to three segments of an end can pass: lost, doubled, overtaken, split. Each response
//! is counted once, or the counter of lost heads says that it is not.

use lb_common::abi::BackendCounters;
use lb_core::io::Outcome;
use lb_tests::{
    both_families,
    frame::{ACK, FIN, PSH, Tcp},
    kernel::{Action, Kernel, backend_address, vip},
};
use lb_userspace::evidence::Heads;

use crate::connections::Connection;

const REQUEST: &[u8] = b"GET /some/path HTTP/1.1\r\nHost: x\r\n\r\n";
const RESPONSE: &[u8] = b"HTTP/1.1 500 Internal Server Error\r\nContent-Length: 4\r\n\r\noops";
const LAST: &[u8] = b"HTTP/1.1 418 I'm a teapot\r\nContent-Length: 0\r\n\r\n";
/// Bytes of a status line that decide.
const DECIDES: usize = 13;

/// A part of what one end says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Part {
    First,
    Rest,
    Whole,
    /// Nothing but an acknowledgement, behind everything.
    Ack,
}

const PARTS: [Part; 4] = [Part::First, Part::Rest, Part::Whole, Part::Ack];

/// Every sequence of up to three parts that brings everything to the other end.
fn orders() -> Vec<Vec<Part>> {
    let mut all: Vec<Vec<Part>> = vec![vec![]];
    for _ in 0..3 {
        let longer = all.iter().flat_map(|order| PARTS.map(|part| [order.as_slice(), &[part]].concat()));
        all = all.iter().cloned().chain(longer).collect();
        all.sort_unstable_by_key(|order| order.iter().map(|part| *part as u8 + 1).collect::<Vec<_>>());
        all.dedup();
    }
    let brings = |order: &Vec<Part>| {
        let has = |part| order.contains(&part);
        has(Part::Whole) || has(Part::First) && has(Part::Rest)
    };
    all.retain(brings);
    all
}

/// A connection, and all that a reader of its records knows.
struct Line {
    kernel: Kernel,
    heads: Heads,
    client: Connection,
    /// The numbers at which the present exchange began.
    asked: u32,
    answered: u32,
}

impl Line {
    fn on(kernel: Kernel, n: u16) -> Self {
        let mut kernel = kernel;
        let client = Connection::open(&mut kernel, n);
        let (asked, answered) = (client.client_next, client.backend_next);
        Self { kernel, heads: Heads::new(), client, asked, answered }
    }

    fn run(&mut self, tcp: &Tcp) {
        assert_eq!(self.kernel.run(&tcp.bytes()).0, Action::Redirect);
    }

    fn client_says(&mut self, part: Part, cut: usize, ack: u32) {
        let (from, payload) = piece(REQUEST, part, cut);
        let flags = if payload.is_empty() { ACK } else { ACK | PSH };
        let tcp = Tcp::new(self.client.client, vip(), flags);
        self.run(&tcp.numbers(self.asked.wrapping_add(from), ack).payload(payload));
    }

    fn backend_says(&mut self, text: &[u8], part: Part, cut: usize) {
        let (from, payload) = piece(text, part, cut);
        let tcp = Tcp::new(backend_address(0), self.client.nat, ACK);
        let ack = self.asked.wrapping_add(REQUEST.len() as u32);
        self.run(&tcp.numbers(self.answered.wrapping_add(from), ack).payload(payload));
    }

    /// The exchange is over: the client has the response.
    fn next(&mut self, text: &[u8]) {
        self.asked = self.asked.wrapping_add(REQUEST.len() as u32);
        self.answered = self.answered.wrapping_add(text.len() as u32);
    }

    fn plain(&mut self, text: &[u8]) {
        self.client_says(Part::Whole, 0, self.answered);
        self.backend_says(text, Part::Whole, 0);
        self.next(text);
    }

    /// The outcomes in the records since.
    fn outcomes(&mut self) -> Vec<Outcome> {
        let records = self.kernel.heads();
        records.iter().filter_map(|record| self.heads.read(record)).map(|reading| reading.outcome).collect()
    }

    fn counters(&mut self) -> BackendCounters {
        self.kernel.counters().backends[0].1
    }
}

fn piece(text: &[u8], part: Part, cut: usize) -> (u32, &[u8]) {
    match part {
        Part::First => (0, &text[..cut]),
        Part::Rest => (cut as u32, &text[cut..]),
        Part::Whole => (0, text),
        Part::Ack => (text.len() as u32, &[]),
    }
}

/// One case: how the request passes, how the response does, and what comes again afterwards.
struct Case<'a> {
    kept: bool,
    request: (&'a [Part], usize),
    response: (&'a [Part], usize),
    again: &'a [Part],
}

fn check(line: &mut Line, case: &Case<'_>) {
    if case.kept {
        line.plain(LAST);
    }
    line.kernel.forget_heads();
    let before = line.counters();
    let (asked, answered) = (line.asked, line.answered);
    for part in case.request.0 {
        line.client_says(*part, case.request.1, answered);
    }
    for part in case.response.0 {
        line.backend_says(RESPONSE, *part, case.response.1);
    }
    for part in case.again {
        line.client_says(*part, case.request.1, answered);
        line.backend_says(RESPONSE, *part, case.response.1);
    }
    line.next(RESPONSE);
    // The acknowledgement of the response overtakes the next request, or comes late.
    line.client_says(Part::Ack, 0, line.answered);
    line.plain(LAST);
    let after = line.counters();
    let what = || {
        format!(
            "kept {}, request {:?} at {asked:#x}, response {:?}, again {:?}",
            case.kept, case.request, case.response, case.again
        )
    };
    // A status line in two segments can be read only in its order.
    let of = |wanted| case.response.0.iter().position(|part| *part == wanted).unwrap_or(usize::MAX);
    let (first, rest, whole) = (of(Part::First), of(Part::Rest), of(Part::Whole));
    let lost = case.response.1 < DECIDES && rest < first && first < whole;
    let mut wanted = vec![Outcome::Status(500), Outcome::Status(418)];
    if lost {
        wanted.remove(0);
    }
    assert_eq!(line.outcomes(), wanted, "{}", what());
    assert_eq!(after.heads_lost - before.heads_lost, u64::from(lost), "{}", what());
    assert_eq!((after.pipelined, after.opaque), (before.pipelined, before.opaque), "{}", what());
}

fn each(kept: bool) {
    let mut kernel = Some(Kernel::new(1));
    let mut number = 0;
    let orders = orders();
    let few = [vec![Part::Whole], vec![Part::Rest, Part::First]];
    let agains: [&[Part]; 5] =
        [&[], &[Part::First], &[Part::Rest], &[Part::Whole], &[Part::Whole, Part::Whole]];
    let pairs = orders.iter().flat_map(|order| few.iter().flat_map(move |one| [(order, one), (one, order)]));
    for (request, response) in pairs {
        for (cut_request, cut_response) in [(2, 5), (20, 12), (REQUEST.len() - 2, 13), (8, 40)] {
            for again in agains {
                number += 1;
                let mut line = Line::on(kernel.take().expect("given back"), number);
                let case =
                    Case { kept, request: (request, cut_request), response: (response, cut_response), again };
                check(&mut line, &case);
                line.kernel.forget_connections();
                kernel = Some(line.kernel);
            }
        }
    }
    println!("{number} cases");
}

both_families!(the_first_exchange_of_a_connection);
fn the_first_exchange_of_a_connection() {
    each(false);
}

both_families!(an_exchange_on_a_kept_connection);
fn an_exchange_on_a_kept_connection() {
    each(true);
}

/// The last segments of an end, text and FIN, in every order and as often as twice.
fn ends() -> Vec<Vec<bool>> {
    let mut all: Vec<Vec<bool>> = vec![vec![]];
    for _ in 0..3 {
        let longer =
            all.iter().flat_map(|order| [false, true].map(|fin| [order.as_slice(), &[fin]].concat()));
        all = all.iter().cloned().chain(longer).collect();
        all.sort_unstable();
        all.dedup();
    }
    all.retain(|order| order.contains(&true) && order.contains(&false));
    all
}

both_families!(every_order_of_an_end);
fn every_order_of_an_end() {
    let mut kernel = Kernel::new(1);
    let mut number = 0;
    for (client, backend) in ends().iter().flat_map(|a| ends().into_iter().map(move |b| (a.clone(), b))) {
        // Either end may close first.
        for client_first in [true, false] {
            number += 1;
            let mut line = Line::on(kernel, number);
            line.plain(LAST);
            line.kernel.forget_heads();
            let (asked, answered) = (line.asked, line.answered);
            let asked_end = asked.wrapping_add(REQUEST.len() as u32);
            let end = answered.wrapping_add(RESPONSE.len() as u32);
            let (to, nat) = (line.client.client, line.client.nat);
            let from_client = |flags, seq, ack| Tcp::new(to, vip(), flags).numbers(seq, ack);
            let from_backend = |flags, seq, ack| Tcp::new(backend_address(0), nat, flags).numbers(seq, ack);
            let client_fin = u32::from(client_first);
            if !client_first {
                line.run(&from_client(ACK | PSH, asked, answered).payload(REQUEST));
            }
            for fin in client.iter().filter(|_| client_first) {
                line.run(&if *fin {
                    from_client(FIN | ACK, asked_end, answered)
                } else {
                    from_client(ACK | PSH, asked, answered).payload(REQUEST)
                });
            }
            for fin in &backend {
                let ack = asked_end.wrapping_add(client_fin);
                line.run(&if *fin {
                    from_backend(FIN | ACK, end, ack)
                } else {
                    from_backend(ACK | PSH, answered, ack).payload(RESPONSE)
                });
            }
            let ack = end.wrapping_add(1);
            line.run(&from_client(ACK, asked_end.wrapping_add(client_fin), ack));
            if !client_first {
                assert_eq!(line.kernel.flows().counts().established, 1, "the client has not closed");
                line.run(&from_client(FIN | ACK, asked_end, ack));
                line.run(&from_backend(ACK, ack, asked_end.wrapping_add(1)));
            }
            let counts = line.kernel.flows().counts();
            let what = format!("client {client:?}, backend {backend:?}, client first {client_first}");
            assert_eq!((counts.established, counts.time_wait), (0, 1), "{what}");
            assert_eq!(line.outcomes(), [Outcome::Status(500)], "{what}");
            line.kernel.forget_connections();
            kernel = line.kernel;
        }
    }
}
