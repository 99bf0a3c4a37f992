//! `shunt doctor`.

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
};

use serde_json::json;

use super::{
    args::{self, Plain},
    exit::{Exit, Failure},
    out,
    palette::{Paint, Palette},
    wiring,
};
use crate::{
    config::{self, File, XdpMode},
    control::model::SCHEMA,
    doctor::{self, Finding, Level, Wanted},
    printable::printable,
};

pub(super) async fn run(args: &args::Doctor) -> Result<Exit, Failure> {
    let file = configuration(args.config.as_deref())?;
    let names: Vec<String> = match (&args.interface, &file) {
        (Some(name), _) => vec![name.clone()],
        (None, Some(file)) => file.interfaces.clone(),
        (None, None) => Vec::new(),
    };
    let wanted = wanted(file.as_ref());
    let host = doctor::read_host(&wanted);
    let devices = doctor::devices(&names, &wanted.bpffs).await;
    let mut findings = match &devices {
        Ok(devices) => doctor::findings(&host, devices, &wanted),
        Err(error) => {
            let mut findings = doctor::findings(&host, &[], &wanted);
            findings.push(doctor::unread(error));
            findings
        }
    };
    let known = |name: &String| devices.iter().flatten().any(|device| device.name == *name);
    if devices.is_ok() {
        findings.extend(names.iter().filter(|name| !known(name)).map(|name| doctor::absent(name)));
    }
    let text = match args.output {
        Plain::Table => table(&findings, Palette::of_stdout()),
        Plain::Json => {
            format!("{}\n", json!({ "schema": SCHEMA, "able": able(&findings), "findings": findings }))
        }
    };
    out::print(&text)?;
    Ok(if able(&findings) { Exit::Done } else { Exit::HostNotAble })
}

/// A file that the operator names must exist and be valid. Otherwise the usual file counts, and without it the
/// defaults.
fn configuration(path: Option<&Path>) -> Result<Option<File>, Failure> {
    match path {
        Some(path) => wiring::load(path, Palette::of_stderr()).map(Some),
        None => {
            let usual = PathBuf::from(args::DEFAULT_CONFIG);
            if !usual.exists() {
                return Ok(None);
            }
            match wiring::load(&usual, Palette::of_stderr()) {
                Ok(file) => Ok(Some(file)),
                Err(failure) => {
                    out::remark(format!("{failure}\nnote: checking the host for the defaults"));
                    Ok(None)
                }
            }
        }
    }
}

fn wanted(file: Option<&File>) -> Wanted {
    match file {
        Some(file) => file.into(),
        None => Wanted {
            nat_ports: config::DEFAULT_NAT_PORTS,
            max_flows: config::DEFAULT_MAX_FLOWS,
            instance: wiring::DEFAULT_INSTANCE.to_owned(),
            bpffs: PathBuf::from(wiring::DEFAULT_BPFFS),
            xdp_mode: XdpMode::Auto,
            vip_ports: BTreeSet::new(),
            vlans: Vec::new(),
        },
    }
}

fn able(findings: &[Finding]) -> bool {
    findings.iter().all(|finding| finding.level != Level::Fail)
}

fn table(findings: &[Finding], palette: Palette) -> String {
    let mut text = String::new();
    let mut about = None;
    for finding in findings {
        let subject = finding.interface.as_deref().unwrap_or("host");
        if about != Some(subject) {
            about = Some(subject);
            text += &format!("{}\n", palette.paint(Paint::Heading, subject));
        }
        let (word, paint) = match finding.level {
            Level::Ok => ("ok  ", Paint::Good),
            Level::Warn => ("warn", Paint::Warning),
            Level::Fail => ("fail", Paint::Bad),
        };
        text += &format!(
            "  {}  {:<12}  {}\n",
            palette.paint(paint, word),
            finding.check,
            printable(&finding.says)
        );
        if let Some(remedy) = &finding.remedy {
            text += &format!("{:22}{} {}\n", "", palette.paint(Paint::Faint, "help:"), printable(remedy));
        }
    }
    let count = |level| findings.iter().filter(|finding| finding.level == level).count();
    let (ok, warn, fail) = (count(Level::Ok), count(Level::Warn), count(Level::Fail));
    text + &format!("{ok} ok, {warn} to look at, {fail} failed\n")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::FindingCode;

    fn finding(interface: Option<&str>, level: Level, remedy: Option<&str>) -> Finding {
        Finding {
            check: "mtu",
            code: FindingCode::Unknown,
            interface: interface.map(str::to_owned),
            level,
            says: "9000".to_owned(),
            remedy: remedy.map(str::to_owned),
            about_traffic: false,
        }
    }

    #[test]
    fn a_warning_does_not_make_it_unable() {
        assert!(able(&[finding(None, Level::Ok, None), finding(None, Level::Warn, None)]));
        assert!(!able(&[finding(None, Level::Ok, None), finding(None, Level::Fail, None)]));
    }

    #[test]
    fn findings_stand_below_their_subject() {
        let findings = [
            finding(None, Level::Ok, None),
            finding(Some("eth0"), Level::Warn, Some("ip link set eth0 mtu 1500")),
            finding(Some("eth0"), Level::Fail, None),
        ];
        assert_eq!(
            table(&findings, Palette::PLAIN),
            "host\n  ok    mtu           9000\n\
             eth0\n  warn  mtu           9000\n                      help: ip link set eth0 mtu 1500\n  \
             fail  mtu           9000\n1 ok, 1 to look at, 1 failed\n"
        );
    }
}
