//! The project's benchmark: `cargo xtask bench [packet|live|http|verdict|scale|storm|founding|all] [--json] [--smoke] [--repeat N] [--peer NAME|FILE]`.
//!
//! Numbers depend on the machine and on what else it does, so no test looks at them: a run says what was
//! measured on, repeats, and shows how far the repetitions lie apart. All traffic stays in network namespaces that it
//! makes and removes. Needs root, `ip`, `ethtool`, `wrk` and nginx; other balancers ([`peers`]) as far as they are installed.
//!
//! A table for people, or JSON, goes to standard output; progress goes to standard error. The exit code is 1 when
//! a promise does not hold, or when `--smoke`, which looks at no promise, finds a number that cannot be true.

mod binary;
mod founding;
mod http;
mod live;
mod machine;
mod packet;
mod peers;
mod scale;
mod statistics;
mod storm;
mod verdict;

use std::{path::Path, process::ExitCode};

use anyhow::{Result, ensure};
use clap::{Parser, ValueEnum};
use lb_lab::{Style, signals};
use serde::Serialize;

use self::{machine::Machine, peers::Peer};

const EXAMPLES: &str = "\
Examples:
  cargo xtask bench http --repeat 9
  cargo xtask bench http --peer nftables --peer haproxy-tcp --peer shunt-nat
  cargo xtask bench verdict --peer shunt-reset --peer envoy-http --json
  cargo xtask bench http --tc --peer routing --peer shunt-nat --repeat 9
  cargo xtask bench packet --case reply --case ack --json
  cargo xtask bench --smoke";

#[derive(Parser)]
#[command(name = "cargo xtask bench", about = "Measures Shunt on this machine", after_help = EXAMPLES)]
struct Args {
    #[arg(value_enum, default_value_t = Part::All)]
    part: Part,
    /// For programs instead of people
    #[arg(long)]
    json: bool,
    /// Only see whether it works: every row, as short as can be
    #[arg(long)]
    smoke: bool,
    /// `http`, `verdict`: Shunt at tc ingress instead of XDP; GRO is off then, which only XDP's redirects to a veth need
    #[arg(long)]
    tc: bool,
    /// With `--tc`: devices as the kernel makes them, which finish checksums and take segments of 64 KiB
    #[arg(long, requires = "tc")]
    offloads: bool,
    /// How often each is measured [default: packet 5, live 9, http 3, verdict 100 and 20 of each peer, scale 5, storm 3, founding 3]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1000))]
    repeat: Option<u32>,
    /// `http`, `verdict`: only these beside the bases; may be repeated [default: all that are installed]. `packet`, `live`: a file
    /// about another balancer's program (its object, what its maps hold, frames to play), described in packet/peer.rs
    #[arg(long = "peer", value_name = "NAME|FILE")]
    peers: Vec<String>,
    /// `packet`: only this case; may be repeated [default: all]
    #[arg(long = "case", value_name = "NAME")]
    cases: Vec<String>,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Part {
    /// Nanoseconds a packet, and the size of program and maps
    Packet,
    /// Packets a second that really cross veth pairs
    Live,
    /// Requests a second beside a direct path, and their CPU cost
    Http,
    /// Time from the deciding response to the ejection in force
    Verdict,
    /// The cost of tables, mirrored heads, services, flows and a thousand probed backends
    Scale,
    /// How late the loop is while two hundred backends flap
    Storm,
    /// Good answers of the founding documents, beside a running Envoy
    Founding,
    All,
}

#[derive(Serialize)]
struct Report {
    machine: Machine,
    smoke: bool,
    packet: Option<packet::Report>,
    live: Option<live::Report>,
    http: Option<http::Report>,
    verdict: Option<verdict::Report>,
    scale: Option<scale::Report>,
    storm: Option<storm::Report>,
    founding: Option<founding::Report>,
}

fn main() -> Result<ExitCode> {
    if std::env::args().nth(1).is_some_and(|first| first == scale::server::ARGUMENT) {
        return scale::server::run().map(|()| ExitCode::SUCCESS);
    }
    let args = Args::parse();
    ensure!(nix::unistd::geteuid().is_root(), "needs root, to load programs and to make network namespaces");
    Style { tc: args.tc, offloads: args.offloads }.set();
    ensure!(
        !args.tc || matches!(args.part, Part::Http | Part::Verdict),
        "--tc: only `http` and `verdict` go through interfaces"
    );
    let signals = signals::Guard::install()?;
    let report = measure(&args)?;
    drop(signals);
    if args.json {
        println!("{}", serde_json::to_string_pretty(&report)?);
    } else {
        print(&report);
    }
    let mut wrong = Vec::new();
    if args.smoke {
        wrong.extend(implausible(&report));
    } else {
        wrong.extend(report.verdict.as_ref().and_then(verdict::Report::broken_promise));
        wrong.extend(report.live.as_ref().and_then(live::Report::broken_promise));
        wrong.extend(report.scale.iter().flat_map(scale::Report::broken_promises));
        wrong.extend(report.storm.as_ref().and_then(storm::Report::broken_promise));
        wrong.extend(report.founding.as_ref().and_then(founding::Report::broken_promise));
    }
    for line in &wrong {
        eprintln!("FAILED: {line}");
    }
    Ok(if wrong.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn measure(args: &Args) -> Result<Report> {
    let wants = |part| args.part == part || args.part == Part::All;
    let machine = Machine::read()?;
    let shunt = || binary::shunt(args.smoke);
    let (files, names): (Vec<_>, Vec<_>) = args.peers.iter().partition(|peer| Path::new(peer).is_file());
    ensure!(files.len() <= 1, "one program can be measured beside ours, and these are {}", files.len());
    let object = files.first().map(Path::new);
    let chosen = names.iter().map(|name| Peer::named(name)).collect::<Result<Vec<_>>>()?;
    for peer in &chosen {
        check(args.part, *peer)?;
    }
    let peers = (!chosen.is_empty()).then_some(chosen.as_slice());
    let packet = wants(Part::Packet).then(|| {
        let plan = if args.smoke { packet::Plan::SMOKE } else { packet::Plan::FULL };
        let plan = packet::Plan { repetitions: args.repeat.unwrap_or(plan.repetitions), ..plan };
        packet::run(plan, &args.cases, object)
    });
    let packet = packet.transpose()?;
    let live = wants(Part::Live).then(|| {
        let plan = if args.smoke { live::Plan::SMOKE } else { live::Plan::FULL };
        live::run(live::Plan { repetitions: args.repeat.unwrap_or(plan.repetitions), ..plan }, object)
    });
    let live = live.transpose()?;
    let http = wants(Part::Http).then(|| {
        let plan = if args.smoke { http::Plan::SMOKE } else { http::Plan::FULL };
        http::run(
            http::Plan { repetitions: args.repeat.unwrap_or(plan.repetitions), ..plan },
            peers,
            &shunt()?,
        )
    });
    let http = http.transpose()?;
    let verdict = wants(Part::Verdict).then(|| {
        let plan = if args.smoke { verdict::Plan::SMOKE } else { verdict::Plan::FULL };
        let ejections = args.repeat.unwrap_or(plan.ejections);
        let beside = args.repeat.unwrap_or(plan.beside);
        verdict::run(verdict::Plan { ejections, beside }, peers, &shunt()?)
    });
    let verdict = verdict.transpose()?;
    let scale = wants(Part::Scale).then(|| {
        let plan = if args.smoke { scale::Plan::SMOKE } else { scale::Plan::FULL };
        let plan = scale::Plan { repetitions: args.repeat.unwrap_or(plan.repetitions), ..plan };
        scale::run(plan, &shunt()?)
    });
    let scale = scale.transpose()?;
    let storm = wants(Part::Storm).then(|| {
        let plan = if args.smoke { storm::Plan::SMOKE } else { storm::Plan::FULL };
        storm::run(storm::Plan { repetitions: args.repeat.unwrap_or(plan.repetitions), ..plan }, &shunt()?)
    });
    let storm = storm.transpose()?;
    let founding = wants(Part::Founding).then(|| {
        let plan = if args.smoke { founding::Plan::SMOKE } else { founding::Plan::FULL };
        founding::run(
            founding::Plan { repetitions: args.repeat.unwrap_or(plan.repetitions), ..plan },
            &shunt()?,
        )
    });
    let founding = founding.transpose()?;
    Ok(Report { machine, smoke: args.smoke, packet, live, http, verdict, scale, storm, founding })
}

/// A peer that no wanted part knows would be left out without a word.
fn check(part: Part, peer: Peer) -> Result<()> {
    let known: &[&[Peer]] = match part {
        Part::Http => &[http::PEERS],
        Part::Verdict => &[verdict::beside::PEERS],
        Part::All => &[http::PEERS, verdict::beside::PEERS],
        Part::Packet | Part::Live | Part::Scale | Part::Storm | Part::Founding => &[],
    };
    let known = known.concat();
    let names: Vec<_> = known.iter().map(|peer| peer.name()).collect();
    ensure!(!names.is_empty(), "--peer {}: this part measures no balancers by name", peer.name());
    ensure!(
        known.contains(&peer),
        "--peer {}: not measured here; there are {}",
        peer.name(),
        names.join(", ")
    );
    Ok(())
}

fn print(report: &Report) {
    println!("{}", report.machine.sentence());
    let parts = [
        report.packet.as_ref().map(packet::Report::table),
        report.live.as_ref().map(live::Report::table),
        report.http.as_ref().map(http::Report::table),
        report.verdict.as_ref().map(verdict::Report::table),
        report.scale.as_ref().map(scale::Report::table),
        report.storm.as_ref().map(storm::Report::table),
        report.founding.as_ref().map(founding::Report::table),
    ];
    for table in parts.into_iter().flatten() {
        println!("\n{}", table.trim_end());
    }
}

fn implausible(report: &Report) -> Vec<String> {
    let parts = [
        report.packet.as_ref().map(packet::Report::implausible),
        report.live.as_ref().map(live::Report::implausible),
        report.http.as_ref().map(http::Report::implausible),
        report.verdict.as_ref().map(verdict::Report::implausible),
        report.scale.as_ref().map(scale::Report::implausible),
        report.storm.as_ref().map(storm::Report::implausible),
        report.founding.as_ref().map(founding::Report::implausible),
    ];
    parts.into_iter().flatten().flatten().collect()
}
