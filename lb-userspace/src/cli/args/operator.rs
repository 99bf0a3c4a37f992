//! What operators say: changes of one backend, and questions about it.

use std::{net::SocketAddr, num::NonZeroU16, str::FromStr, time::Duration};

use clap::{Args, Subcommand};

use super::Plain;

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

/// Drain, disable, eject a backend by hand, and take it back
///
/// What is changed here shows in `shunt status` with who, why and until when, and survives reloads and
/// restarts. Root and the daemon's user may change things; others may look.
#[derive(Debug, Subcommand)]
#[command(after_help = "\
Two things are never mixed: drain, disable and enable are the operator's own word, which the breaker
does not touch; eject and admit do by hand what the breaker does by itself.

Examples:
  sudo shunt backend drain web/web-2 --reason deploy --wait
  sudo shunt backend enable web/web-2
  sudo shunt backend disable web/web-2 --for 2h
  sudo shunt backend eject web/web-2 --for 10m
  sudo shunt backend admit web/web-2
  sudo shunt backend weight web/web-2 10 --for 1h --reason canary

Exit codes:
  5 fewer than min_serving would serve: --force does it all the same
  7 it is accepted, and --wait was over before it was reached")]
pub enum Backend {
    /// No new connections; those that it has go on
    #[command(after_help = "\
Examples:
  sudo shunt backend drain web/web-2
  sudo shunt backend drain web/web-2 --for 10m --reason deploy
  sudo shunt backend drain web/web-2 --wait --timeout 5m && stop-web-2

With --wait it ends when no connection is left on the backend. What is left after the service's
drain_timeout is reset; the answer says when that will be.")]
    Drain(Hold),
    /// Take drain or disable back
    #[command(after_help = "\
Examples:
  sudo shunt backend enable web/web-2
  sudo shunt backend enable web/web-2 --wait")]
    Enable(Take),
    /// No new connections, not even when nobody else is left (no_backend, panic_threshold)
    #[command(after_help = "\
Examples:
  sudo shunt backend disable web/web-2
  sudo shunt backend disable web/web-2 --for 2h --reason broken-disk")]
    Disable(Hold),
    /// Open the breaker by hand: it comes back as after any ejection
    #[command(after_help = "\
Without --for it is out for as long as the breaker would have it. The ceiling (max_ejection_percent)
does not hold for people; the floor (min_serving) does.

Examples:
  sudo shunt backend eject web/web-2
  sudo shunt backend eject web/web-2 --for 10m --reason suspicious")]
    Eject(Hold),
    /// Close the breaker by hand: it serves at once
    #[command(after_help = "\
Examples:
  sudo shunt backend admit web/web-2")]
    Admit(Take),
    /// Give it another weight than the configured one
    #[command(after_help = "\
Examples:
  sudo shunt backend weight web/web-2 10
  sudo shunt backend weight web/web-2 10 --for 1h --reason canary
  sudo shunt backend weight web/web-2 --reset")]
    Weight(Weight),
}

/// What holds until it is taken back.
#[derive(Debug, Args)]
pub struct Hold {
    #[arg(value_name = "SERVICE/NAME")]
    pub backend: Named,

    #[command(flatten)]
    pub term: Term,

    /// Even if fewer than min_serving would serve
    #[arg(long)]
    pub force: bool,

    #[command(flatten)]
    pub wait: Wait,
}

/// How long, and why.
#[derive(Debug, Args)]
pub struct Term {
    /// How long, as in `90s`, `10m`, `1h30m` [default: until it is taken back]
    #[arg(long = "for", value_name = "TIME", value_parser = time)]
    pub duration: Option<Duration>,

    /// Why: stands in status and events
    #[arg(long, value_name = "TEXT")]
    pub reason: Option<String>,
}

/// What takes something back.
#[derive(Debug, Args)]
pub struct Take {
    #[arg(value_name = "SERVICE/NAME")]
    pub backend: Named,

    /// Why: stands in events
    #[arg(long, value_name = "TEXT")]
    pub reason: Option<String>,

    #[command(flatten)]
    pub wait: Wait,
}

#[derive(Debug, Args)]
pub struct Weight {
    #[arg(value_name = "SERVICE/NAME")]
    pub backend: Named,

    /// 1 to 65535, relative to the others
    #[arg(required_unless_present = "reset")]
    pub weight: Option<NonZeroU16>,

    /// Back to the configured weight
    #[arg(long, conflicts_with_all = ["weight", "duration"])]
    pub reset: bool,

    #[command(flatten)]
    pub term: Term,

    #[command(flatten)]
    pub wait: Wait,
}

#[derive(Clone, Copy, Debug, Args)]
pub struct Wait {
    /// Until the maps hold it, so that the next connection is steered by it
    #[arg(long)]
    pub wait: bool,

    /// How long to wait; then the exit code is 7
    #[arg(long, value_name = "TIME", value_parser = time, default_value = "30s", requires = "wait")]
    pub timeout: Duration,
}

/// Tell why a backend is in the state it is in, and what would change that
#[derive(Debug, Args)]
#[command(after_help = "\
Times are UTC.

Examples:
  shunt why web/web-2
  shunt why web/web-2 -o json | jq '.last_decision.evidence'")]
pub struct Why {
    #[arg(value_name = "SERVICE/NAME")]
    pub backend: Named,

    #[arg(short, long, value_name = "FORMAT", default_value = "table")]
    pub output: Plain,
}

/// Tell which backend a client is steered to, and why
///
/// Asks the maps that the packets are steered by: nothing is sent and nothing changes.
#[derive(Debug, Args)]
#[command(after_help = "\
The port counts: another connection of the same client may go elsewhere. `ss -tn` on the client shows it.

Examples:
  shunt explain 198.51.100.7:41234 web
  shunt explain 198.51.100.7:41234 web -o json | jq .choice")]
pub struct Explain {
    /// The client's address and port, as it sends
    #[arg(value_name = "CLIENT:PORT")]
    pub client: SocketAddr,

    pub service: String,

    #[arg(short, long, value_name = "FORMAT", default_value = "table")]
    pub output: Plain,
}

/// Have the daemon read its configuration again
///
/// The same as SIGHUP, with an answer. A wrong configuration changes nothing, and is exit code 3.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  sudo shunt reload --dry-run
  sudo shunt reload
  sudo shunt reload -o json | jq -r '.changes[]'")]
pub struct Reload {
    /// Only say what would change
    #[arg(long)]
    pub dry_run: bool,

    #[arg(short, long, value_name = "FORMAT", default_value = "table")]
    pub output: Plain,
}

fn time(text: &str) -> Result<Duration, String> {
    match crate::cli::wiring::duration(text) {
        Some(time) if time.is_zero() => Err("it is no time at all".to_owned()),
        Some(time) => Ok(time),
        None => Err("write whole numbers with h, m, s or ms, as in 90s, 10m, 1h30m".to_owned()),
    }
}
