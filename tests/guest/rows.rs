//! The rows: a kind of interfaces, and what must become of each mode on it.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use lb_lab::Shunt;

use crate::{
    cases, netem,
    stand::{Layer, Stand},
    wire,
};

/// The fate that a mode must have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Expected {
    /// Works, and is attached in this mode.
    Works(&'static str),
    /// `shunt run` ends with 6 and says this.
    Refused(&'static str),
    /// The same, before it has loaded anything.
    RefusedEarly(&'static str),
}

/// The cases of a mode that works.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Cases {
    /// Answers, bulk and an ejection.
    Short,
    /// The death of the daemon under load, too.
    Whole,
    /// Answers, and the counts of a lossy way.
    Netem,
}

/// A kind of interfaces, with the modes that are tried one after the other.
pub(crate) struct Row {
    kind: &'static str,
    layer: Layer,
    mtu: u32,
    cases: Cases,
    /// Each with its `xdp_mode`.
    modes: Vec<(&'static str, Expected)>,
}

impl Row {
    pub(crate) fn name(&self) -> String {
        let layer = match self.layer {
            Layer::Plain => "",
            Layer::Vlan => " vlan",
            Layer::Bond => " bond",
            Layer::BondItself => " bond itself",
        };
        let mtu = if self.mtu == 1500 { String::new() } else { format!(" mtu {}", self.mtu) };
        let netem = if self.cases == Cases::Netem { " netem" } else { "" };
        format!("{}{layer}{mtu}{netem}", self.kind)
    }
}

/// Whether a kernel of this release has tcx.
pub(crate) fn has_tcx(release: &str) -> bool {
    let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map(|number| number.parse().unwrap_or(0));
    (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0)) >= (6, 6)
}

/// Those that are tried.
pub(crate) fn all(full: bool, has_tcx: bool) -> Vec<Row> {
    use Cases::{Netem, Short, Whole};
    use Expected::{Refused, RefusedEarly, Works};
    use Layer::{Bond, BondItself, Plain, Vlan};

    let native = ("native", Works("native"));
    let no_native = ("native", Refused("takes no native XDP program"));
    let tc = ("tc", if has_tcx { Works("tc") } else { RefusedEarly("needs Linux 6.6") });
    // Where native XDP is not to be had and generic XDP would corrupt.
    let auto_on_guest = ("auto", if has_tcx { Works("tc") } else { Refused("unfinished checksums") });
    // Linux 6.1 has no native XDP in vmxnet3, and on virtio_net none that takes frames of several pages.
    let (vmxnet3, large) = if has_tcx {
        (native, native)
    } else {
        (no_native, ("native", Refused("more than its driver takes in native XDP")))
    };
    let generic = ("generic", Works("generic"));
    let auto_generic = ("auto", Works("generic"));
    let row = |kind, layer, mtu, cases, modes: &[_]| {
        // On an old kernel one refusal of tc is enough.
        let first = kind == "virtio" && cases == Whole;
        let modes = modes.iter().filter(|mode| first || **mode != tc || has_tcx);
        Row { kind, layer, mtu, cases, modes: modes.copied().collect() }
    };
    let no_generic = ("generic", RefusedEarly("unfinished checksums"));
    let mut all = vec![row("virtio", Plain, 1500, Whole, &[native, no_generic, tc])];
    if full {
        all.extend([
            row("virtio", Plain, 1500, Netem, &[native]),
            row("virtio", Plain, 9000, Short, &[large, tc]),
            row("virtio", Vlan, 1500, Short, &[native, tc]),
            row("virtio", Bond, 1500, Short, &[native, tc]),
            row("virtio", BondItself, 1500, Short, &[tc]),
            row("one-queue", Plain, 1500, Short, &[native, tc]),
            row("no-control", Plain, 1500, Short, &[no_native, auto_on_guest]),
            row("no-checksum", Plain, 1500, Short, &[native, generic]),
            row("vmxnet3", Plain, 1500, Whole, &[vmxnet3, generic, tc]),
            row("e1000e", Plain, 1500, Whole, &[no_native, auto_generic, tc]),
        ]);
    }
    all.retain(|row| !row.modes.is_empty());
    all
}

/// Tries each mode, and says what became of it. Answers how many were not as expected.
pub(crate) fn run(row: &Row) -> Result<usize> {
    let mut stand = Stand::new(row.kind, row.layer, row.mtu)?;
    wire::shows_wrong_checksums(&stand, "left")?;
    let (mut failed, mut start_takes) = (0, None);
    for (mode, expected) in &row.modes {
        match outcome(&mut stand, row.cases, (mode, *expected), &mut start_takes) {
            Ok(line) => say(row, mode, &line),
            Err(error) => {
                failed += 1;
                say(row, mode, &format!("FAILED: {error:#}"));
            }
        }
    }
    Ok(failed)
}

fn say(row: &Row, mode: &str, line: &str) {
    println!("row: {} {mode}: {line}", row.name());
}

fn outcome(
    stand: &mut Stand,
    cases: Cases,
    (mode, expected): (&str, Expected),
    start_takes: &mut Option<Duration>,
) -> Result<String> {
    match expected {
        Expected::Works(attached) => works(stand, cases, (mode, attached), start_takes),
        Expected::Refused(words) => Ok(refused(stand, mode, words)?.0),
        Expected::RefusedEarly(words) => {
            let (line, took) = refused(stand, mode, words)?;
            // Loading is by far the longest part of a start.
            let start = start_takes.context("a start that works comes first")?;
            ensure!(took * 2 < start, "refused after {took:?}, and a start takes {start:?}");
            Ok(line)
        }
    }
}

fn refused(stand: &Stand, mode: &str, words: &str) -> Result<(String, Duration)> {
    let (said, took) = cases::timed(|| stand.refusal(mode))?;
    ensure!(said.contains("exit status: 6") && said.contains(words), "not refused for `{words}`: {said}");
    Ok((format!("refused after {:.1} s: {words}", took.as_secs_f64()), took))
}

fn works(
    stand: &mut Stand,
    cases: Cases,
    (mode, attached): (&str, &str),
    start_takes: &mut Option<Duration>,
) -> Result<String> {
    let before = stand.checksum_errors()?;
    let (mut shunt, start) = cases::timed(|| stand.start(mode))?;
    start_takes.get_or_insert(start);
    let outcome = run_cases(stand, &mut shunt, cases, attached).with_context(|| shunt.log());
    drop(shunt);
    let after = stand.checksum_errors()?;
    ensure!(before == after, "TcpInCsumErrors were {before:?}, and are {after:?}: {outcome:?}");
    Ok(format!("works: TcpInCsumErrors 0; start {:.0} s, {}", start.as_secs_f64(), outcome?))
}

fn run_cases(stand: &mut Stand, shunt: &mut Shunt, cases: Cases, attached: &str) -> Result<String> {
    attached_as(shunt, attached)?;
    let ((), took) = cases::timed(|| cases::answers(stand))?;
    let mut said = format!("answers {} s", took.as_secs());
    if cases == Cases::Netem {
        let (requests, took) = cases::timed(|| netem::counts_agree(stand, shunt))?;
        return Ok(format!("{said}, netem {} s, {requests} requests, counted alike", took.as_secs()));
    }
    let ((), took) = cases::timed(|| cases::bulk(stand))?;
    said += &format!(", bulk {} s", took.as_secs());
    let (mut requests, took) = cases::timed(|| cases::ejection(stand, shunt))?;
    said += &format!(", ejection {} s", took.as_secs());
    if cases == Cases::Whole {
        let (more, took) = cases::timed(|| cases::kill(stand, shunt))?;
        requests += more;
        said += &format!(", kill -9 {} s", took.as_secs());
        attached_as(shunt, attached)?;
    }
    Ok(format!("{said}; {requests} requests, none failed"))
}

fn attached_as(shunt: &Shunt, mode: &str) -> Result<()> {
    let status = shunt.status()?;
    let modes: Vec<String> = status.interfaces.iter().map(|interface| interface.mode.to_string()).collect();
    ensure!(modes.iter().all(|attached| attached == mode), "attached as {modes:?}");
    Ok(())
}
