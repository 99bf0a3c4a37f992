//! The command line.

use std::path::PathBuf;

use clap::Parser;

/// Keep Shunt's discovery files up to date with the EndpointSlices of a Kubernetes cluster
///
/// Follows the Services that have the annotation shunt.dev/discover, or those that --selector selects, and writes one
/// file for each of their TCP ports. The daemon of Shunt reads the file by [service.NAME.discovery]. While the API server
/// is away, the files stay as they are.
#[derive(Debug, Parser)]
#[command(
    name = "shunt-kube",
    version,
    after_help = "\
The annotation shunt.dev/discover of a Service:
  \"true\"              all its TCP ports
  \"http,8443\"         these ports, by name or by number
  \"false\"             none, also where --selector selects the Service

The files, in --directory:
  NAMESPACE.SERVICE.PORT.json        IPv4; PORT is the port's name, or its number
  NAMESPACE.SERVICE.PORT.v6.json     IPv6

Exit codes: 0 done, 1 failed, 2 wrong use, 3 kubeconfig invalid, 4 API server not reachable,
6 not allowed by the API server. Without --once it runs until SIGTERM.

Examples:
  kubectl annotate service web shunt.dev/discover=true
  shunt-kube --once --kubeconfig ~/.kube/config --directory /tmp/discovery
  shunt-kube --namespace shop --selector app.kubernetes.io/part-of=shop
  shunt-kube                         in a pod, with the token of its service account"
)]
pub(crate) struct Args {
    /// The folder of the files. It is made if it is not there
    #[arg(short, long, value_name = "DIR", default_value = "/run/shunt/discovery")]
    pub(crate) directory: PathBuf,

    /// The file that names the API server [default: $KUBECONFIG, ~/.kube/config, or the pod's service account]
    #[arg(long, value_name = "FILE")]
    pub(crate) kubeconfig: Option<PathBuf>,

    /// A context of the kubeconfig instead of its current one
    #[arg(long, value_name = "NAME")]
    pub(crate) context: Option<String>,

    /// Only Services of this namespace
    #[arg(short, long, value_name = "NAME")]
    pub(crate) namespace: Option<String>,

    /// Follow the Services with these labels, without an annotation
    #[arg(short = 'l', long, value_name = "LABELS")]
    pub(crate) selector: Option<String>,

    /// Write the files once, print a table of them, and end
    #[arg(long)]
    pub(crate) once: bool,

    /// error, warn, info, debug or trace
    #[arg(long, value_name = "LEVEL", env = "SHUNT_LOG", default_value = "info")]
    pub(crate) log: String,
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn the_command_line_is_sound() {
        Args::command().debug_assert();
        let args = Args::parse_from(["shunt-kube", "-n", "shop", "-l", "a=b", "--once"]);
        assert_eq!(args.directory, PathBuf::from("/run/shunt/discovery"));
        assert_eq!(
            (args.namespace.as_deref(), args.selector.as_deref(), args.once),
            (Some("shop"), Some("a=b"), true)
        );
    }
}
