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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_of_names_is_cut_and_counted() {
        let all: Vec<String> = (0..12).map(|n| n.to_string()).collect();
        let shown = |count: usize| names(all[..count].iter().map(String::as_str));
        assert_eq!((shown(0).as_str(), shown(2).as_str()), ("none", "`0`, `1`"));
        assert!(shown(10).ends_with("`8`, `9`"), "{}", shown(10));
        assert!(shown(11).ends_with("`9` and 1 more"), "{}", shown(11));
        assert!(shown(12).ends_with("`9` and 2 more"), "{}", shown(12));
    }
}
