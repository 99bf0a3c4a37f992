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

fn mode(path: &Path) -> u32 {
    fs::metadata(path).expect("is there").permissions().mode() & 0o7777
}

#[tokio::test]
async fn only_the_daemon_s_user_can_open_the_lock() {
    let dir = tempfile::tempdir().expect("temp dir");
    let path = dir.path().join("control.sock");
    let _bound = bind(&path).expect("free");
    assert_eq!(mode(&dir.path().join("control.sock.lock")), 0o600);
}

#[tokio::test]
async fn a_lock_that_a_stranger_holds_keeps_nobody_out() {
    let dir = tempfile::tempdir().expect("temp dir");
    let (path, lock) = (dir.path().join("control.sock"), dir.path().join("control.sock.lock"));
    // As an earlier version left it. A stranger opened it to read, and locked it when that daemon was gone.
    fs::write(&lock, "1\n").expect("writable");
    fs::set_permissions(&lock, Permissions::from_mode(0o644)).expect("ours");
    let stranger = fs::File::open(&lock).expect("readable");
    stranger.try_lock().expect("nobody has it");
    let first = bind(&path).expect("its lock is another file now");
    assert_eq!(mode(&lock), 0o600);
    assert!(matches!(bind(&path), Err(BindError::InUse { .. })), "one daemon at a time");
    drop(first);
    bind(&path).expect("free again");
}

#[tokio::test]
async fn a_daemon_with_an_open_lock_is_not_displaced() {
    let dir = tempfile::tempdir().expect("temp dir");
    let (path, lock) = (dir.path().join("control.sock"), dir.path().join("control.sock.lock"));
    let bound = bind(&path).expect("free");
    fs::set_permissions(&lock, Permissions::from_mode(0o644)).expect("ours");
    assert!(matches!(bind(&path), Err(BindError::InUse { .. })), "its socket answers");
    StdStream::connect(&path).expect("listening");
    drop(bound);
}

#[tokio::test]
async fn a_lock_that_leads_elsewhere_is_replaced_and_not_followed() {
    let dir = tempfile::tempdir().expect("temp dir");
    let (path, lock) = (dir.path().join("control.sock"), dir.path().join("control.sock.lock"));
    let precious = dir.path().join("precious");
    fs::write(&precious, "precious").expect("writable");
    std::os::unix::fs::symlink(&precious, &lock).expect("writable");
    drop(bind(&path).expect("the link is nobody's lock"));
    fs::hard_link(&precious, &lock).expect("one file system");
    drop(bind(&path).expect("nor is the other name of a file"));
    nix::unistd::mkfifo(&lock, nix::sys::stat::Mode::from_bits_truncate(0o600)).expect("writable");
    drop(bind(&path).expect("nor is a pipe"));
    assert_eq!(fs::read_to_string(&precious).expect("there"), "precious");
}

#[tokio::test]
async fn a_folder_in_which_all_may_replace_the_socket_is_refused() {
    let dir = tempfile::tempdir().expect("temp dir");
    let path = dir.path().join("control.sock");
    fs::set_permissions(dir.path(), Permissions::from_mode(0o777)).expect("ours");
    let error = bind(&path).expect_err("any user could replace the socket");
    assert!(matches!(error, BindError::Untrusted { .. }), "{error}");
    assert!(error.remedy().starts_with("`chmod go-w "), "{}", error.remedy());
    fs::set_permissions(dir.path(), Permissions::from_mode(0o1777)).expect("ours");
    bind(&path).expect("each user keeps to the own files");
}

#[tokio::test]
async fn a_socket_of_a_stranger_is_neither_asked_nor_removed() {
    let dir = tempfile::tempdir().expect("temp dir");
    let path = dir.path().join("control.sock");
    let _stranger = StdListener::bind(&path).expect("free");
    if std::os::unix::fs::chown(&path, Some(65534), Some(65534)).is_err() {
        return;
    }
    let error = bind(&path).expect_err("theirs");
    assert!(matches!(error, BindError::Untrusted { why: Distrust::Owner(65534), .. }), "{error}");
    assert!(path.exists());
}
