use lb_core::{codes::OverrideCode, io::Generation, snapshot::ProbeState};

use super::*;
use crate::control::{fixture, model::RemainingConnections};

fn plain(state: &Status, wide: bool) -> String {
    status(state, Wide(wide), &Palette::PLAIN)
}

/// The lines of one service, without its heading and the table's head.
fn service(state: &Status, name: &str) -> String {
    let text = plain(state, false);
    let block = text.split("\n\n").find(|block| block.starts_with(name)).expect("the service is shown");
    block.lines().skip(2).map(|line| format!("{line}\n")).collect()
}

#[test]
fn every_state_at_a_glance() {
    assert_eq!(
        plain(&fixture::status(), false),
        "\
shunt 0.1.0  instance default  pid 4711  up 1 h 02 m  /etc/shunt/shunt.toml (generation 2)
on eth0 (native)  events 17  response heads lost 2

web  203.0.113.10:80  nat  evidence inline  1 of 4 serving
  NAME  ADDRESS        STATE   OPERATOR PROBE BREAKER   SHARE CONNS   2xx 3xx 4xx 5xx L4 LAST-PROBE
  web-1 10.0.0.11:8080 serving enabled  up    closed     100% 12.3k 12.3k   0   7   0  0 pass
  web-2 10.0.0.12:8080 ejected enabled  up    open         0%    63    58   0   0   5  0 pass
  web-3 10.0.0.13:8080 trial   enabled  up    half-open    0%    41     0   0   0   0  0 pass
  web-4 10.0.0.14:8080 down    enabled  down  closed       0%     -     0   0   0   0  0 connection…
  why web-2: ejected 12 s ago for 3 failures in a row, ejection 2, 21 s left
  why web-3: half-open: 1 of 3 good outcomes, 2 of 3 trials left
  why web-4: 3 probes in a row failed, the last: connection refused

api  203.0.113.11:80  nat  evidence inline  1 of 1 serving
  NAME  ADDRESS        STATE   OPERATOR PROBE BREAKER SHARE CONNS 2xx 3xx 4xx 5xx L4 LAST-PROBE
  api-1 10.0.1.11:9000 serving enabled  up    closed   100%   164  80   0   0  84  0 pass
  why api-1: kept by the floor: min_serving = 1, and an ejection would leave 0 (consecutive_5xx); 2
      of its response heads were lost and are not counted
"
    );
}

/// The state of `web`, 3.4 s after the beginning of its second.
fn drain(flow_reset: FlowReset, until: u64) -> Option<Drain> {
    Some(Drain { since_ms: Instant(3_711_400), until_ms: Instant(until), flow_reset })
}

#[test]
fn a_drain_shows_what_happens_to_connections() {
    let mut state = fixture::status();
    let backends = &mut state.snapshot.services[0].backends;
    backends[1].drain = drain(FlowReset::Never, 3_771_400);
    backends[2].drain = drain(FlowReset::Now, 3_723_000);
    backends[3].drain = drain(FlowReset::Now, 3_700_000);
    let id = backends[1].id;
    state.remaining_connections = vec![RemainingConnections { backend: id, connections: 12 }];
    let expected = "\
  why web-2: ejected 12 s ago for 3 failures in a row, ejection 2, 21 s left; its connections
      continue (12 left), and in 48 s Shunt resets those still open
  why web-3: half-open: 1 of 3 good outcomes, 2 of 3 trials left; Shunt resets its remaining
      connections
  why web-4: 3 probes in a row failed, the last: connection refused
";
    assert!(service(&state, "web").ends_with(expected), "{}", service(&state, "web"));
    state.snapshot.services[0].backends[1].drain = drain(FlowReset::AtRequest, 3_771_400);
    let text = service(&state, "web");
    let words = "Shunt resets its\n      connections at their next request or when idle (12 left), in 48 s at the latest\n";
    assert!(text.contains(words), "{text}");
}

#[test]
fn a_drain_that_is_over_is_news_for_ten_seconds() {
    let mut state = fixture::status();
    let now = state.snapshot.t_ms.0;
    let mut shown = |ago| {
        state.snapshot.services[0].backends[2].drain = drain(FlowReset::Now, now - ago);
        service(&state, "web").contains("Shunt resets its remaining")
    };
    assert!(shown(10_000) && !shown(10_001));
}

#[test]
fn removed_backends_are_shown() {
    let mut state = fixture::status();
    let leaving = |name: Option<&str>, id| LeavingSnapshot {
        service: "web".to_owned(),
        name: name.map(str::to_owned),
        id: BackendId(id),
        generation: Generation(1),
        address: "10.0.0.15:8080".parse().expect("literal"),
        drain: drain(FlowReset::Never, 3_771_400).expect("one"),
    };
    state.snapshot.leaving = vec![leaving(Some("web-5"), 8), leaving(None, 9)];
    state.remaining_connections = vec![RemainingConnections { backend: BackendId(8), connections: 1 }];
    let expected = "
removed
  why web/web-5 at 10.0.0.15:8080: removed; its connections continue (1 left), and in 48 s Shunt
      resets those still open
  why web/(of an earlier run) at 10.0.0.15:8080: removed; its connections continue, and in 48 s
      Shunt resets those still open
";
    assert!(plain(&state, false).ends_with(expected), "{}", plain(&state, false));
    state.only("api");
    assert!(!plain(&state, false).contains("removed"));
}

#[test]
fn a_fallback_is_marked_and_does_not_count() {
    let mut state = fixture::status();
    let web = &mut state.snapshot.services[0];
    web.fallback = true;
    web.backends[0].fallback = true;
    let text = plain(&state, false);
    assert!(
        text.contains("web  203.0.113.10:80  nat  evidence inline  0 of 3 serving  FALLBACK\n"),
        "{text}"
    );
    assert!(text.contains("  web-1 (fallback) 10.0.0.11:8080 serving"), "{text}");
    assert!(text.contains("  why web: no backend serves, so new connections go to its fallback\n"), "{text}");
}

#[test]
fn wide_leaves_nothing_out() {
    let text = plain(&fixture::status(), true);
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(lines[2], "expired flows  handshakes 3  established 1  closing 0  time-wait 40");
    let lines = &lines[1..];
    assert_eq!(lines[3], "web  203.0.113.10:80  id 0  nat  evidence inline  1 of 4 serving");
    let words = |line: &str| line.split_whitespace().map(str::to_owned).collect::<Vec<_>>().join(" ");
    assert_eq!(
        words(lines[4]),
        "NAME ID GEN ADDRESS WEIGHT STATE OPERATOR PROBE BREAKER EJECTION RUN-5xx SHARE CONNS TRIALS \
         ESTABLISHED 1xx 2xx 3xx 4xx 5xx L4-FAILURES ANSWERED TTFB-50% TTFB-99% OPAQUE PIPELINED \
         RESET IDLE-RESET DRAIN-RESET REDISPATCHED OPEN LIMIT SPILLED HEADS LOST PKTS-TO BYTES-TO PKTS-FROM BYTES-FROM LAST-PROBE"
    );
    assert_eq!(
        words(lines[5]),
        "web-1 1 1 10.0.0.11:8080 100 serving enabled up closed 0 0 100.00% 12352 0 12352 0 12345 0 7 0 0 0 \
         2.0 ms 32.8 ms 0 0 0 0 0 0 - - 0 0 0 61760 4940800 49408 12352000 pass"
    );
    assert_eq!(lines[9], "  dropped  neighbour 1  no_flow 4");
}

#[test]
fn limits_are_shown_where_there_are_some() {
    let mut state = fixture::status();
    let limit = |used, limit| Some(LimitUse { used, handshakes: 1, limit });
    state.forwarding[0].limit = limit(12, 100);
    state.traffic[0].limit = limit(8, 8);
    state.traffic[0].counters.spilled = 70;
    state.traffic[1].limit = limit(4, 0);
    let text = plain(&state, false);
    assert!(text.contains("  evidence inline  12 of 100 connections  1 of 4 serving\n"), "{text}");
    let why = "  why web-1: it is full with 8 of 8 connections, and other backends get new ones\n";
    assert!(text.contains(why), "{text}");
    assert!(!text.contains("web-2: it is full"), "{text}");
    let wide = plain(&state, true);
    let words = |line: &str| line.split_whitespace().map(str::to_owned).collect::<Vec<_>>().join(" ");
    assert!(words(&wide).contains(" 8 8 70 0 0 61760 "), "{wide}");
    state.forwarding[0].limit = limit(4, 0);
    assert!(plain(&state, false).contains("  evidence inline  4 connections  1 of 4 serving\n"));
}

#[test]
fn a_write_that_failed_is_shown() {
    let mut state = fixture::status();
    state.snapshot.services[1].pending = Some(fixture::pending());
    assert!(
        service(&state, "api").contains(
            "\
  why api: the daemon failed 3 times to write its maps, so the last change is not in force; next try
      in 750 ms: TABLES[0]: no space left on device
"
        ),
        "{}",
        service(&state, "api")
    );
}

#[test]
fn counters_that_cannot_be_read_are_missing_with_the_reason() {
    let mut state = fixture::status();
    state.daemon.counters_error = Some("map COUNTERS: operation not permitted".to_owned());
    state.traffic.clear();
    let text = plain(&state, false);
    let why =
        "  why shunt: the daemon cannot read the counters in its maps: map COUNTERS: operation not permitted";
    assert_eq!(text.lines().nth(2), Some(why));
    assert!(text.contains("  api-1 10.0.1.11:9000 serving enabled  up    closed   100%     -  80"), "{text}");
}

#[test]
fn a_service_in_panic_says_what_it_does() {
    let mut state = fixture::status();
    state.only("api");
    let api = &mut state.snapshot.services[0];
    api.panic = Some(Panic::FewServe);
    fixture::eject(&mut api.backends[0]);
    api.backends[0].effective = Effective::Ejected;
    let text = plain(&state, false);
    assert!(text.contains("evidence inline  0 of 1 serving  PANIC\n"), "{text}");
    assert!(text.contains(
        "  why api: too few backends serve, so the service uses all that are neither disabled nor down\n"
    ));
}

#[test]
fn evidence_that_is_missing_is_shown() {
    for (evidence, sentence) in [
        (Evidence::Opaque, "  why api: Shunt cannot read its responses (TLS, HTTP/2 or no HTTP)"),
        (Evidence::None, "  why api: evidence is off"),
    ] {
        let mut state = fixture::status();
        state.forwarding[1].evidence = evidence;
        let text = service(&state, "api");
        assert!(text.contains(sentence), "{text}");
    }
}

#[test]
fn a_next_hop_that_does_not_answer_is_said_once_and_of_the_right_backend() {
    let mut state = fixture::status();
    let words = "its next hop does not answer";
    assert!(!plain(&state, false).contains(words));
    // Of another service's backend with the same name, and of another backend of the same service.
    let template = state.traffic[0].clone();
    for (service, backend) in [("api", "web-1"), ("other", "api-1")] {
        let (service, backend) = (service.to_owned(), backend.to_owned());
        let foreign = BackendTraffic { service, backend, reachable: false, ..template.clone() };
        state.traffic.insert(0, foreign);
    }
    assert!(!plain(&state, false).contains(words), "{}", plain(&state, false));
    let of_api = state.traffic.iter_mut().find(|one| one.service == "api" && one.backend == "api-1");
    of_api.expect("it is there").reachable = false;
    assert!(plain(&state, false).contains(words));
    // The path says it already.
    state.snapshot.services[1].backends[0].path = PathState::NoNeighbour;
    assert!(!plain(&state, false).contains(words));
}

#[test]
fn lines_of_the_log_that_are_lost_are_counted() {
    let mut state = fixture::status();
    assert!(!plain(&state, false).contains("of its log are lost"));
    state.daemon.lost_log_lines = 3;
    assert!(plain(&state, false).contains("  why shunt: 3 lines of its log are lost"));
}

#[test]
fn a_service_without_trouble_has_no_explanations() {
    let mut state = fixture::status();
    state.only("api");
    let api_1 = &mut state.snapshot.services[0].backends[0];
    (api_1.reason, api_1.probe, api_1.last_probe) = (None, ProbeState::None, None);
    api_1.responses.lost = 0;
    state.mirror_lost = 0;
    state.interfaces.clear();
    assert_eq!(
        plain(&state, false),
        "\
shunt 0.1.0  instance default  pid 4711  up 1 h 02 m  /etc/shunt/shunt.toml (generation 2)
on no interface  events 17

api  203.0.113.11:80  nat  evidence inline  1 of 1 serving
  NAME  ADDRESS        STATE   OPERATOR PROBE BREAKER SHARE CONNS 2xx 3xx 4xx 5xx L4 LAST-PROBE
  api-1 10.0.1.11:9000 serving enabled  none  closed   100%   164  80   0   0  84  0 -
"
    );
    state.only("nothing");
    assert!(plain(&state, false).ends_with("\n\nno service is configured\n"));
}

#[test]
fn colours_change_no_letter() {
    let state = fixture::status();
    for wide in [false, true] {
        let coloured = status(&state, Wide(wide), &Palette::COLOURED);
        assert!(coloured.contains("\x1b[31mejected\x1b[0m"), "{coloured}");
        let mut stripped = String::new();
        let mut pieces = coloured.split("\x1b[");
        stripped += pieces.next().expect("split yields one piece at least");
        for piece in pieces {
            stripped += piece.split_once('m').expect("only colours are set").1;
        }
        assert_eq!(stripped, plain(&state, wide));
    }
}

#[test]
fn the_colour_of_a_service_is_that_of_its_backends() {
    let mut state = fixture::status();
    let shown = |state: &Status| status(state, Wide(false), &Palette::COLOURED);
    let painted = |paint, text| Palette::COLOURED.paint(paint, text);
    assert!(shown(&state).contains(&painted(Paint::Warning, "1 of 4 serving")));
    assert!(shown(&state).contains(&painted(Paint::Good, "1 of 1 serving")));
    assert!(shown(&state).contains(&painted(Paint::Warning, "84")), "errors: {}", shown(&state));
    assert!(!shown(&state).contains(&painted(Paint::Warning, "0")));
    state.snapshot.services[1].backends[0].effective = Effective::Down;
    assert!(shown(&state).contains(&painted(Paint::Bad, "0 of 1 serving")));
}

#[test]
fn a_backend_cannot_control_the_terminal() {
    let mut state = fixture::status();
    let web_1 = &mut state.snapshot.services[0].backends[0];
    web_1.last_probe = Some("\x1b[2J".to_owned());
    web_1.reason = Some("a\nb\x07".to_owned());
    let text = plain(&state, true);
    assert!(!text.contains(['\x1b', '\x07']), "{text}");
    assert!(text.contains("why web-1: a\\nb\\u{7}\n"), "{text}");
}

#[test]
fn a_hundred_columns_are_enough() {
    let text = plain(&fixture::status(), false);
    for line in text.lines() {
        assert!(text::width(line) <= WIDTH, "{line}");
    }
}

#[test]
fn an_override_shows_its_author_reason_and_end() {
    let mut state = fixture::status();
    let web_1 = &mut state.snapshot.services[0].backends[0];
    web_1.weight = 7;
    web_1.overrides = vec![Override {
        code: OverrideCode::Weight,
        what: "weight 7".to_owned(),
        actor: "alice (as root)".to_owned(),
        reason: Some("canary".to_owned()),
        since_ms: Instant(3_700_000),
        until_ms: Some(Instant(3_783_400)),
    }];
    let line = "  why web-1: weight 7 by alice (as root) (canary), 1 m 00 s left\n";
    for wide in [false, true] {
        let text = plain(&state, wide);
        assert!(text.contains(line), "{text}");
    }
}
