//! A virtual machine of QEMU: from its first instruction to its last, within a limit.
//!
//! Its network, if it has one, is a network namespace without a name: two bridges with a tap for each interface. It goes with
//! QEMU, however that ends, and so do its taps. Frames carry `vnet_hdr`, as under libvirt: a sender in the machine leaves
//! checksums and segmentation to its device.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use anyhow::{Context, Result, ensure};

use crate::command;

pub(super) struct Machine<'a> {
    pub(super) kernel: &'a Path,
    pub(super) image: &'a Path,
    /// For its console.
    pub(super) log: PathBuf,
    /// MiB
    pub(super) memory: u32,
    pub(super) limit: Duration,
    pub(super) nics: &'a [Nic],
}

/// An interface.
pub(super) struct Nic {
    pub(super) name: String,
    pub(super) bridge: &'static str,
    /// QEMU's device with its properties.
    pub(super) device: &'static str,
    pub(super) queues: u32,
}

pub(super) const BRIDGES: [&str; 2] = ["left", "right"];

/// The taps carry what any of the interfaces may send.
const MTU: u32 = 9000;

impl Nic {
    /// By its number, which the machine knows it by.
    pub(super) fn mac(number: usize) -> String {
        format!("52:54:00:5b:00:{number:02x}")
    }
}

impl Machine<'_> {
    /// Runs it, and answers what it printed.
    pub(super) fn run(&self) -> Result<String> {
        let log = &self.log;
        let mut command = match self.nics {
            [] => Command::new("qemu-system-x86_64"),
            nics => in_namespace(log, nics)?,
        };
        // Hardware's help is not asked for: where it is there, it may be broken, and then QEMU aborts.
        command.args(["-accel", "tcg", "-cpu", "max", "-smp", "2", "-m", &self.memory.to_string()]);
        command.args(["-nodefaults", "-no-user-config", "-display", "none", "-no-reboot"]);
        command.arg("-serial").arg(format!("file:{}", log.display()));
        command.arg("-kernel").arg(self.kernel).arg("-initrd").arg(self.image);
        command.args(["-append", "console=ttyS0 quiet panic=-1"]);
        for (number, nic) in self.nics.iter().enumerate() {
            command.args(["-netdev", &backend(number, nic), "-device", &frontend(number, nic)]);
        }
        // The output of an earlier run is not this one's.
        fs::write(log, "").with_context(|| format!("writing {}", log.display()))?;
        let ended = command::run_within(self.limit, &mut command);
        let said = fs::read(log).with_context(|| format!("reading {}", log.display()))?;
        let said = String::from_utf8_lossy(&said).into_owned();
        let status = ended.with_context(|| end(&said))?;
        ensure!(status.success(), "QEMU: {status}\n{}", end(&said));
        Ok(said)
    }
}

/// The last lines.
pub(super) fn end(said: &str) -> String {
    let lines: Vec<&str> = said.lines().collect();
    lines[lines.len().saturating_sub(40)..].join("\n")
}

/// QEMU in a namespace that has its bridges and taps. It is killed when the thread that starts it ends.
fn in_namespace(log: &Path, nics: &[Nic]) -> Result<Command> {
    let batch = log.with_extension("ip");
    fs::write(&batch, wires(nics)).with_context(|| format!("writing {}", batch.display()))?;
    let mut command = Command::new("unshare");
    command.args(["--net", "setpriv", "--pdeathsig", "KILL", "sh", "-c"]);
    command.args(["ip -batch \"$1\" && shift && exec \"$@\"", "wires"]).arg(batch).arg("qemu-system-x86_64");
    Ok(command)
}

/// For `ip -batch`.
fn wires(nics: &[Nic]) -> String {
    let bridge = |name| format!("link add {name} type bridge mcast_snooping 0\nlink set {name} up\n");
    let mut lines: String = BRIDGES.into_iter().map(bridge).collect();
    for (number, nic) in nics.iter().enumerate() {
        let queues = if nic.queues > 1 { " multi_queue" } else { "" };
        lines += &format!(
            "tuntap add dev tap{number} mode tap vnet_hdr{queues}\nlink set tap{number} mtu {MTU} master {} up\n",
            nic.bridge
        );
    }
    lines
}

fn backend(number: usize, nic: &Nic) -> String {
    let queues = if nic.queues > 1 { format!(",queues={}", nic.queues) } else { String::new() };
    format!("tap,id=net{number},ifname=tap{number},script=no,downscript=no{queues}")
}

fn frontend(number: usize, nic: &Nic) -> String {
    // A vector for each direction of a queue, and two for the device itself.
    let queues =
        if nic.queues > 1 { format!(",mq=on,vectors={}", 2 * nic.queues + 2) } else { String::new() };
    format!("{},netdev=net{number},mac={},romfile={queues}", nic.device, Nic::mac(number))
}
