//! One interface: what it is like, and whether the program has to be attached again.

use std::collections::BTreeMap;

use tracing::{info, warn};

use crate::{
    attach_mode::{AttachMode, Condition},
    dataplane::{
        bpf::{Attached, Attacher},
        error::chain,
    },
};

/// An interface of the configuration, as it is now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Interface {
    pub name: String,
    /// Of the interface that carries the program.
    pub index: Option<u32>,
    /// The last attach mode.
    pub mode: AttachMode,
    pub condition: Condition,
    /// The cause and the remedy, unless all is well.
    pub problem: Option<String>,
}

/// One interface.
#[derive(Debug)]
pub(super) struct Port {
    pub(super) name: String,
    mode: AttachMode,
    pub(super) attached: Option<Attached>,
    condition: Condition,
    problem: Option<String>,
}

/// A link of the kernel.
pub(super) struct Link {
    pub(super) name: String,
    pub(super) has_link: bool,
}

impl Port {
    pub(super) fn new(attached: Attached) -> Self {
        Self {
            name: attached.interface.clone(),
            mode: attached.mode,
            attached: Some(attached),
            condition: Condition::Attached,
            problem: None,
        }
    }

    pub(super) fn shown(&self) -> Interface {
        Interface {
            name: self.name.clone(),
            index: self.index(),
            mode: self.mode,
            condition: self.condition,
            problem: self.problem.clone(),
        }
    }

    /// `true`: the program is attached elsewhere than before, or nowhere.
    pub(super) fn look(&mut self, links: &BTreeMap<u32, Link>, attacher: &mut Attacher) -> bool {
        let (before, index_before) = (self.condition, self.index());
        let named = links.iter().find(|(_, link)| link.name == self.name);
        self.attached.take_if(|attached| !attached.holds());
        (self.condition, self.problem) = match (named, &self.attached) {
            (Some((index, link)), Some(attached)) if *index == attached.index => has_link(link),
            // Under this name there is another interface now, or the same without its program.
            (Some((index, link)), _) => match attacher.attach(&self.name, *index) {
                Ok(attached) => {
                    info!(interface = self.name, mode = attached.mode.name(), "attached again");
                    self.mode = attached.mode;
                    self.attached = Some(attached);
                    has_link(link)
                }
                Err(error) => {
                    let remedy = error.remedy().map(|remedy| format!("; {remedy}")).unwrap_or_default();
                    self.attached = None;
                    (Condition::NotAttached, Some(format!("{}{remedy}", chain(&error))))
                }
            },
            (None, Some(attached)) => {
                let name = links.get(&attached.index).map_or("unknown", |link| link.name.as_str());
                let problem = format!("it is called {name} now: put that name into `interfaces` and reload");
                (Condition::Renamed, Some(problem))
            }
            (None, None) => {
                let problem = "it does not exist: once it is back, shunt attaches again; or remove it from \
                               `interfaces` and reload";
                (Condition::Gone, Some(problem.to_owned()))
            }
        };
        if before != self.condition {
            match &self.problem {
                Some(problem) => warn!(interface = self.name, condition = %self.condition, "{problem}"),
                None => info!(interface = self.name, "attached, with a link"),
            }
        }
        index_before != self.index()
    }

    fn index(&self) -> Option<u32> {
        self.attached.as_ref().map(|attached| attached.index)
    }
}

fn has_link(link: &Link) -> (Condition, Option<String>) {
    if link.has_link {
        return (Condition::Attached, None);
    }
    let problem =
        "it is down or has no carrier: `ip link` shows which, then check the cable and the other end";
    (Condition::NoLink, Some(problem.to_owned()))
}
