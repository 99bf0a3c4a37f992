//! `shunt import`.

use std::{
    net::{IpAddr, SocketAddr},
    path::PathBuf,
};

use clap::{Args, ValueEnum};

use crate::import::{Format, Options};

/// Turn a configuration of Istio, Envoy or HAProxy into one of Shunt
///
/// Prints TOML in which each line says the place that it came from. All files are one picture. Shunt
/// notes there and on stderr each field that it cannot carry. If such a field changes how traffic is
/// served, it prints nothing and exits with 3, unless --lossy is given.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  shunt import istio *.yaml --vip 192.0.2.10 --interface eth0 \\
      --backend app-v200=10.0.0.11:8081 --backend app-v5xx=10.0.0.12:8081 > shunt.toml
  kubectl get deploy,svc,endpointslice,gateway,vs,dr -o yaml | shunt import istio - --vip 192.0.2.10
  shunt import istio dr.yaml svc.yaml --explain     field by field: which key, and what differs
  shunt import envoy envoy.yaml --vip 192.0.2.10
  shunt import haproxy haproxy.cfg --lossy 2> lost.txt > shunt.toml && shunt check -c shunt.toml
  shunt import haproxy haproxy.cfg -o json | jq '.notes[] | select(.weight == \"loss\")'")]
pub struct Import {
    /// The program that the files are for
    #[arg(value_name = "FORMAT")]
    pub format: From,

    /// Its files; `-` reads the standard input
    #[arg(value_name = "FILE", required = true)]
    pub files: Vec<PathBuf>,

    /// The VIP, where the files name none: of all services, or as NAME=ADDRESS of one; repeatable
    #[arg(long = "vip", value_name = "[NAME=]ADDRESS", value_parser = vip)]
    pub vips: Vec<(Option<String>, IpAddr)>,

    /// A backend of a Deployment, a cluster or a server without an address; repeatable
    #[arg(long = "backend", value_name = "NAME=ADDRESS:PORT", value_parser = backend)]
    pub backends: Vec<(String, SocketAddr)>,

    /// An interface of this node; repeatable
    #[arg(long = "interface", value_name = "NAME")]
    pub interfaces: Vec<String>,

    /// Do as the other program does: no floor, no half-open, decay by time
    #[arg(long)]
    pub faithful: bool,

    /// Print the result although traffic will be served in another way
    #[arg(long)]
    pub lossy: bool,

    /// Print a table instead: field, key, value, and what differs
    #[arg(long)]
    pub explain: bool,

    /// The folder in which shunt-kube keeps its discovery files
    #[arg(long, value_name = "DIR", default_value = "/run/shunt/discovery")]
    pub discovery: String,

    #[arg(short, long, value_name = "FORMAT", default_value = "toml")]
    pub output: ImportOutput,
}

impl Import {
    pub fn options(&self) -> Options {
        Options {
            interfaces: self.interfaces.clone(),
            vips: self.vips.clone(),
            backends: self.backends.clone(),
            faithful: self.faithful,
            discovery: self.discovery.clone(),
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum From {
    /// Objects of Kubernetes and Istio, as YAML or JSON
    Istio,
    /// A bootstrap of Envoy, as YAML or JSON
    Envoy,
    /// A configuration of HAProxy
    Haproxy,
}

impl From {
    pub const fn format(self) -> Format {
        match self {
            Self::Istio => Format::Istio,
            Self::Envoy => Format::Envoy,
            Self::Haproxy => Format::Haproxy,
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum ImportOutput {
    /// The configuration, notes on stderr
    Toml,
    /// Configuration, notes and table in one document
    Json,
}

fn vip(text: &str) -> Result<(Option<String>, IpAddr), String> {
    let (name, address) = match text.split_once('=') {
        Some((name, address)) => (Some(name.to_owned()), address),
        None => (None, text),
    };
    let address =
        address.parse().map_err(|_| format!("{address:?} is not an IP address (without a port)"))?;
    Ok((name, address))
}

fn backend(text: &str) -> Result<(String, SocketAddr), String> {
    let (name, address) = text.split_once('=').ok_or("write NAME=ADDRESS:PORT")?;
    let address = address.parse().map_err(|_| format!("{address:?} is not an address with a port"))?;
    Ok((name.to_owned(), address))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_may_stand_before_an_address() {
        let ip = |text: &str| text.parse::<IpAddr>().expect("an address");
        assert_eq!(vip("192.0.2.1"), Ok((None, ip("192.0.2.1"))));
        assert_eq!(vip("web=2001:db8::1"), Ok((Some("web".to_owned()), ip("2001:db8::1"))));
        vip("192.0.2.1:80").expect_err("a port");
        assert_eq!(
            backend("a=[2001:db8::1]:80"),
            Ok(("a".to_owned(), "[2001:db8::1]:80".parse().expect("an address")))
        );
        backend("10.0.0.1:80").expect_err("no name");
        backend("a=10.0.0.1").expect_err("no port");
    }
}
