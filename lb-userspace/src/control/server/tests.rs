mod changes;

use std::path::PathBuf;

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::UnixStream,
    task::JoinHandle,
};

use super::*;
use crate::control::{
    client::{Client, ClientError, EventsQuery},
    fixture,
    model::{EventLine, Missed},
    socket,
};

/// A served socket with a loop that knows one status.
struct Daemon {
    _dir: tempfile::TempDir,
    _guard: socket::Guard,
    path: PathBuf,
    log: EventLog,
    stop: oneshot::Sender<()>,
    server: JoinHandle<()>,
}

/// `depth`: how many questions the loop answers before it hangs.
fn daemon(depth: usize) -> Daemon {
    let dir = tempfile::tempdir().expect("temp dir");
    let path = dir.path().join("control.sock");
    let bound = socket::bind(&path).expect("free");
    let (requests, mut asked) = mpsc::channel(16);
    let log = EventLog::new();
    tokio::spawn(async move {
        for _ in 0..depth {
            match asked.recv().await {
                Some(Request::Status(answer)) => answer.send(fixture::status()).expect("the client waits"),
                Some(other) => changes::answer(other),
                None => return,
            }
        }
        std::future::pending::<()>().await;
        drop(asked);
    });
    let (stop, stopped) = oneshot::channel();
    let (_, started) = watch::channel(true);
    let handle = Handle { requests, events: log.clone(), started };
    let server = tokio::spawn(serve(bound.listener, handle, async {
        let _ = stopped.await;
    }));
    Daemon { _dir: dir, _guard: bound.guard, path, log, stop, server }
}

impl Daemon {
    fn client(&self) -> Client {
        Client::new(&self.path)
    }

    fn push(&self, seqs: std::ops::RangeInclusive<u64>) {
        for seq in seqs {
            self.log.push(fixture::event(seq, if seq % 2 == 0 { "web" } else { "api" }));
        }
    }

    async fn seqs(&self, query: &EventsQuery) -> Vec<u64> {
        let mut lines = self.client().events(query).await.expect("200");
        let mut seqs = Vec::new();
        while let Some(line) = lines.next().await.expect("whole") {
            match serde_json::from_str(&line).expect("own JSON") {
                EventLine::Event(event) => seqs.push(event.seq),
                EventLine::Missed(missed) => panic!("{missed:?}"),
            }
        }
        seqs
    }

    /// The raw answer to a raw request.
    async fn raw(&self, method: &str, path: &str) -> (u16, serde_json::Value) {
        let mut stream = UnixStream::connect(&self.path).await.expect("listening");
        let request = format!("{method} {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.expect("a reader");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.expect("text");
        let (head, body) = answer.split_once("\r\n\r\n").expect("a head");
        assert!(head.contains("application/json"), "{head}");
        let status = head[9..12].parse().expect("a status line");
        (status, serde_json::from_str(body).expect("JSON"))
    }
}

fn following(since: Option<u64>, service: Option<&str>) -> EventsQuery {
    EventsQuery { since, follow: true, service: service.map(str::to_owned) }
}

async fn next_seq(lines: &mut crate::control::client::Lines) -> u64 {
    let line = lines.next().await.expect("whole").expect("open");
    match serde_json::from_str(&line).expect("own JSON") {
        EventLine::Event(event) => event.seq,
        EventLine::Missed(missed) => panic!("{missed:?}"),
    }
}

#[tokio::test]
async fn status_makes_the_round_trip() {
    let daemon = daemon(3);
    assert_eq!(daemon.client().status(None).await.expect("200"), fixture::status());
    let json = daemon.client().status_json(None).await.expect("200");
    assert_eq!(json, serde_json::to_vec(&Document::new(fixture::status())).expect("plain data"));

    let one = daemon.client().status(Some("api")).await.expect("200");
    assert!(one.knows("api") && !one.knows("web"));
}

#[tokio::test]
async fn version_does_not_need_the_loop() {
    let daemon = daemon(0);
    assert_eq!(daemon.client().version().await.expect("200"), Version::own());
}

#[tokio::test]
async fn an_unknown_service_is_answered_with_a_suggestion() {
    let daemon = daemon(2);
    match daemon.client().status(Some("wbe")).await.expect_err("unknown") {
        ClientError::Refused { status, problem } => {
            assert_eq!((status, problem.remedy.as_str()), (404, "did you mean `web`?"));
        }
        other => panic!("{other}"),
    }
    let error = daemon.client().events(&following(None, Some("billing"))).await.expect_err("unknown");
    assert_eq!(error.remedy(), "the services are web, api");
}

#[tokio::test(start_paused = true)]
async fn a_loop_that_hangs_is_reported() {
    let daemon = daemon(0);
    match daemon.client().status(None).await.expect_err("hangs") {
        ClientError::Refused { status, problem } => {
            assert_eq!(status, 503);
            assert!(problem.error.contains("within 2 s"), "{problem:?}");
        }
        other => panic!("{other}"),
    }
}

#[tokio::test]
async fn errors_are_json_with_a_remedy() {
    let daemon = daemon(0);
    let cases = [
        ("GET", "/v2/status", 404),
        ("GET", "/", 404),
        ("POST", "/v1/status", 405),
        ("GET", "/v1/reload", 405),
        ("GET", "/v1/explain?client=1.2.3.4&service=web", 400),
        ("GET", "/v1/backends/web", 404),
        ("POST", "/v1/backends/web/web-1", 400),
        ("POST", "/v1/reload?dry=1", 400),
        ("DELETE", "/v1/events", 405),
        ("GET", "/v1/status?servce=web", 400),
        ("GET", "/v1/events?since=soon", 400),
        ("GET", "/v1/events?since=7", 400),
    ];
    for (method, path, expected) in cases {
        let (status, body) = daemon.raw(method, path).await;
        assert_eq!(status, expected, "{method} {path}");
        for key in ["error", "remedy"] {
            assert!(body[key].as_str().is_some_and(|text| !text.is_empty()), "{method} {path}: {body}");
        }
    }
}

#[tokio::test]
async fn events_since_and_by_service() {
    let daemon = daemon(1);
    daemon.push(1..=6);
    assert_eq!(daemon.seqs(&EventsQuery::default()).await, [1, 2, 3, 4, 5, 6]);
    let since = EventsQuery { since: Some(4), ..EventsQuery::default() };
    assert_eq!(daemon.seqs(&since).await, [5, 6]);
    let of_web = EventsQuery { service: Some("web".to_owned()), ..EventsQuery::default() };
    assert_eq!(daemon.seqs(&of_web).await, [2, 4, 6]);
}

#[tokio::test]
async fn two_clients_follow() {
    let daemon = daemon(1);
    daemon.push(1..=2);
    let mut all = daemon.client().events(&following(None, None)).await.expect("200");
    let mut web = daemon.client().events(&following(Some(1), Some("web"))).await.expect("200");
    assert_eq!((next_seq(&mut all).await, next_seq(&mut all).await), (1, 2));
    assert_eq!(next_seq(&mut web).await, 2);
    daemon.push(3..=4);
    assert_eq!((next_seq(&mut all).await, next_seq(&mut all).await), (3, 4));
    assert_eq!(next_seq(&mut web).await, 4);
}

#[tokio::test]
async fn a_slow_reader_gets_the_gap_and_then_the_end() {
    let daemon = daemon(0);
    let mut lines = daemon.client().events(&following(None, None)).await.expect("200");
    daemon.push(1..=1);
    assert_eq!(next_seq(&mut lines).await, 1);
    // No await in between: the server cannot read until all are pushed.
    daemon.push(2..=600);
    let last = lines.next().await.expect("whole").expect("a line");
    match serde_json::from_str(&last).expect("own JSON") {
        EventLine::Missed(Missed { missed, since, .. }) => assert_eq!((missed, since), (343, 1)),
        EventLine::Event(event) => panic!("{event:?}"),
    }
    assert_eq!(lines.next().await.expect("whole"), None, "the stream ends");
    // The reader can still get the events that it missed.
    let again = EventsQuery { since: Some(1), ..EventsQuery::default() };
    assert_eq!(daemon.seqs(&again).await, (2..=600).collect::<Vec<_>>());
}

#[tokio::test]
async fn events_that_the_log_no_longer_has_come_first_as_a_gap() {
    let daemon = daemon(0);
    daemon.push(1..=1034);
    let asked = EventsQuery { since: Some(4), ..EventsQuery::default() };
    let mut lines = daemon.client().events(&asked).await.expect("200");
    let first = lines.next().await.expect("whole").expect("a line");
    assert_eq!(first, r#"{"type":"lagged","missed":6,"since":4}"#);
    assert_eq!(next_seq(&mut lines).await, 11);
}

/// Much longer than anything that the server waits for, in virtual time.
async fn soon<T>(future: impl Future<Output = T>) -> T {
    timeout(Duration::from_secs(60), future).await.expect("it does not hang")
}

#[tokio::test(start_paused = true)]
async fn stopping_ends_followers() {
    let daemon = daemon(0);
    let mut lines = daemon.client().events(&following(None, None)).await.expect("200");
    daemon.stop.send(()).expect("running");
    assert_eq!(soon(lines.next()).await.expect("whole"), None);
    soon(daemon.server).await.expect("no panic");
    assert!(matches!(Client::new(&daemon.path).version().await, Err(ClientError::Unreachable { .. })));
}

#[tokio::test(start_paused = true)]
async fn stopping_does_not_wait_for_a_client_that_does_not_read() {
    let daemon = daemon(0);
    daemon.push(1..=1024);
    // Asks, and never reads the half megabyte of the answer.
    let mut stream = UnixStream::connect(&daemon.path).await.expect("listening");
    stream.write_all(b"GET /v1/events?follow=true HTTP/1.1\r\nhost: x\r\n\r\n").await.expect("a reader");
    stream.readable().await.expect("answered");
    daemon.stop.send(()).expect("running");
    soon(daemon.server).await.expect("no panic");
}

#[tokio::test(start_paused = true)]
async fn connections_that_ask_nothing_end_by_themselves() {
    let daemon = daemon(1);
    let mut idle = UnixStream::connect(&daemon.path).await.expect("listening");
    let mut slow = UnixStream::connect(&daemon.path).await.expect("listening");
    slow.write_all(b"GET /v1/status HT").await.expect("a reader");
    for stream in [&mut idle, &mut slow] {
        let mut answer = Vec::new();
        let ended = timeout(2 * connections::HEAD_TIMEOUT, stream.read_to_end(&mut answer)).await;
        assert!(ended.is_ok(), "the daemon ends it");
    }
}

#[tokio::test]
async fn a_connection_too_many_is_answered_and_the_next_one_after_it_is_served() {
    let daemon = daemon(2);
    let mut open = Vec::new();
    for _ in 0..admission::MOST {
        open.push(UnixStream::connect(&daemon.path).await.expect("listening"));
    }
    // The last one of these is admitted before the next one is accepted.
    match daemon.client().status(None).await.expect_err("it is one too many") {
        ClientError::Refused { status, problem } => {
            assert_eq!((status, problem.kind), (503, ProblemKind::Unavailable), "{problem:?}");
            assert!(!problem.remedy.is_empty());
        }
        other => panic!("{other}"),
    }
    drop(open);
    let served = async {
        while daemon.client().status(None).await.is_err() {
            tokio::task::yield_now().await;
        }
    };
    soon(served).await;
}
