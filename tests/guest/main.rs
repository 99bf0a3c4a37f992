//! `lab-guest`: the suite of `cargo xtask vm --lab`, which runs in a virtual machine.
//!
//! The file `/nics` of the machine lists its interfaces by name and MAC address: those of the client and the backends, and for
//! each kind of interface that the node can have one on each side. The suite gives each host its interfaces, runs the real
//! daemon on the node, and prints a row for each kind and mode. It ends with 0 when all rows are as they must be.

mod cases;
mod netem;
mod nics;
mod rows;
mod stand;
mod wire;

use std::{env, fs, process::ExitCode};

use lb_lab::clock;

fn main() -> ExitCode {
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let all = rows::all(env::var_os("SHUNT_GUEST_FULL").is_some(), rows::has_tcx(&release));
    let only = env::var("SHUNT_GUEST_ROW").ok();
    let mut failed = 0;
    for row in all.into_iter().filter(|row| only.as_ref().is_none_or(|only| row.name() == *only)) {
        let begun = clock::now();
        let outcome = rows::run(&row);
        let lasted = (clock::now() - begun).as_secs();
        match outcome {
            Ok(wrong) => failed += wrong,
            Err(error) => {
                failed += 1;
                println!("row: {} FAILED: {error:#}", row.name());
            }
        }
        println!("row: {} took {lasted} s", row.name());
    }
    if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
