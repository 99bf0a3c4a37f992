//! Follows the lists, and writes the files.

use std::{
    future,
    io::Write as _,
    pin::{Pin, pin},
    time::Duration,
};

use futures_util::StreamExt as _;
use kube::runtime::{
    WatchStreamExt as _,
    watcher::{self, watcher},
};
use tokio::{
    signal::unix::{SignalKind, signal},
    time::{Sleep, sleep, timeout},
};
use tracing::{info, warn};

use crate::{
    args::Args,
    clock::{now, rfc3339},
    cluster::Cluster,
    connect::{self, ConnectError, Lists},
    exit::{Exit, Failure, chain},
    files::{Files, WriteError},
    names::named,
    objects::{SERVICE_NAME, Service, Slice},
    outage::Outage,
    sets::Place,
    table::table,
};

/// Changes that come together are written together.
const TOGETHER: Duration = Duration::from_millis(50);

/// After an error of the connection, of the account or of the disk.
const RETRY: Duration = Duration::from_secs(2);

/// An outage without a failure for so long is over. The watches try again more often.
const CALM: Duration = Duration::from_secs(90);

/// Objects of one page of a list.
const PAGE: u32 = 500;

/// `--once` does not wait longer for the server.
const PATIENCE: Duration = Duration::from_secs(60);

/// Runs until SIGTERM or SIGINT. With `--once`, until the files are written.
pub(crate) async fn run(args: &Args) -> Result<(), Failure> {
    let files = Files::open(&args.directory).map_err(|error| Failure::new(Exit::Failed, error))?;
    let mut follower =
        Follower { args, files, cluster: Cluster::default(), outage: Outage::default(), remarks: Vec::new() };
    if args.once {
        return match timeout(PATIENCE, follower.once()).await {
            Ok(done) => done,
            Err(_) => {
                let error = anyhow::anyhow!("the API server has not sent its lists within {PATIENCE:?}");
                Err(Failure::new(Exit::Unreachable, error).remedy(connect::remedy(Exit::Unreachable)))
            }
        };
    }
    let mut terminate = signal(SignalKind::terminate()).map_err(anyhow::Error::from)?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(anyhow::Error::from)?;
    // A kubeconfig that is wrong from the start is an error of the command.
    let first = match connect::connect(args).await {
        Err(error @ ConnectError::Config(_)) => return Err(error.into()),
        other => other,
    };
    tokio::select! {
        failure = follower.forever(first) => Err(failure),
        _ = terminate.recv() => Ok(()),
        _ = interrupt.recv() => Ok(()),
    }
}

struct Follower<'a> {
    args: &'a Args,
    files: Files,
    cluster: Cluster,
    outage: Outage,
    /// Those that the log has.
    remarks: Vec<String>,
}

/// Why a connection is given up.
enum Broken {
    /// The server does not know the token any more: it is read again.
    Unauthorized,
    Ended,
}

impl Follower<'_> {
    async fn once(&mut self) -> Result<(), Failure> {
        let Lists { services, slices, .. } = connect::connect(self.args).await?;
        let mut services = pin!(watcher(services, self.config_of_services()));
        let mut slices = pin!(watcher(slices, config_of_slices()));
        while !self.cluster.is_fresh() {
            let taken = tokio::select! {
                Some(event) = services.next() => {
                    event.map(|event| self.cluster.services.take(event, Service::read))
                }
                Some(event) = slices.next() => event.map(|event| self.cluster.slices.take(event, Slice::read)),
            };
            taken.map_err(|error| {
                let exit = cause(&error).map_or(Exit::Failed, connect::exit);
                Failure::new(exit, error).remedy(connect::remedy(exit))
            })?;
        }
        self.write().map_err(|error| Failure::new(Exit::Failed, error))?;
        let sets = self.cluster.sets(self.args.selector.is_some()).unwrap_or_default();
        let rows: Vec<_> = sets
            .sets
            .into_keys()
            .map(|place| {
                let backends = self.files.present(&place).unwrap_or_default().to_vec();
                let path = self.files.path(&place);
                (place, backends, path)
            })
            .collect();
        let mut stdout = std::io::stdout();
        // A reader that has gone is no failure.
        let _ = stdout.write_all(table(&rows).as_bytes()).and_then(|()| stdout.flush());
        Ok(())
    }

    /// Connects again and again.
    async fn forever(&mut self, first: Result<Lists, ConnectError>) -> Failure {
        let mut lists = first;
        loop {
            match lists {
                Ok(lists) => match self.follow(lists).await {
                    Broken::Unauthorized => info!("the token is read again"),
                    Broken::Ended => {}
                },
                Err(error) => self.outage.failed(&chain(&error), now()),
            }
            sleep(RETRY).await;
            lists = connect::connect(self.args).await;
        }
    }

    /// Follows the lists of one connection.
    async fn follow(&mut self, Lists { services, slices, version }: Lists) -> Broken {
        info!(version, directory = %self.args.directory.display(), "follows EndpointSlices and Services");
        self.cluster.begin();
        let mut services = pin!(watcher(services, self.config_of_services()).default_backoff());
        let mut slices = pin!(watcher(slices, config_of_slices()).default_backoff());
        // From the first change on that is not written.
        let mut pause: Option<Pin<Box<Sleep>>> = None;
        loop {
            let taken = tokio::select! {
                () = wait(&mut pause) => {
                    pause = (!self.written().await).then(|| Box::pin(sleep(TOGETHER)));
                    continue;
                }
                event = services.next() => match event {
                    Some(event) => event.map(|event| self.cluster.services.take(event, Service::read)),
                    None => return Broken::Ended,
                },
                event = slices.next() => match event {
                    Some(event) => event.map(|event| self.cluster.slices.take(event, Slice::read)),
                    None => return Broken::Ended,
                },
                // A watch that begins again says nothing until something happens in the cluster.
                () = sleep(CALM), if self.outage.is_on() => {
                    self.outage.over();
                    continue;
                }
            };
            match taken {
                Ok(changed) => {
                    if changed && pause.is_none() {
                        pause = Some(Box::pin(sleep(TOGETHER)));
                    }
                    if self.cluster.is_fresh() {
                        self.outage.over();
                    }
                }
                // The server has forgotten the version, or has cut the stream. The watch begins again at once.
                Err(error @ (watcher::Error::WatchError(_) | watcher::Error::WatchFailed(_))) => {
                    info!(error = chain(&error), "a watch begins again");
                }
                Err(error) => {
                    self.outage.failed(&chain(&error), now());
                    if cause(&error).and_then(connect::status) == Some(401) {
                        return Broken::Unauthorized;
                    }
                }
            }
        }
    }

    /// Writes the files. `false`: that has failed, and is to be tried again.
    async fn written(&mut self) -> bool {
        match self.write() {
            Ok(()) => true,
            Err(error) => {
                warn!(error = chain(&error), "a file cannot be written; the one before stays");
                sleep(RETRY).await;
                false
            }
        }
    }

    fn write(&mut self) -> Result<(), WriteError> {
        let Some(sets) = self.cluster.sets(self.args.selector.is_some()) else { return Ok(()) };
        for remark in sets.remarks.iter().filter(|remark| !self.remarks.contains(remark)) {
            warn!("{remark}");
        }
        self.remarks = sets.remarks;
        for (place, set) in &sets.sets {
            let backends = named(set, self.files.present(place).unwrap_or_default());
            let count = backends.len();
            if self.files.put(place, backends, rfc3339(now()))? {
                info!(file = place.file_name(), backends = count, "written");
            }
        }
        let is_wanted = |place: &Place| sets.sets.contains_key(place);
        for place in self.files.keep_only(is_wanted) {
            warn!(file = place.file_name(), "removed: its service or port is not followed any more");
        }
        Ok(())
    }

    fn config_of_services(&self) -> watcher::Config {
        let config = watcher::Config::default().page_size(PAGE);
        match &self.args.selector {
            Some(selector) => config.labels(selector),
            None => config,
        }
    }
}

fn config_of_slices() -> watcher::Config {
    watcher::Config::default().page_size(PAGE).labels(SERVICE_NAME)
}

/// Waits for the end of a pause, or without one for ever.
async fn wait(pause: &mut Option<Pin<Box<Sleep>>>) {
    match pause {
        Some(pause) => pause.await,
        None => future::pending().await,
    }
}

/// The error of the client behind that of the watcher.
fn cause(error: &watcher::Error) -> Option<&kube::Error> {
    match error {
        watcher::Error::InitialListFailed(cause)
        | watcher::Error::WatchStartFailed(cause)
        | watcher::Error::WatchFailed(cause) => Some(cause),
        watcher::Error::WatchError(_) | watcher::Error::NoResourceVersion => None,
    }
}
