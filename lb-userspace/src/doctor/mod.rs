//! Whether this host can do what the daemon needs, and what to do where it cannot.
//!
//! [`read`] asks the kernel and changes nothing. It needs no privilege for most facts, and reports what it could not
//! read. [`host`] and [`interface`] turn facts into findings and touch nothing. Where `shunt run` refuses to start, the
//! same code decides.

mod code;
mod facts;
mod host;
mod interface;
mod read;
#[cfg(test)]
mod tests;

use std::{collections::BTreeSet, ops::RangeInclusive, path::PathBuf};

use serde::Serialize;

pub use code::FindingCode;
pub use facts::{Bpffs, Device, Hook, Host, Known, Peer};
pub use read::{devices, host as read_host};

use crate::{
    attach_mode::XdpMode,
    config::File,
    dataplane::{bpf::OpenError, chain},
};

/// The needs of the daemon.
#[derive(Clone, Debug)]
pub struct Wanted {
    pub nat_ports: RangeInclusive<u16>,
    pub max_flows: u32,
    pub instance: String,
    pub bpffs: PathBuf,
    pub xdp_mode: XdpMode,
    /// Of all VIPs.
    pub vip_ports: BTreeSet<u16>,
    /// The VLANs whose frames the program looks at.
    pub vlans: Vec<u16>,
}

impl From<&File> for Wanted {
    fn from(file: &File) -> Self {
        Self {
            nat_ports: file.nat_ports.clone(),
            max_flows: file.max_flows,
            instance: file.instance.clone(),
            bpffs: file.bpffs.clone(),
            xdp_mode: file.xdp_mode,
            vip_ports: file.core.services.iter().map(|service| service.vip.port()).collect(),
            vlans: file.vlans.clone(),
        }
    }
}

/// The result of a check.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Level {
    Ok,
    /// The operator should look: it may be wrong, or it is not known.
    Warn,
    /// Shunt cannot work here like this.
    Fail,
}

/// One result with its remedy.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    pub check: &'static str,
    /// The finding, for programs.
    pub code: FindingCode,
    /// `None`: about the host as a whole.
    pub interface: Option<String>,
    pub level: Level,
    pub says: String,
    pub remedy: Option<String>,
    /// It keeps traffic from working, or ends it. Such a finding is a warning of a running daemon, too.
    #[serde(skip)]
    pub about_traffic: bool,
}

impl Finding {
    fn new(check: &'static str, code: FindingCode, level: Level, says: impl Into<String>) -> Self {
        Self { check, code, interface: None, level, says: says.into(), remedy: None, about_traffic: false }
    }

    fn ok(check: &'static str, says: impl Into<String>) -> Self {
        Self::new(check, FindingCode::Ok, Level::Ok, says)
    }

    fn warn(check: &'static str, code: FindingCode, says: impl Into<String>) -> Self {
        Self::new(check, code, Level::Warn, says)
    }

    fn fail(check: &'static str, code: FindingCode, says: impl Into<String>) -> Self {
        Self::new(check, code, Level::Fail, says)
    }

    fn remedy(mut self, remedy: impl Into<String>) -> Self {
        self.remedy = Some(remedy.into());
        self
    }

    /// Unless it is fine.
    fn about_traffic(mut self) -> Self {
        self.about_traffic = self.level != Level::Ok;
        self
    }

    /// A fact that could not be read.
    fn unknown(check: &'static str, why: &str) -> Self {
        Self::warn(check, FindingCode::Unknown, format!("not known: {why}"))
    }
}

/// The findings, in the order of the output.
pub fn findings(host: &Host, devices: &[Device], wanted: &Wanted) -> Vec<Finding> {
    let mut found = host::findings(host, wanted);
    for device in devices {
        let of_device = interface::findings(device, devices, host, wanted);
        found.extend(
            of_device.into_iter().map(|finding| Finding { interface: Some(device.name.clone()), ..finding }),
        );
    }
    found
}

/// The findings that a running daemon must warn about: with them traffic fails, though the start succeeds.
pub async fn warnings(file: &File, interfaces: &[String]) -> Vec<Finding> {
    let wanted = Wanted::from(file);
    let host = read_host(&wanted);
    let devices = devices(interfaces, &wanted.bpffs).await.unwrap_or_default();
    findings(&host, &devices, &wanted)
        .into_iter()
        .filter(|of| of.about_traffic && of.remedy.is_some())
        .collect()
}

/// There is no such interface. `shunt run` refuses this too.
pub fn absent(name: &str) -> Finding {
    let error = OpenError::NoInterface(name.to_owned());
    Finding { interface: Some(name.to_owned()), ..host::refused("link", FindingCode::NoInterface, &error) }
}

/// The kernel did not list the interfaces.
pub fn unread(error: &std::io::Error) -> Finding {
    Finding::unknown("link", &chain(error))
}
