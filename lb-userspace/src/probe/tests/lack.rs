use super::*;
use crate::probe::{
    failure::Failure,
    lack::{Lack, Lacks},
};

fn lack(code: i32) -> Option<Lack> {
    Lack::of(&io::Error::from_raw_os_error(code))
}

#[test]
fn only_what_the_daemon_itself_lacks_is_its_lack() {
    for code in [libc::EMFILE, libc::ENFILE, libc::ENOBUFS, libc::ENOMEM, libc::EADDRNOTAVAIL] {
        assert!(lack(code).is_some(), "{code}");
        assert!(matches!(Failure::io(io::Error::from_raw_os_error(code)), Failure::Own(_)), "{code}");
    }
    for code in [libc::ECONNREFUSED, libc::ETIMEDOUT, libc::EHOSTUNREACH, libc::ENETUNREACH, libc::ECONNRESET]
    {
        assert_eq!(lack(code), None, "{code}");
        assert!(matches!(Failure::io(io::Error::from_raw_os_error(code)), Failure::Io(_)), "{code}");
    }
}

#[test]
fn status_says_what_is_lacking_while_a_probe_waits() {
    let (lacks, files) = (Lacks::default(), lack(libc::EMFILE).expect("own"));
    assert_eq!(lacks.shown(), None);
    let first = lacks.wait(files, None);
    let second = lacks.wait(lack(libc::EADDRNOTAVAIL).expect("own"), None);
    let first = lacks.wait(files, Some(first));
    assert_eq!(
        lacks.shown(),
        Some((DaemonCode::LacksDescriptors, "Too many open files (2 wait)".to_owned()))
    );
    drop(second);
    drop(first);
    assert_eq!(lacks.shown(), None);
}
