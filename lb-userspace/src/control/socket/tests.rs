use super::*;

fn own_pid() -> i32 {
    i32::try_from(std::process::id()).expect("pids fit")
}

#[tokio::test]
async fn the_second_daemon_is_refused_with_the_pid_of_the_first() {
    let dir = tempfile::tempdir().expect("temp dir");
    let path = dir.path().join("control.sock");
    let first = bind(&path).expect("free");
    match bind(&path).expect_err("taken") {
        BindError::InUse { pid, .. } => assert_eq!(pid, Some(own_pid())),
        other => panic!("{other}"),
    }
    drop(first);
    bind(&path).expect("free again");
}

#[tokio::test]
async fn nothing_remains_after_the_guard() {
    let dir = tempfile::tempdir().expect("temp dir");
    let path = dir.path().join("made/for/it/control.sock");
    let bound = bind(&path).expect("free");
    let mode = |path: &Path| fs::metadata(path).expect("is there").permissions().mode() & 0o777;
    assert_eq!(mode(&path), 0o660);
    StdStream::connect(&path).expect("listening");
    drop(bound);
    let left: Vec<_> = fs::read_dir(path.parent().expect("has one")).expect("readable").collect();
    assert!(left.is_empty(), "{left:?}");
}

#[tokio::test]
async fn a_stale_socket_is_replaced() {
    let dir = tempfile::tempdir().expect("temp dir");
    let path = dir.path().join("control.sock");
    drop(StdListener::bind(&path).expect("free"));
    fs::write(dir.path().join("control.sock.lock"), "1\n").expect("writable");
    assert!(StdStream::connect(&path).is_err(), "nobody listens");
    let _bound = bind(&path).expect("stale");
    StdStream::connect(&path).expect("listening");
}

#[tokio::test]
async fn a_foreign_listener_is_left_alone() {
    let dir = tempfile::tempdir().expect("temp dir");
    let path = dir.path().join("control.sock");
    let _stranger = StdListener::bind(&path).expect("free");
    match bind(&path).expect_err("taken") {
        BindError::InUse { pid, .. } => assert_eq!(pid, Some(own_pid())),
        other => panic!("{other}"),
    }
    StdStream::connect(&path).expect("still its own");
    assert!(!dir.path().join("control.sock.lock").exists());
}

#[tokio::test]
async fn a_file_that_is_no_socket_is_left_alone() {
    let dir = tempfile::tempdir().expect("temp dir");
    let path = dir.path().join("control.sock");
    fs::write(&path, "mine").expect("writable");
    assert!(matches!(bind(&path), Err(BindError::NotASocket(_))));
    assert_eq!(fs::read_to_string(&path).expect("is there"), "mine");
    assert!(!dir.path().join("control.sock.lock").exists());
}

#[tokio::test]
async fn a_path_that_is_too_long_is_reported() {
    let dir = tempfile::tempdir().expect("temp dir");
    let error = bind(&dir.path().join("s".repeat(120))).expect_err("too long");
    assert!(matches!(error, BindError::TooLong(_)), "{error}");
    assert!(error.remedy().contains("107"));
}

#[tokio::test]
async fn a_successor_keeps_its_socket_when_the_lock_was_removed() {
    let dir = tempfile::tempdir().expect("temp dir");
    let path = dir.path().join("control.sock");
    let first = bind(&path).expect("free");
    fs::remove_file(dir.path().join("control.sock.lock")).expect("is there");
    fs::remove_file(&path).expect("is there");
    let _second = bind(&path).expect("looks free");
    drop(first);
    StdStream::connect(&path).expect("the second one's");
}
