//! The steps of the story, and one moment of the demo: the story, the stage and the view share them.

use std::time::Duration;

use lb_core::{
    event::Event,
    snapshot::{BackendSnapshot, ServiceSnapshot},
};
use lb_lab::Heard;
use lb_userspace::control::model::Status;

use super::load::Sample;

pub(super) const STEPS: [&str; 9] = [
    "both backends are up for their probes and share new connections",
    "app-v5xx answers the third 500 in a row",
    "it is ejected, although its probe says 200",
    "its share of new connections is 0",
    "no new connection reaches it while it is out",
    "half-open: trial connections stay within the budget",
    "app-v5xx is healed",
    "it is readmitted, and new connections reach it again",
    "alone in its service app-v5xx is kept by the floor, and status says why",
];

/// A step of the story.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Step {
    Awaited,
    Seen(String),
    Missed(String),
}

/// Everything that the last words are about.
#[derive(Debug)]
pub(super) struct Report {
    pub(super) steps: Vec<Step>,
    /// By service.
    pub(super) samples: Vec<(&'static str, Vec<Sample>)>,
    pub(super) events: Vec<Event>,
    pub(super) lasted: Duration,
}

/// Everything at one moment, for the view.
#[derive(Debug)]
pub(super) struct Moment<'a> {
    pub(super) since_begin: Duration,
    pub(super) service: &'a str,
    pub(super) status: &'a Status,
    pub(super) samples: &'a [Sample],
    pub(super) events: &'a [Heard],
    pub(super) steps: &'a [Step],
}

pub(super) fn service_of<'a>(status: &'a Status, name: &str) -> Option<&'a ServiceSnapshot> {
    status.snapshot.services.iter().find(|service| service.name == name)
}

pub(super) fn backend_of<'a>(status: &'a Status, service: &str, name: &str) -> Option<&'a BackendSnapshot> {
    service_of(status, service)?.backends.iter().find(|backend| backend.name == name)
}

/// From hundredths of a percent.
pub(super) fn percent(share: u32) -> String {
    format!("{}.{} %", share / 100, share % 100 / 10)
}
