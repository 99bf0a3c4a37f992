//! The daemon on the drivers of real interfaces: the suite `lab-guest` (tests/guest) in a machine of each kernel.
//!
//! The machine is the node, the client and both backends, which are namespaces there. Whatever passes between two of them
//! leaves the machine by one interface and comes back by another ([`machine`]).
//!
//! Interfaces of the client and the backends take no unfinished checksums. So their taps complete what the node has left to its
//! device, and the receiver computes the checksum again: a wrong one is counted there.

use std::{
    fs,
    path::{Path, PathBuf},
    process::ExitCode,
    time::Duration,
};

use anyhow::{Context, Result, bail, ensure};

use super::{
    image::{self, Contents},
    kernels::{self, Flavour, Kernel},
    machine::{self, BRIDGES, Machine, Nic},
};
use crate::{
    clock::now,
    command::{self, cargo},
    place::target_dir,
    setup,
};

/// The part of the suite that is run.
#[derive(Debug)]
pub(crate) struct Lab {
    pub(crate) extent: Extent,
    /// One row alone, by its name.
    pub(crate) row: Option<String>,
    /// One series alone.
    pub(crate) kernel: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Extent {
    /// virtio_net, in at most six minutes
    Short,
    /// Other drivers, VLANs, bonds, large frames and lossy ways too
    Full,
}

/// The programs that run in the machines.
pub(crate) struct Programs {
    pub(crate) shunt: PathBuf,
    pub(crate) backend: PathBuf,
    pub(crate) suite: PathBuf,
}

/// The client and the backends.
const PEERS: &[(&str, &str)] = &[("client", "left"), ("web-0", "right"), ("web-1", "right")];
const PEER: &str = "virtio-net-pci,guest_csum=off,guest_tso4=off,guest_tso6=off,guest_ecn=off,guest_ufo=off";

/// The node's kinds of interfaces, one on each side: QEMU's device, and its queues. Native XDP on virtio_net wants two queues for
/// each CPU.
type Kind = (&'static str, &'static str, u32);
const SHORT: &[Kind] = &[("virtio", "virtio-net-pci", 4)];
const FULL: &[Kind] = &[
    ("virtio", "virtio-net-pci", 4),
    ("spare", "virtio-net-pci", 4),
    ("one-queue", "virtio-net-pci", 1),
    ("no-control", "virtio-net-pci,ctrl_guest_offloads=off", 4),
    (
        "no-checksum",
        "virtio-net-pci,csum=off,guest_csum=off,gso=off,guest_tso4=off,guest_tso6=off,guest_ecn=off,guest_ufo=off,host_tso4=off,host_tso6=off,host_ecn=off,host_ufo=off",
        4,
    ),
    ("vmxnet3", "vmxnet3", 1),
    ("e1000e", "e1000e", 1),
];

/// Each line of the suite for people begins with it.
const ROW: &str = "row: ";
/// The line that the machine prints at the end.
const ENDED: &str = "suite ended: ";

/// Builds what is needed, and runs it.
pub(crate) fn run(lab: &Lab) -> Result<ExitCode> {
    setup::run(setup::Need::Tests)?;
    let packages = ["lb-userspace", "lb-lab", "lb-tests"].into_iter().flat_map(|name| ["--package", name]);
    command::run(cargo().args(["build", "--bins"]).args(packages))?;
    let built = |name: &str| target_dir().join("debug").join(name);
    let programs =
        Programs { shunt: built("shunt"), backend: built("lab-backend"), suite: built("lab-guest") };
    match check(lab, &programs) {
        Ok(()) => Ok(ExitCode::SUCCESS),
        Err(error) => {
            println!("FAILED: {error:#}");
            Ok(ExitCode::FAILURE)
        }
    }
}

/// One kernel after the other. An error has all that failed.
pub(crate) fn check(lab: &Lab, programs: &Programs) -> Result<()> {
    setup::machine()?;
    let folder = target_dir().join("vm");
    fs::create_dir_all(&folder).with_context(|| format!("making {}", folder.display()))?;
    let flavour = match lab.extent {
        Extent::Short => Flavour::Cloud,
        Extent::Full => Flavour::Full,
    };
    let mut failed = Vec::new();
    let kernels = kernels::fetch(&folder, flavour)?;
    for kernel in kernels.iter().filter(|kernel| lab.kernel.as_ref().is_none_or(|only| kernel.series == only))
    {
        let begun = now();
        let outcome = one(&folder, kernel, lab, programs);
        let lasted = (now() - begun).as_secs();
        match outcome {
            Ok(()) => println!("{}: ok, {lasted} s", kernel.name),
            Err(error) => failed.push(format!("{}, after {lasted} s: {error:#}", kernel.name)),
        }
    }
    ensure!(failed.is_empty(), "\n{}", failed.join("\n"));
    Ok(())
}

fn one(folder: &Path, kernel: &Kernel, lab: &Lab, programs: &Programs) -> Result<()> {
    let nics = nics(lab.extent);
    let names: String =
        nics.iter().enumerate().map(|(number, nic)| format!("{} {}\n", nic.name, Nic::mac(number))).collect();
    let (ip, ethtool, tc) = (image::which("ip")?, image::which("ethtool")?, image::which("tc")?);
    let modules = kernel.modules(&[
        "virtio_pci",
        "virtio_net",
        "vmxnet3",
        "e1000e",
        "8021q",
        "bonding",
        "sch_netem",
    ])?;
    let contents = Contents {
        programs: &[
            (&ip, "bin/ip"),
            (&ethtool, "bin/ethtool"),
            (&tc, "bin/tc"),
            (&programs.shunt, "lab/shunt"),
            (&programs.backend, "lab/lab-backend"),
            // Where a test lies, so that it finds the programs above as tests do.
            (&programs.suite, "lab/deps/lab-guest"),
        ],
        modules: &modules,
        files: &[("nics", &names)],
        script: &script(lab, &modules),
    };
    let image = image::make(folder, &contents)?;
    let log = folder.join(format!("{}.lab.log", kernel.name));
    let limit = match lab.extent {
        Extent::Short => Duration::from_secs(600),
        Extent::Full => Duration::from_secs(1800),
    };
    let machine = Machine { kernel: &kernel.image, image: &image, log, memory: 1536, limit, nics: &nics };
    let said = machine.run()?;
    for row in said.lines().filter_map(|line| line.trim().strip_prefix(ROW)) {
        println!("{}  {row}", kernel.series);
    }
    judge(&said).with_context(|| machine::end(&said))
}

fn nics(extent: Extent) -> Vec<Nic> {
    let kinds = match extent {
        Extent::Short => SHORT,
        Extent::Full => FULL,
    };
    let peers =
        PEERS.iter().map(|(name, bridge)| Nic { name: (*name).to_owned(), bridge, device: PEER, queues: 1 });
    let of_node = kinds.iter().flat_map(|(name, device, queues)| {
        BRIDGES.map(|bridge| Nic { name: format!("{name}-{bridge}"), bridge, device, queues: *queues })
    });
    peers.chain(of_node).collect()
}

/// Run by the machine's first process: what an init does, and then the suite.
fn script(lab: &Lab, modules: &[PathBuf]) -> String {
    let load: String = modules
        .iter()
        .map(|module| format!("$bb insmod {}\n", image::loaded_from(Path::new("/"), module).display()))
        .collect();
    let full = match lab.extent {
        Extent::Short => "",
        Extent::Full => "export SHUNT_GUEST_FULL=1\n",
    };
    let row = lab.row.as_ref().map(|row| format!("export SHUNT_GUEST_ROW='{row}'\n")).unwrap_or_default();
    format!(
        "#!/bin/busybox sh\n\
         bb=/bin/busybox\n\
         $bb mount -t devtmpfs dev /dev\n\
         $bb mount -t proc proc /proc\n\
         $bb mount -t sysfs sysfs /sys\n\
         $bb mount -t tmpfs run /run\n\
         $bb mount -t tmpfs tmp /tmp\n\
         {load}\
         export PATH=/bin SHUNT_BUILT=1 RUST_BACKTRACE=0\n\
         {full}{row}\
         /lab/deps/lab-guest\n\
         echo \"{ENDED}$?\"\n\
         $bb poweroff -f\n"
    )
}

/// The verdict on the lines that the machine printed.
fn judge(said: &str) -> Result<()> {
    let ended = said.lines().find_map(|line| line.trim().strip_prefix(ENDED));
    let Some(code) = ended else { bail!("the suite did not come to its end") };
    ensure!(code == "0", "the suite ended with {code}");
    ensure!(said.lines().any(|line| line.trim().starts_with(ROW)), "the suite tried nothing");
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_whole_run_is_good() {
        judge("row: virtio native: works\r\nsuite ended: 0\r\n").expect("a good one");
        judge("row: virtio native: works\r\nsuite ended: 1\r\n").expect_err("a failure");
        judge("row: virtio native: works\r\nKernel panic\r\n").expect_err("no end");
        judge("suite ended: 0\r\n").expect_err("nothing tried");
    }

    #[test]
    fn interfaces_have_names_of_their_own() {
        for extent in [Extent::Short, Extent::Full] {
            let mut names: Vec<String> = nics(extent).into_iter().map(|nic| nic.name).collect();
            let all = names.len();
            names.sort();
            names.dedup();
            assert_eq!(names.len(), all);
            // The numbers of MAC addresses have a byte.
            assert!(all < 256);
        }
    }
}
