//! `docs/codes.md` lists every code. `BLESS=1 cargo test -p lb-userspace --lib cli::json` writes it.

use std::{env, fs, path::Path};

use lb_core::codes::{
    BackendReason, DaemonCode, DetectorNext, DiscoveryCode, EventReason, NextCode, OverrideCode, PendingCode,
    ProbeCode,
};

use crate::{
    config,
    control::model::{ChangeCode, HazardCode, ProblemKind},
    dataplane::PathWarning,
    doctor::FindingCode,
    import::NoteCode,
};

const HEAD: &str = "\
# Codes

Every JSON document of Shunt has a code beside each text for people. A text may change with any
version. A code keeps its meaning for as long as `schema` keeps its number, and new codes may
appear. [Operating](operating.md) has the codes of `path` and `condition`.

This page is generated from the code: `BLESS=1 cargo test -p lb-userspace --lib cli::json`.
";

fn section<C: Copy>(
    place: &str,
    all: &[C],
    name: fn(C) -> &'static str,
    says: fn(C) -> &'static str,
) -> String {
    let row = |code: &C| format!("| `{}` | {} |\n", name(*code), says(*code).trim());
    let rows: String = all.iter().map(row).collect();
    format!("\n## {place}\n\n| code | meaning |\n|---|---|\n{rows}")
}

macro_rules! sections {
    ($($place:literal: $of:ty),+ $(,)?) => {
        [$(section($place, <$of>::ALL, <$of>::as_str, <$of>::meaning)),+].concat()
    };
}

fn page() -> String {
    let sections = sections! {
        "A backend: `reason_code`": BackendReason,
        "A probe: `last_probe_code`, and `probe_code` of an event": ProbeCode,
        "What comes next: `code` in `next` of `why`": NextCode,
        "A detector: `next_code`": DetectorNext,
        "An operator's order: `code` in `overrides`": OverrideCode,
        "A write that waits: `code` in `pending`": PendingCode,
        "A path warning: `path_warning_code`": PathWarning,
        "The daemon: `state_error_code`, `counters_error_code`, `probe_error_code`": DaemonCode,
        "A discovery file: `code` in `discovery` of `status`": DiscoveryCode,
        "An event: `reason`": EventReason,
        "`doctor`, and `warnings` of `status`: `code`": FindingCode,
        "`check`: `code`": config::Code,
        "`import`: `code` in `notes`": NoteCode,
        "`reload`: `code` in `changes`": ChangeCode,
        "`reload`: `code` in `hazards`": HazardCode,
        "A refused request: `kind`": ProblemKind,
    };
    HEAD.to_owned() + &sections
}

#[test]
fn the_page_lists_every_code() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/codes.md");
    if env::var_os("BLESS").is_some() {
        fs::write(&path, page()).expect("the page can be written");
    }
    let there = fs::read_to_string(&path).unwrap_or_default();
    assert!(there == page(), "docs/codes.md is not what the code says: run this test with BLESS=1");
}

/// Programs compare them as they are.
#[test]
fn codes_are_snake_case() {
    for line in page().lines().filter(|line| line.starts_with("| `")) {
        let code = line.split('`').nth(1).expect("in backticks");
        let fits = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_';
        assert!(!code.is_empty() && code.bytes().all(fits), "{code}");
    }
}
