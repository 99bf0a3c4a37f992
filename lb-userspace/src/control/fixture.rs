//! A daemon's state for tests: two services with every kind of trouble.

use std::collections::BTreeMap;

use lb_common::abi::{BackendCounters, TTFB_BUCKETS};
use lb_core::{
    codes::{BackendReason, DetectorNext, DiscoveryCode, EventReason, NextCode, PendingCode, ProbeCode},
    event::{Event, EventKind, Run, Seen},
    io::{BackendId, Generation, L4Failure, ServiceId},
    snapshot::{
        BackendSnapshot, BreakerState, DetectorSnapshot, Effective, Next, OperatorState, PathState,
        PendingWrite, ProbeState, Responses, ServiceSnapshot, Snapshot, Why,
    },
    time::Instant,
};

use super::model::{
    AttachMode, BackendTraffic, BackendView, Daemon, Discovery, Evidence, ExpiredFlows, Forwarding,
    Interface, Mode, Program, ResetCounts, ServiceDrops, Status,
};

/// 2025-03-01 11:59:00 UTC.
pub(crate) const STARTED: u64 = 1_740_830_340_000;

/// `web` has a backend that serves, one ejected, one half-open and one down. `api` has one, which the floor protects.
pub(crate) fn status() -> Status {
    let mut web_2 = backend(2, "web-2", "10.0.0.12:8080");
    eject(&mut web_2);
    let mut web_3 = backend(3, "web-3", "10.0.0.13:8080");
    web_3.breaker = BreakerState::HalfOpen;
    web_3.ejection = 1;
    web_3.share = 0;
    web_3.weight_percent = 0;
    web_3.reason_code = Some(BackendReason::HalfOpen);
    web_3.reason = Some("half-open: 1 of 3 good outcomes, 2 of 3 trials left".to_owned());
    let mut web_4 = backend(4, "web-4", "10.0.0.14:8080");
    web_4.probe = ProbeState::Down;
    web_4.share = 0;
    web_4.weight_percent = 0;
    web_4.reason_code = Some(BackendReason::ProbeFails);
    web_4.last_probe_code = Some(ProbeCode::ConnectionRefused);
    web_4.reason = Some("3 probes in a row failed, the last: connection refused".to_owned());
    web_4.last_probe = Some("connection refused".to_owned());
    let mut web_1 = backend(1, "web-1", "10.0.0.11:8080");
    web_1.share = 10_000;
    web_1.responses = Responses { s2xx: 12_345, s4xx: 7, ..Responses::default() };

    let mut api_1 = backend(5, "api-1", "10.0.1.11:9000");
    api_1.share = 10_000;
    api_1.run_5xx = 1;
    api_1.responses = Responses { s2xx: 80, s5xx: 84, lost: 2, ..Responses::default() };
    api_1.reason_code = Some(BackendReason::Floor);
    api_1.reason = Some(
        "kept by the floor: min_serving = 1, and an ejection would leave 0 (consecutive_5xx)".to_owned(),
    );

    with_effective(Status {
        version: "0.1.0".to_owned(),
        abi: lb_common::ABI_VERSION,
        instance: "default".to_owned(),
        pid: 4711,
        started_unix_ms: STARTED,
        uptime_ms: 3_723_400,
        config_path: "/etc/shunt/shunt.toml".to_owned(),
        config_generation: 2,
        interfaces: vec![Interface {
            name: "eth0".to_owned(),
            mode: AttachMode::Native,
            condition: crate::attach_mode::Condition::Attached,
            problem: None,
            also: Vec::new(),
        }],
        forwarding: vec![forwarding("web", Evidence::Inline), forwarding("api", Evidence::Inline)],
        events_seq: 17,
        snapshot: Snapshot {
            t_ms: Instant(3_723_400),
            config_generation: 2,
            services: vec![
                service(0, "web", "203.0.113.10:80", vec![web_1, web_2, web_3, web_4]),
                service(1, "api", "203.0.113.11:80", vec![api_1]),
            ],
            leaving: Vec::new(),
        },
        traffic: vec![
            traffic("web", "web-1", 12_352),
            traffic("web", "web-2", 63),
            traffic("web", "web-3", 41),
            traffic("api", "api-1", 164),
        ],
        remaining_connections: Vec::new(),
        drops: vec![ServiceDrops {
            service: "web".to_owned(),
            reasons: BTreeMap::from([("no_flow".to_owned(), 4), ("neighbour".to_owned(), 1)]),
        }],
        warnings: Vec::new(),
        program: Program::default(),
        reactions: None,
        discovery: Vec::new(),
        daemon: Daemon::default(),
        mirror_lost: 2,
        expired_flows: ExpiredFlows { handshakes: 3, established: 1, closing: 0, time_wait: 40 },
    })
}

/// The discovery file of `web`, which last had its set 12 s ago.
pub(crate) fn discovery(code: DiscoveryCode) -> Discovery {
    let file = "/run/shunt/discovery/web.json".to_owned();
    Discovery {
        service: "web".to_owned(),
        error: (code != DiscoveryCode::Current).then(|| format!("{file}: it does not exist")),
        file,
        code,
        backends: 4,
        good_unix_ms: Some(STARTED + 3_711_400),
        age_ms: Some(12_000),
        source: Some("shunt-kube".to_owned()),
        generated_at: Some("2025-03-01T13:00:51Z".to_owned()),
    }
}

/// With the breaker open, 18.3 s before its time is over and 21.6 s before the sweep at which it may return.
pub(crate) fn eject(backend: &mut BackendSnapshot) {
    backend.breaker = BreakerState::Open;
    backend.ejection = 2;
    backend.until_ms = Some(Instant(3_741_700));
    backend.returns_ms = Some(Instant(3_745_000));
    backend.share = 0;
    backend.weight_percent = 0;
    backend.responses = Responses { s2xx: 58, s5xx: 5, ..Responses::default() };
    backend.reason_code = Some(BackendReason::Ejected);
    backend.reason = Some("ejected 12 s ago for 3 failures in a row, ejection 2, 21 s left".to_owned());
}

pub(crate) fn pending() -> PendingWrite {
    PendingWrite {
        code: PendingCode::WriteFailed,
        error: "TABLES[0]: no space left on device".to_owned(),
        attempts: 3,
        next_try_ms: Instant(3_724_150),
    }
}

fn service(id: u16, name: &str, vip: &str, backends: Vec<BackendSnapshot>) -> ServiceSnapshot {
    ServiceSnapshot {
        name: name.to_owned(),
        id: ServiceId(id),
        vip: vip.parse().expect("literal"),
        panic: None,
        fallback: false,
        pending: None,
        backends,
    }
}

fn backend(id: u16, name: &str, address: &str) -> BackendSnapshot {
    BackendSnapshot {
        name: name.to_owned(),
        id: BackendId(id),
        generation: Generation(1),
        address: address.parse().expect("literal"),
        fallback: false,
        effective: Effective::Serving,
        operator: OperatorState::Enabled,
        discovery: None,
        identity: None,
        path: PathState::Ok,
        probe: ProbeState::Up,
        breaker: BreakerState::Closed,
        reason: None,
        reason_code: None,
        since_ms: Instant(0),
        ejection: 0,
        until_ms: None,
        returns_ms: None,
        weight: 100,
        overrides: Vec::new(),
        share: 0,
        weight_percent: 100,
        run_5xx: 0,
        responses: Responses::default(),
        last_probe: Some("pass".to_owned()),
        last_probe_code: Some(ProbeCode::Pass),
        drain: None,
    }
}

fn with_effective(mut status: Status) -> Status {
    for backend in status.snapshot.services.iter_mut().flat_map(|service| &mut service.backends) {
        backend.effective = Effective::of(backend.operator, backend.path, backend.probe, backend.breaker);
    }
    status
}

fn forwarding(service: &str, evidence: Evidence) -> Forwarding {
    Forwarding { service: service.to_owned(), mode: Mode::Nat, evidence, limit: None }
}

fn traffic(service: &str, backend: &str, connections: u64) -> BackendTraffic {
    // One in ten is slow.
    let mut ttfb = [0; TTFB_BUCKETS];
    (ttfb[5], ttfb[9]) = (connections - connections / 10, connections / 10);
    let counters = BackendCounters {
        ttfb,
        connections,
        established: connections,
        packets_to: connections * 5,
        bytes_to: connections * 400,
        packets_from: connections * 4,
        bytes_from: connections * 1000,
        ..BackendCounters::default()
    };
    BackendTraffic {
        service: service.to_owned(),
        backend: backend.to_owned(),
        reachable: true,
        path_warning: None,
        path_warning_code: None,
        counters: counters.into(),
        resets: ResetCounts::default(),
        limit: None,
    }
}

/// The ejection of `SERVICE`'s backend `web-2`, half a second after the `seq`th second.
pub(crate) fn event(seq: u64, service: &str) -> Event {
    let t_ms = Instant(seq * 1000 + 500);
    Event {
        seq,
        t_ms,
        kind: EventKind::Eject,
        service: service.to_owned(),
        backend: Some("web-2".to_owned()),
        from: BreakerState::Closed.into(),
        to: BreakerState::Open.into(),
        reason: EventReason::Consecutive5xx,
        enforced: true,
        ejection: 1,
        until_ms: Some(Instant(t_ms.0 + 30_000)),
        actor: "breaker".to_owned(),
        config_generation: 1,
        evidence: lb_core::event::Evidence {
            consecutive_5xx: Some(Run { count: 3, threshold: 3 }),
            last: vec![Seen { t_ms, status: 500, failure: None, client: None }],
            backends: 4,
            serving: 4,
            max_ejection_percent: 50,
            min_serving: 1,
            probe: Some(ProbeState::Up),
            ..lb_core::event::Evidence::default()
        },
    }
}

/// `web-2` of [`status`], ejected a while ago, seen in depth.
pub(crate) fn view() -> BackendView {
    let status = status();
    let web = &status.snapshot.services[0];
    let mut backend = web.backends[1].clone();
    backend.since_ms = Instant(3_711_400);
    let seen = |t_ms, status, failure| Seen {
        t_ms: Instant(t_ms),
        status,
        failure,
        client: Some(([10, 1, 0, 7], 41_000 + status).into()),
    };
    let last = vec![
        seen(3_711_000, 200, None),
        seen(3_711_200, 500, None),
        seen(3_711_300, 503, Some(L4Failure::ConnectRefused)),
        seen(3_711_400, 502, None),
    ];
    let mut decision = event(0, "web");
    decision.t_ms = Instant(3_711_400);
    decision.until_ms = backend.until_ms;
    decision.ejection = 2;
    decision.evidence.last.clone_from(&last);
    BackendView {
        started_unix_ms: STARTED,
        t_ms: status.snapshot.t_ms.0,
        evidence: Evidence::Inline,
        traffic: traffic("web", "web-2", 63),
        connections: None,
        why: Why {
            service: "web".to_owned(),
            backend,
            operator_since_ms: Instant(0),
            probe_since_ms: Instant(2400),
            in_maps: true,
            pending: None,
            last_outcomes: last,
            last_decision: Some(decision),
            detectors: vec![
                DetectorSnapshot {
                    name: "consecutive_5xx".to_owned(),
                    enforced: true,
                    count: 0,
                    total: None,
                    least: None,
                    threshold: Some(3),
                    next: "3 more in a row".to_owned(),
                    next_code: DetectorNext::MoreFailures,
                },
                DetectorSnapshot {
                    name: "error_rate".to_owned(),
                    enforced: false,
                    count: 3,
                    total: Some(4),
                    least: Some(20),
                    threshold: Some(1000),
                    next: "16 more in a row".to_owned(),
                    next_code: DetectorNext::MoreFailures,
                },
            ],
            next: vec![
                Next {
                    code: NextCode::HalfOpen,
                    says: "half-open with 3 new connections a sweep in 21 s".to_owned(),
                },
                Next {
                    code: NextCode::Admit,
                    says: "`shunt backend admit web/web-2` readmits it at once".to_owned(),
                },
            ],
            next_sweep_ms: Instant(3_725_000),
        },
    }
}
