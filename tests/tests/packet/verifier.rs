//! The instructions that the verifier follows, compared with the baseline (`tests/verifier.toml`).

use std::{collections::BTreeMap, env, fs};

use lb_tests::kernel::Kernel;

/// Embedded, so that this test runs anywhere.
const BASELINE: &str = include_str!("../../verifier.toml");

/// Growth that passes, in percent.
const GROWTH: u64 = 5;

/// The same where the running kernel is not among those of the baseline: verifiers differ by about so much.
const STRANGE_GROWTH: u64 = 30;

/// If set, the test only prints the count: to write a new baseline.
const UPDATE: &str = "SHUNT_VERIFIER_UPDATE";

type Rows = BTreeMap<String, u64>;

fn baseline(text: &str) -> Rows {
    let table: BTreeMap<String, Rows> = toml::from_str(text).expect("the baseline is TOML");
    table.into_iter().find(|(name, _)| name == "instructions").map(|(_, rows)| rows).unwrap_or_default()
}

/// `6.1.0-56-cloud-amd64` is a `6.1`.
fn series(release: &str) -> String {
    release.split('.').take(2).collect::<Vec<_>>().join(".")
}

/// Most instructions that pass on this kernel, and why so many.
fn limit(rows: &Rows, series: &str) -> Option<(u64, String)> {
    if let Some(known) = rows.get(series) {
        return Some((known + known * GROWTH / 100, format!("{known} on {series}, plus {GROWTH} %")));
    }
    let (other, most) = rows.iter().max_by_key(|(_, count)| **count)?;
    let why = format!("none is known on {series}; {most} on {other}, plus {STRANGE_GROWTH} %");
    Some((most + most * STRANGE_GROWTH / 100, why))
}

#[test]
fn the_verifier_has_no_more_to_do() {
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").expect("Linux has it");
    let release = release.trim();
    let mut kernel = Kernel::new(1);
    let info = kernel.program().info().expect("the kernel describes it");
    let count = info.verified_instruction_count().expect("Linux 5.16 and later count them");
    // `cargo xtask vm` reads this line.
    println!("verified: {} {count} on {release}", series(release));
    if env::var_os(UPDATE).is_some() {
        return;
    }
    let rows = baseline(BASELINE);
    let (limit, why) = limit(&rows, &series(release)).expect("the baseline has a kernel");
    assert!(
        u64::from(count) <= limit,
        "{count} instructions, at most {limit} ({why}); make it simpler, or say why not and `cargo xtask vm --update`"
    );
}

#[test]
fn growth_is_measured_by_the_kernels_own_row() {
    let rows = baseline("[instructions]\n\"6.1\" = 1000\n\"6.12\" = 2000\n");
    assert_eq!(limit(&rows, "6.1").map(|(most, _)| most), Some(1050));
    assert_eq!(limit(&rows, "6.12").map(|(most, _)| most), Some(2100));
    assert_eq!(limit(&rows, "6.9").map(|(most, _)| most), Some(2600), "the largest, with room");
    assert_eq!(limit(&Rows::new(), "6.1"), None);
    assert_eq!(series("6.12.117+deb12-cloud-amd64"), "6.12");
}
