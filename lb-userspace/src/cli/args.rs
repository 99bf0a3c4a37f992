//! The command line, as clap derives it. Every command shows examples under `--help`.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};

mod defaults;
mod format;
mod import;
mod operator;
mod query;
mod replay;

pub use defaults::{DEFAULT_CONFIG, DEFAULT_SOCKET};
pub use format::{EventsFormat, Plain, ReplayFormat, StatusFormat};
pub use import::{Import, ImportOutput};
pub use operator::{Backend, Hold, Named, Reload, Take, Wait, Weight};
pub use query::{Doctor, Events, Explain, Status, Version, Why};
pub use replay::Replay;

/// A TCP load balancer in XDP whose circuit breaker sees HTTP 5xx.
#[derive(Debug, Parser)]
#[command(name = "shunt", version, propagate_version = true, disable_help_subcommand = true)]
#[command(after_help = "\
Examples:
  shunt config example > shunt.toml   a configuration to start from
  shunt check -c shunt.toml           is the configuration right?
  shunt doctor -c shunt.toml          can this host do it?
  sudo shunt run -c shunt.toml        the daemon
  shunt status                        the state of services and backends
  shunt why web/web-2                 why a backend is in its state
  shunt replay -c b.toml a.jsonl      what would another configuration have done?
  shunt import istio *.yaml           a configuration from Istio's, Envoy's or HAProxy's

Exit codes:
  0 done                      1 run-time failure        2 usage
  3 configuration invalid     4 daemon not reachable    5 refused to protect traffic
  6 host not able             7 accepted, not reached   8 degraded, 9 none serves (status --check)")]
pub struct Cli {
    /// The daemon's control socket [default: /run/shunt/control.sock; for `run` that of the configuration]
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
    Import(Import),
    Doctor(Doctor),
    Detach(Detach),
    #[command(subcommand)]
    Config(Config),
    Version(Version),
}

/// Run the daemon in the foreground
///
/// SIGTERM and Ctrl-C stop the daemon. Forwarding continues until `shunt detach` removes it.
/// SHUNT_LOG sets the log level (on stderr), as in `info` or `lb_userspace=debug`.
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

    /// Record the inputs of the breaker for `shunt replay`, in this file instead of `path` under `[record]`
    #[arg(long, value_name = "FILE")]
    pub record: Option<PathBuf>,
}

/// Check a configuration without touching anything
///
/// Reports everything that is wrong with it at once, and exits with 3 if anything is. Warns of what is
/// allowed and hardly meant.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  shunt check
  shunt check -c shunt.toml
  ssh lb-1 cat /etc/shunt/shunt.toml | shunt check -c -
  shunt check -c shunt.toml -o json | jq '.problems[].line'")]
pub struct Check {
    /// `-` reads the standard input
    #[arg(short, long, value_name = "FILE", default_value = DEFAULT_CONFIG)]
    pub config: PathBuf,

    #[arg(short, long, value_name = "FORMAT", default_value = "table")]
    pub output: Plain,
}

/// Remove the programs and maps that the daemon left in the kernel
///
/// Forwarding ends, and so do the connections through Shunt.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  sudo shunt detach
  sudo shunt detach --instance blue
  sudo shunt detach -c shunt.toml
  sudo shunt detach --purge           then nothing but the configuration is left")]
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

    /// Remove the state file, the recording and the socket, too; asks first
    #[arg(long)]
    pub purge: bool,

    /// Do not ask
    #[arg(long, requires = "purge")]
    pub yes: bool,
}

/// Help with the configuration file
#[derive(Debug, Subcommand)]
#[command(after_help = "\
Examples:
  shunt config example > shunt.toml
  shunt config reference | less")]
pub enum Config {
    /// Print a commented configuration to start from
    #[command(after_help = "\
Examples:
  shunt config example > shunt.toml && shunt check -c shunt.toml")]
    Example,
    /// Print the reference of all keys, as Markdown
    #[command(after_help = "\
Examples:
  shunt config reference | less")]
    Reference,
}

#[cfg(test)]
mod tests;
