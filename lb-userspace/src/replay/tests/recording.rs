//! From the daemon's inputs to a file and back: a recording gives the same decisions.

use std::{fs, path::Path, sync::Arc};

use lb_core::{
    Engine, Settings,
    codes::ProbeCode,
    config::Config,
    event::Event,
    io::{ClientCounts, Context, Input, Operation, Outcome, Output, ProbeRequest, ProbeResult, Verb},
    time::{Instant, Millis},
};

use crate::{
    config,
    journal::{Options, Recorder, Recording},
    replay::{self, InputError, Record, Replay, Then},
};

const CONFIG: &str = r#"
interfaces = ["lo"]
[service.web]
vip = "203.0.113.10:80"
[service.web.backends]
web-1 = "10.0.0.11:80"
web-2 = "10.0.0.12:80"
web-3 = "10.0.0.13:80"
[service.web.probe.tcp]
[service.web.breaker]
consecutive_5xx = 3
interval = "1s"
base_ejection_time = "3s"
max_ejection_time_jitter = "2s"
max_ejection_percent = 100
slow_threshold = "50ms"
[service.api]
vip = "203.0.113.11:80"
[service.api.backends]
api-1 = "10.0.1.11:80"
api-2 = "10.0.1.12:80"
[service.api.breaker]
split_l4_failures = true
consecutive_l4_failure = 2
error_rate_threshold = 30
interval = "700ms"
"#;

fn configuration() -> Config {
    config::parse("test", CONFIG).expect("right").core
}

fn options(path: &Path) -> Options {
    Options { path: path.to_owned(), max_size: 64 << 20, files: 4 }
}

/// A daemon without a kernel: an engine on virtual time that records.
struct Daemon {
    engine: Engine,
    recorder: Recorder,
    now: Instant,
    events: Vec<Event>,
    plans: Vec<(Instant, u64)>,
    /// Confirmations that are under way.
    asked: Vec<ProbeRequest>,
}

/// How long the maps take.
const WRITE: Millis = Millis(3);

impl Daemon {
    fn start(recorder: Recorder, seed: u64) -> Self {
        let engine = Engine::new(Settings { seed, ..Settings::default() }, Instant(0));
        Self { engine, recorder, now: Instant(0), events: Vec::new(), plans: Vec::new(), asked: Vec::new() }
    }

    fn give(&mut self, input: Input) {
        let configured = self.recorder.input(&input, self.now);
        self.engine.handle(input, self.now);
        if let Some(config) = configured {
            self.recorder.configured(&config, &self.engine.snapshot(self.now), self.now);
        }
        self.drain();
    }

    fn drain(&mut self) {
        while let Some(output) = self.engine.poll_output() {
            match output {
                Output::Dataplane(plan) => self.plans.push((self.now + WRITE, plan.id)),
                Output::Event(event) => self.events.push(*event),
                Output::Confirm(request) => self.asked.push(request),
                Output::Probe(_) => {}
            }
        }
    }

    fn until(&mut self, at: Instant) {
        loop {
            let written = self.plans.iter().map(|(at, _)| *at).min();
            let next =
                self.engine.next_deadline().into_iter().chain(written).min().filter(|next| *next <= at);
            let Some(next) = next else { break };
            self.now = self.now.max(next);
            let held: Vec<_> = self.plans.extract_if(.., |(at, _)| *at <= next).collect();
            for (_, plan) in held {
                self.give(Input::Applied { plan, result: Ok(()) });
            }
            self.give(Input::Tick);
        }
        self.now = at;
    }

    fn operate(&mut self, operation: Operation) {
        self.recorder.operation(&operation, self.now);
        let _ = self.engine.operate(&operation, self.now);
        self.drain();
    }

    fn ids(&self, service: &str, backend: &str) -> Option<(lb_core::io::BackendId, lb_core::io::Generation)> {
        let snapshot = self.engine.snapshot(self.now);
        let service = snapshot.services.into_iter().find(|known| known.name == service)?;
        let backend = service.backends.into_iter().find(|known| known.name == backend)?;
        Some((backend.id, backend.generation))
    }
}

/// splitmix64.
fn draw(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut x = *state;
    x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

/// A minute of everything that can happen to a daemon.
fn live(daemon: &mut Daemon, mut seed: u64, from: u64) {
    let whole = configuration();
    let without = |name: &str| {
        let mut config = whole.clone();
        config.services.iter_mut().for_each(|service| service.backends.retain(|of| of.name != name));
        config
    };
    let names = [("web", "web-1"), ("web", "web-2"), ("web", "web-3"), ("api", "api-1"), ("api", "api-2")];
    daemon.give(Input::Config(Arc::new(whole.clone())));
    for step in 0..6000u64 {
        daemon.until(Instant(from + step * 10));
        let (service, name) = names[(draw(&mut seed) % 5) as usize];
        let Some((backend, generation)) = daemon.ids(service, name) else { continue };
        let client = Some(([192, 0, draw(&mut seed) as u8 % 3, 7], 4000).into());
        let client_counts =
            draw(&mut seed).is_multiple_of(2).then_some(ClientCounts { prefixes: 3, addresses: 3 });
        if let Some(ProbeRequest { backend, generation, .. }) = daemon.asked.pop() {
            let result = match draw(&mut seed) % 2 {
                0 => ProbeResult::fail(ProbeCode::ConnectionRefused, "connection refused"),
                _ => ProbeResult::Pass,
            };
            let answered = draw(&mut seed).is_multiple_of(4);
            daemon.give(Input::Confirmation { backend, generation, result, answered });
        }
        let budgets: Vec<_> = daemon.engine.trial_budgets().collect();
        for (backend, _) in budgets {
            if draw(&mut seed).is_multiple_of(20) {
                daemon.give(Input::TrialsTaken { backend });
            }
        }
        // One backend has a bad time, and then another one.
        let sick = name == names[(step / 2000) as usize].1 && !draw(&mut seed).is_multiple_of(4);
        match draw(&mut seed) % 1000 {
            0..=899 => {
                let outcome = match (sick, draw(&mut seed) % 4) {
                    (true, 0) => Outcome::Failure(lb_core::io::L4Failure::Reset),
                    (true, _) => Outcome::Status(502),
                    (false, 0) => Outcome::Opaque,
                    (false, _) => Outcome::Status(200),
                };
                let ttfb = Some(std::time::Duration::from_nanos(draw(&mut seed) % 90_000_000));
                let late = matches!(outcome, Outcome::Failure(_)) && draw(&mut seed).is_multiple_of(4);
                let context = Context { client_counts, late };
                daemon.give(Input::Outcome { backend, generation, outcome, ttfb, client, context });
            }
            900..=979 => {
                let result = match draw(&mut seed) % 8 {
                    0 => ProbeResult::fail(ProbeCode::ConnectionRefused, "connection refused"),
                    1 => ProbeResult::Status(503),
                    _ => ProbeResult::Pass,
                };
                daemon.give(Input::Probe { backend, generation, result });
            }
            980..=982 => daemon.give(Input::Successes { backend, count: 7 }),
            983..=984 => daemon.give(Input::EvidenceLost { backend, lost: 3 }),
            985..=994 => {
                let verbs =
                    [Verb::Drain, Verb::Enable, Verb::Disable, Verb::Enable, Verb::Eject, Verb::Admit];
                daemon.operate(Operation {
                    service: service.to_owned(),
                    backend: name.to_owned(),
                    verb: verbs[(draw(&mut seed) % 6) as usize],
                    duration: draw(&mut seed).is_multiple_of(2).then_some(Millis(1500)),
                    reason: None,
                    actor: "somebody".to_owned(),
                    force: draw(&mut seed).is_multiple_of(3),
                });
            }
            995..=997 => daemon.give(Input::Config(Arc::new(without(name)))),
            _ => daemon.give(Input::Config(Arc::new(whole.clone()))),
        }
    }
}

type Decision = (Instant, String, String, Option<String>, String, String, String, u32, Option<Instant>);

fn decision(event: &Event) -> Decision {
    let Event { t_ms, kind, service, backend, from, to, reason, ejection, until_ms, .. } = event.clone();
    (t_ms, kind.to_string(), service, backend, from, to, reason.to_string(), ejection, until_ms)
}

fn replayed(config: Config, text: &[u8]) -> (Vec<Event>, replay::summary::Summary) {
    let mut events = Vec::new();
    let mut replays = [(None, Replay::new(config, replay::Options::default()).expect("fits"))];
    let mut input = std::io::BufReader::new(text);
    replay::read::<_, InputError>("recording", &mut input, &mut replays, |replays, _| {
        while let Some(record) = replays[0].1.next_record() {
            match record {
                Record::Event(event) => events.push(*event),
                Record::Snapshot(_) => {}
            }
        }
        Ok(Then::GoOn)
    })
    .unwrap_or_else(|error| panic!("{error}"));
    (events, replays[0].1.summary())
}

#[test]
fn a_recording_replayed_decides_the_same() {
    let dir = tempfile::tempdir().expect("temp dir");
    let path = dir.path().join("events.jsonl");
    let recorder =
        Recording::open(&options(&path)).expect("new").start(1_700_000_000_000, 42).expect("thread");
    let mut daemon = Daemon::start(recorder, 42);
    live(&mut daemon, 7, 0);
    let Daemon { recorder, events, .. } = daemon;
    recorder.finish();

    let text = fs::read(&path).expect("recorded");
    let (again, summary) = replayed(configuration(), &text);
    assert_eq!(summary.missing, 0);
    // Events that the daemon publishes only when the maps hold them may come in another order.
    let sorted = |events: &[Event]| {
        let mut all: Vec<_> = events.iter().map(decision).collect();
        all.sort();
        all
    };
    let (live, again) = (sorted(&events), sorted(&again));
    let ejected = live.iter().filter(|decision| decision.1 == "eject").count();
    assert!(ejected > 10, "{ejected} ejections in {} events: too few to show anything", live.len());
    for (i, decision) in live.iter().enumerate() {
        assert_eq!(again.get(i), Some(decision));
    }
    assert_eq!(live.len(), again.len());
}

#[test]
fn rotated_files_are_read_alone_and_together() {
    let dir = tempfile::tempdir().expect("temp dir");
    let path = dir.path().join("events.jsonl");
    let small = Options { max_size: 160 << 10, files: 3, ..options(&path) };
    let recorder = Recording::open(&small).expect("new").start(1_700_000_000_000, 1).expect("thread");
    let mut daemon = Daemon::start(recorder, 1);
    live(&mut daemon, 9, 0);
    daemon.recorder.finish();
    let files: Vec<_> = [".2", ".1", ""].map(|age| dir.path().join(format!("events.jsonl{age}"))).into();
    assert!(!dir.path().join("events.jsonl.3").exists(), "three are kept");
    let mut together = Vec::new();
    for file in &files {
        let text = fs::read(file).expect("kept");
        assert!(text.len() <= 160 << 10 && text.ends_with(b"\n"), "{}: {} bytes", file.display(), text.len());
        let (events, summary) = replayed(configuration(), &text);
        assert!(!events.is_empty() && summary.total.responses > 500, "{summary:?}");
        together.extend(text);
    }
    let (_, summary) = replayed(configuration(), &together);
    assert!(summary.total.responses > 1500, "{summary:?}");
    assert!(summary.began_ms > Instant(0) && summary.ended_ms > Instant(59_000), "{summary:?}");
}

#[test]
fn a_restart_goes_on_in_the_same_file() {
    let dir = tempfile::tempdir().expect("temp dir");
    let path = dir.path().join("events.jsonl");
    let unix = 1_700_000_000_000;
    for (run, began) in [(0, unix), (1, unix + 60_100)] {
        let recorder = Recording::open(&options(&path)).expect("ours").start(began, run).expect("thread");
        let mut daemon = Daemon::start(recorder, run);
        live(&mut daemon, run, 0);
        daemon.recorder.finish();
        // The daemon was killed while it wrote.
        let mut text = fs::read(&path).expect("recorded");
        text.extend_from_slice(br#"{"t_ms":60000,"serv"#);
        fs::write(&path, &text).expect("written");
    }
    drop(Recording::open(&options(&path)).expect("ours"));
    let text = fs::read(&path).expect("recorded");
    assert!(text.ends_with(b"}\n"), "the unfinished line is dropped");
    let (events, summary) = replayed(configuration(), &text);
    // The second run's minute begins 60.1 s after the first one's.
    assert!(summary.ended_ms >= Instant(119_000), "{summary:?}");
    assert!(
        events.iter().any(|event| event.t_ms > Instant(61_000)),
        "something was decided in the second run"
    );
    let restored = events.iter().filter(|event| event.actor == "restored").count();
    assert!(restored > 0, "the second run knows of the first one's ejections");
}
