use lb_core::{io::Generation, snapshot::ProbeState};

use super::*;
use crate::control::{fixture, model::Left};

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
  why web-2: ejected 12 s ago for 3 failures in a row, ejection 2, 18 s left
  why web-3: half-open: 1 of 3 good outcomes, 2 of 3 trials left
  why web-4: 3 probes in a row failed, the last: connection refused

api  203.0.113.11:80  nat  evidence inline  1 of 1 serving
  NAME  ADDRESS        STATE   OPERATOR PROBE BREAKER SHARE CONNS 2xx 3xx 4xx 5xx L4 LAST-PROBE
  api-1 10.0.1.11:9000 serving enabled  up    closed   100%   164  80   0   0  84  0 pass
  why api-1: kept by the floor: min_serving = 1, and an ejection would leave 0 (consecutive_5xx); 2
      of its response heads were lost and count for nothing
"
    );
}

/// The state of `web`, 3.4 s after the beginning of its second.
fn ending(cut: FlowReset, until: u64) -> Option<Ending> {
    Some(Ending { since_ms: Instant(3_711_400), until_ms: Instant(until), cut })
}

#[test]
fn what_becomes_of_connections_is_told() {
    let mut state = fixture::status();
    let backends = &mut state.snapshot.services[0].backends;
    backends[1].ending = ending(FlowReset::Never, 3_771_400);
    backends[2].ending = ending(FlowReset::Now, 3_723_000);
    backends[3].ending = ending(FlowReset::Now, 3_700_000);
    let id = backends[1].id;
    state.left = vec![Left { backend: id, connections: 12 }];
    let expected = "\
  why web-2: ejected 12 s ago for 3 failures in a row, ejection 2, 18 s left; its connections go on
      (12 left), and what is left of them in 48.0 s is reset
  why web-3: half-open: 1 of 3 good outcomes, 2 of 3 trials left; what was left of its connections
      is reset
  why web-4: 3 probes in a row failed, the last: connection refused
";
    assert!(service(&state, "web").ends_with(expected), "{}", service(&state, "web"));
    state.snapshot.services[0].backends[1].ending = ending(FlowReset::AtRequest, 3_771_400);
    let text = service(&state, "web");
    let words =
        "its connections end at\n      their next request or when idle (12 left), in 48.0 s at the latest\n";
    assert!(text.contains(words), "{text}");
}

#[test]
fn who_was_removed_is_told_until_it_is_gone() {
    let mut state = fixture::status();
    let leaving = |name: Option<&str>, id| LeavingSnapshot {
        service: "web".to_owned(),
        name: name.map(str::to_owned),
        id: BackendId(id),
        generation: Generation(1),
        address: "10.0.0.15:8080".parse().expect("literal"),
        ending: ending(FlowReset::Never, 3_771_400).expect("one"),
    };
    state.snapshot.leaving = vec![leaving(Some("web-5"), 8), leaving(None, 9)];
    state.left = vec![Left { backend: BackendId(8), connections: 1 }];
    let expected = "
removed
  why web/web-5 at 10.0.0.15:8080: removed; its connections go on (1 left), and what is left of them
      in 48.0 s is reset
  why web/(an earlier run's) at 10.0.0.15:8080: removed; its connections go on, and what is left of
      them in 48.0 s is reset
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
    assert_eq!(lines[2], "forgotten for silence  handshakes 3  established 1  closing 0  rested 40");
    let lines = &lines[1..];
    assert_eq!(lines[3], "web  203.0.113.10:80  id 0  nat  evidence inline  1 of 4 serving");
    let words = |line: &str| line.split_whitespace().map(str::to_owned).collect::<Vec<_>>().join(" ");
    assert_eq!(
        words(lines[4]),
        "NAME ID GEN ADDRESS WEIGHT STATE OPERATOR PROBE BREAKER EJECTION RUN-5xx SHARE CONNS TRIALS \
         ESTABLISHED 1xx 2xx 3xx 4xx 5xx L4-FAILURES ANSWERED TTFB-50% TTFB-99% OPAQUE PIPELINED \
         CUT IDLE-ENDED DRAINED REDISPATCHED HEADS LOST PKTS-TO BYTES-TO PKTS-FROM BYTES-FROM LAST-PROBE"
    );
    assert_eq!(
        words(lines[5]),
        "web-1 1 1 10.0.0.11:8080 100 serving enabled up closed 0 0 100.00% 12352 0 12352 0 12345 0 7 0 0 0 \
         2.0 ms 32.8 ms 0 0 0 0 0 0 0 0 61760 4940800 49408 12352000 pass"
    );
    assert_eq!(lines[9], "  dropped  neighbour 1  no_flow 4");
}

#[test]
fn a_write_that_failed_is_told() {
    let mut state = fixture::status();
    state.snapshot.services[1].pending = Some(fixture::pending());
    assert!(
        service(&state, "api").contains(
            "\
  why api: its map writes failed 3 times and are not in force, next try in 0.7 s: TABLES[0]: no
      space left on device
"
        ),
        "{}",
        service(&state, "api")
    );
}

#[test]
fn counters_that_cannot_be_read_are_told_and_missing() {
    let mut state = fixture::status();
    state.daemon.counters_error = Some("map COUNTERS: operation not permitted".to_owned());
    state.traffic.clear();
    let text = plain(&state, false);
    let why = "  why shunt: the counters of its maps cannot be read: map COUNTERS: operation not permitted";
    assert_eq!(text.lines().nth(2), Some(why));
    assert!(text.contains("  api-1 10.0.1.11:9000 serving enabled  up    closed   100%     -  80"), "{text}");
}

#[test]
fn a_service_with_nobody_left_says_what_it_does() {
    let mut state = fixture::status();
    state.only("api");
    let api = &mut state.snapshot.services[0];
    api.panic = true;
    fixture::eject(&mut api.backends[0]);
    api.backends[0].effective = Effective::Ejected;
    let text = plain(&state, false);
    assert!(text.contains("evidence inline  0 of 1 serving  PANIC\n"), "{text}");
    assert!(text.contains("  why api: no backend serves, so all that are not disabled or down are used\n"));
}

#[test]
fn evidence_that_is_missing_is_told() {
    for (evidence, sentence) in [
        (Evidence::Opaque, "  why api: its responses cannot be read (TLS, HTTP/2 or no HTTP)"),
        (Evidence::None, "  why api: its responses are not looked at (evidence is off)"),
    ] {
        let mut state = fixture::status();
        state.forwarding[1].evidence = evidence;
        let text = service(&state, "api");
        assert!(text.contains(sentence), "{text}");
    }
}

#[test]
fn nothing_to_say_is_said_in_no_lines() {
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
fn a_backend_cannot_steer_the_terminal() {
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
fn what_an_operator_changed_is_told_with_who_why_and_until_when() {
    let mut state = fixture::status();
    let web_1 = &mut state.snapshot.services[0].backends[0];
    web_1.weight = 7;
    web_1.overrides = vec![Override {
        what: "weight 7".to_owned(),
        actor: "alice (as root)".to_owned(),
        reason: Some("canary".to_owned()),
        since_ms: Instant(3_700_000),
        until_ms: Some(Instant(3_783_400)),
    }];
    let told = "  why web-1: weight 7 by alice (as root) (canary), 1 m 00 s left\n";
    for wide in [false, true] {
        let text = plain(&state, wide);
        assert!(text.contains(told), "{text}");
    }
}
