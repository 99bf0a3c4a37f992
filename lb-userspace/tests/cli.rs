//! The program as scripts use it: exit codes, stdout and stderr, and a reader that leaves. A server in this process
//! plays the daemon.

use std::{
    path::Path,
    process::{Command, Output, Stdio},
    sync::mpsc as std_mpsc,
    thread,
};

use lb_core::{
    codes::EventReason,
    event::{Event, EventKind, Evidence},
    io::{BackendId, Generation, ServiceId},
    snapshot::{
        BackendSnapshot, BreakerState, Effective, OperatorState, PathState, ProbeState, Responses,
        ServiceSnapshot, Snapshot,
    },
    time::Instant,
};
use lb_userspace::control::{
    EventLog, Handle, Request,
    model::{Document, Status},
    serve, socket,
};
use tokio::sync::{mpsc, oneshot};

fn shunt(socket: &Path, args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_shunt"));
    command.arg("-s").arg(socket).args(args).env_remove("SHUNT_SOCKET").env_remove("SHUNT_LOG");
    command
}

fn run(socket: &Path, args: &[&str]) -> (i32, String, String) {
    let Output { status, stdout, stderr } = shunt(socket, args).output().expect("the program starts");
    let text = |bytes| String::from_utf8(bytes).expect("text");
    (status.code().expect("it exits"), text(stdout), text(stderr))
}

fn status(states: &[Effective]) -> Status {
    let backend = |(i, effective): (usize, &Effective)| BackendSnapshot {
        name: format!("web-{}", i + 1),
        id: BackendId(0),
        generation: Generation(1),
        address: "127.0.0.1:80".parse().expect("literal"),
        fallback: false,
        effective: *effective,
        operator: OperatorState::Enabled,
        discovery: None,
        identity: None,
        path: PathState::Ok,
        probe: ProbeState::None,
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
        last_probe: None,
        last_probe_code: None,
        drain: None,
    };
    let web = ServiceSnapshot {
        name: "web".to_owned(),
        id: ServiceId(0),
        vip: "203.0.113.10:80".parse().expect("literal"),
        panic: None,
        fallback: false,
        pending: None,
        backends: states.iter().enumerate().map(backend).collect(),
    };
    Status {
        version: "0.1.0".to_owned(),
        abi: lb_common::ABI_VERSION,
        instance: "default".to_owned(),
        pid: 1,
        started_unix_ms: 0,
        uptime_ms: 0,
        config_path: "shunt.toml".to_owned(),
        config_generation: 1,
        interfaces: Vec::new(),
        warnings: Vec::new(),
        program: lb_userspace::control::model::Program::default(),
        reactions: None,
        discovery: Vec::new(),
        daemon: lb_userspace::control::model::Daemon::default(),
        forwarding: Vec::new(),
        events_seq: 0,
        snapshot: Snapshot {
            t_ms: Instant(0),
            config_generation: 1,
            services: vec![web],
            leaving: Vec::new(),
        },
        traffic: Vec::new(),
        remaining_connections: Vec::new(),
        drops: Vec::new(),
        mirror_lost: 0,
        expired_flows: lb_userspace::control::model::ExpiredFlows::default(),
    }
}

/// A second after the daemon's start.
fn probe_event(seq: u64) -> Event {
    Event {
        seq,
        t_ms: Instant(1000),
        kind: EventKind::Probe,
        service: "web".to_owned(),
        backend: Some("web-1".to_owned()),
        from: ProbeState::Up.into(),
        to: ProbeState::Down.into(),
        reason: EventReason::Fall,
        enforced: true,
        ejection: 0,
        until_ms: None,
        actor: "probe".to_owned(),
        config_generation: 1,
        evidence: Evidence::default(),
    }
}

/// Calls `body` with a socket on which a daemon in this state answers. It has seen two events.
fn with_daemon(state: Status, body: impl FnOnce(&Path)) {
    let dir = tempfile::tempdir().expect("temp dir");
    let path = dir.path().join("control.sock");
    let (ready, is_ready) = std_mpsc::channel();
    let (stop, stopped) = oneshot::channel::<()>();
    let bound_path = path.clone();
    let daemon = thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        runtime.block_on(async {
            let bound = socket::bind(&bound_path).expect("free");
            let (requests, mut asked) = mpsc::channel(16);
            tokio::spawn(async move {
                while let Some(Request::Status(answer)) = asked.recv().await {
                    let _ = answer.send(state.clone());
                }
            });
            ready.send(()).expect("awaited");
            let events = EventLog::new();
            events.push(probe_event(1));
            events.push(probe_event(2));
            let (_, started) = tokio::sync::watch::channel(true);
            let handle = Handle { requests, events, started };
            serve(bound.listener, handle, async {
                let _ = stopped.await;
            })
            .await;
        });
    });
    is_ready.recv().expect("it binds");
    body(&path);
    stop.send(()).expect("it runs");
    daemon.join().expect("no panic");
}

#[test]
fn without_a_daemon_it_is_4_with_a_remedy() {
    let nowhere = Path::new("/nonexistent/control.sock");
    for args in [&["status"][..], &["status", "--check"], &["events"], &["events", "-f", "-o", "jsonl"]] {
        let (code, stdout, stderr) = run(nowhere, args);
        assert_eq!((code, stdout.as_str()), (4, ""), "{args:?}: {stderr}");
        let expected =
            "error: cannot reach the daemon at /nonexistent/control.sock: No such file or directory";
        assert!(stderr.starts_with(expected), "{stderr}");
        assert!(stderr.contains("\nhelp: is `shunt run` running?"), "{stderr}");
    }
    // `version` works without a daemon.
    let (code, stdout, stderr) = run(nowhere, &["version"]);
    assert_eq!((code, stderr.as_str()), (0, ""));
    assert!(stdout.starts_with("shunt ") && stdout.lines().count() == 1, "{stdout}");
}

#[test]
fn a_wrong_command_line_is_2() {
    let nowhere = Path::new("/nonexistent/control.sock");
    for args in [&["frobnicate"][..], &["status", "-o", "xml"], &["status", "--watch", "--check"]] {
        let (code, stdout, stderr) = run(nowhere, args);
        assert_eq!((code, stdout.as_str()), (2, ""), "{args:?}: {stderr}");
    }
}

#[test]
fn check_sets_the_exit_code_by_the_worst_service() {
    use Effective::{Ejected, Serving};
    for (states, expected) in
        [(&[Serving, Serving][..], 0), (&[Serving, Ejected], 8), (&[Ejected, Ejected], 9)]
    {
        with_daemon(status(states), |socket| {
            for format in ["table", "wide", "json"] {
                let (code, stdout, stderr) = run(socket, &["status", "--check", "-o", format]);
                assert_eq!((code, stderr.as_str()), (expected, ""), "{states:?} {format}");
                assert!(stdout.contains("web-2"), "{stdout}");
            }
            let (code, _, _) = run(socket, &["status"]);
            assert_eq!(code, 0, "only --check sets the exit code");
        });
    }
}

#[test]
fn json_is_the_response_of_the_api() {
    let state = status(&[Effective::Serving]);
    with_daemon(state.clone(), |socket| {
        let (_, stdout, _) = run(socket, &["status", "-o", "json"]);
        assert_eq!(stdout, serde_json::to_string(&Document::new(&state)).expect("plain data") + "\n");
    });
}

#[test]
fn events_come_as_lines_of_either_form() {
    with_daemon(status(&[Effective::Serving]), |socket| {
        let (code, stdout, stderr) = run(socket, &["events", "--since", "1", "-o", "jsonl"]);
        assert_eq!((code, stderr.as_str()), (0, ""));
        assert_eq!(stdout, serde_json::to_string(&probe_event(2)).expect("plain data") + "\n");

        let (code, stdout, stderr) = run(socket, &["events", "--service", "web"]);
        assert_eq!((code, stderr.as_str()), (0, ""));
        let line = "00:00:01.000  PROBE       web/web-1: up -> down (fall)\n";
        assert_eq!(stdout, format!("1970-01-01 UTC\n{line}{line}"));

        let (code, _, stderr) = run(socket, &["events", "--since", "7"]);
        assert_eq!(code, 2);
        assert!(stderr.starts_with("error: since=7 is ahead of the last event, 2\nhelp: "), "{stderr}");
    });
}

#[test]
fn a_wrong_service_is_2_with_a_suggestion() {
    with_daemon(status(&[Effective::Serving]), |socket| {
        let (code, stdout, stderr) = run(socket, &["status", "wbe"]);
        assert_eq!((code, stdout.as_str()), (2, ""));
        assert_eq!(stderr, "error: no service is named `wbe`\nhelp: did you mean `web`?\n");
    });
}

#[test]
fn watching_needs_a_terminal() {
    with_daemon(status(&[Effective::Serving]), |socket| {
        let (code, stdout, stderr) = run(socket, &["status", "--watch"]);
        assert_eq!((code, stdout.as_str()), (2, ""));
        assert!(stderr.starts_with("error: --watch draws on a terminal"), "{stderr}");
    });
}

#[test]
fn a_reader_that_leaves_is_no_failure() {
    with_daemon(status(&[Effective::Serving]), |socket| {
        for args in [&["status"][..], &["version"]] {
            let mut child = shunt(socket, args)
                .stdout(Stdio::piped())
                .stderr(Stdio::piped())
                .spawn()
                .expect("the program starts");
            // Before it can have written anything: it asks the daemon first.
            drop(child.stdout.take());
            let output = child.wait_with_output().expect("it exits");
            assert_eq!(output.status.code(), Some(0), "{args:?}");
            assert!(output.stderr.is_empty(), "{}", String::from_utf8_lossy(&output.stderr));
        }
    });
}

#[test]
fn no_colour_without_a_terminal() {
    with_daemon(status(&[Effective::Ejected]), |socket| {
        let (_, stdout, _) = run(socket, &["status"]);
        assert!(!stdout.contains('\x1b'), "{stdout}");
    });
}
