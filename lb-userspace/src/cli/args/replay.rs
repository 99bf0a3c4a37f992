//! `shunt replay`.

use std::path::PathBuf;

use clap::Args;

use super::{defaults::DEFAULT_CONFIG, format::ReplayFormat};

/// Run recorded or written events through the breaker, in virtual time
///
/// Shows how a configuration would have behaved. The events that the daemon would have made go to stdout, a summary
/// goes to stderr. Needs no daemon and no privilege, and touches nothing.
#[derive(Debug, Args)]
#[command(after_help = "\
EVENTS has one JSON object for each line, in the order of t_ms (milliseconds from the start):
  {\"t_ms\":1200,\"backend\":\"web-1\",\"status\":503}             optional: \"ttfb_ms\", \"client\"
  {\"t_ms\":1210,\"backend\":\"web-1\",\"failure\":\"reset\"}       connect_refused, connect_timeout, reset,
                                                       no_response, response_timeout
                                                       optional: \"prefixes\" and \"addresses\" (how
                                                       many clients the service has), \"late\"
  {\"t_ms\":1215,\"backend\":\"web-1\",\"confirmation\":\"fail\"}   as a probe; optional: \"syn_answered\"
  {\"t_ms\":1220,\"backend\":\"web-1\",\"trials_taken\":true}  a half-open backend has used trials
  {\"t_ms\":1300,\"backend\":\"web-1\",\"probe\":\"pass\"}         pass, fail, timeout or a status
  {\"t_ms\":1400,\"backend\":\"web-1\",\"op\":\"drain\"}           add, remove, enable, disable, drain, eject,
                                                       admit, weight
  {\"t_ms\":1450,\"backend\":\"web-1\",\"good\":250}             a success count: so many good responses
  {\"t_ms\":1500,\"backend\":\"web-1\",\"lost\":20}              so many response heads were lost
  {\"t_ms\":1600,\"ask\":\"snapshot\"}                         prints the state
  {\"t_ms\":9000}                                          time passes
With several services, a line also has \"service\". A daemon with a recording writes such lines.
Give rotated files one by one or all at once, the oldest first.

Replay takes every outcome for a new connection. If this configuration would have sent it to that
backend at that moment, the client saw the outcome. If not, the outcome counts as diverted. If no
backend served, it counts as an error that a client saw. A readmission is false when another
ejection follows within base_ejection_time. --compare applies the same measure to both: an error is
a status that either configuration lists in `errors`, and the longer base_ejection_time holds.

Examples:
  shunt replay -c shunt.toml events.jsonl
  shunt replay -c shunt.toml events.jsonl | jq -c 'select(.type == \"eject\")'
  cat events.jsonl.2 events.jsonl.1 events.jsonl | shunt replay -c tuned.toml -o table -
  shunt replay --compare shunt.toml tuned.toml events.jsonl")]
pub struct Replay {
    #[arg(short, long, value_name = "FILE", default_value = DEFAULT_CONFIG)]
    pub config: PathBuf,

    /// Run both configurations, and show the results side by side
    #[arg(long, num_args = 2, value_names = ["A", "B"], conflicts_with = "config")]
    pub compare: Vec<PathBuf>,

    /// Only this service: lines about other services are left out
    #[arg(long, value_name = "NAME")]
    pub service: Option<String>,

    /// Seed of the random jitter [default: the recording's, else 0]
    #[arg(long, value_name = "N")]
    pub seed: Option<u64>,

    /// [default: jsonl; table with --compare]
    #[arg(short, long, value_name = "FORMAT")]
    pub output: Option<ReplayFormat>,

    /// The file of events; - is standard input
    pub events: PathBuf,
}
