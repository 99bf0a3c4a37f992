//! A thousand ejections and readmissions a minute under load: nobody else's connection breaks, and nothing is
//! left behind. `SHUNT_CHURN` is for how many seconds, of each policy.

use std::{
    collections::HashMap,
    env,
    io::ErrorKind,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::Duration,
};

use anyhow::{Context as _, Result};
use lb_core::{
    event::EventKind,
    io::Verb,
    snapshot::{BreakerState, Effective},
};
use lb_lab::{clock, until, until_ok};
use lb_tests::{
    holdings::{self, Places, Process},
    lab::skipped,
    load::{Connections, Sample},
    site::{PATIENCE, Site},
};
use lb_userspace::control::{
    client::Client,
    model::{BackendView, Order},
};

/// Ejections, and readmissions.
const A_MINUTE: u64 = 1000;
const A_MINUTE_LONG: Duration = Duration::from_secs(60);

/// Nobody touches these.
const HEALTHY: [&str; 2] = ["web-0", "web-1"];
/// An operator takes it out and in.
const ORDERED: &str = "web-2";
/// The breaker does, because it falls ill again and again.
const FLAPPING: usize = 3;

const BREAKER: &str = "
[timeouts]
closing = \"1s\"
handshake = \"2s\"
[service.web.breaker]
consecutive_5xx = 1
interval = \"100ms\"
base_ejection_time = \"100ms\"
max_ejection_time = \"100ms\"
max_ejection_percent = 100
half_open_trials = 1
";

fn length() -> Result<Duration> {
    let seconds = env::var("SHUNT_CHURN").map_or(Ok(6), |text| text.parse());
    Ok(Duration::from_secs(seconds.context("SHUNT_CHURN is a number of seconds")?))
}

#[test]
fn with_drain_no_request_fails() -> Result<()> {
    if skipped("with_drain_no_request_fails", &[]) {
        return Ok(());
    }
    let Churned { each, kept, .. } = churn("churndrain", "on_eject = \"drain\"\n")?;
    for samples in kept.iter().chain([&each]) {
        let failed: Vec<_> = samples.iter().filter(|sample| sample.answer.is_err()).collect();
        assert!(failed.is_empty(), "{} of {}: {:?}", failed.len(), samples.len(), failed.first());
    }
    Ok(())
}

#[test]
fn with_reset_no_connection_of_a_healthy_backend_ends() -> Result<()> {
    if skipped("with_reset_no_connection_of_a_healthy_backend_ends", &[]) {
        return Ok(());
    }
    let churned = churn("churnreset", "on_eject = \"reset\"\n")?;
    for load in &churned.kept {
        // A client knows from the last answer which backend its kept connection has.
        let mut served: HashMap<SocketAddr, &str> = HashMap::new();
        for sample in load {
            let Some(client) = sample.client else { continue };
            match &sample.backend {
                Some(backend) => {
                    served.insert(client, backend);
                }
                None => {
                    let of = served.remove(&client);
                    let healthy = of.is_some_and(|name| HEALTHY.contains(&name));
                    assert!(!healthy, "a connection of {of:?} ended: {sample:?}");
                }
            }
        }
    }
    // Each connection that failed got its reset from the program, at a request.
    let all: Vec<_> =
        churned.kept.iter().flatten().chain(&churned.each).filter(|one| one.answer.is_err()).collect();
    let other: Vec<_> =
        all.iter().filter(|sample| sample.answer != Err(ErrorKind::ConnectionReset)).collect();
    assert!(other.is_empty(), "{other:?}");
    assert!(!all.is_empty(), "no connection was ever reset: nothing was tried");
    assert!(all.len() as u64 <= churned.cut, "{} failed, {} were cut", all.len(), churned.cut);
    Ok(())
}

/// The result.
struct Churned {
    /// Of connections for one request each.
    each: Vec<Sample>,
    /// Of connections that are kept, by the load that they were opened for.
    kept: Vec<Vec<Sample>>,
    /// Connections whose client got a reset.
    cut: u64,
}

/// Everything but what the clients of this policy may see.
fn churn(prefix: &str, keys: &str) -> Result<Churned> {
    let length = length()?;
    let mut site = Site::with_keys(prefix, 4, keys, BREAKER)?;
    site.reachable()?;
    let pid = site.shunt.process().id();
    let events = site.shunt.events()?;
    // Once in small, so that everything that is made at its first use is there.
    rounds(&mut site, 20, Duration::from_secs(2))?;
    idle(&site)?;
    let (began, before) = (clock::now(), Process::read(pid)?);
    let place = events.since(0).len();

    let count = A_MINUTE * length.as_secs() / 60;
    let (each, kept) = rounds(&mut site, count, length)?;
    let took = clock::now() - began;
    let heard = events.since(place);
    let of = |kind| heard.iter().filter(|heard| heard.event.kind == kind).count();
    let (ejections, readmissions) = (of(EventKind::Eject), of(EventKind::Readmit));
    assert!(ejections as u64 >= count && readmissions as u64 >= count, "{ejections}, {readmissions}");
    let flapped = heard.iter().filter(|heard| heard.event.kind == EventKind::Trial).count();
    assert!(flapped > 0, "the breaker had its part");
    let writes: Vec<_> = heard.iter().filter(|one| one.event.kind == EventKind::Dataplane).collect();
    assert!(writes.is_empty(), "{writes:?}");

    let mut cut = 0;
    for traffic in site.shunt.status()?.traffic {
        if HEALTHY.contains(&traffic.backend.as_str()) {
            assert_eq!(traffic.resets.at_request, 0, "{traffic:?}");
        }
        cut += traffic.resets.at_request;
    }
    idle(&site)?;
    until("files and threads are as many as before", 2 * PATIENCE, || {
        Process::read(pid).is_ok_and(|now| now.files <= before.files && now.threads <= before.threads)
    })
    .with_context(|| format!("{before:?}, {:?}", Process::read(pid)))?;
    let after = Process::read(pid)?;
    // The last events are kept, some thousands.
    let grown = after.memory_kib.saturating_sub(before.memory_kib);
    assert!(grown < 16 << 10, "{before:?}, {after:?}");
    let tokens = holdings::tokens(&site.shunt)?;
    // Each CPU may have looked at the last one at the same time.
    assert!(tokens[..4].iter().all(|left| (-8..=1).contains(left)), "{:?}", &tokens[..4]);
    assert!(tokens[4..].iter().all(|left| *left == 0), "no id without a backend has a budget");
    if length > A_MINUTE_LONG {
        places(&site, "all is forgotten", A_MINUTE_LONG + PATIENCE, |places| places == Places::default())?;
    }
    println!(
        "{prefix}: {ejections} ejections, {readmissions} readmissions, {flapped} trials in {took:?}; {} requests \
         on {} connections; {cut} cut; {before:?}, {after:?}",
        each.len() + kept.iter().map(Vec::len).sum::<usize>(),
        site.shunt.status()?.traffic.iter().map(|one| one.counters.connections).sum::<u64>(),
    );
    Ok(Churned { each, kept, cut })
}

/// Under load, an operator ejects and admits one so many times in about this time, while another flaps.
fn rounds(site: &mut Site, count: u64, length: Duration) -> Result<(Vec<Sample>, Vec<Vec<Sample>>)> {
    let each = site.load(100, 8, Connections::Each);
    let kept = site.load(300, 64, Connections::Kept);
    let over = Arc::new(AtomicBool::new(false));
    let ordered = orders(site, count, length, Arc::clone(&over));
    let mut flapped = Ok(());
    let mut loads = Vec::new();
    while !over.load(Ordering::Relaxed) && flapped.is_ok() {
        // The others have all of their connections with the healthy ones soon.
        let new = site.load(200, 16, Connections::Kept);
        flapped = flap(site);
        loads.push(new.stop());
    }
    ordered.join().expect("it does not panic")?;
    flapped?;
    site.backends[FLAPPING].heal()?;
    until("all serve again", PATIENCE, || {
        site.shunt.status().is_ok_and(|status| {
            let mut backends = status.snapshot.services[0].backends.iter();
            backends.all(|one| (one.breaker, one.effective) == (BreakerState::Closed, Effective::Serving))
        })
    })?;
    loads.push(kept.stop());
    Ok((each.stop(), loads))
}

/// Ill for a moment, and well for one.
fn flap(site: &mut Site) -> Result<()> {
    site.backends[FLAPPING].fail()?;
    thread::sleep(Duration::from_millis(300));
    site.backends[FLAPPING].heal()?;
    thread::sleep(Duration::from_millis(300));
    Ok(())
}

/// In a thread of its own, which says when it is over.
fn orders(
    site: &Site,
    count: u64,
    length: Duration,
    over: Arc<AtomicBool>,
) -> thread::JoinHandle<Result<()>> {
    let client = Client::new(site.shunt.socket());
    thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let began = clock::now();
        let all = async {
            // As long out as in.
            let half = length / u32::try_from(2 * count)?;
            for number in 0..u32::try_from(count)? {
                let due = began + 2 * half * number;
                tokio::time::sleep(due.saturating_sub(clock::now())).await;
                // Longer than it will take to be admitted.
                order(&client, Verb::Eject, Some(600_000)).await?;
                tokio::time::sleep((due + half).saturating_sub(clock::now())).await;
                order(&client, Verb::Admit, None).await?;
            }
            Ok(())
        };
        let outcome = runtime.block_on(all);
        over.store(true, Ordering::Relaxed);
        outcome
    })
}

/// Returns when the maps hold it.
async fn order(client: &Client, verb: Verb, for_ms: Option<u64>) -> Result<BackendView> {
    let order = Order { verb, for_ms, reason: None, force: false, on_behalf_of: None };
    let mut view = client.order("web", ORDERED, &order).await?;
    let deadline = clock::now() + PATIENCE;
    while !view.why.in_maps {
        anyhow::ensure!(clock::now() < deadline, "{verb} is not in the maps: {view:?}");
        view = client.backend("web", ORDERED, false).await?;
    }
    Ok(view)
}

/// Waits until the maps hold no connection any more but those that are over, whose NAT ports rest for a
/// minute.
fn idle(site: &Site) -> Result<()> {
    places(site, "all connections are over", 2 * PATIENCE, |places| {
        let rest = places.resting;
        places == Places { resting: rest, by_client: rest, by_reply: rest, ..Places::default() }
    })
}

fn places(site: &Site, what: &str, limit: Duration, fits: impl Fn(Places) -> bool) -> Result<()> {
    let fit = until_ok(what, limit, || match Places::read(&site.shunt) {
        Ok(places) if fits(places) => Ok(()),
        other => Err(format!("{other:?}")),
    });
    Ok(fit?)
}
