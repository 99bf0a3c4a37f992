//! Orders of an operator: changes of one backend, and a reload.

use std::{num::NonZeroU16, str::FromStr, time::Duration};

use clap::{Args, Subcommand};

use super::format::Plain;
use crate::config;

/// A backend as people write it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Named {
    pub service: String,
    pub backend: String,
}

impl FromStr for Named {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.split_once('/') {
            Some((service, backend)) if !service.is_empty() && !backend.is_empty() => {
                Ok(Self { service: service.to_owned(), backend: backend.to_owned() })
            }
            Some(_) | None => Err("write it as SERVICE/NAME, as in `web/web-2`".to_owned()),
        }
    }
}

/// Drain, disable or eject a backend by hand, and take that back
///
/// `shunt status` shows each change with its author, its reason and its end. A change survives reloads and restarts.
/// Only root and the daemon's user may change anything.
#[derive(Debug, Subcommand)]
#[command(after_help = "\
drain, disable and enable set the operator's state, which the breaker does not touch. eject and admit
do by hand what the breaker does by itself.

Examples:
  sudo shunt backend drain web/web-2 --reason deploy --wait
  sudo shunt backend enable web/web-2
  sudo shunt backend disable web/web-2 --for 2h
  sudo shunt backend eject web/web-2 --for 10m
  sudo shunt backend admit web/web-2
  sudo shunt backend weight web/web-2 10 --for 1h --reason canary

Exit codes:
  5 fewer than min_serving backends would serve; --force overrides this
  7 the daemon accepted the order, and --wait ended before it was done")]
pub enum Backend {
    /// Give it no new connections; its connections continue
    #[command(after_help = "\
Examples:
  sudo shunt backend drain web/web-2
  sudo shunt backend drain web/web-2 --for 10m --reason deploy
  sudo shunt backend drain web/web-2 --wait --timeout 5m && stop-web-2

With --wait the command ends when the backend has no connection left. After the service's
drain_timeout, Shunt resets the connections that are still open. The output says when that is.
Ctrl-C ends the wait and leaves the order in force.")]
    Drain(Hold),
    /// Take back drain or disable
    #[command(after_help = "\
Examples:
  sudo shunt backend enable web/web-2
  sudo shunt backend enable web/web-2 --wait")]
    Enable(Take),
    /// Give it no new connections, not even if no other backend serves (no_backend, panic_threshold)
    #[command(after_help = "\
Examples:
  sudo shunt backend disable web/web-2
  sudo shunt backend disable web/web-2 --for 2h --reason broken-disk")]
    Disable(Hold),
    /// Open its breaker by hand: it is readmitted as after any ejection
    #[command(after_help = "\
Without --for the ejection lasts as long as one by the breaker. The ceiling (max_ejection_percent) does
not limit operators. The floor (min_serving) does.

Examples:
  sudo shunt backend eject web/web-2
  sudo shunt backend eject web/web-2 --for 10m --reason suspicious")]
    Eject(Hold),
    /// Close its breaker by hand: it serves at once
    #[command(after_help = "\
Examples:
  sudo shunt backend admit web/web-2")]
    Admit(Take),
    /// Override its configured weight
    #[command(after_help = "\
Examples:
  sudo shunt backend weight web/web-2 10
  sudo shunt backend weight web/web-2 10 --for 1h --reason canary
  sudo shunt backend weight web/web-2 --reset")]
    Weight(Weight),
}

/// An order that holds until an operator takes it back.
#[derive(Debug, Args)]
pub struct Hold {
    #[arg(value_name = "SERVICE/NAME")]
    pub backend: Named,

    #[command(flatten)]
    pub term: Term,

    /// Do it even if fewer than min_serving backends would serve
    #[arg(long)]
    pub force: bool,

    #[command(flatten)]
    pub wait: Wait,
}

/// How long, and why.
#[derive(Debug, Args)]
pub struct Term {
    /// How long it holds, as in `90s`, `10m`, `1h30m` [default: until an operator takes it back]
    #[arg(long = "for", value_name = "TIME", value_parser = time)]
    pub duration: Option<Duration>,

    /// The reason, which status and events show
    #[arg(long, value_name = "TEXT")]
    pub reason: Option<String>,
}

/// An order that takes another one back.
#[derive(Debug, Args)]
pub struct Take {
    #[arg(value_name = "SERVICE/NAME")]
    pub backend: Named,

    /// The reason, which events show
    #[arg(long, value_name = "TEXT")]
    pub reason: Option<String>,

    #[command(flatten)]
    pub wait: Wait,
}

#[derive(Debug, Args)]
pub struct Weight {
    #[arg(value_name = "SERVICE/NAME")]
    pub backend: Named,

    /// From 1 to 65535, relative to the other weights
    #[arg(required_unless_present = "reset")]
    pub weight: Option<NonZeroU16>,

    /// Return to the configured weight
    #[arg(long, conflicts_with_all = ["weight", "duration"])]
    pub reset: bool,

    #[command(flatten)]
    pub term: Term,

    #[command(flatten)]
    pub wait: Wait,
}

#[derive(Clone, Copy, Debug, Args)]
pub struct Wait {
    /// Wait until the maps contain the change, so that it holds for the next connection
    #[arg(long)]
    pub wait: bool,

    /// How long to wait. After that the exit code is 7 [default: 30s; for drain as long as the drain, and 10s]
    #[arg(long, value_name = "TIME", value_parser = time, requires = "wait")]
    pub timeout: Option<Duration>,
}

/// Have the daemon read its configuration again
///
/// The same as SIGHUP, with a response. An invalid configuration changes nothing, and the exit code is 3. If something
/// would not work after it, nothing changes either, and the exit code is 5.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  sudo shunt reload --dry-run
  sudo shunt reload
  sudo shunt reload --force
  sudo shunt reload -o json | jq -r '.changes[].says'")]
pub struct Reload {
    /// Only show what would change, and what would not work
    #[arg(long)]
    pub dry_run: bool,

    /// Reload even if a backend would be unreachable, or an interface in use would be detached
    #[arg(long)]
    pub force: bool,

    #[arg(short, long, value_name = "FORMAT", default_value = "table")]
    pub output: Plain,
}

fn time(text: &str) -> Result<Duration, String> {
    match config::parse_duration(text).map(|span| Duration::from_millis(span.0)) {
        Some(time) if time.is_zero() => Err("the time must be above 0".to_owned()),
        Some(time) => Ok(time),
        None => Err("write whole numbers with h, m, s or ms, as in 90s, 10m, 1h30m".to_owned()),
    }
}
