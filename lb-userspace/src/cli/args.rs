//! The command line, as clap derives it. Every command shows examples under `--help`.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};

mod operator;

pub use operator::{Backend, Explain, Hold, Named, Reload, Take, Wait, Weight, Why};

pub const DEFAULT_CONFIG: &str = "/etc/shunt/shunt.toml";
pub const DEFAULT_SOCKET: &str = "/run/shunt/control.sock";

/// A TCP load balancer in XDP whose circuit breaker sees HTTP 5xx.
#[derive(Debug, Parser)]
#[command(name = "shunt", version, propagate_version = true, disable_help_subcommand = true)]
#[command(after_help = "\
Examples:
  shunt config example > shunt.toml   a configuration to start from
  shunt check -c shunt.toml           is it right?
  shunt doctor -c shunt.toml          can this host do it?
  sudo shunt run -c shunt.toml        the daemon
  shunt status                        what it does now
  shunt why web/web-2                 why a backend is in the state it is in
  shunt replay -c b.toml a.jsonl      what would it have done?

Exit codes:
  0 done                      1 run-time failure        2 usage
  3 configuration invalid     4 daemon not reachable    5 refused to protect traffic
  6 host not able             7 accepted, not reached   8 degraded, 9 below floor (status --check)")]
pub struct Cli {
    /// The daemon's control socket [default: /run/shunt/control.sock, or what the configuration says for `run`]
    #[arg(short, long, global = true, env = "SHUNT_SOCKET", value_name = "SOCKET")]
    pub socket: Option<PathBuf>,

    #[command(subcommand)]
    pub command: Command,
}

#[derive(Debug, Subcommand)]
pub enum Command {
    Run(Run),
    Check(Check),
    Status(Status),
    Events(Events),
    Why(Why),
    Explain(Explain),
    #[command(subcommand)]
    Backend(Backend),
    Reload(Reload),
    Replay(Replay),
    Doctor(Doctor),
    Detach(Detach),
    #[command(subcommand)]
    Config(Config),
    Version(Version),
}

/// Run the daemon in the foreground
///
/// SIGTERM and Ctrl-C stop it and leave forwarding in place; `shunt detach` removes that.
/// SHUNT_LOG sets what is logged (on stderr), as in `info` or `lb_userspace=debug`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  sudo shunt run
  sudo shunt run -c shunt.toml -s /tmp/shunt.sock
  sudo SHUNT_LOG=debug shunt run
  sudo shunt run --record /var/lib/shunt/events.jsonl")]
pub struct Run {
    #[arg(short, long, value_name = "FILE", default_value = DEFAULT_CONFIG)]
    pub config: PathBuf,

    /// Record what the breaker is told, for `shunt replay`; instead of `path` under `[record]`
    #[arg(long, value_name = "FILE")]
    pub record: Option<PathBuf>,
}

/// Check a configuration without touching anything
///
/// Says all that is wrong with it at once, and exits with 3 if anything is.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  shunt check
  shunt check -c shunt.toml
  shunt check -c shunt.toml -o json | jq '.problems[].line'")]
pub struct Check {
    #[arg(short, long, value_name = "FILE", default_value = DEFAULT_CONFIG)]
    pub config: PathBuf,

    #[arg(short, long, value_name = "FORMAT", default_value = "table")]
    pub output: Plain,
}

/// Show services, backends and why each is in the state it is in
#[derive(Debug, Args)]
#[command(after_help = "\
Columns:
  STATE is what follows from three things that are never mixed: OPERATOR (what
  a person asked for), PROBE (what active checks say) and BREAKER (what real
  traffic says). SHARE is the part of new connections that a backend is given.

Examples:
  shunt status
  shunt status web -o wide
  shunt status --watch
  shunt status -o json | jq '.snapshot.services[].backends[] | {name, effective, reason}'
  shunt status --check || page-somebody     8: some backend does not serve, 9: a service has none left")]
pub struct Status {
    /// Only this service
    pub service: Option<String>,

    #[arg(short, long, value_name = "FORMAT", default_value = "table")]
    pub output: StatusFormat,

    /// Tell it by the exit code: 0 all serve, 8 some backend does not, 9 a service has none that does
    #[arg(long)]
    pub check: bool,

    /// Draw again every second, until Ctrl-C
    #[arg(short, long, conflicts_with = "check")]
    pub watch: bool,
}

/// Show what happened: ejections, trials, readmissions, probe changes
#[derive(Debug, Args)]
#[command(after_help = "\
Without --since, it begins with the oldest event that is kept (the last 1024).
Times are UTC.

Examples:
  shunt events
  shunt events -f --service web
  shunt events -f -o jsonl | jq 'select(.type == \"eject\")'
  shunt events --since 812")]
pub struct Events {
    /// Go on with what happens, until Ctrl-C
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

/// Run recorded or written events through the breaker, in virtual time
///
/// Says how a configuration would have behaved: the events that the daemon would have made
/// go to stdout, a summary to stderr. Needs no daemon and no privilege, and touches nothing.
#[derive(Debug, Args)]
#[command(after_help = "\
EVENTS has one JSON object a line, in the order of t_ms (milliseconds from the start):
  {\"t_ms\":1200,\"backend\":\"web-1\",\"status\":503}             perhaps \"ttfb_ms\", \"client\"
  {\"t_ms\":1210,\"backend\":\"web-1\",\"failure\":\"reset\"}       connect_refused, connect_timeout, reset,
                                                       no_response, response_timeout
  {\"t_ms\":1300,\"backend\":\"web-1\",\"probe\":\"pass\"}         pass, fail, timeout or a status
  {\"t_ms\":1400,\"backend\":\"web-1\",\"op\":\"drain\"}           add, remove, enable, disable, drain, eject,
                                                       admit, weight
  {\"t_ms\":1450,\"backend\":\"web-1\",\"good\":250}             good responses, none told by itself
  {\"t_ms\":1500,\"backend\":\"web-1\",\"lost\":20}              response heads that were lost
  {\"t_ms\":1600,\"ask\":\"snapshot\"}                         prints the state
  {\"t_ms\":9000}                                          time passes
With several services, a line also has \"service\". A daemon that records writes such lines;
files that were rotated are read one by one or in one go, the oldest first.

Every outcome is judged as a new connection: it reaches its client if this configuration would
have sent it to that backend at that moment; if not, it is counted as diverted, or as an error
that a client saw if nobody served. A readmission is false when another ejection follows it
within base_ejection_time. --compare measures both by the same: an error is what either calls
one, and the longer of the two times.

Examples:
  shunt replay -c shunt.toml events.jsonl
  shunt replay -c shunt.toml events.jsonl | jq -c 'select(.type == \"eject\")'
  cat events.jsonl.2 events.jsonl.1 events.jsonl | shunt replay -c tuned.toml -o table -
  shunt replay --compare shunt.toml tuned.toml events.jsonl")]
pub struct Replay {
    #[arg(short, long, value_name = "FILE", default_value = DEFAULT_CONFIG)]
    pub config: PathBuf,

    /// Run both configurations, and show what came of it side by side
    #[arg(long, num_args = 2, value_names = ["A", "B"], conflicts_with = "config")]
    pub compare: Vec<PathBuf>,

    /// Only this service: what is about others is left out
    #[arg(long, value_name = "NAME")]
    pub service: Option<String>,

    /// What jitter is drawn from [default: the recording's, else 0]
    #[arg(long, value_name = "N")]
    pub seed: Option<u64>,

    /// [default: jsonl; table with --compare]
    #[arg(short, long, value_name = "FORMAT")]
    pub output: Option<ReplayFormat>,

    /// The file of events; - is standard input
    pub events: PathBuf,
}

/// Look whether this host can do what the daemon needs, and say what to do where it cannot
///
/// Changes nothing. Without root it sees less, and says what it could not see. Interfaces are those of the
/// configuration, else all that are up. Exits with 6 if anything failed.
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

    /// What will be asked of the host [default: /etc/shunt/shunt.toml if it is there, else the defaults]
    #[arg(short, long, value_name = "FILE")]
    pub config: Option<PathBuf>,

    #[arg(short, long, value_name = "FORMAT", default_value = "table")]
    pub output: Plain,
}

/// Remove the programs and maps that the daemon left in the kernel
///
/// Forwarding ends with it, and so do the connections through it.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  sudo shunt detach
  sudo shunt detach --instance blue
  sudo shunt detach -c shunt.toml")]
pub struct Detach {
    /// The instance to remove [default: default]
    #[arg(long, value_name = "NAME", conflicts_with = "config")]
    pub instance: Option<String>,

    /// Take the instance and the BPF file system from this configuration
    #[arg(short, long, value_name = "FILE")]
    pub config: Option<PathBuf>,

    /// Where the BPF file system is mounted [default: /sys/fs/bpf]
    #[arg(long, value_name = "DIR", conflicts_with = "config")]
    pub bpffs: Option<PathBuf>,
}

/// Help with the configuration file
#[derive(Debug, Subcommand)]
#[command(after_help = "\
Examples:
  shunt config example > shunt.toml")]
pub enum Config {
    /// Print a commented configuration to start from
    #[command(after_help = "\
Examples:
  shunt config example > shunt.toml && shunt check -c shunt.toml")]
    Example,
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

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Plain {
    /// For people
    Table,
    Json,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum StatusFormat {
    /// For people, in 100 columns
    Table,
    /// Everything, with exact numbers
    Wide,
    /// What the control API answers
    Json,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum EventsFormat {
    /// A line an event, for people
    Table,
    /// The events themselves, one JSON object a line
    Jsonl,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum ReplayFormat {
    /// For people
    Table,
    /// Events and snapshots, one JSON object a line
    Jsonl,
    /// The summary, or the comparison, as one JSON object
    Json,
}

#[cfg(test)]
mod tests;
