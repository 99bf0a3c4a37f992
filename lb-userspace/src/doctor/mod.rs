//! Whether this host can do what the daemon needs, and what to do where it cannot.
//!
//! [`read`] asks the kernel and changes nothing. It needs no privilege for most facts, and reports what it could not
//! read. [`host`] and [`interface`] turn facts into findings and touch nothing. Where `shunt run` refuses to start, the
//! same code decides.

mod facts;
mod host;
mod interface;
mod read;
#[cfg(test)]
mod tests;

use std::{ops::RangeInclusive, path::PathBuf};

use serde::Serialize;

pub use facts::{Bpffs, Device, Hook, Host, Known, Peer};
pub use read::{devices, host as read_host};

use crate::{
    attach_mode::XdpMode,
    dataplane::{bpf::OpenError, chain},
};

/// The needs of the daemon.
#[derive(Clone, Debug)]
pub struct Wanted {
    pub nat_ports: RangeInclusive<u16>,
    pub max_flows: u32,
    pub bpffs: PathBuf,
    pub xdp_mode: XdpMode,
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
    /// `None`: about the host as a whole.
    pub interface: Option<String>,
    pub level: Level,
    pub says: String,
    pub remedy: Option<String>,
}

impl Finding {
    fn new(check: &'static str, level: Level, says: impl Into<String>) -> Self {
        Self { check, interface: None, level, says: says.into(), remedy: None }
    }

    fn ok(check: &'static str, says: impl Into<String>) -> Self {
        Self::new(check, Level::Ok, says)
    }

    fn warn(check: &'static str, says: impl Into<String>) -> Self {
        Self::new(check, Level::Warn, says)
    }

    fn fail(check: &'static str, says: impl Into<String>) -> Self {
        Self::new(check, Level::Fail, says)
    }

    fn remedy(mut self, remedy: impl Into<String>) -> Self {
        self.remedy = Some(remedy.into());
        self
    }

    /// A fact that could not be read.
    fn unknown(check: &'static str, why: &str) -> Self {
        Self::warn(check, format!("not known: {why}"))
    }
}

/// The findings, in the order of the output.
pub fn findings(host: &Host, devices: &[Device], wanted: &Wanted) -> Vec<Finding> {
    let mut found = host::findings(host, wanted);
    for device in devices {
        let of_device = interface::findings(device, devices, wanted);
        found.extend(
            of_device.into_iter().map(|finding| Finding { interface: Some(device.name.clone()), ..finding }),
        );
    }
    found
}

/// There is no such interface. `shunt run` refuses this too.
pub fn absent(name: &str) -> Finding {
    let error = OpenError::NoInterface(name.to_owned());
    Finding { interface: Some(name.to_owned()), ..host::refused("link", &error) }
}

/// The kernel did not list the interfaces.
pub fn unread(error: &std::io::Error) -> Finding {
    Finding::unknown("link", &chain(error))
}
