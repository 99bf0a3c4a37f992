//! Each kind of sickness, on real traffic: caught by the detector that is made for it.

use std::{net::SocketAddr, time::Duration};

use anyhow::{Context as _, Result};
use lb_core::event::{Event, EventKind};
use lb_lab::{Events, Process, Shunt, Topology, clock, until};
use lb_tests::{
    lab::{Need, at, nginx, shunt, skipped},
    load::Connections,
    site::{PATIENCE, Site, failed},
    socket::deaf_listener,
};

fn ejects(name: &str) -> impl Fn(&Event) -> bool + '_ {
    move |event| event.kind == EventKind::Eject && event.backend.as_deref() == Some(name)
}

#[test]
fn one_in_ten_is_seen_by_the_error_rate_and_not_by_five_in_a_row() -> Result<()> {
    if skipped("one_in_ten_is_seen_by_the_error_rate_and_not_by_five_in_a_row", &[]) {
        return Ok(());
    }
    let breaker = |rate| {
        format!(
            "[service.web.breaker]\nconsecutive_5xx = 5\nerror_rate_threshold = {rate}\n\
             error_rate_window = \"10s\"\n"
        )
    };
    // The same sick backend, with and without. 50 requests a second, half of them its own.
    let mut runs = Vec::new();
    for (prefix, rate) in [("rate5", 5), ("rate0", 0)] {
        let mut site = Site::start(prefix, 2, &breaker(rate))?;
        let events = site.shunt.events()?;
        let load = site.load(50, 4, Connections::Each);
        site.backends[1].fraction(0.1)?;
        runs.push((site, events, load, clock::now()));
    }
    let (_, events, _, begun) = &runs[0];
    let (heard, _) = events.wait("the error rate ejects it", 0, PATIENCE, ejects("web-1"))?;
    assert_eq!(heard.event.reason, "error_rate");
    let rate = heard.event.evidence.rate.context("the rate is in the event")?;
    assert!(rate.count * 20 >= rate.total && rate.total >= 20, "{rate:?}");
    // As long as it took, and the rest of the window.
    until("the window is over", PATIENCE, || clock::now().saturating_sub(*begun) > Duration::from_secs(10))?;
    let (site, events, load, _) = runs.pop().expect("two runs");
    let samples = load.stop();
    let bad = samples.iter().filter(|sample| sample.answer == Ok(500)).count();
    assert!(bad >= 5, "{bad} failures of {}", samples.len());
    assert!(!events.since(0).iter().any(|heard| ejects("web-1")(&heard.event)), "not seen by runs");
    assert!(failed(&samples).is_empty());
    drop(site);
    Ok(())
}

#[test]
fn ten_times_slower_is_seen_by_the_slow_rate() -> Result<()> {
    if skipped("ten_times_slower_is_seen_by_the_slow_rate", &[]) {
        return Ok(());
    }
    let policy = "[service.web.breaker]\nslow_threshold = \"50ms\"\nslow_rate_threshold = 50\n";
    let mut site = Site::start("slow", 2, policy)?;
    for backend in &mut site.backends {
        backend.delay(10)?;
    }
    let events = site.shunt.events()?;
    let load = site.load(100, 16, Connections::Each);
    until("both serve", PATIENCE, || load.samples().len() > 200)?;
    assert!(!events.since(0).iter().any(|heard| heard.event.kind == EventKind::Eject), "10 ms is not slow");
    site.backends[0].delay(100)?;
    let (heard, _) = events.wait("it is ejected", 0, PATIENCE, ejects("web-0"))?;
    assert_eq!(heard.event.reason, "slow_rate");
    let rate = heard.event.evidence.rate.context("the rate is in the event")?;
    assert!(rate.count * 2 >= rate.total, "{rate:?}");
    let samples = load.stop();
    assert!(samples.iter().all(|sample| sample.answer == Ok(200)), "slow is not wrong");
    // And the kernel's histograms show the difference.
    let median = |name| -> Result<u64> { site.traffic(name)?.counters.ttfb_us(0.5).context("it answered") };
    let counted = site.traffic("web-0")?.counters;
    let timed: u64 = counted.ttfb.iter().sum();
    assert!(timed >= rate.total, "{timed} responses were timed, {} judged", rate.total);
    // `None`: above the last bound.
    let (slow, quick) = (counted.ttfb_us(0.99), median("web-1")?);
    assert!(slow.is_none_or(|slow| slow >= 100_000), "{slow:?}");
    assert!((10_000..=66_000).contains(&quick), "{quick}");
    Ok(())
}

/// Three TLS servers, whose responses nobody can read.
struct Tls {
    servers: Vec<Process>,
    shunt: Shunt,
    topology: Topology,
}

const VIP: &str = "10.99.0.20:443";
const NAMES: [&str; 3] = ["tls-0", "tls-1", "tls-2"];

fn backend(number: usize) -> SocketAddr {
    at(Topology::address(number), 8443)
}

impl Tls {
    fn new(prefix: &str, breaker: &str) -> Result<Self> {
        let topology = Topology::new(prefix, &NAMES)?;
        let folder = topology.lab.folder();
        let (key, certificate) = (folder.join("key.pem"), folder.join("cert.pem"));
        let (key, certificate) = (key.display().to_string(), certificate.display().to_string());
        let mut request = vec!["openssl", "req", "-x509", "-newkey", "ec", "-nodes", "-days", "1"];
        request.extend(["-pkeyopt", "ec_paramgen_curve:prime256v1", "-subj", "/CN=lab"]);
        request.extend(["-keyout", &key, "-out", &certificate]);
        topology.client.run(&request)?;
        let mut servers = Vec::new();
        let mut toml = format!("interfaces = {:?}\n[service.tls]\nvip = {VIP:?}\n", topology.devices);
        toml += "[service.tls.backends]\n";
        for (number, host) in topology.backends.iter().enumerate() {
            let server = format!(
                "server {{ listen {} ssl; ssl_certificate {certificate}; ssl_certificate_key {key};\n\
                 location / {{ return 200 'fine'; }} }}",
                backend(number)
            );
            servers.push(nginx(&topology.lab, host, backend(number), &server)?);
            toml += &format!("{} = \"{}\"\n", NAMES[number], backend(number));
        }
        toml += &format!("[service.tls.breaker]\n{breaker}\n");
        let shunt = Shunt::start(&topology.lab, &topology.node, shunt(), &toml)?;
        Ok(Self { servers, shunt, topology })
    }

    /// So many TLS connections with a request each: their statuses, 0 without one.
    fn requests(&self, count: usize) -> Result<Vec<u16>> {
        let common = "--insecure --silent --connect-timeout 2 --max-time 4 --http1.1 -H 'Connection: close' \
                      --write-out '%{http_code}\\n'";
        let each = format!("{common} https://{VIP}/ --output /dev/null ");
        let all = (0..count).map(|_| each.as_str()).collect::<Vec<_>>().join(" --next ");
        // Whatever fails is in the output.
        let script = format!("curl --parallel --parallel-immediate --parallel-max 16 {all}; true");
        let said = self.topology.client.run(&["sh", "-c", &script])?;
        Ok(said.lines().map(|line| line.trim().parse().unwrap_or(0)).collect())
    }

    /// Requests until that event is heard.
    fn until_heard(&self, events: &Events, what: impl Fn(&Event) -> bool) -> Result<Event> {
        for _ in 0..40 {
            if let Some(heard) = events.since(0).into_iter().find(|heard| what(&heard.event)) {
                return Ok(heard.event);
            }
            self.requests(16)?;
        }
        anyhow::bail!("not heard; {}", self.shunt.ask(&["status"])?)
    }

    /// Nobody meets the sick one any more.
    fn only_good(&self) -> Result<()> {
        let statuses = self.requests(60)?;
        anyhow::ensure!(statuses == [200; 60], "{statuses:?}");
        Ok(())
    }
}

const TOOLS: [Need; 3] = [Need::Tool("nginx"), Need::Tool("curl"), Need::Tool("openssl")];

#[test]
fn a_tls_backend_that_refuses_is_caught() -> Result<()> {
    if skipped("a_tls_backend_that_refuses_is_caught", &TOOLS) {
        return Ok(());
    }
    let mut tls = Tls::new("tlsrst", "consecutive_5xx = 3\nbase_ejection_time = \"60s\"")?;
    let events = tls.shunt.events()?;
    tls.only_good()?;
    until("each connection was answered", PATIENCE, || {
        tls.shunt.status().is_ok_and(|status| {
            let backends = &status.snapshot.services[0].backends;
            backends.iter().map(|one| one.responses.answered).sum::<u64>() == 60
        })
    })?;
    tls.servers[1].stop(PATIENCE)?;
    let event = tls.until_heard(&events, ejects("tls-1"))?;
    assert_eq!(event.reason, "consecutive_5xx");
    let last = event.evidence.last.last().context("the evidence is in the event")?;
    assert_eq!(last.failure, Some(lb_core::io::L4Failure::ConnectRefused));
    assert!(last.client.is_some());
    tls.only_good()
}

#[test]
fn a_tls_backend_that_swallows_syns_is_caught() -> Result<()> {
    if skipped("a_tls_backend_that_swallows_syns_is_caught", &TOOLS) {
        return Ok(());
    }
    let breaker = "split_l4_failures = true\nconsecutive_l4_failure = 3\nconnect_timeout = \"500ms\"\n\
                   base_ejection_time = \"60s\"";
    let mut tls = Tls::new("tlssyn", breaker)?;
    let events = tls.shunt.events()?;
    tls.servers[2].stop(PATIENCE)?;
    let _full = tls.topology.backends[2].enter(|| deaf_listener(backend(2)))??;
    let event = tls.until_heard(&events, ejects("tls-2"))?;
    assert_eq!(event.reason, "consecutive_l4_failure");
    let last = event.evidence.last.last().context("the evidence is in the event")?;
    assert_eq!(last.failure, Some(lb_core::io::L4Failure::ConnectTimeout));
    tls.only_good()
}

#[test]
fn no_head_in_time_is_a_failure_and_counts_once() -> Result<()> {
    if skipped("no_head_in_time_is_a_failure_and_counts_once", &[]) {
        return Ok(());
    }
    let policy = "[service.web.breaker]\nconsecutive_5xx = 0\nresponse_timeout = \"300ms\"\n";
    let mut site = Site::start("late", 1, policy)?;
    site.backends[0].delay(700)?;
    let load = site.load(20, 20, Connections::Each);
    until("some have ended", PATIENCE, || load.samples().len() >= 20)?;
    let samples = load.stop();
    // Clients got their answers, late; each was reported once, as a timeout.
    assert!(samples.iter().all(|sample| sample.answer == Ok(200)));
    let responses = || site.shunt.status().map(|status| status.snapshot.services[0].backends[0].responses);
    let all = samples.len() as u64;
    until("all are reported", PATIENCE, || responses().is_ok_and(|now| now.l4_failures >= all))?;
    let counted = responses()?;
    assert_eq!((counted.l4_failures, counted.s2xx), (all, 0), "{counted:?}");
    Ok(())
}

#[test]
fn time_outs_with_good_answers_between_are_not_in_a_row() -> Result<()> {
    if skipped("time_outs_with_good_answers_between_are_not_in_a_row", &[]) {
        return Ok(());
    }
    // Slower than an answer that the program mirrors for its time: the good answers are only counted.
    let policy = "[service.web.breaker]\nconsecutive_5xx = 3\nresponse_timeout = \"600ms\"\n";
    let mut site = Site::start("apart", 2, policy)?;
    let events = site.shunt.events()?;
    let failures = |site: &Site| -> Result<u64> {
        let status = site.shunt.status()?;
        Ok(status.snapshot.services[0].backends.iter().map(|backend| backend.responses.l4_failures).sum())
    };
    let ask = |site: &mut Site, delay: u64, requests: usize| -> Result<()> {
        for backend in &mut site.backends {
            backend.delay(delay)?;
        }
        let load = site.load(100, 1, Connections::Each);
        until("they are answered", PATIENCE, || load.samples().len() >= requests)?;
        assert!(load.stop().iter().all(|sample| sample.answer == Ok(200)));
        Ok(())
    };
    // Of ten one of the two has five, at most two of them together: but for what is between, in a row.
    let mut reported = 0;
    while reported < 10 {
        ask(&mut site, 0, 30)?;
        ask(&mut site, 800, 1)?;
        until("it is reported", PATIENCE, || failures(&site).is_ok_and(|now| now > reported))?;
        reported = failures(&site)?;
    }
    let ejected = || events.since(0).iter().any(|heard| heard.event.kind == EventKind::Eject);
    assert!(!ejected(), "{:?}", events.since(0).last());
    ask(&mut site, 800, 5)?;
    until("they are in a row", PATIENCE, ejected)?;
    Ok(())
}
