//! Changes of the cluster come into the files.

use std::fs;

use anyhow::Result;
use lb_lab::until;
use lb_tests::api_server::{ApiServer, Kind};
use lb_userspace::discovery;

use crate::stage::{Follower, PATIENCE, Pod, WEB, service, slice, states};

fn pods() -> [Pod; 2] {
    [Pod::ready("a", "10.0.0.1"), Pod::ready("b", "10.0.0.2")]
}

#[test]
fn endpoints_become_backends() -> Result<()> {
    let [a, b] = pods();
    let stage = Follower::start(&[a.clone(), b.clone()], &["v1", "v1beta1"], "{}")?;
    stage.has(&[("a", "ready"), ("b", "ready")])?;
    // The daemon reads it.
    let document = discovery::parse(stage.text()?.as_bytes())?;
    assert_eq!(document.source.as_deref(), Some("shunt-kube"));
    assert_eq!(document.backends[0].identity(), Some("uid-a"));

    stage.server.put(Kind::EndpointSlice, slice("web-1", &[a.clone().leaves(), b.clone()]));
    stage.has(&[("a", "draining"), ("b", "ready")])?;
    // A second slice: no endpoint is lost while they are merged.
    let c = Pod { ready: false, ..Pod::ready("c", "10.0.0.3") };
    stage.server.put(Kind::EndpointSlice, slice("web-2", &[c]));
    stage.has(&[("a", "draining"), ("b", "ready"), ("c", "out")])?;
    // Nobody is ready: the one that still serves is used.
    stage.server.put(Kind::EndpointSlice, slice("web-1", &[a.leaves()]));
    stage.has(&[("a", "ready"), ("c", "out")])?;
    stage.server.delete(Kind::EndpointSlice, "shop", "web-1");
    stage.has(&[("c", "out")])?;
    let requests = stage.server.requests();
    let watches: Vec<_> = requests.iter().filter(|path| path.contains("watch=true")).collect();
    assert_eq!(watches.len(), 2, "{requests:?}");
    assert!(watches.iter().all(|path| path.contains("allowWatchBookmarks=true")), "{watches:?}");
    assert!(requests.iter().any(|path| path.contains("/discovery.k8s.io/v1/")), "{requests:?}");
    Ok(())
}

#[test]
fn a_service_comes_and_goes_by_its_annotation() -> Result<()> {
    let server = ApiServer::local(&["v1"])?;
    server.put(Kind::Service, service(None));
    server.put(Kind::EndpointSlice, slice("web-1", &pods()));
    let stage = Follower::follow(server, "{}")?;
    stage.logs("follows EndpointSlices")?;
    stage.server.put(Kind::Service, service(Some("80")));
    stage.has(&[("a", "ready"), ("b", "ready")])?;
    stage.server.put(Kind::Service, service(Some("admin")));
    until("the file is gone", PATIENCE, || !stage.file(WEB).exists())?;
    stage.logs("has no TCP port `admin`")?;
    stage.logs("not followed any more")?;
    Ok(())
}

#[test]
fn long_lists_come_in_pages() -> Result<()> {
    const COUNT: usize = 1100;
    let server = ApiServer::local(&["v1"])?;
    server.put(Kind::Service, service(Some("true")));
    for number in 0..COUNT {
        let (name, address) = (format!("p{number}"), format!("10.0.{}.{}", number / 250, number % 250 + 1));
        server.put(Kind::EndpointSlice, slice(&format!("web-{number}"), &[Pod::ready(&name, &address)]));
    }
    let stage = Follower::follow(server, "{}")?;
    until("all are there", PATIENCE, || states(&stage.file(WEB)).is_ok_and(|all| all.len() == COUNT))?;
    let requests = stage.server.requests();
    let pages = requests.iter().filter(|path| path.contains("endpointslices") && path.contains("limit=500"));
    assert_eq!(pages.count(), 3, "{requests:?}");
    assert_eq!(requests.iter().filter(|path| path.contains("continue=")).count(), 2);
    // It was written once, when all had come.
    stage.logs("written")?;
    assert_eq!(stage.log().matches("written").count(), 1);
    Ok(())
}

#[test]
fn an_old_server_has_v1beta1_only() -> Result<()> {
    let [a, b] = pods();
    let stage = Follower::start(&[a.clone(), b.clone()], &["v1beta1"], "{}")?;
    stage.has(&[("a", "ready"), ("b", "ready")])?;
    stage.server.put(Kind::EndpointSlice, slice("web-1", &[a.leaves(), b]));
    stage.has(&[("a", "draining"), ("b", "ready")])?;
    assert!(stage.server.requests().iter().any(|path| path.contains("/discovery.k8s.io/v1beta1/")));
    Ok(())
}

/// A restart keeps the names, and writes nothing that is there already.
#[test]
fn a_restart_writes_nothing_new() -> Result<()> {
    let stage = Follower::start(&pods(), &["v1"], "{}")?;
    stage.has(&[("a", "ready"), ("b", "ready")])?;
    let before = stage.text()?;
    let other = ApiServer::local(&["v1"])?;
    other.put(Kind::Service, service(Some("true")));
    other.put(Kind::EndpointSlice, slice("web-1", &pods()));
    let second = Follower::follow(other, "{}")?;
    fs::create_dir_all(second.folder().join("files"))?;
    second.has(&[("a", "ready"), ("b", "ready")])?;
    let mut again = std::process::Command::new(crate::stage::program());
    again.args(["--once", "--kubeconfig"]).arg(stage.folder().join("kubeconfig"));
    again.arg("--directory").arg(stage.folder().join("files"));
    let output = again.output()?;
    assert!(output.status.success(), "{output:?}");
    assert_eq!(stage.text()?, before, "also `generated_at`");
    Ok(())
}
