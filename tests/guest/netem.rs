//! A lossy, reordering way: what status says is what the servers have written down.

use anyhow::{Context as _, Result, ensure};
use lb_lab::{Host, Shunt, clock, until_ok};
use lb_tests::http;

use crate::stand::{PATIENCE, SERVICES, Stand, web};

/// The delays overlap, so segments overtake each other.
const WAY: &str = "netem delay 10ms 8ms loss 1% duplicate 1%";

/// Requests of each service, a new connection for every tenth.
const REQUESTS: usize = 100;

/// Answers of a kind, as both sides have counted them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Counted {
    good: u64,
    bad: u64,
}

impl std::ops::Sub for Counted {
    type Output = Self;

    fn sub(self, before: Self) -> Self {
        Self { good: self.good - before.good, bad: self.bad - before.bad }
    }
}

/// On the way of the clients' segments, then on that of the backends'. Answers how many requests there were.
pub(crate) fn counts_agree(stand: &mut Stand, shunt: &Shunt) -> Result<usize> {
    // Some services may eject it for that, which changes nothing about the counts.
    stand.backends[1].fraction(0.1)?;
    let mut requests = 0;
    for (what, hosts) in
        [("towards the backends", vec![stand.client.clone()]), ("towards the client", stand.webs.clone())]
    {
        let before = (by_status(shunt)?, by_servers(stand)?);
        hosts.iter().try_for_each(|host| set(host, "replace", WAY))?;
        let made = all_services(stand).with_context(|| what);
        hosts.iter().try_for_each(|host| set(host, "delete", ""))?;
        requests += made?;
        let written = by_servers(stand)? - before.1;
        ensure!(written.bad > 0, "{what}: no bad answer");
        until_ok(&format!("{what}: status says what the servers say"), PATIENCE, || {
            let said = by_status(shunt).map_err(|error| error.to_string())? - before.0;
            if said == written { Ok(()) } else { Err(format!("status {said:?}, servers {written:?}")) }
        })?;
    }
    stand.backends[1].heal()?;
    Ok(requests)
}

fn set(host: &Host, order: &str, how: &str) -> Result<()> {
    let words = ["tc", "qdisc", order, "dev", "node", "root"];
    host.run(&words.into_iter().chain(how.split_whitespace()).collect::<Vec<_>>())?;
    Ok(())
}

/// A client of each service at the same time.
fn all_services(stand: &Stand) -> Result<usize> {
    let clients: Vec<_> = SERVICES
        .iter()
        .map(|(name, vip, _)| {
            let client = stand.client.clone();
            std::thread::spawn(move || one_service(&client, vip).with_context(|| *name))
        })
        .collect();
    let mut made = 0;
    for client in clients {
        made += client.join().expect("a client does not panic")?;
    }
    Ok(made)
}

fn one_service(client: &Host, vip: &str) -> Result<usize> {
    for _ in 0..REQUESTS / 10 {
        let mut stream = http::connect(client, web(vip), PATIENCE)?;
        for _ in 0..10 {
            let answer = http::ask(&mut stream, "GET /lossy")?;
            ensure!([200, 500].contains(&answer.status), "{answer:?}");
        }
    }
    Ok(REQUESTS)
}

fn by_status(shunt: &Shunt) -> Result<Counted> {
    let status = shunt.status()?;
    let mut counted = Counted::default();
    for of in &status.snapshot.services {
        // Echoes are no HTTP.
        for backend in of.backends.iter().filter(|_| !of.name.starts_with("echo-")) {
            counted.good += backend.responses.s2xx;
            counted.bad += backend.responses.s5xx;
        }
    }
    Ok(counted)
}

fn by_servers(stand: &mut Stand) -> Result<Counted> {
    let mut counted = Counted::default();
    for backend in &mut stand.backends {
        let report = backend.report(clock::now())?;
        counted.good += report.statuses.get(&200).copied().unwrap_or(0);
        counted.bad += report.statuses.get(&500).copied().unwrap_or(0);
    }
    Ok(counted)
}
