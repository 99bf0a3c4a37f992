//! The machine's interfaces by the names that it was given them under.

use std::{fs, time::Duration};

use anyhow::{Context as _, Result};
use lb_lab::{Host, until_ok};
use serde_json::Value;

/// An interface that was on a host comes back a moment after its namespace has gone.
const BACK: Duration = Duration::from_secs(30);

/// Gives an interface to a host, under another name.
pub(crate) fn give(name: &str, host: &Host, device: &str) -> Result<()> {
    let mac = mac(name)?;
    let found = until_ok(&format!("the interface {name} is there"), BACK, || find(&mac))?;
    // It may have come back under a name that another interface has there. MAC addresses are one's own.
    let own = format!("nic{}", mac.replace(':', ""));
    ip(&["link", "set", &found, "down"])?;
    ip(&["link", "set", &found, "name", &own])?;
    ip(&["link", "set", &own, "netns", host.namespace()])?;
    host.ip(&format!("link set {own} name {device}"))?;
    Ok(())
}

pub(crate) fn mac(name: &str) -> Result<String> {
    let text = fs::read_to_string("/nics").context("reading /nics")?;
    let mac = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    mac.map(str::to_owned).with_context(|| format!("the machine has no interface {name}"))
}

fn find(mac: &str) -> Result<String, String> {
    let links = ip(&["-json", "link"]).map_err(|error| error.to_string())?;
    let links = serde_json::from_str(&links).map_err(|error| error.to_string())?;
    named(&links, mac).ok_or_else(|| format!("no interface has {mac}"))
}

fn named(links: &Value, mac: &str) -> Option<String> {
    let link = links.as_array()?.iter().find(|link| link["permaddr"] == mac || link["address"] == mac)?;
    Some(link["ifname"].as_str()?.to_owned())
}

fn ip(words: &[&str]) -> Result<String> {
    let output = std::process::Command::new("ip").args(words).output().context("starting `ip`")?;
    let error = String::from_utf8_lossy(&output.stderr);
    anyhow::ensure!(output.status.success(), "ip {words:?}: {}", error.trim_end());
    Ok(String::from_utf8(output.stdout)?)
}
