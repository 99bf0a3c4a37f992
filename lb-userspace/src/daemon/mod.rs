//! The daemon: joins the engine to its edges.
//!
//! Tasks and threads, all owned by [`run`] and ended with it:
//!
//! | task | what it holds | why it may be aborted |
//! |---|---|---|
//! | `loop` thread | engine, evidence ring, prober | `run` waits for its end |
//! | `recorder` thread | the recording | it ends when all is written; the daemon waits a while |
//! | `dataplane` thread | the maps | it ends after the plan under way; the kernel forwards without it |
//! | timeout scanner thread | the flow maps; it removes flows that are silent | it ends with the loop |
//! | reset sender thread | a packet socket | it ends with the dataplane; later segments of its flows get a reset |
//! | next hops | a netlink socket | it only reads, asks for neighbours, and reports paths |
//! | interfaces | a netlink socket, and the program to attach | the next daemon looks again |
//! | discovery | a file that it reads | the next daemon reads it again |
//! | control server | its connections | readers reconnect |
//! | kernel log | the aya-log ring | lines are lost, nothing else |
//! | state keeper | the state to write next | each state replaces the one before; a stop waits for it |
//! | probes | one connection each | the backend sees it closed |
//!
//! When the daemon dies, all state that forwards stays pinned in the kernel.
//!
//! `event_loop` waits and moves. It has the engine's `driver` and the request `handlers`.

mod clock;
mod discovered;
mod driver;
mod error;
mod event_lines;
mod event_loop;
mod explanation;
mod handlers;
mod kernel_log;
mod lag;
mod leaving;
mod open_files;
mod overflow;
mod own_thread;
mod paths;
mod reaction;
mod reload;
mod saving;
mod signals;
mod start;
mod status;

use std::{io, path::PathBuf, sync::Arc};

use lb_common::MAX_SERVICES;
use tokio::{
    runtime::Handle,
    sync::{mpsc, oneshot, watch},
    task::JoinHandle,
};
use tracing::{info, warn};
use tracing_appender::non_blocking::ErrorCounter;

pub use self::error::Error;
use self::{
    clock::Clock,
    discovered::DiscoveredSets,
    driver::{Driver, Edges},
    error::failed,
    event_loop::{Counts, EventLoop, Sources},
    handlers::Handlers,
    leaving::LeavingCounts,
    reload::Configured,
    signals::{Signal, Signals},
    status::Facts,
};
use crate::{
    config::File,
    control::{self, EventLog, socket},
    dataplane::{actor, bpf, interfaces::Interfaces, next_hop},
    discovery,
    evidence::Intake,
    probe::Prober,
    state,
};

pub struct Options {
    pub file: File,
    pub config_path: PathBuf,
    /// Instead of the file's.
    pub socket: Option<PathBuf>,
    pub lost_log_lines: ErrorCounter,
}

/// How the loop's thread ended. An error: it has panicked.
type Ended = Result<Result<(), Error>, oneshot::error::RecvError>;

/// Runs until SIGTERM or SIGINT. Forwarding continues afterwards.
pub async fn run(options: Options) -> Result<(), Error> {
    let Options { mut file, config_path, socket, lost_log_lines } = options;
    let path = socket.unwrap_or_else(|| file.control_socket.clone());
    open_files::raise_limit()?;
    // Before everything else: a second daemon must not touch the maps of the first.
    let bound = socket::bind(&path)?;
    // Before anything is attached.
    state::trust_folder(&file.state_file)?;
    // A few people ask for status at a time. From here on they learn that the daemon is starting.
    let (requests, asked) = mpsc::channel(16);
    let events = EventLog::new();
    let (stop, stopped) = watch::channel(false);
    let (start, started) = watch::channel(false);
    let handle = control::Handle { requests, events: events.clone(), started };
    let server = tokio::spawn(control::serve(bound.listener, handle, until_stopped(stopped)));
    let recording = file.record.as_ref().map(start::recording).transpose()?;
    let veth = next_hop::any_is_veth(&file.interfaces).await.map_err(failed("read the interfaces"))?;
    let opened = start::dataplane(&file, veth)?;
    // Ours until the end of this function.
    let _lock = opened.lock;
    start::announce(&file, &opened.attached, &opened.size, &opened.adopted, &path);

    let clock = Clock::start();
    let seed = start::seed();
    let (engine, saving, remembered) = start::engine(&file, opened.adopted, clock, seed, recording.is_some());
    let (sets, first_readings, sources) = DiscoveredSets::start(&mut file, remembered);
    let recorder = start::recorder(recording, clock, seed)?;
    let connection_limits = opened.dataplane.connection_limits();
    let (dataplane, reports) =
        actor::spawn(opened.dataplane).map_err(failed("start the dataplane thread"))?;

    let interfaces = Arc::new(Interfaces::new(opened.attacher, opened.attached, veth));
    let interface_changes = interfaces.watch();
    let mut facts = Facts::new(&file, &config_path, &interface_changes.borrow(), opened.size);
    facts.warn(start::warnings(&file).await);
    let ports = start::ports(&file, &interfaces);
    let private = bpf::is_private(&file.bpffs).unwrap_or(false);
    let (configured, addresses) = Configured::new(file, config_path);
    let (path_changes, paths) = watch::channel(next_hop::Paths::default());
    let next_hops = tokio::spawn(start::follow_next_hops(dataplane.clone(), addresses, ports, path_changes));
    let following = tokio::spawn(start::follow_interfaces(Arc::clone(&interfaces)));
    // Half of the services may be discovered, and each has a reading on its way.
    let (reading, readings) = mpsc::channel(MAX_SERVICES as usize / 2);
    let discovery = tokio::spawn(discovery::follow(sources, reading));
    let kernel_log = opened.logger.map(|logger| tokio::spawn(kernel_log::read(logger)));

    let background = Background { stop, server, next_hops, interfaces: following, discovery, kernel_log };

    opened.reset_sender.spawn().map_err(failed("start the reset sender"))?;
    let (limits, watched) = watch::channel(bpf::Limits::new());
    let timeouts = opened.timeout_scanner.spawn(watched).map_err(failed("start the timeout scanner"))?;
    let signals = Signals::listen().map_err(failed("listen for signals"))?;

    // As deep as there are probes at a time: none of them waits to deliver its result.
    let (results, inputs) = mpsc::channel(Prober::LIMIT);
    let (counted, tasks) = (results.clone(), Handle::current());
    let edges = Edges { dataplane, prober: Prober::new(results), recorder, events, saving, limits };
    let driver = Driver::new(engine, clock, edges);
    let (inspections, inspected) = mpsc::unbounded_channel();
    let handlers =
        Handlers::new(facts, configured, sets, interfaces, inspections, lost_log_lines, Handle::current());
    let ring = opened.evidence;
    let counts = Counts {
        success_counts: opened.success_counts,
        syn_acks: opened.syn_acks,
        clients_seen: opened.clients_seen,
        connection_limits,
        trial_budgets: opened.trial_budgets,
    };
    let intake = Intake::after(opened.lost_heads);
    let (reload, mut reloads) = mpsc::channel(1);
    let mut looping = own_thread::spawn("loop", async move || {
        let ring = kernel_log::watch_fd(ring).map_err(failed("watch the ring of response heads"))?;
        let interfaces = interface_changes;
        let requests = asked;
        let mut sources =
            Sources { ring, reports, inputs, requests, inspected, paths, interfaces, readings, timeouts };
        let leaving = LeavingCounts::new(counted, tasks);
        let mut event_loop = EventLoop::new(driver, handlers, intake, counts, leaving);
        event_loop.begin_discovery(&first_readings);
        loop {
            tokio::select! {
                () = event_loop.turn(&mut sources) => {}
                order = reloads.recv() => match order {
                    Some(()) => event_loop.hang_up(),
                    None => break,
                }
            }
        }
        event_loop.stop().await;
        Ok(())
    })
    .map_err(failed("start the loop's thread"))?;

    start.send_replace(true);

    let ended = until_stop(signals, &reload, &mut looping).await;
    if private {
        warn!("stopping; forwarding ends now, because the BPF filesystem is mounted for this process alone");
    } else {
        info!("stopping; forwarding goes on (`shunt detach` ends it)");
    }
    background.stop.send_replace(true);
    // The loop ends when nobody can order a reload any more.
    drop(reload);
    let ended = match ended {
        Some(ended) => ended,
        None => looping.await,
    };
    background.end().await;
    drop(bound.guard);
    // Without a result it has panicked, and the panic was printed.
    ended.unwrap_or_else(|_| Err(failed("run the loop")(io::ErrorKind::Other.into())))
}

/// Passes each SIGHUP to the loop, until a signal orders the stop or the loop ends by itself. Returns how it
/// ended, in that case.
async fn until_stop(
    mut signals: Signals,
    reload: &mpsc::Sender<()>,
    looping: &mut oneshot::Receiver<Result<(), Error>>,
) -> Option<Ended> {
    loop {
        tokio::select! {
            signal = signals.next() => match signal {
                Signal::Stop => return None,
                // An order that waits already stands for this one too.
                Signal::Reload => drop(reload.try_send(())),
            },
            ended = &mut *looping => return Some(ended),
        }
    }
}

/// Tasks that run beside the loop.
struct Background {
    stop: watch::Sender<bool>,
    server: JoinHandle<()>,
    next_hops: JoinHandle<()>,
    interfaces: JoinHandle<()>,
    discovery: JoinHandle<()>,
    kernel_log: Option<JoinHandle<()>>,
}

impl Background {
    /// After `stop` was sent.
    async fn end(self) {
        // An error here would be a panic of the server, which has been printed.
        let _ = self.server.await;
        self.next_hops.abort();
        self.interfaces.abort();
        self.discovery.abort();
        if let Some(task) = self.kernel_log {
            task.abort();
        }
    }
}

async fn until_stopped(mut stopped: watch::Receiver<bool>) {
    // An error means that the sender is gone, and the daemon with it.
    let _ = stopped.wait_for(|stopped| *stopped).await;
}
