//! Commands that read and change nothing: status, events, why, explain, version.

use std::{net::SocketAddr, path::PathBuf};

use clap::Args;

use super::{
    format::{EventsFormat, Plain, StatusFormat},
    operator::Named,
};

/// Show services, backends and why each backend is in its state
#[derive(Debug, Args)]
#[command(after_help = "\
Columns:
  STATE follows from three states that are never mixed: OPERATOR (an operator's
  order), PROBE (active checks) and BREAKER (real traffic). SHARE is the part of
  new connections that a backend gets.

Examples:
  shunt status
  shunt status web -o wide
  shunt status --watch
  shunt status -o json | jq '.snapshot.services[].backends[] | {name, effective, reason}'
  shunt status --check || page-somebody     8: not all serve, 9: no backend of a service serves")]
pub struct Status {
    /// Only this service
    pub service: Option<String>,

    #[arg(short, long, value_name = "FORMAT", default_value = "table")]
    pub output: StatusFormat,

    /// Set the exit code: 0 all is well, 8 some backend does not serve or an interface is not in order, 9 no backend of a service
    /// serves
    #[arg(long)]
    pub check: bool,

    /// Draw again every second, until Ctrl-C
    #[arg(short, long, conflicts_with = "check")]
    pub watch: bool,
}

/// Show events: ejections, trials, readmissions, probe changes, orders
#[derive(Debug, Args)]
#[command(after_help = "\
Without --since, the list begins with the oldest event that the daemon still has (it keeps 1024).
Times are UTC.

Examples:
  shunt events
  shunt events -f --service web
  shunt events -f -o jsonl | jq 'select(.type == \"eject\")'
  shunt events --since 812")]
pub struct Events {
    /// Continue with new events, until Ctrl-C
    #[arg(short, long)]
    pub follow: bool,

    /// Only events after this sequence number
    #[arg(long, value_name = "SEQ")]
    pub since: Option<u64>,

    /// Only events of this service
    #[arg(long, value_name = "NAME")]
    pub service: Option<String>,

    #[arg(short, long, value_name = "FORMAT", default_value = "table")]
    pub output: EventsFormat,
}

/// Explain why a backend is in its state, and what would change that
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

/// Explain which backend a client's connection goes to, and why
///
/// The answer comes from the maps that forward packets. The command sends nothing and changes nothing.
#[derive(Debug, Args)]
#[command(after_help = "\
The port matters: another connection of the same client may go to another backend. `ss -tn` on the client
shows the port.

Examples:
  shunt explain 198.51.100.7:41234 web
  shunt explain 198.51.100.7:41234 web -o json | jq .choice")]
pub struct Explain {
    /// The client's source address and port
    #[arg(value_name = "CLIENT:PORT")]
    pub client: SocketAddr,

    pub service: String,

    #[arg(short, long, value_name = "FORMAT", default_value = "table")]
    pub output: Plain,
}

/// Check whether this host can do what the daemon needs, and say what to do where it cannot
///
/// Changes nothing. Without root it sees less, and says what it could not see. It looks at the interfaces of the
/// configuration, and without one at all interfaces that are up. Exits with 6 if a check failed.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  sudo shunt doctor
  sudo shunt doctor eth0
  sudo shunt doctor -c shunt.toml
  shunt doctor -o json | jq '.findings[] | select(.level != \"ok\")'")]
pub struct Doctor {
    /// Only this interface
    pub interface: Option<String>,

    /// The configuration to check the host for [default: /etc/shunt/shunt.toml if it exists, else the defaults]
    #[arg(short, long, value_name = "FILE")]
    pub config: Option<PathBuf>,

    #[arg(short, long, value_name = "FORMAT", default_value = "table")]
    pub output: Plain,
}

/// Show the version of this program, and of the daemon if one answers
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  shunt version
  shunt version -o json | jq .abi")]
pub struct Version {
    #[arg(short, long, value_name = "FORMAT", default_value = "table")]
    pub output: Plain,
}
