//! A rolling update of ten pods under 500 requests a second, through `shunt-kube` and the real daemon.
//!
//! Twelve hosts are the nodes' addresses: ten for the pods of before, two for the first new ones. Each further new pod
//! begins on the address of a pod that has gone. So most of them are new incarnations on an old address.

use std::{
    fs::{self, File},
    net::{SocketAddr, TcpListener},
    process::Stdio,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use anyhow::{Context as _, Result, anyhow};
use lb_core::snapshot::{BackendSnapshot, BreakerState, Effective};
use lb_lab::{Host, Process, Shunt, Topology, clock, until, until_ok};
use lb_tests::{
    answer::Answer,
    api_server::{ApiServer, Kind},
    http,
    lab::{Need, shunt, skipped},
    ledger::Ledger,
};

use crate::{
    pool::Pool,
    stage::{PATIENCE, Pod, WEB, program, service, slice},
};

const PODS: usize = 10;
const HOSTS: usize = PODS + 2;
const PORT: u16 = 8080;
const VIP: &str = "10.99.0.10:80";

/// Requests a second on kept connections, and on connections of their own.
const KEPT: u64 = 470;
const FRESH: u64 = 50;

#[test]
fn a_rolling_update_costs_no_request() -> Result<()> {
    if skipped("a_rolling_update_costs_no_request", &[Need::Tool("ss")]) {
        return Ok(());
    }
    let mut update = Update::new()?;
    let vip: SocketAddr = VIP.parse()?;
    let pool = Pool::start(&update.topology.client, vip, KEPT, true);
    let fresh = Fresh::start(&update.topology.client, vip);
    let begun = clock::now();
    until("traffic flows", PATIENCE, || pool.asked().len() > 500)?;
    // The first pod that leaves is ejected, too: the pod that gets its address later inherits nothing of that.
    update.order("eject", "old-0")?;
    for number in 0..PODS {
        update.replace(number)?;
    }
    let before = pool.asked().len();
    until("the new ones serve", PATIENCE, || pool.asked().len() > before + 500)?;
    let asked = pool.stop()?;
    let bad = asked.iter().filter(|one| one.answer != Ok(200));
    let bad: Vec<_> = bad.map(|one| (&one.path, one.begun, &one.again, &one.answer)).collect();
    assert!(bad.is_empty(), "{} of {}: {bad:?}", bad.len(), asked.len());
    let (count, failed) = fresh.stop()?;
    assert!(failed.is_empty(), "{} of {count}: {failed:?}", failed.len());
    let again = asked.iter().filter(|one| one.again.is_some()).count();
    println!(
        "{} requests on kept connections, {again} of them asked again; {count} on fresh ones, in {:.1} s",
        asked.len(),
        (clock::now() - begun).as_secs_f64()
    );
    assert!(count > 100 && asked.len() > 2000, "{count} and {} requests", asked.len());
    let serving = update.backends()?;
    assert_eq!(serving.len(), PODS);
    assert!(serving.iter().all(|of| of.name.starts_with("new-") && of.effective == Effective::Serving));
    Ok(())
}

/// Fields end in this order.
struct Update {
    /// By host.
    ledgers: Vec<Option<Ledger>>,
    /// The endpoints, and their hosts.
    pods: Vec<(Pod, usize)>,
    /// Hosts without a pod.
    free: Vec<usize>,
    shunt: Shunt,
    _follower: Process,
    server: ApiServer,
    topology: Topology,
}

impl Update {
    /// Returns once ten pods serve.
    fn new() -> Result<Self> {
        let names: Vec<String> = (0..HOSTS).map(|number| format!("host-{number}")).collect();
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        let topology = Topology::new("rolling", &names)?;
        let folder = topology.lab.folder().to_owned();
        let server = ApiServer::start(topology.node.enter(|| TcpListener::bind("127.0.0.1:0"))??, &["v1"])?;
        server.put(Kind::Service, service(Some("true")));
        let kubeconfig = folder.join("kubeconfig");
        fs::write(&kubeconfig, server.kubeconfig("{}"))?;
        let log = File::create(folder.join("kube.log"))?;
        let mut command = topology.node.command(program());
        command.arg("--kubeconfig").arg(kubeconfig).arg("--directory").arg(folder.join("discovery"));
        command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        let follower = topology.node.spawn(&mut command)?;
        let file = folder.join("discovery").join(WEB);
        until("shunt-kube writes the file", PATIENCE, || file.exists())?;
        let toml = format!(
            "interfaces = {:?}\n[service.web]\nvip = \"{VIP}\"\non_drain = \"reset\"\ndrain_timeout = \"6s\"\n\
             discovery.file = {file:?}\ndiscovery.interval = \"100ms\"\n",
            topology.devices
        );
        let shunt = Shunt::start(&topology.lab, &topology.node, shunt(), &toml)?;
        let mut update = Self {
            ledgers: (0..HOSTS).map(|_| None).collect(),
            pods: Vec::new(),
            free: (0..HOSTS).collect(),
            shunt,
            _follower: follower,
            server,
            topology,
        };
        for number in 0..PODS {
            update.begin(&format!("old-{number}"))?;
        }
        update.publish();
        until_ok("all pods serve", PATIENCE, || match (update.backends(), update.shunt.status()) {
            (Ok(all), Ok(status))
                if all.len() == PODS
                    && all.iter().all(|of| of.effective == Effective::Serving)
                    && status.traffic.iter().all(|of| of.reachable) =>
            {
                Ok(())
            }
            (seen, _) => Err(format!("{seen:?}")),
        })
        .with_context(|| update.shunt.log())?;
        Ok(update)
    }

    /// Replaces one pod as a Deployment does: the new one is ready before the old one terminates.
    fn replace(&mut self, number: usize) -> Result<()> {
        let (old, new) = (format!("old-{number}"), format!("new-{number}"));
        let host = self.begin(&new)?;
        self.publish();
        let backend = self.becomes(&new, Effective::Serving)?;
        assert_eq!((backend.breaker, backend.ejection, backend.run_5xx), (BreakerState::Closed, 0, 0));
        assert_eq!(backend.identity, Some(format!("uid-{new}")));
        let ledger = self.ledgers[host].as_ref().context("it has begun")?;
        until("it gets requests", PATIENCE, || !ledger.seen().is_empty())?;

        let place = self.pods.iter().position(|(pod, _)| pod.name == old).context("it is there")?;
        let host = self.pods[place].1;
        self.pods[place].0 = self.pods[place].0.clone().leaves();
        self.publish();
        self.becomes(&old, Effective::Draining)?;
        self.is_left(host)?;
        self.pods.remove(place);
        self.publish();
        until("it is gone", PATIENCE, || {
            self.backends().is_ok_and(|all| all.iter().all(|of| of.name != old))
        })?;
        self.ledgers[host] = None;
        self.free.push(host);
        Ok(())
    }

    /// Starts the server of a pod on a free host. Returns the host.
    fn begin(&mut self, name: &str) -> Result<usize> {
        let host = self.free.remove(0);
        let address = Topology::address(host);
        let listen = (address, PORT).into();
        let delay = Duration::from_millis(10);
        self.ledgers[host] = Some(Ledger::start(&self.topology.backends[host], listen, name, delay)?);
        self.pods.push((Pod::ready(name, &address.to_string()), host));
        Ok(host)
    }

    /// The endpoints in two slices, as a cluster may have them.
    fn publish(&self) {
        let pods: Vec<Pod> = self.pods.iter().map(|(pod, _)| pod.clone()).collect();
        let (first, second) = pods.split_at(pods.len() / 2);
        self.server.put(Kind::EndpointSlice, slice("web-1", first));
        self.server.put(Kind::EndpointSlice, slice("web-2", second));
    }

    fn order(&self, verb: &str, name: &str) -> Result<()> {
        let mut command = self.topology.node.command(shunt());
        command.arg("--socket").arg(self.shunt.socket());
        command.args(["backend", verb, &format!("web/{name}"), "--wait"]);
        Answer::of(&self.topology.node, &mut command)?.succeeds();
        Ok(())
    }

    fn backends(&self) -> Result<Vec<BackendSnapshot>> {
        Ok(self.shunt.status()?.snapshot.services.remove(0).backends)
    }

    fn becomes(&self, name: &str, state: Effective) -> Result<BackendSnapshot> {
        Ok(until_ok("the state of a pod", PATIENCE, || {
            let all = self.backends().map_err(|error| error.to_string())?;
            let found = all.iter().find(|of| of.name == name && of.effective == state);
            found.cloned().ok_or_else(|| format!("{name} is not {state}: {all:?}"))
        })?)
    }

    /// Waits until a host has no connection of a client.
    fn is_left(&self, host: usize) -> Result<()> {
        let address = format!("{}:{PORT}", Topology::address(host));
        let host = &self.topology.backends[host];
        Ok(until("its connections end", PATIENCE, || {
            let all = host.run(&["ss", "--no-header", "--tcp", "--all", "--numeric"]).unwrap_or_default();
            let living = |line: &&str| {
                let mut words = line.split_whitespace();
                let state = words.next().unwrap_or_default();
                !["LISTEN", "TIME-WAIT"].contains(&state) && words.any(|word| word == address)
            };
            all.lines().find(living).is_none()
        })?)
    }
}

/// Requests on connections of their own, which are asked again once. Ends when it is stopped or dropped.
struct Fresh {
    stop: Arc<AtomicBool>,
    failed: Arc<Mutex<Vec<String>>>,
    thread: Option<JoinHandle<u64>>,
}

impl Fresh {
    fn start(client: &Host, to: SocketAddr) -> Self {
        let (stop, failed) = (Arc::new(AtomicBool::new(false)), Arc::new(Mutex::new(Vec::new())));
        let (ends, shared, client) = (Arc::clone(&stop), Arc::clone(&failed), client.clone());
        let thread = thread::spawn(move || {
            let (mut count, begun) = (0, clock::now());
            while !ends.load(Ordering::Relaxed) {
                let path = format!("/fresh/{count}");
                let once = || http::get(&client, to, &path);
                // The connection may have been accepted before the drain, and its request come after it.
                match once().or_else(|_| once()) {
                    Ok(response) if response.status == 200 => {}
                    other => shared
                        .lock()
                        .unwrap_or_else(PoisonError::into_inner)
                        .push(format!("{path}: {other:?}")),
                }
                count += 1;
                // A request that takes long is caught up on.
                let due =
                    begun + Duration::from_millis(1000 / FRESH) * u32::try_from(count).unwrap_or(u32::MAX);
                thread::sleep(due.saturating_sub(clock::now()));
            }
            count
        });
        Self { stop, failed, thread: Some(thread) }
    }

    /// How many there were, and those that failed.
    fn stop(mut self) -> Result<(u64, Vec<String>)> {
        self.stop.store(true, Ordering::Relaxed);
        let thread = self.thread.take().context("it is stopped once")?;
        let count = thread.join().map_err(|_| anyhow!("the client panicked"))?;
        Ok((count, self.failed.lock().unwrap_or_else(PoisonError::into_inner).clone()))
    }
}

impl Drop for Fresh {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            // Whatever happened to it was the test's to look at.
            let _ = thread.join();
        }
    }
}
