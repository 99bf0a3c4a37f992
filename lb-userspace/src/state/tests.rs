use std::{fs, path::Path};

use lb_core::{
    snapshot::OperatorState,
    state::{BackendState, OverrideState, ServiceState, State},
    time::Millis,
};

use super::{
    file::{KEPT, write},
    *,
};

/// One backend that is out for so long still, and drained for twice that.
fn state(left: u64) -> State {
    let backend = BackendState {
        name: "web-1".to_owned(),
        address: "10.0.0.1:80".parse().expect("literal"),
        identity: None,
        ejection: 2,
        ejections: 5,
        open_for: Some(Millis(left)),
        cause: Some("3 failures in a row".to_owned()),
        detector: Some("consecutive_5xx".to_owned()),
        operator: OperatorState::Draining,
        operator_override: Some(OverrideState {
            actor: "alice".to_owned(),
            reason: None,
            left: Some(Millis(2 * left)),
        }),
        weight: None,
        drains_for: None,
    };
    let services = vec![ServiceState { name: "web".to_owned(), backends: vec![backend] }];
    State { version: State::VERSION, services }
}

/// The engine's part of the file.
fn restored(path: &Path, unix_ms: u64) -> Option<State> {
    load(path, unix_ms).map(|record| record.state)
}

fn names(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).expect("readable");
    let mut names: Vec<_> =
        entries.map(|entry| entry.expect("readable").file_name().to_string_lossy().into_owned()).collect();
    names.sort();
    names
}

#[test]
fn a_written_state_is_read_and_has_aged() {
    let dir = tempfile::tempdir().expect("temp dir");
    let path = dir.path().join("made/for/it/state.json");
    assert_eq!(restored(&path, 5000), None, "nothing is there, and nothing is wrong with that");
    write(&path, &Record { written_unix_ms: 5000, discovered: Vec::new(), state: state(30_000) })
        .expect("writable");
    assert_eq!(names(path.parent().expect("has one")), ["state.json"], "no rest of the writing");
    assert_eq!(restored(&path, 5000), Some(state(30_000)));
    let aged = restored(&path, 15_000).expect("there");
    assert_eq!(aged, state(30_000).aged(Millis(10_000)));
    assert_eq!(aged.services[0].backends[0].open_for, Some(Millis(20_000)));
    let over = restored(&path, 5_000_000).expect("there");
    assert_eq!(over.services[0].backends[0].open_for, Some(Millis(0)));
    assert_eq!(restored(&path, 1000), Some(state(30_000)), "the clock ran back");
}

#[test]
fn modes_keep_strangers_out() {
    use std::os::unix::fs::PermissionsExt as _;
    let dir = tempfile::tempdir().expect("temp dir");
    let path = dir.path().join("shunt/state.json");
    write(&path, &Record { written_unix_ms: 0, discovered: Vec::new(), state: state(1) }).expect("writable");
    let mode = |path: &Path| fs::metadata(path).expect("is there").permissions().mode() & 0o777;
    // Less what the umask of the test takes away.
    assert_eq!(mode(path.parent().expect("has one")) & !0o750, 0);
    assert_eq!(mode(&path) & !0o640, 0);
}

#[test]
fn an_unusable_file_is_set_aside_and_few_of_them_stay() {
    let dir = tempfile::tempdir().expect("temp dir");
    let path = dir.path().join("state.json");
    let whole =
        serde_json::to_string(&Record { written_unix_ms: 0, discovered: Vec::new(), state: state(9) })
            .expect("plain data");
    let future = whole.replace("\"version\":1", "\"version\":2");
    assert_ne!(future, whole);
    let cut = &whole[..whole.len() / 2];
    let cases = ["", "\0\0\0\0", cut, "[]", "{\"version\":1}", "{\"version\":-1}", &future];
    for (number, text) in (1..).zip(cases) {
        fs::write(&path, text).expect("writable");
        assert_eq!(restored(&path, number * 1000), None, "{text}");
        assert!(!path.exists(), "{text}");
        let aside = dir.path().join(format!("state.json.damaged-{number}"));
        assert_eq!(fs::read_to_string(aside).expect("set aside"), text);
    }
    let kept = ["state.json.damaged-5", "state.json.damaged-6", "state.json.damaged-7"];
    assert_eq!(names(dir.path()), kept);
}

#[test]
fn other_files_are_left_alone() {
    let dir = tempfile::tempdir().expect("temp dir");
    let path = dir.path().join("state.json");
    for name in ["blue.json.damaged-1", "state.json.damaged-mine", "state.json.damaged-"] {
        fs::write(dir.path().join(name), "mine").expect("writable");
    }
    for number in 1..6 {
        fs::write(&path, "?").expect("writable");
        restored(&path, number * 1000);
    }
    assert_eq!(names(dir.path()).len(), 3 + KEPT);
}

#[test]
fn a_directory_in_its_place_is_no_reason_to_fail() {
    let dir = tempfile::tempdir().expect("temp dir");
    let path = dir.path().join("state.json");
    fs::create_dir(&path).expect("writable");
    assert_eq!(restored(&path, 7000), None);
    assert_eq!(names(dir.path()), ["state.json.damaged-7"]);
}

#[test]
fn a_pipe_or_a_link_in_its_place_is_set_aside_and_leads_nowhere() {
    let dir = tempfile::tempdir().expect("temp dir");
    let path = dir.path().join("state.json");
    nix::unistd::mkfifo(&path, nix::sys::stat::Mode::from_bits_truncate(0o600)).expect("writable");
    assert_eq!(restored(&path, 1000), None, "and nobody waits for a writer");
    let elsewhere = dir.path().join("elsewhere.json");
    write(&elsewhere, &Record { written_unix_ms: 0, discovered: Vec::new(), state: state(9) })
        .expect("writable");
    std::os::unix::fs::symlink(&elsewhere, &path).expect("writable");
    assert_eq!(restored(&path, 2000), None);
    assert_eq!(restored(&elsewhere, 0), Some(state(9)));
    let kept = ["elsewhere.json", "state.json.damaged-1", "state.json.damaged-2"];
    assert_eq!(names(dir.path()), kept);
}

#[test]
fn the_new_file_is_not_written_through_a_link() {
    let dir = tempfile::tempdir().expect("temp dir");
    let (path, precious) = (dir.path().join("state.json"), dir.path().join("precious"));
    fs::write(&precious, "precious").expect("writable");
    std::os::unix::fs::symlink(&precious, dir.path().join("state.json.new")).expect("writable");
    write(&path, &Record { written_unix_ms: 0, discovered: Vec::new(), state: state(9) })
        .expect("its own file");
    assert_eq!(fs::read_to_string(&precious).expect("there"), "precious");
    assert_eq!(restored(&path, 0), Some(state(9)));
}

#[test]
fn a_folder_that_all_may_change_holds_no_state() {
    use std::os::unix::fs::PermissionsExt as _;
    let dir = tempfile::tempdir().expect("temp dir");
    let path = dir.path().join("state.json");
    trust_folder(&path).expect("ours");
    trust_folder(&dir.path().join("not/made/yet.json")).expect("the daemon makes it");
    fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o777)).expect("ours");
    let error = trust_folder(&path).expect_err("everybody's");
    assert!(error.to_string().ends_with("may be changed by other users: its mode is 777"), "{error}");
    assert!(error.remedy().starts_with("`chmod go-w "), "{}", error.remedy());
    write(&path, &Record { written_unix_ms: 0, discovered: Vec::new(), state: state(9) })
        .expect_err("nor does a write go there");
}

#[tokio::test]
async fn the_keeper_writes_the_last_state() {
    let dir = tempfile::tempdir().expect("temp dir");
    let path = dir.path().join("state.json");
    let keeper = Keeper::start(path.clone());
    for left in 1..=100 {
        keeper.keep(Record { written_unix_ms: 0, discovered: Vec::new(), state: state(left) });
    }
    keeper.stop().await;
    assert_eq!(restored(&path, 0), Some(state(100)));
}

#[tokio::test]
async fn a_keeper_with_nothing_to_write_makes_nothing() {
    let dir = tempfile::tempdir().expect("temp dir");
    Keeper::start(dir.path().join("state.json")).stop().await;
    assert_eq!(names(dir.path()), [""; 0]);
}

#[tokio::test(start_paused = true)]
async fn a_write_that_fails_is_reported_and_tried_again() {
    let dir = tempfile::tempdir().expect("temp dir");
    let folder = dir.path().join("shunt");
    // A file where the folder should be: no user may write below it, root included.
    fs::write(&folder, "").expect("writable");
    let keeper = Keeper::start(folder.join("state.json"));
    keeper.keep(Record { written_unix_ms: 0, discovered: Vec::new(), state: state(1) });
    while keeper.failing().is_none() {
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
    fs::remove_file(&folder).expect("ours");
    while keeper.failing().is_some() {
        tokio::time::sleep(std::time::Duration::from_secs(1)).await;
    }
    assert_eq!(restored(&folder.join("state.json"), 0), Some(state(1)));
    keeper.stop().await;
}
