//! The daemon: joins the engine to its edges.
//!
//! Tasks, all owned by [`run`] and ended with it:
//!
//! | task | what it holds | why it may be aborted |
//! |---|---|---|
//! | `loop` thread | engine, head reader, prober | `run` waits for its end |
//! | `recorder` thread | the recording | ends after what it was given; the end of the daemon waits for it, not for ever |
//! | `dataplane` thread | the maps | ends after the plan under way; forwarding is the kernel's |
//! | `overdue` thread | the flow maps; ends flows that are silent | ends with the loop |
//! | `endings` thread | a packet socket | ends with the dataplane; what it leaves is found by whoever speaks next |
//! | next hops | a netlink socket | only reads, and asks for neighbours |
//! | control server | its connections | readers reconnect |
//! | kernel log | the aya-log ring | lines are lost, nothing else |
//! | state keeper | what to write next | it is replaced as a whole; a stop waits for it |
//! | probes | one connection each | the backend sees it closed |
//!
//! When the daemon dies, all state that forwards stays pinned in the kernel.

mod answers;
mod clock;
mod counted;
mod lag;
mod looping;
mod own_thread;
mod reload;
mod saving;
mod status;

use std::{
    io,
    os::fd::AsRawFd,
    path::{Path, PathBuf},
};

use lb_core::{
    engine::{Engine, Settings},
    io::Adopted,
    time::Instant,
};
use tokio::{
    io::{Interest, unix::AsyncFd},
    runtime::Handle,
    signal::unix::{SignalKind, signal},
    sync::{mpsc, watch},
};
use tracing::{error, info, warn};

use self::{clock::Clock, looping::Loop, reload::Configured, saving::Saving};
use crate::{
    config::{self, File},
    control::{
        self, EventLog,
        socket::{self, BindError},
    },
    dataplane::{actor, bpf, next_hop},
    journal::{self, Recorder, Recording},
    probe::Prober,
    state,
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
    #[error(transparent)]
    Record(#[from] journal::OpenError),
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
    // Before anything is attached.
    let recording = file.record.as_ref().map(recording).transpose()?;
    let veth = next_hop::any_is_veth(&file.interfaces).await.map_err(failed("read the interfaces"))?;
    let opened = open(&file, veth)?;
    // Ours until the end of this function.
    let _lock = opened.lock;
    announce(&file, &opened.attached, &opened.shape, &opened.adopted, &path);

    let clock = Clock::start();
    let restored = state::load(&file.state_file, clock.unix_ms());
    let saving = Saving::new(state::Keeper::start(file.state_file.clone()), restored.is_some());
    let seed = u64::from_ne_bytes(rand_bytes());
    let engine = Engine::new(
        Settings {
            seed,
            adopted: opened.adopted,
            generation_floor: clock.started_unix_secs(),
            restored,
            // Another configuration may want to know of each how long it took.
            mirror_all: recording.is_some(),
        },
        Instant(0),
    );
    let recorder = match recording {
        Some(recording) => {
            recording.start(clock.started_unix_ms(), seed).map_err(failed("start the recorder thread"))?
        }
        None => Recorder::off(),
    };
    let (dataplane, reports) =
        actor::spawn(opened.dataplane).map_err(failed("start the dataplane thread"))?;
    let facts = status::Facts::new(&file, &config_path, &opened.attached, opened.shape);
    let vlans = file.vlans.clone();
    let (configured, watched) = Configured::new(file, config_path);
    let ports = next_hop::Ports {
        vlans,
        attached: opened.attached.iter().map(|attached| attached.index).collect(),
        native: opened.attached.iter().any(|attached| attached.mode == bpf::Mode::Native),
    };
    let next_hops = tokio::spawn({
        let dataplane = dataplane.clone();
        async move {
            if let Err(error) = next_hop::follow(dataplane, watched, ports).await {
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

    opened.endings.spawn().map_err(failed("start the thread that ends connections"))?;
    let (limits, watched) = watch::channel(bpf::Limits::new());
    let overdue =
        opened.watch.spawn(watched).map_err(failed("start the thread that looks for overdue exchanges"))?;
    let mut signals = Signals::listen().map_err(failed("listen for signals"))?;
    let (reload, mut reloads) = mpsc::channel(1);
    let own =
        looping::Own { facts, configured, saving, goods: opened.goods, limits, tasks: Handle::current() };
    let prober = Prober::new(results);
    let ring = opened.heads;
    let mut looping = own_thread::spawn("loop", async move || {
        let heads = watch_fd(ring).map_err(failed("watch the ring of response heads"))?;
        let mut daemon = Loop::new(engine, clock, dataplane, prober, recorder, events, own);
        daemon.configure();
        let mut sources = looping::Sources { heads, reports, inputs, asked, overdue };
        loop {
            tokio::select! {
                () = daemon.turn(&mut sources) => {}
                order = reloads.recv() => match order {
                    Some(()) => daemon.hang_up(),
                    None => break,
                }
            }
        }
        daemon.stop().await;
        Ok(())
    })
    .map_err(failed("start the loop's thread"))?;
    let ended = loop {
        tokio::select! {
            signal = signals.next() => match signal {
                Signal::Stop => break None,
                // One that waits already stands for this one too.
                Signal::Reload => drop(reload.try_send(())),
            },
            ended = &mut looping => break Some(ended),
        }
    };
    info!("stopping; forwarding goes on (`shunt detach` ends it)");
    stop.send_replace(true);
    drop(reload);
    let ended = match ended {
        Some(ended) => ended,
        None => looping.await,
    };
    // An error here would be a panic of the server, which has been printed.
    let _ = server.await;
    next_hops.abort();
    if let Some(task) = kernel_log {
        task.abort();
    }
    drop(bound.guard);
    // Without a word it has panicked, and said so.
    ended.unwrap_or_else(|_| Err(failed("run the loop")(io::ErrorKind::Other.into())))
}

fn open(file: &File, veth: bool) -> Result<bpf::Opened, bpf::OpenError> {
    bpf::open(&bpf::Options {
        interfaces: &file.interfaces,
        xdp_mode: match file.xdp_mode {
            config::XdpMode::Auto => bpf::XdpMode::Auto,
            config::XdpMode::Native => bpf::XdpMode::Native,
            config::XdpMode::Generic => bpf::XdpMode::Generic,
            config::XdpMode::Tc => bpf::XdpMode::Tc,
        },
        bpffs: &file.bpffs,
        instance: &file.instance,
        nat_ports: file.nat_ports.clone(),
        nat_addresses: &file.nat_addresses,
        max_flows: file.max_flows,
        vlans: &file.vlans,
        idle: bpf::Idle {
            established: file.timeouts.established,
            closing: file.timeouts.closing,
            handshake: file.timeouts.handshake,
        },
        max_new_flows_per_second: file.max_new_flows_per_second,
        tx_by_redirect: veth,
    })
}

fn recording(record: &config::Record) -> Result<Recording, journal::OpenError> {
    let config::Record { path, max_size, files } = record.clone();
    let recording = Recording::open(&journal::Options { path: path.clone(), max_size, files })?;
    info!(path = %path.display(), "recording");
    Ok(recording)
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
        flow_tables_mib = shape.flow_table_bytes() >> 20,
        map_memory_mib = bytes >> 20,
        verified_instructions = shape.verified_instructions,
        socket = %socket.display(),
        "shunt is running"
    );
    if !adopted.is_empty() {
        info!(backends = adopted.len(), "took over from an earlier run; its connections go on");
    }
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
