//! A bad road between the clients and Shunt: frames are lost, doubled and overtaken.

use std::{
    net::SocketAddr,
    sync::atomic::{AtomicU64, Ordering},
    thread,
    time::Duration,
};

use anyhow::{Result, ensure};
use lb_lab::{Lab, Shunt, until};
use lb_tests::{
    http::{ask, connect},
    lab::{shunt, skipped},
    road::{Faults, Road},
    scripted::Scripted,
    tally::Tally,
};

use crate::stage::{each, plain, vip};

const CONNECTIONS: u64 = 40;
const REQUESTS: u64 = 20;
/// Some segments are lost several times in a row.
const PATIENCE: Duration = Duration::from_secs(60);

#[test]
fn on_a_bad_road_every_response_is_counted() -> Result<()> {
    if skipped("on_a_bad_road_every_response_is_counted", &[]) {
        return Ok(());
    }
    let mut lab = Lab::new("road")?;
    let [client, road, node, app] = ["client", "road", "node", "app"].map(|name| lab.host(name));
    let (client, road, node, app) = (client?, road?, node?, app?);
    lab.link((&client, "10.10.0.2/24"), (&road, "192.0.2.1/32"))?;
    let [_, toward] = lab.link((&road, "192.0.2.2/32"), (&node, "10.10.0.1/24"))?;
    let [near, _] = lab.link((&node, "10.20.0.1/24"), (&app, "10.20.0.2/24"))?;
    // Frames longer than others would be of several segments.
    for (host, device) in [(&client, "road"), (&node, near.device.as_str()), (&app, "node")] {
        host.run(&["ethtool", "-K", device, "tx", "off", "tso", "off", "gso", "off"])?;
    }
    client.ip("route add default via 10.10.0.1")?;
    app.ip("route add default via 10.20.0.1")?;
    let faults = Faults { lost: 5, doubled: 5, late: 10 };
    let bad_road = Road::open(&road, ["client", "node"], faults);
    let backend = SocketAddr::from(([10, 20, 0, 2], 8080));
    let config = format!(
        "interfaces = [{:?}, {:?}]\n[service.web]\nvip = \"{}\"\nbackends.app = \"{backend}\"\n\
         breaker.consecutive_5xx = 0\n",
        toward.device,
        near.device,
        vip(),
    );
    let shunt = Shunt::start(&lab, &node, shunt(), &config)?;
    let _server = Scripted::start(&app, backend, |line| each(line, plain))?;
    until("the way to the backend is known", PATIENCE, || shunt.log().contains("next hop"))?;
    let bad = AtomicU64::new(0);
    thread::scope(|scope| {
        let talks: Vec<_> = (0..CONNECTIONS)
            .map(|number| {
                let (client, bad) = (&client, &bad);
                scope.spawn(move || -> Result<()> {
                    let mut stream = connect(client, vip(), PATIENCE)?;
                    for request in 0..REQUESTS {
                        let fails = (number + request) % 8 == 0;
                        let status = ask(&mut stream, if fails { "GET /bad" } else { "GET /" })?.status;
                        ensure!(status == if fails { 500 } else { 200 });
                        bad.fetch_add(u64::from(fails), Ordering::Relaxed);
                    }
                    Ok(())
                })
            })
            .collect();
        talks.into_iter().try_for_each(|talk| talk.join().expect("no panic"))
    })?;
    let bad = bad.into_inner();
    let expected = (CONNECTIONS * REQUESTS - bad, bad);
    let tally = || Ok(Tally::of(&shunt.status()?, "web"));
    let counted = |tally: &Tally| (tally.s2xx, tally.s5xx);
    let read = || -> Result<Tally, lb_lab::Error> { tally() };
    let waited = until("all are counted", PATIENCE, || read().is_ok_and(|tally| counted(&tally) == expected));
    let tally = read()?;
    println!("{} frames were lost, doubled or late; {tally:?}", bad_road.hurt());
    assert_eq!(counted(&tally), expected, "{waited:?}: {tally:?}");
    assert_eq!((tally.lost, tally.heads_lost, tally.pipelined, tally.opaque_connections), (0, 0, 0, 0));
    ensure!(bad_road.hurt() > 100, "the road was good");
    Ok(())
}
