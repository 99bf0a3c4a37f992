//! The steps of a start, in their order.

use std::{net::IpAddr, path::Path, sync::Arc};

use lb_core::{
    engine::{Engine, Settings},
    io::Adopted,
    time::Instant,
};
use tokio::sync::watch;
use tracing::{error, info, warn};

use super::{
    clock::Clock,
    error::{Error, failed},
    saving::Saving,
};
use crate::{
    attach_mode::AttachMode,
    config::{self, File},
    dataplane::{
        actor, bpf,
        interfaces::{self, Interfaces},
        next_hop,
    },
    doctor::{self, Finding},
    journal::{self, Recorder, Recording},
    state,
};

/// Opens the recording that the configuration asks for.
pub(super) fn recording(record: &config::Record) -> Result<Recording, journal::OpenError> {
    let config::Record { path, max_size, files } = record.clone();
    let recording = Recording::open(&journal::Options { path: path.clone(), max_size, files })?;
    info!(path = %path.display(), "recording");
    Ok(recording)
}

/// Loads and attaches the program, and takes over what an earlier run has left.
pub(super) fn dataplane(file: &File, veth: bool) -> Result<bpf::Opened, bpf::OpenError> {
    let vips: Vec<_> = file.core.services.iter().map(|service| service.vip).collect();
    bpf::open(&bpf::Options {
        interfaces: &file.interfaces,
        xdp_mode: file.xdp_mode,
        bpffs: &file.bpffs,
        instance: &file.instance,
        nat_ports: file.nat_ports.clone(),
        nat_addresses: &file.nat_addresses,
        vips: &vips,
        max_flows: file.max_flows,
        vlans: &file.vlans,
        idle: bpf::IdleTimeouts {
            established: file.timeouts.established,
            closing: file.timeouts.closing,
            handshake: file.timeouts.handshake,
        },
        max_new_flows_per_second: file.max_new_flows_per_second,
        max_source_share: file.max_source_share,
        min_path_mtu: bpf::MinPathMtu { ipv4: file.min_path_mtu.ipv4, ipv6: file.min_path_mtu.ipv6 },
        tx_by_redirect: veth,
    })
}

/// Logs what runs, where and how large it is.
pub(super) fn announce(
    file: &File,
    attached: &[bpf::Attached],
    size: &bpf::ProgramSize,
    adopted: &[Adopted],
    socket: &Path,
) {
    for attached in attached {
        info!(interface = attached.interface, mode = attached.mode.name(), "attached");
    }
    let bytes: u64 = size.maps.iter().map(|(_, _, bytes)| bytes).sum();
    info!(
        instance = file.instance,
        services = file.core.services.len(),
        max_flows = bpf::other_max_flows(&file.bpffs, &file.instance, file.max_flows).unwrap_or(file.max_flows),
        flow_tables_mib = size.flow_table_bytes() >> 20,
        map_memory_mib = bytes >> 20,
        verified_instructions = size.verified_instructions,
        socket = %socket.display(),
        "shunt is running"
    );
    if !adopted.is_empty() {
        info!(backends = adopted.len(), "took over from an earlier run; its connections go on");
    }
}

/// Logs everything about the host that keeps traffic from working, though the start succeeded.
pub(super) async fn warnings(file: &File) -> Vec<Finding> {
    let findings = doctor::warnings(file, &file.interfaces).await;
    for Finding { check, interface, says, remedy, .. } in &findings {
        let (interface, remedy) =
            (interface.as_deref().unwrap_or("host"), remedy.as_deref().unwrap_or("none"));
        warn!(check, interface, remedy, "{says}");
    }
    findings
}

/// The engine with the state of an earlier run, the saving of that state from now on, and the last good sets of
/// discovery.
pub(super) fn engine(
    file: &File,
    adopted: Vec<Adopted>,
    clock: Clock,
    seed: u64,
    is_recorded: bool,
) -> (Engine, Saving, Vec<state::Discovered>) {
    let record = state::load(&file.state_file, clock.unix_ms());
    let (restored, discovered) = record.map(|of| (of.state, of.discovered)).unzip();
    let saving = Saving::new(state::Keeper::start(file.state_file.clone()), restored.is_some());
    let settings = Settings {
        seed,
        adopted,
        generation_floor: clock.started_unix_secs(),
        restored,
        // A replay with another configuration may need the time of each response.
        mirror_all: is_recorded,
    };
    (Engine::new(settings, Instant(0)), saving, discovered.unwrap_or_default())
}

pub(super) fn recorder(recording: Option<Recording>, clock: Clock, seed: u64) -> Result<Recorder, Error> {
    let Some(recording) = recording else { return Ok(Recorder::off()) };
    recording.start(clock.started_unix_ms(), seed).map_err(failed("start the recorder thread"))
}

/// The node, as far as paths depend on it.
pub(super) fn ports(file: &File, interfaces: &Interfaces) -> next_hop::Ports {
    let interfaces = interfaces.watch();
    let native = interfaces.borrow().iter().any(|interface| interface.mode == AttachMode::Native);
    next_hop::Ports {
        vlans: file.vlans.clone(),
        interfaces,
        native,
        nat_addresses: file.nat_addresses.clone(),
    }
}

pub(super) async fn follow_next_hops(
    dataplane: actor::Handle,
    addresses: watch::Receiver<Vec<IpAddr>>,
    ports: next_hop::Ports,
    paths: watch::Sender<next_hop::Paths>,
) {
    if let Err(error) = next_hop::follow(dataplane, addresses, ports, paths).await {
        error!(%error, "cannot follow the next hops of the backends");
    }
}

pub(super) async fn follow_interfaces(interfaces: Arc<Interfaces>) {
    if let Err(error) = interfaces::follow(interfaces).await {
        error!(%error, "cannot follow the interfaces");
    }
}

/// The engine's seed. Its jitter needs no better randomness than the standard library's.
pub(super) fn seed() -> u64 {
    use std::hash::{BuildHasher as _, RandomState};
    RandomState::new().hash_one(std::process::id())
}
