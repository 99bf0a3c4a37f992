use std::{fs, path::Path, sync::Arc};

use lb_core::{
    Engine, Settings,
    config::{self, Breaker, Config},
    io::{Input, Outcome},
    time::Instant,
};

use super::{entry::Entry, file::LogFile, line::What, writer::Writer, *};

fn options(path: &Path) -> Options {
    Options { path: path.to_owned(), max_size: 64 << 20, files: 4 }
}

fn configuration() -> Config {
    let backend = config::Backend {
        name: "web-1".to_owned(),
        address: "10.0.0.11:80".parse().expect("literal"),
        weight: 100,
        probe_address: None,
        max_connections: None,
        discovered: None,
    };
    let web = config::Service {
        name: "web".to_owned(),
        vip: "203.0.113.10:80".parse().expect("literal"),
        mode: config::Mode::default(),
        no_backend: config::NoBackend::default(),
        evidence: true,
        connections: Default::default(),
        fallback: Vec::new(),
        sources: config::Sources::default(),
        limits: config::Limits::default(),
        affinity: None,
        backends: vec![backend],
        probe: None,
        breaker: Breaker::default(),
    };
    Config { services: vec![web] }
}

#[test]
fn a_file_that_is_no_recording_is_left_alone() {
    let dir = tempfile::tempdir().expect("temp dir");
    let path = dir.path().join("passwd");
    for foreign in ["root:x:0:0::/root:/bin/sh\n", "{\"t_msx\":1}\n", "x"] {
        fs::write(&path, foreign).expect("written");
        let error = Recording::open(&options(&path)).expect_err("it is something else");
        assert!(error.to_string().ends_with("passwd: it holds something else"), "{error}");
        assert_eq!(fs::read_to_string(&path).expect("kept"), foreign);
    }
    let error = Recording::open(&options(&dir.path().join("none/x"))).expect_err("no such directory");
    assert!(matches!(error, OpenError::Io { .. }) && !error.remedy().is_empty());
    Recording::open(&options(Path::new("/dev/null"))).expect_err("not a file");
}

#[test]
fn a_recording_is_not_written_through_a_link_nor_where_all_may_write() {
    use std::os::unix::fs::{PermissionsExt as _, symlink};
    let dir = tempfile::tempdir().expect("temp dir");
    let (path, precious) = (dir.path().join("events.jsonl"), dir.path().join("precious"));
    fs::write(&precious, "{\"t_ms\":0}\nrest").expect("written");
    symlink(&precious, &path).expect("writable");
    let error = Recording::open(&options(&path)).expect_err("a link");
    assert!(error.to_string().ends_with("events.jsonl is a symbolic link"), "{error}");
    assert!(error.remedy().contains("remove it, or name another path"), "{}", error.remedy());
    assert_eq!(fs::read_to_string(&precious).expect("kept"), "{\"t_ms\":0}\nrest");
    fs::remove_file(&path).expect("ours");
    fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o777)).expect("ours");
    let error = Recording::open(&options(&path)).expect_err("everybody's folder");
    assert!(error.to_string().ends_with("may be changed by other users: its mode is 777"), "{error}");
    assert!(!path.exists());
}

/// A disk that is full.
#[test]
fn an_error_of_the_disk_suspends_and_missing_lines_are_counted() {
    let dir = tempfile::tempdir().expect("temp dir");
    let path = dir.path().join("events.jsonl");
    let mut file = LogFile::open(&options(&path)).expect("new");
    let whole = file.append(b"{\"t_ms\":0}\n");
    whole.expect("there is space");
    // Nothing can be written through a descriptor that is for reading.
    let writable = file.replace(fs::File::open(&path).expect("there"));
    let mut writer = Writer::new(file, 5, 6);
    let gap = |lost| Entry::Gap(lost);
    writer.take(Instant(0), gap(1));
    writer.flush();
    for second in 1..=9 {
        writer.take(Instant(second * 1000), gap(1));
    }
    writer.flush();
    assert_eq!(fs::read_to_string(&path).expect("there"), "{\"t_ms\":0}\n");
    drop(writer.file().replace(writable.expect("open")));
    writer.take(Instant(11_000), gap(7));
    writer.flush();
    let text = fs::read_to_string(&path).expect("there");
    let lines: Vec<_> =
        text.lines().map(|line| line::parse(line.as_bytes()).expect("whole").expect("one")).collect();
    let gaps: Vec<_> = lines
        .iter()
        .filter_map(|line| if let What::Gap { lost } = line.what { Some(lost) } else { None })
        .collect();
    // The head and ten entries, then what came after it.
    assert_eq!(gaps, [11, 7], "{text}");
    assert!(lines.iter().any(|line| matches!(line.what, What::Clock { began_unix_ms: 5, seed: Some(6) })));
}

/// The lines of a file after the disk was full at first, for a run that began at `began_unix_ms`.
fn after_a_full_disk(path: &Path, began_unix_ms: u64) -> Vec<(Instant, What<'static>)> {
    let mut file = LogFile::open(&options(path)).expect("ours");
    let writable = file.replace(fs::File::open(path).expect("there"));
    let mut writer = Writer::new(file, began_unix_ms, 6);
    writer.take(Instant(4_980_000), Entry::Gap(1));
    writer.flush();
    drop(writer.file().replace(writable.expect("open")));
    writer.take(Instant(5_000_000), Entry::Gap(9));
    writer.flush();
    let text = fs::read_to_string(path).expect("there");
    let parsed = |line: &str| {
        let line = line::parse(line.as_bytes()).expect("whole").expect("one");
        let what = match line.what {
            What::Clock { began_unix_ms, seed } => What::Clock { began_unix_ms, seed },
            What::Gap { lost } => What::Gap { lost },
            other => panic!("nothing else was written: {other:?}"),
        };
        (line.at, what)
    };
    text.lines().map(parsed).collect()
}

#[test]
fn after_a_full_disk_the_file_begins_with_its_clock() {
    let dir = tempfile::tempdir().expect("temp dir");
    let at = Instant(5_000_000);
    let clock = What::Clock { began_unix_ms: 5, seed: Some(6) };
    // The head and one entry are missing.
    let expected = [(at, clock), (at, What::Gap { lost: 2 }), (at, What::Gap { lost: 9 })];
    assert_eq!(after_a_full_disk(&dir.path().join("events.jsonl"), 5), expected);
}

#[test]
fn after_a_full_disk_a_restart_is_recorded_before_anything_of_its_time() {
    let dir = tempfile::tempdir().expect("temp dir");
    let path = dir.path().join("events.jsonl");
    fs::write(&path, "{\"t_ms\":9000000,\"began_unix_ms\":5,\"seed\":6}\n").expect("written");
    let at = Instant(5_000_000);
    let clock = |began_unix_ms| What::Clock { began_unix_ms, seed: Some(6) };
    let expected = [
        (Instant(9_000_000), clock(5)),
        (at, clock(9_500_000)),
        (at, What::Gap { lost: 2 }),
        (at, What::Gap { lost: 9 }),
    ];
    assert_eq!(after_a_full_disk(&path, 9_500_000), expected);
}

/// The names of the files and the first line of each.
fn files(dir: &Path) -> Vec<(String, String)> {
    let entries = fs::read_dir(dir).expect("there").map(|entry| entry.expect("readable"));
    let first = |path: &Path| fs::read_to_string(path).expect("text").lines().next().map(str::to_owned);
    let mut all: Vec<_> = entries
        .map(|entry| {
            let name = entry.file_name().into_string().expect("ASCII");
            (name, first(&entry.path()).unwrap_or_default())
        })
        .collect();
    all.sort();
    all
}

/// FILE has been moved, and a new one cannot be made, for example because the disk has no inode left.
#[test]
fn a_rotation_that_fails_half_way_costs_no_old_file() {
    let dir = tempfile::tempdir().expect("temp dir");
    let path = dir.path().join("events.jsonl");
    let mut file = LogFile::open(&Options { files: 3, ..options(&path) }).expect("new");
    let line = |number: u64| format!("{{\"t_ms\":{number}}}\n");
    for number in 1..=2 {
        file.append(line(number).as_bytes()).expect("space on the disk");
        file.rotate().expect("space on the disk");
    }
    file.append(line(3).as_bytes()).expect("space on the disk");
    file.shift().expect("renamed");
    // It goes on in a new FILE, not in the one that has become FILE.1.
    file.append(line(4).as_bytes()).expect("space on the disk");
    let expected = |numbers: [u64; 3]| {
        let names = ["events.jsonl", "events.jsonl.1", "events.jsonl.2"];
        let lines = numbers.map(|number| line(number).trim_end().to_owned());
        names.into_iter().map(str::to_owned).zip(lines).collect::<Vec<_>>()
    };
    assert_eq!(files(dir.path()), expected([4, 3, 2]));
    // Twice the same: a file that was moved already is not moved again.
    file.shift().expect("renamed");
    file.shift().expect("nothing to do");
    file.rotate().expect("space on the disk");
    file.append(line(5).as_bytes()).expect("space on the disk");
    assert_eq!(files(dir.path()), expected([5, 4, 3]));
}

/// There is no older file to keep, so the rotation empties the only one.
#[test]
fn a_recording_of_one_file_begins_again_in_it() {
    let dir = tempfile::tempdir().expect("temp dir");
    let path = dir.path().join("events.jsonl");
    let options = Options { files: 1, max_size: 20, ..options(&path) };
    let mut file = LogFile::open(&options).expect("new");
    for number in 1..=3 {
        let line = format!("{{\"t_ms\":{number}}}\n");
        if file.is_full(line.len() as u64) {
            file.rotate().expect("space on the disk");
        }
        file.append(line.as_bytes()).expect("space on the disk");
    }
    assert_eq!(files(dir.path()), [("events.jsonl".to_owned(), "{\"t_ms\":3}".to_owned())]);
    assert_eq!(fs::read_to_string(&path).expect("it is there"), "{\"t_ms\":3}\n");
}

#[test]
fn a_thread_that_does_not_keep_up_costs_lines_and_not_time() {
    let config = configuration();
    let mut engine = Engine::new(Settings::default(), Instant(0));
    engine.handle(Input::Config(Arc::new(config.clone())), Instant(0));
    let snapshot = engine.snapshot(Instant(0));
    let of = &snapshot.services[0].backends[0];
    let outcome = Input::outcome(of.id, of.generation, Outcome::Status(200));
    let (mut recorder, queue) = Recorder::with_queue(2);
    recorder.configured(&config, &snapshot, Instant(1));
    for at in 2..=6 {
        recorder.input(&outcome, Instant(at));
    }
    // Even the membership finds the queue full now.
    recorder.configured(&config, &snapshot, Instant(7));
    let taken: Vec<_> = queue.try_iter().map(|(at, _)| at).collect();
    assert_eq!(taken, [Instant(1), Instant(2)]);
    recorder.input(&outcome, Instant(8));
    let taken: Vec<_> = queue.try_iter().collect();
    assert!(matches!(taken[0], (Instant(8), Entry::Gap(4))), "{taken:?}");
    assert!(matches!(taken[1], (Instant(7), Entry::Members(_))), "{taken:?}");
    recorder.input(&outcome, Instant(9));
    let taken: Vec<_> = queue.try_iter().collect();
    assert!(matches!(taken[0], (Instant(9), Entry::Gap(1))), "{taken:?}");
    assert!(matches!(taken[1], (Instant(9), Entry::Outcome { .. })), "{taken:?}");
    drop(queue);
    recorder.input(&outcome, Instant(10));
    assert!(!recorder.is_on(), "without its thread there is nothing to wait for");
}
