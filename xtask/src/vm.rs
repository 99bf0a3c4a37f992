//! The program in other kernels: Debian's, booted by QEMU.
//!
//! A kernel package is fetched through apt and unpacked, not installed. The machine has one file system, in
//! memory, with the packet fixtures as this host built them; it boots, runs a few of them, and goes. There is no
//! network and no disk.

mod baseline;
mod image;
mod kernels;
mod lab;
mod machine;
mod modules;

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, ExitCode},
    time::Duration,
};

use anyhow::{Context, Result, bail};
use serde_json::Value;

use crate::{
    command::{self, cargo},
    place::target_dir,
    setup,
    vm::{
        baseline::Verified,
        image::Contents,
        kernels::{Flavour, Kernel},
        machine::Machine,
    },
};

pub(crate) use self::lab::{Extent, Lab, run as run_lab};

/// For one kernel, from its first instruction to its last.
const LIMIT: Duration = Duration::from_secs(300);

/// The fixtures that are run there: both families, from a SYN to the last acknowledgement, and what must not be touched.
const FIXTURES: &[&str] = &[
    "verifier::the_verifier_has_no_more_to_do",
    "steering::a_syn_is_translated_and_nothing_else_of_it_changes",
    "connections::opens_carries_and_closes",
    "refused::not_ours",
];

/// The line that the machine prints when the fixtures are through.
const ENDED: &str = "fixtures ended: ";

pub(crate) fn run(update: bool) -> Result<ExitCode> {
    setup::run(setup::Need::Build)?;
    setup::machine()?;
    let folder = target_dir().join("vm");
    fs::create_dir_all(&folder).with_context(|| format!("making {}", folder.display()))?;
    let fixtures = fixtures()?;
    let mut all = Vec::new();
    let mut failed = false;
    for kernel in kernels::fetch(&folder, Flavour::Cloud)? {
        let contents = Contents {
            programs: &[(&fixtures, "fixtures")],
            modules: &kernel.modules(&["veth"])?,
            files: &[],
            script: &script(update),
        };
        let image = image::make(&folder, &contents)?;
        match boot(&kernel, &image, &folder) {
            Ok(verified) => {
                println!(
                    "{}: accepted, {} instructions verified, fixtures passed",
                    kernel.name, verified.count
                );
                all.push(verified);
            }
            Err(error) => {
                println!("{}: FAILED: {error:#}", kernel.name);
                failed = true;
            }
        }
    }
    if update {
        all.push(here(&fixtures)?);
        baseline::write(&all)?;
    }
    Ok(if failed { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

/// The packet fixtures, built.
fn fixtures() -> Result<PathBuf> {
    let arguments =
        ["test", "--package", "lb-tests", "--test", "packet", "--no-run", "--message-format", "json"];
    let messages = command::read(cargo().args(arguments))?;
    let of_test = messages.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let mut built = of_test.filter(|message| message["target"]["name"] == "packet");
    let path = built.find_map(|message| message["executable"].as_str().map(PathBuf::from));
    path.context("cargo has not said where the packet fixtures are")
}

/// Run by the machine's first process, and all it does: the fixtures as XDP, and then at tc.
fn script(update: bool) -> String {
    let fixtures = FIXTURES.join(" ");
    let update = if update { "export SHUNT_VERIFIER_UPDATE=1\n" } else { "" };
    format!(
        "#!/bin/busybox sh\n\
         bb=/bin/busybox\n\
         $bb mount -t proc proc /proc\n\
         $bb mount -t sysfs sysfs /sys\n\
         $bb insmod /modules/veth.ko\n\
         $bb ln -s busybox /bin/ip\n\
         export PATH=/bin\n\
         {update}/fixtures --test-threads 1 --nocapture {fixtures} &&\n\
         SHUNT_LAB_TC=1 /fixtures --test-threads 1 --nocapture {fixtures}\n\
         echo \"{ENDED}$?\"\n\
         $bb poweroff -f\n"
    )
}

fn boot(kernel: &Kernel, image: &Path, folder: &Path) -> Result<Verified> {
    let log = folder.join(format!("{}.log", kernel.name));
    let machine = Machine { kernel: &kernel.image, image, log, memory: 1024, limit: LIMIT, nics: &[] };
    let said = machine.run()?;
    judge(&said).with_context(|| machine::end(&said))
}

/// The verdict on the lines that the machine printed.
fn judge(said: &str) -> Result<Verified> {
    let Some(code) = said.lines().find_map(|line| line.trim().strip_prefix(ENDED)) else {
        bail!("the fixtures did not come to their end");
    };
    if code != "0" {
        bail!("the fixtures ended with {code}");
    }
    let passed = said.lines().find_map(|line| line.split_once("test result: ok. ").map(|(_, rest)| rest));
    let passed = passed.and_then(|rest| rest.split(' ').next()?.parse::<usize>().ok());
    if passed.is_none_or(|passed| passed < FIXTURES.len()) {
        bail!("not all of the fixtures were run");
    }
    baseline::find(said).context("the fixtures did not say what was verified")
}

/// The same on the running kernel, by the verifier alone.
fn here(fixtures: &Path) -> Result<Verified> {
    let mut command = Command::new(fixtures);
    command.env("SHUNT_VERIFIER_UPDATE", "1").args(["--nocapture", "--exact", FIXTURES[0]]);
    let said = command::read(&mut command)?;
    baseline::find(&said).context("the fixtures did not say what was verified here")
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = "\nverified: 6.1 6000 on 6.1.0-56-cloud-amd64\r\n\
        test result: ok. 7 passed; 0 failed; 0 ignored\r\nfixtures ended: 0\r\n";

    #[test]
    fn only_a_whole_run_is_good() {
        let verified = judge(GOOD).expect("a good one");
        assert_eq!((verified.series.as_str(), verified.count), ("6.1", 6000));
        for (what, with) in [
            ("fixtures ended: 0", "Kernel panic"),
            ("fixtures ended: 0", "fixtures ended: 101"),
            ("7 passed", "1 passed"),
            ("verified: ", "refused: "),
        ] {
            judge(&GOOD.replace(what, with)).expect_err(with);
        }
    }
}
