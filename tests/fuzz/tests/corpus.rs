//! Every input that fuzzing found worth keeping, once more.

use std::{fs, path::PathBuf};

fn folder(target: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("corpus").join(target)
}

#[test]
fn what_was_kept_holds() {
    for target in lb_fuzz::TARGETS {
        let entries = fs::read_dir(folder(target.name)).expect("a target has a corpus");
        let mut ran = 0;
        for entry in entries {
            let path = entry.expect("it can be listed").path();
            let bytes = fs::read(&path).expect("it can be read");
            // The panic has the cause, this line the file.
            println!("{}", path.display());
            (target.run)(&bytes);
            ran += 1;
        }
        assert!(
            (10..200).contains(&ran),
            "{}: {ran} files; `cargo xtask fuzz` keeps a small corpus",
            target.name
        );
    }
}

#[test]
fn every_corpus_has_its_target() {
    for entry in fs::read_dir(folder("")).expect("there are some") {
        let name = entry.expect("it can be listed").file_name().into_string().expect("a plain name");
        assert!(lb_fuzz::find(&name).is_some(), "{name}");
    }
}

/// A target that cannot fail proves nothing.
#[test]
fn the_corpora_reach_what_they_are_for() {
    let accepted = fs::read_dir(folder("config")).expect("it is there").filter(|entry| {
        let bytes = fs::read(entry.as_ref().expect("listed").path()).expect("it can be read");
        lb_userspace::config::parse_bytes("corpus", &bytes).is_ok()
    });
    assert!(accepted.count() >= 3, "configurations that run");
}
