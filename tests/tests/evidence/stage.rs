//! One service with one backend whose responses a test chooses.

use std::{
    io,
    net::{SocketAddr, TcpStream},
};

use anyhow::{Context, Result};
use lb_lab::{Error, Shunt, Topology, until};
use lb_tests::{
    http::{PATIENCE, ask, connect},
    lab::{at, shunt},
    scripted::{Line, Scripted},
    tally::Tally,
};
use lb_userspace::control::model::Status;

const PORT: u16 = 8080;

/// One service with one backend, on which nothing is ejected.
pub(crate) struct Stage {
    pub(crate) shunt: Shunt,
    pub(crate) topology: Topology,
}

impl Stage {
    pub(crate) fn new(prefix: &str) -> Result<Self, Error> {
        let topology = Topology::new(prefix, &["app"])?;
        topology.lab.pin_neighbours()?;
        let config = format!(
            "interfaces = {:?}\n\
             [service.web]\nvip = \"{}\"\n\
             backends.app = \"{}\"\n\
             breaker.consecutive_5xx = 0\n",
            topology.devices,
            vip(),
            backend(),
        );
        let shunt = Shunt::start(&topology.lab, &topology.node, shunt(), &config)?;
        until("the way to the backend is known", PATIENCE, || shunt.log().contains("next hop"))?;
        Ok(Self { shunt, topology })
    }

    pub(crate) fn scripted(
        &self,
        script: impl Fn(&mut Line) -> io::Result<()> + Send + Sync + 'static,
    ) -> Result<Scripted> {
        Ok(Scripted::start(&self.topology.backends[0], backend(), script)?)
    }

    /// A connection through the VIP, once there is a way to the backend.
    pub(crate) fn connect(&self) -> Result<TcpStream> {
        let connected = connect(&self.topology.client, vip(), PATIENCE);
        connected.with_context(|| format!("{:?}\n{}", self.status(), self.shunt.log()))
    }

    pub(crate) fn status(&self) -> Result<Status, Error> {
        self.shunt.status()
    }

    pub(crate) fn tally(&self) -> Result<Tally, Error> {
        Ok(Tally::of(&self.status()?, "web"))
    }

    /// Has the backend answer 418, by whatever `last` does, and then compares everything but that.
    #[track_caller]
    pub(crate) fn settles(&self, last: impl FnOnce() -> Result<()>, expected: Tally) {
        last().expect("the last exchange");
        let counted = Tally { s4xx: expected.s4xx + 1, heads: expected.heads + 1, ..expected };
        let waited = until("the last response is counted", PATIENCE, || {
            self.tally().is_ok_and(|tally| tally.s4xx >= counted.s4xx)
        });
        let tally = self.tally().expect("the daemon answers");
        assert_eq!(tally, counted, "{waited:?}\n{}", self.shunt.log());
    }

    /// `settles` with a server that knows `/teapot`.
    #[track_caller]
    pub(crate) fn counts(&self, expected: Tally) {
        self.settles(|| teapot(self), expected);
    }
}

pub(crate) fn teapot(stage: &Stage) -> Result<()> {
    let mut stream = stage.connect()?;
    anyhow::ensure!(ask(&mut stream, "GET /teapot")?.status == 418);
    Ok(())
}

pub(crate) fn vip() -> SocketAddr {
    SocketAddr::from(([203, 0, 113, 10], 80))
}

pub(crate) fn backend() -> SocketAddr {
    at(Topology::address(0), PORT)
}

/// A whole response.
pub(crate) fn response(status: &str, body: &str) -> String {
    format!("HTTP/1.1 {status}\r\nContent-Length: {}\r\n\r\n{body}", body.len())
}

pub(crate) fn bad() -> String {
    response("500 Internal Server Error", "oops")
}

/// The answer of every script to a path that it does not know.
pub(crate) fn plain(line: &mut Line, path: &str) -> io::Result<()> {
    match path {
        "/teapot" => line.say(response("418 I'm a teapot", "")),
        "/bad" => line.say(bad()),
        _ => line.say(response("200 OK", "fine")),
    }
}

/// Plays `answer` for each request of a connection.
pub(crate) fn each(line: &mut Line, answer: impl Fn(&mut Line, &str) -> io::Result<()>) -> io::Result<()> {
    while let Some(head) = line.request()? {
        answer(line, head.split(' ').nth(1).unwrap_or_default())?;
    }
    Ok(())
}
