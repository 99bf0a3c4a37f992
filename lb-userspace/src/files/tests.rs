use std::os::unix::fs::{PermissionsExt as _, chown, symlink};

use super::*;

fn writing() -> OpenOptions {
    let mut options = OpenOptions::new();
    options.read(true).append(true).create(true).mode(0o600);
    options
}

fn distrust(path: &Path) -> Option<Distrust> {
    Distrust::of(&open(path, &writing()).expect_err("it is not ours"))
}

#[test]
fn a_file_of_ours_is_opened_and_made() {
    let dir = tempfile::tempdir().expect("temp dir");
    let path = dir.path().join("file");
    open(&path, &writing()).expect("made");
    open(&path, &writing()).expect("there");
}

#[test]
fn no_link_is_followed() {
    let dir = tempfile::tempdir().expect("temp dir");
    let (precious, link) = (dir.path().join("precious"), dir.path().join("link"));
    fs::write(&precious, "precious").expect("writable");
    symlink(&precious, &link).expect("writable");
    assert_eq!(distrust(&link), Some(Distrust::Link));
    symlink(dir.path().join("nothing"), dir.path().join("dangling")).expect("writable");
    assert_eq!(distrust(&dir.path().join("dangling")), Some(Distrust::Link));
    assert!(!dir.path().join("nothing").exists());
    let twin = dir.path().join("twin");
    fs::hard_link(&precious, &twin).expect("one file system");
    assert_eq!(distrust(&twin), Some(Distrust::Names(2)));
    assert_eq!(fs::read_to_string(&precious).expect("there"), "precious");
}

#[test]
fn pipes_devices_and_folders_are_no_files_and_nobody_waits_for_them() {
    let dir = tempfile::tempdir().expect("temp dir");
    let pipe = dir.path().join("pipe");
    nix::unistd::mkfifo(&pipe, nix::sys::stat::Mode::from_bits_truncate(0o600)).expect("writable");
    assert_eq!(distrust(&pipe), Some(Distrust::Kind("a pipe")));
    let mut reading = OpenOptions::new();
    assert!(open(&pipe, reading.read(true)).is_err(), "a reader would wait for a writer");
    assert_eq!(distrust(dir.path()), Some(Distrust::Kind("a folder")));
    assert_eq!(distrust(Path::new("/dev/null")), Some(Distrust::Kind("a device")));
}

#[test]
fn strangers_own_nothing_that_is_trusted() {
    let dir = tempfile::tempdir().expect("temp dir");
    let path = dir.path().join("file");
    fs::write(&path, "theirs").expect("writable");
    if chown(&path, Some(65534), Some(65534)).is_err() {
        // Without root nobody can give a file away.
        return;
    }
    assert_eq!(distrust(&path), Some(Distrust::Owner(65534)));
    assert!(Distrust::Owner(65534).remedy(&path).contains("chown root"));
    let folder = dir.path().join("folder");
    fs::create_dir(&folder).expect("writable");
    trust_folder(&folder).expect("ours");
    chown(&folder, Some(65534), Some(65534)).expect("root may");
    assert_eq!(Distrust::of(&trust_folder(&folder).expect_err("theirs")), Some(Distrust::Owner(65534)));
}

#[test]
fn a_folder_that_all_may_write_to_is_trusted_only_where_files_stay_with_their_owners() {
    let dir = tempfile::tempdir().expect("temp dir");
    let mode = |mode| {
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(mode)).expect("ours");
        trust_folder(dir.path()).map_err(|error| Distrust::of(&error))
    };
    assert_eq!(mode(0o777), Err(Some(Distrust::Open(0o777))));
    assert_eq!(mode(0o1777), Ok(()));
    assert_eq!(mode(0o755), Ok(()));
}
