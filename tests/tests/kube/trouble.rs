//! The API server breaks off, forgets, refuses and goes away. The files stay as they are until it answers.

use std::fs;

use anyhow::Result;
use lb_lab::until;
use lb_tests::api_server::{ApiServer, Kind};

use crate::stage::{Follower, PATIENCE, Pod, service, slice};

fn pods() -> [Pod; 2] {
    [Pod::ready("a", "10.0.0.1"), Pod::ready("b", "10.0.0.2")]
}

const BOTH: &[(&str, &str)] = &[("a", "ready"), ("b", "ready")];
const CHANGED: &[(&str, &str)] = &[("a", "draining"), ("b", "ready")];

fn change(stage: &Follower) {
    let [a, b] = pods();
    stage.server.put(Kind::EndpointSlice, slice("web-1", &[a.leaves(), b]));
}

/// How many requests for EndpointSlices fit.
fn count(stage: &Follower, fits: impl Fn(&str) -> bool) -> usize {
    stage.server.requests().iter().filter(|path| path.contains("endpointslices") && fits(path)).count()
}

#[test]
fn a_stream_that_is_cut_begins_again_where_it_was() -> Result<()> {
    let stage = Follower::start(&pods(), &["v1"], "{}")?;
    stage.has(BOTH)?;
    let before = stage.text()?;
    for cut in 2..5 {
        until("it watches", PATIENCE, || count(&stage, |path| path.contains("watch=true")) >= cut - 1)?;
        stage.server.cut();
    }
    until("it watches", PATIENCE, || count(&stage, |path| path.contains("watch=true")) >= 4)?;
    assert_eq!(count(&stage, |path| path.contains("limit=")), 1, "no further list was needed");
    assert_eq!(stage.text()?, before);
    change(&stage);
    stage.has(CHANGED)
}

#[test]
fn a_version_that_is_gone_is_listed_again() -> Result<()> {
    let stage = Follower::start(&pods(), &["v1"], "{}")?;
    stage.has(BOTH)?;
    let before = stage.text()?;
    stage.server.forget();
    until("it lists again", PATIENCE, || count(&stage, |path| path.contains("limit=")) >= 2)?;
    assert_eq!(stage.text()?, before, "nothing was written meanwhile");
    change(&stage);
    stage.has(CHANGED)
}

#[test]
fn a_token_that_expires_is_read_again() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let token = folder.path().join("token");
    fs::write(&token, "first")?;
    let server = ApiServer::local(&["v1"])?;
    server.token("first");
    server.put(Kind::Service, service(Some("true")));
    server.put(Kind::EndpointSlice, slice("web-1", &pods()));
    let stage = Follower::follow(server, &format!("tokenFile: {}", token.display()))?;
    stage.has(BOTH)?;
    let before = stage.text()?;
    stage.server.token("second");
    stage.server.cut();
    stage.logs("the token is read again")?;
    stage.logs("does not answer as expected")?;
    change(&stage);
    assert_eq!(stage.text()?, before);
    fs::write(&token, "second")?;
    stage.has(CHANGED)?;
    stage.logs("answers again")
}

#[test]
fn a_server_that_asks_for_patience_gets_it() -> Result<()> {
    let server = ApiServer::local(&["v1"])?;
    server.put(Kind::Service, service(Some("true")));
    server.put(Kind::EndpointSlice, slice("web-1", &pods()));
    for (status, after) in [(429, Some(1)), (503, Some(1)), (500, None)] {
        server.refuse(status, after);
    }
    let stage = Follower::follow(server, "{}")?;
    stage.has(BOTH)?;
    stage.server.refuse(429, Some(1));
    stage.server.refuse(503, None);
    stage.server.cut();
    change(&stage);
    stage.has(CHANGED)
}

#[test]
fn while_the_server_is_away_the_files_stay() -> Result<()> {
    let stage = Follower::start(&pods(), &["v1"], "{}")?;
    stage.has(BOTH)?;
    stage.logs("written")?;
    let (before, written) = (stage.text()?, stage.log().matches("written").count());
    stage.server.away(true);
    stage.logs("does not answer as expected; the files stay as they are")?;
    change(&stage);
    // Even an empty cluster would change nothing as long as nobody answers.
    stage.server.delete(Kind::Service, "shop", "web");
    assert_eq!((stage.text()?, stage.log().matches("written").count()), (before, written));
    assert_eq!(stage.log().matches("does not answer as expected").count(), 1, "one line for each minute");
    stage.server.put(Kind::Service, service(Some("true")));
    stage.server.away(false);
    stage.has(CHANGED)?;
    stage.logs("the API server answers again")
}

#[test]
fn it_may_start_before_the_server() -> Result<()> {
    let server = ApiServer::local(&["v1"])?;
    server.away(true);
    server.put(Kind::Service, service(Some("true")));
    server.put(Kind::EndpointSlice, slice("web-1", &pods()));
    let stage = Follower::follow(server, "{}")?;
    stage.logs("does not answer as expected")?;
    stage.server.away(false);
    stage.has(BOTH)
}
