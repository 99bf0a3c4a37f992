//! The daemon: joins the engine to its edges.
//!
//! Tasks, all owned by [`run`] and ended with it:
//!
//! | task | what it holds | why it may be aborted |
//! |---|---|---|
//! | the loop | engine, head reader, prober | it is `run` itself |
//! | `dataplane` thread | the maps | ends after the plan under way; forwarding is the kernel's |
//! | next hops | a netlink socket | only reads, and asks for neighbours |
//! | control server | its connections | readers reconnect |
//! | kernel log | the aya-log ring | lines are lost, nothing else |
//! | probes | one connection each | the backend sees it closed |
//!
//! When the daemon dies, all state that forwards stays pinned in the kernel.

mod clock;
mod looping;
mod status;

use std::{
    collections::BTreeSet,
    io,
    net::IpAddr,
    os::fd::AsRawFd,
    path::{Path, PathBuf},
    sync::Arc,
};

use lb_core::{
    engine::{Engine, Settings},
    io::{Adopted, Input},
    time::Instant,
};
use tokio::{
    io::{Interest, unix::AsyncFd},
    signal::unix::{SignalKind, signal},
    sync::{mpsc, watch},
};
use tracing::{error, info, warn};

use self::{clock::Clock, looping::Loop};
use crate::{
    config::{self, File},
    control::{
        self, EventLog,
        socket::{self, BindError},
    },
    dataplane::{actor, bpf, next_hop},
    probe::Prober,
};

pub struct Options {
    pub file: File,
    pub config_path: PathBuf,
    /// Instead of the file's.
    pub socket: Option<PathBuf>,
}

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error(transparent)]
    Socket(#[from] BindError),
    #[error(transparent)]
    Open(#[from] bpf::OpenError),
    #[error("{doing}")]
    Io {
        doing: &'static str,
        #[source]
        source: io::Error,
    },
}

/// Runs until SIGTERM or SIGINT. Forwarding goes on afterwards.
pub async fn run(options: Options) -> Result<(), Error> {
    fn failed(doing: &'static str) -> impl Fn(io::Error) -> Error {
        move |source| Error::Io { doing, source }
    }
    let Options { file, config_path, socket } = options;
    let path = socket.unwrap_or_else(|| file.control_socket.clone());
    // First of all: a second daemon must not touch the maps of the first.
    let bound = socket::bind(&path)?;
    let veth = next_hop::any_is_veth(&file.interfaces).await.map_err(failed("read the interfaces"))?;
    let opened = open(&file, veth)?;
    // Ours until the end of this function.
    let _lock = opened.lock;
    announce(&file, &opened.attached, &opened.shape, &opened.adopted, &path);

    let clock = Clock::start();
    let seed = u64::from_ne_bytes(rand_bytes());
    let engine = Engine::new(
        Settings {
            seed,
            adopted: opened.adopted,
            generation_floor: clock.started_unix_secs(),
            restored: None,
        },
        Instant(0),
    );
    let (dataplane, reports) =
        actor::spawn(opened.dataplane).map_err(failed("start the dataplane thread"))?;
    let (addresses, watched) = watch::channel(backend_addresses(&file));
    let next_hops = tokio::spawn({
        let dataplane = dataplane.clone();
        async move {
            if let Err(error) = next_hop::follow(dataplane, watched).await {
                error!(%error, "cannot follow the next hops of the backends");
            }
        }
    });
    let kernel_log = opened.logger.map(|logger| tokio::spawn(read_kernel_log(logger)));

    // Depths: results of all probes that may be under way; a few people asking for status.
    let (results, inputs) = mpsc::channel(Prober::LIMIT);
    let (requests, asked) = mpsc::channel(16);
    let events = EventLog::new();
    let (stop, stopped) = watch::channel(false);
    let server = tokio::spawn(control::serve(
        bound.listener,
        control::Handle { requests, events: events.clone() },
        wait(stopped),
    ));

    let heads = watch_fd(opened.heads).map_err(failed("watch the ring of response heads"))?;
    let mut signals = Signals::listen().map_err(failed("listen for signals"))?;
    let mut daemon = Loop::new(
        engine,
        clock,
        dataplane,
        Prober::new(results),
        events,
        status::Facts::new(&file, &config_path, &opened.attached, opened.shape),
    );
    daemon.handle(Input::Config(Arc::new(file.core.clone())));
    let mut current = file;
    let mut sources = looping::Sources { heads, reports, inputs, asked };
    loop {
        tokio::select! {
            () = daemon.turn(&mut sources) => {}
            signal = signals.next() => match signal {
                Signal::Stop => break,
                Signal::Reload => reload(&mut daemon, &mut current, &config_path, &addresses),
            }
        }
    }
    info!("stopping; forwarding goes on (`shunt detach` ends it)");
    stop.send_replace(true);
    // An error here would be a panic of the server, which has been printed.
    let _ = server.await;
    next_hops.abort();
    if let Some(task) = kernel_log {
        task.abort();
    }
    drop(bound.guard);
    Ok(())
}

fn open(file: &File, veth: bool) -> Result<bpf::Opened, bpf::OpenError> {
    bpf::open(&bpf::Options {
        interfaces: &file.interfaces,
        xdp_mode: match file.xdp_mode {
            config::XdpMode::Auto => bpf::XdpMode::Auto,
            config::XdpMode::Native => bpf::XdpMode::Native,
            config::XdpMode::Generic => bpf::XdpMode::Generic,
        },
        bpffs: &file.bpffs,
        instance: &file.instance,
        nat_ports: file.nat_ports.clone(),
        nat_addresses: &file.nat_addresses,
        max_flows: file.max_flows,
        tx_by_redirect: veth,
    })
}

fn announce(file: &File, attached: &[bpf::Attached], shape: &bpf::Shape, adopted: &[Adopted], socket: &Path) {
    for attached in attached {
        info!(interface = attached.interface, mode = attached.mode.name(), "attached");
    }
    let bytes: u64 = shape.maps.iter().map(|(_, _, bytes)| bytes).sum();
    info!(
        instance = file.instance,
        services = file.core.services.len(),
        max_flows = file.max_flows,
        map_memory_mib = bytes >> 20,
        verified_instructions = shape.verified_instructions,
        socket = %socket.display(),
        "shunt is running"
    );
    if !adopted.is_empty() {
        info!(backends = adopted.len(), "took over from an earlier run; its connections go on");
    }
}

/// What can change without a restart: services and everything below them.
fn reload(daemon: &mut Loop, current: &mut File, path: &Path, addresses: &watch::Sender<Vec<IpAddr>>) {
    let file = match config::load(path) {
        Ok(file) => file,
        Err(config::LoadError::Invalid(diagnostics)) => {
            error!("the new configuration is wrong; nothing changes\n{}", diagnostics.render(false));
            return;
        }
        Err(error @ config::LoadError::Io { .. }) => {
            error!(error = crate::dataplane::chain(&error), "nothing changes");
            return;
        }
    };
    let fixed = |file: &File| File { core: lb_core::config::Config::default(), ..file.clone() };
    if fixed(&file) != fixed(current) {
        warn!("interfaces, sockets, NAT and sizes change with a restart only; services change now");
    }
    if let Err(exhausted) = daemon.fits(&file.core) {
        error!(%exhausted, "the maps have no room for the new configuration beside the present one; nothing changes");
        return;
    }
    addresses.send_replace(backend_addresses(&file));
    daemon.prober.forget_trusted();
    daemon.handle(Input::Config(Arc::new(file.core.clone())));
    daemon.facts.configured(&file.core);
    *current = file;
    info!("reloaded");
}

fn backend_addresses(file: &File) -> Vec<IpAddr> {
    let all: BTreeSet<IpAddr> = file
        .core
        .services
        .iter()
        .flat_map(|service| service.backends.iter().map(|backend| backend.address.ip()))
        .collect();
    all.into_iter().collect()
}

/// Hands the program's log lines to ours.
async fn read_kernel_log(logger: bpf::Logger) {
    let mut logger = match watch_fd(logger) {
        Ok(logger) => logger,
        Err(error) => return warn!(%error, "the XDP program's log is not readable"),
    };
    while let Ok(mut ready) = logger.readable_mut().await {
        ready.get_inner_mut().flush();
        ready.clear_ready();
    }
}

fn watch_fd<T: AsRawFd>(inner: T) -> io::Result<AsyncFd<T>> {
    // SAFETY: used with aya's ring and log readers only, which own their descriptor, always
    // name the same one, and close it when they are dropped.
    let watched = unsafe { AsyncFd::register_with_interest(inner, Interest::READABLE) };
    watched.map_err(Into::into)
}

async fn wait(mut stopped: watch::Receiver<bool>) {
    // An error means that the sender is gone, and the daemon with it.
    let _ = stopped.wait_for(|stopped| *stopped).await;
}

fn rand_bytes() -> [u8; 8] {
    use std::hash::{BuildHasher as _, RandomState};
    // Randomly keyed by the standard library; jitter needs no more than that.
    RandomState::new().hash_one(std::process::id()).to_ne_bytes()
}

enum Signal {
    Stop,
    Reload,
}

struct Signals {
    terminate: tokio::signal::unix::Signal,
    interrupt: tokio::signal::unix::Signal,
    hangup: tokio::signal::unix::Signal,
}

impl Signals {
    fn listen() -> io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            hangup: signal(SignalKind::hangup())?,
        })
    }

    async fn next(&mut self) -> Signal {
        tokio::select! {
            _ = self.terminate.recv() => Signal::Stop,
            _ = self.interrupt.recv() => Signal::Stop,
            _ = self.hangup.recv() => Signal::Reload,
        }
    }
}
