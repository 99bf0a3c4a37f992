//! The interfaces of the configuration, watched for as long as the daemon runs.
//!
//! One task, owned by the daemon and safe to abort at any point, follows the kernel's links. It attaches the program again
//! where an interface was made again or lost its program. A reload changes the list. Their condition goes to
//! status, and each change becomes an event.

mod port;

use std::{
    collections::BTreeMap,
    io,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use futures_util::{StreamExt as _, TryStreamExt as _};
use netlink_packet_route::link::{LinkAttribute, LinkFlags};
use rtnetlink::{Handle, MulticastGroup};
use tokio::{
    sync::watch,
    time::{MissedTickBehavior, interval, timeout},
};
use tracing::{info, warn};

pub use self::port::Interface;
use self::port::{Link, Port};
use super::{
    bpf::{Attached, Attacher, OpenError},
    device,
    error::chain,
};

/// After this long the task looks again although the kernel has reported no change.
const REFRESH: Duration = Duration::from_secs(1);

/// Changes come in bursts. The task gathers them for at most this long.
const SETTLE: Duration = Duration::from_millis(20);

/// Why the interfaces of a new configuration cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ChangeError {
    #[error(transparent)]
    Attach(#[from] OpenError),
    #[error("interface {0} is a veth, and the program was loaded for interfaces that are none")]
    NewKind(String),
}

impl ChangeError {
    pub fn remedy(&self) -> String {
        match self {
            Self::Attach(error) => error.remedy().unwrap_or_else(|| "the log says more".to_owned()),
            Self::NewKind(_) => "restart the daemon: it then loads the program for both kinds".to_owned(),
        }
    }
}

/// The interfaces, shared by the task and reloads.
#[derive(Debug)]
pub struct Interfaces {
    state: Mutex<State>,
    changes: watch::Sender<Vec<Interface>>,
}

#[derive(Debug)]
struct State {
    attacher: Attacher,
    /// In the order of the configuration.
    ports: Vec<Port>,
    /// The program was loaded with what a veth needs.
    for_veth: bool,
}

impl Interfaces {
    pub fn new(attacher: Attacher, attached: Vec<Attached>, for_veth: bool) -> Self {
        let ports: Vec<Port> = attached.into_iter().map(Port::new).collect();
        let (changes, _) = watch::channel(ports.iter().map(Port::shown).collect());
        Self { state: Mutex::new(State { attacher, ports, for_veth }), changes }
    }

    /// The interfaces, from now on.
    pub fn watch(&self) -> watch::Receiver<Vec<Interface>> {
        self.changes.subscribe()
    }

    /// Attaches the program to the interfaces of a new configuration that it is not attached to, and detaches it from those
    /// that are not in it. An error changes nothing.
    pub fn change(&self, names: &[String]) -> Result<(), ChangeError> {
        let mut state = self.lock();
        let mut new = Vec::new();
        let missing: Vec<&String> = names.iter().filter(|name| !state.has(name)).collect();
        for name in missing {
            // After an error `release` detaches those that were new.
            match state.attach_new(name) {
                Ok(attached) => new.push(Port::new(attached)),
                Err(error) => {
                    drop(new);
                    state.release();
                    return Err(error);
                }
            }
        }
        let mut ports: BTreeMap<String, Port> =
            state.ports.drain(..).chain(new).map(|port| (port.name.clone(), port)).collect();
        state.ports = names.iter().filter_map(|name| ports.remove(name)).collect();
        state.release();
        self.publish(&state);
        Ok(())
    }

    /// Whether [`change`](Self::change) could succeed. Attaches nothing.
    pub fn check(&self, names: &[String]) -> Result<(), ChangeError> {
        let state = self.lock();
        names.iter().filter(|name| !state.has(name)).try_for_each(|name| {
            index_of(name)?;
            state.fits(name)
        })
    }

    /// Compares the interfaces with the kernel's links, and attaches the program again where it is missing.
    fn look(&self, links: &BTreeMap<u32, Link>) {
        let mut state = self.lock();
        let State { attacher, ports, .. } = &mut *state;
        let mut moved = false;
        for port in ports {
            moved |= port.look(links, attacher);
        }
        if moved {
            state.release();
        }
        self.publish(&state);
    }

    fn publish(&self, state: &State) {
        let now: Vec<Interface> = state.ports.iter().map(Port::shown).collect();
        self.changes.send_if_modified(|known| {
            let is_new = *known != now;
            *known = now;
            is_new
        });
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn has(&self, name: &str) -> bool {
        self.ports.iter().any(|port| port.name == name)
    }

    fn attach_new(&mut self, name: &str) -> Result<Attached, ChangeError> {
        let index = index_of(name)?;
        self.fits(name)?;
        let attached = self.attacher.attach(name, index)?;
        info!(interface = name, mode = attached.mode.name(), "attached");
        Ok(attached)
    }

    fn fits(&self, name: &str) -> Result<(), ChangeError> {
        let is_veth = device::driver(name).is_ok_and(|driver| driver == "veth");
        match is_veth && !self.for_veth {
            true => Err(ChangeError::NewKind(name.to_owned())),
            false => Ok(()),
        }
    }

    /// Detaches the program from interfaces that are not used.
    fn release(&self) {
        self.attacher.release_others(self.ports.iter().filter_map(|port| port.attached.as_ref()));
    }
}

fn index_of(name: &str) -> Result<u32, OpenError> {
    nix::net::if_::if_nametoindex(name).map_err(|_| OpenError::NoInterface(name.to_owned()))
}

/// Follows the kernel's links until the task is aborted.
pub async fn follow(interfaces: Arc<Interfaces>) -> io::Result<()> {
    let (connection, handle, mut changes) = rtnetlink::new_multicast_connection(&[MulticastGroup::Link])?;
    let _connection = AbortOnDrop(tokio::spawn(connection));
    let mut refresh = interval(REFRESH);
    refresh.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        match links(&handle).await {
            Ok(links) => interfaces.look(&links),
            Err(error) => warn!(error = chain(&error), "cannot read the kernel's links"),
        }
        tokio::select! {
            _ = refresh.tick() => {}
            heard = changes.next() => if heard.is_none() {
                return Err(io::Error::other("the kernel closed the netlink socket"));
            }
        }
        // Times out, unless the socket is closed. Then the next turn finds that.
        let _ = timeout(SETTLE, async { while changes.next().await.is_some() {} }).await;
    }
}

async fn links(handle: &Handle) -> Result<BTreeMap<u32, Link>, rtnetlink::Error> {
    let mut found = BTreeMap::new();
    let mut dump = handle.link().get().execute();
    while let Some(message) = dump.try_next().await? {
        let name = message.attributes.iter().find_map(|attribute| match attribute {
            LinkAttribute::IfName(name) => Some(name.clone()),
            _ => None,
        });
        let has_link = message.header.flags.contains(LinkFlags::Up | LinkFlags::LowerUp);
        found.extend(name.map(|name| (message.header.index, Link { name, has_link })));
    }
    Ok(found)
}

/// Ends the task of a netlink socket with its reader.
struct AbortOnDrop(tokio::task::JoinHandle<()>);

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        self.0.abort();
    }
}
