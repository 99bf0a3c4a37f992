//! Why a replay refuses a line.

use lb_core::config::{Config, Service};

use crate::journal::line::nearest;

/// Why a line cannot be taken.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct Unfit {
    pub message: String,
    /// The remedy.
    pub help: String,
}

impl Unfit {
    pub(super) fn new(message: impl Into<String>, help: impl Into<String>) -> Self {
        Self { message: message.into(), help: help.into() }
    }

    pub(super) fn too_far() -> Self {
        let help = "`t_ms` counts milliseconds from the start of the run, not from 1970; a year is the most";
        Self::new("time jumps by more than 400 days", help)
    }

    pub(super) fn unknown_service(name: &str, config: &Config) -> Self {
        let known = || config.services.iter().map(|service| service.name.as_str());
        let message = format!("the configuration has no service `{name}`; it has {}", names(known()));
        let help = match nearest(name, known()) {
            Some(meant) => format!("did you mean `{meant}`?"),
            None => "`--service NAME` leaves out what is about others".to_owned(),
        };
        Self::new(message, help)
    }

    /// The line names no service, and there are several.
    pub(super) fn no_service(config: &Config) -> Self {
        let names = names(config.services.iter().map(|service| service.name.as_str()));
        let message = format!("which service? The configuration has {names}");
        Self::new(message, "add `service` to the line, or name one with `--service`")
    }

    pub(super) fn unknown_backend(name: &str, service: &Service) -> Self {
        let known = || service.everyone().map(|backend| backend.name.as_str());
        let message =
            format!("service `{}` has no backend `{name}`; it has {}", service.name, names(known()));
        let help = match nearest(name, known()) {
            Some(meant) => format!("did you mean `{meant}`? A line with `\"op\":\"add\"` makes one"),
            None => "a line with `\"op\":\"add\"` makes one".to_owned(),
        };
        Self::new(message, help)
    }
}

/// A list of names that is not too long for a message.
fn names<'a>(names: impl Iterator<Item = &'a str>) -> String {
    const MOST: usize = 10;
    let all: Vec<_> = names.collect();
    let shown = all.iter().take(MOST).map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ");
    match all.len() {
        0 => "none".to_owned(),
        len if len > MOST => format!("{shown} and {} more", len - MOST),
        _ => shown,
    }
}
