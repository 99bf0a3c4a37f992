//! The daemon's start: loads the program around the maps of an earlier run, and attaches it.

use std::{
    io,
    net::{IpAddr, SocketAddr},
    ops::RangeInclusive,
    path::Path,
    sync::Arc,
};

use aya_log::EbpfLogger;
use lb_core::io::{Adopted, BackendId, Generation};
use tracing::warn;

use super::{
    adopt::{adopt, lost_heads},
    attach::{Attached, Attacher, check_generic},
    clients_seen::ClientsSeen,
    dataplane::Bpf,
    error::OpenError,
    flow_spec::FlowSpec,
    handles::{
        Handles, MinPathMtu, clients_seen, crowd, flows, nat_addresses, own_addr_filter, success_counts,
        syn_acks, trial_budgets,
    },
    idle::{IdleTicks, IdleTimeouts},
    instances::{belongs_elsewhere, namespace, taken_vip},
    layout::check_layouts,
    maps::{ProgramSize, pinned_sizes},
    pins::{self, PrepareError, Undo},
    program::{Hook, load, verify},
    requirements::{check_cgroup, check_hook, check_memory, check_ports, interface_indexes, own_macs},
    reset_sender::ResetSender,
    ring::EvidenceRing,
    success_counts::SuccessCounts,
    syn_acks::SynAcks,
    timeouts::TimeoutScanner,
    trial_budgets::TrialBudgets,
};
use crate::{attach_mode::XdpMode, dataplane::error::chain};

#[derive(Clone)]
pub struct Options<'a> {
    pub interfaces: &'a [String],
    pub xdp_mode: XdpMode,
    pub bpffs: &'a Path,
    pub instance: &'a str,
    pub nat_ports: RangeInclusive<u16>,
    pub nat_addresses: &'a [IpAddr],
    /// The VIPs of the configuration.
    pub vips: &'a [SocketAddr],
    pub max_flows: u32,
    /// The program looks at tagged frames with these ids.
    pub vlans: &'a [u16],
    pub idle: IdleTimeouts,
    /// On each CPU. 0: no limit.
    pub max_new_flows_per_second: u32,
    /// How much of a flow table or of a backend's NAT ports one source prefix may hold, in percent. 100: no limit.
    pub max_source_share: u8,
    pub min_path_mtu: MinPathMtu,
    /// A frame that leaves by the interface it came from is redirected there. veth needs this.
    pub tx_by_redirect: bool,
}

/// Reads the program's aya-log records into `tracing`.
pub type Logger = EbpfLogger<&'static dyn log::Log>;

/// Everything that the daemon needs of a loaded program.
pub struct Opened {
    pub dataplane: Bpf,
    pub attached: Vec<Attached>,
    /// For interfaces that come later.
    pub attacher: Attacher,
    pub evidence: EvidenceRing,
    pub success_counts: SuccessCounts,
    pub syn_acks: SynAcks,
    pub clients_seen: ClientsSeen,
    pub trial_budgets: Arc<TrialBudgets>,
    pub timeout_scanner: TimeoutScanner,
    pub reset_sender: ResetSender,
    /// `None` when the program logs nothing.
    pub logger: Option<Logger>,
    /// Backends of an earlier run. Their flows continue.
    pub adopted: Vec<Adopted>,
    /// How many records of each of these every CPU had lost.
    pub lost_heads: Vec<(BackendId, Generation, Vec<u32>)>,
    pub size: ProgramSize,
    /// The daemon holds it for as long as it uses the dataplane.
    pub lock: pins::Lock,
}

/// Loads the program and attaches it. With `auto`, where XDP would corrupt frames, the whole instance is attached at tc.
pub fn open(options: &Options<'_>) -> Result<Opened, OpenError> {
    check_hook(options.xdp_mode.into())?;
    if options.xdp_mode == XdpMode::Generic {
        options.interfaces.iter().try_for_each(|interface| check_generic(interface))?;
    }
    match open_as(options) {
        Err(OpenError::Unfinished { interface, source }) if check_hook(Hook::Tc).is_ok() => {
            warn!(interface, error = chain(source.as_ref()), "no native XDP here: using tc ingress");
            open_as(&Options { xdp_mode: XdpMode::Tc, ..options.clone() })
        }
        opened => opened,
    }
}

/// In one mode. If there are maps of an earlier run, the program adopts them, and the interfaces
/// that the earlier run is attached to are switched over without a gap.
fn open_as(options: &Options<'_>) -> Result<Opened, OpenError> {
    let indexes = interface_indexes(options.interfaces)?;
    check_ports(&options.nat_ports)?;
    let (dir, lock) = pins::prepare(options.bpffs, options.instance)
        .map_err(|error| match error {
            PrepareError::Untrusted(untrusted) => OpenError::Untrusted(untrusted),
            PrepareError::Io(source) if source.kind() == io::ErrorKind::PermissionDenied => {
                OpenError::NotPermitted
            }
            PrepareError::Io(source) => OpenError::Bpffs { path: options.bpffs.to_owned(), source },
        })?
        .ok_or_else(|| OpenError::Running(options.instance.to_owned()))?;
    // From here to the end, every failure takes back what was pinned and attached until then.
    let undo =
        Undo::new(&dir).map_err(|source| OpenError::Bpffs { path: options.bpffs.to_owned(), source })?;
    let namespace = namespace().map_err(OpenError::Descriptor)?;
    if belongs_elsewhere(&dir, namespace) {
        return Err(OpenError::Elsewhere { instance: options.instance.to_owned() });
    }
    if let Some((vip, instance)) = taken_vip(options.bpffs, options.instance, options.vips) {
        return Err(OpenError::VipTaken { vip, instance });
    }
    check_layouts(&dir)?;
    let flow_tables = match FlowSpec::pinned(&dir).map_err(OpenError::Map)? {
        Some(pinned) => {
            check_cgroup(None)?;
            pinned
        }
        None => {
            check_memory(options.max_flows)?;
            check_cgroup(Some(options.max_flows))?;
            FlowSpec::new(options.max_flows).map_err(OpenError::Descriptor)?
        }
    };
    let idle = IdleTicks::from(options.idle);
    let mut ebpf = load(options.xdp_mode.into(), Some(&dir), flow_tables, idle, options.tx_by_redirect)?;
    let logger = EbpfLogger::init(&mut ebpf)
        .inspect_err(|error| warn!(%error, "the BPF program's log is not readable"))
        .ok();
    let flows = Arc::new(flows(&ebpf, flow_tables.seed, idle)?);
    let success_counts = success_counts(&ebpf)?;
    let (syn_acks, clients_seen) = (syn_acks(&ebpf)?, clients_seen(&ebpf)?);
    let trial_budgets = Arc::new(trial_budgets(&ebpf)?);
    let filter = own_addr_filter(&ebpf)?;
    let crowd = crowd(&ebpf, options.max_source_share)?;
    let nat = nat_addresses(&ebpf)?;
    let take = |name| ebpf.take_map(name).ok_or(OpenError::Object(name));
    let budgets = Arc::clone(&trial_budgets);
    let mut handles = Handles::take(take, filter, flows, crowd, nat, budgets, options.nat_ports.clone())?;
    let (timeout_scanner, reset_sender) =
        (handles.dataplane.timeout_scanner(), handles.dataplane.reset_sender());
    let adopted = adopt(&mut handles.dataplane).map_err(OpenError::Map)?;
    let lost_heads = lost_heads(&handles.dataplane, &adopted).map_err(OpenError::Map)?;
    let size = ProgramSize { verified_instructions: verify(&mut ebpf)?, maps: pinned_sizes(&dir) };
    // Those of an earlier run stay until the daemon has read them all.
    handles.dataplane.own_macs.add(&own_macs(&indexes)?).map_err(OpenError::Map)?;
    let mut attacher = Attacher::new(&ebpf, (options.bpffs, &dir), options.xdp_mode, namespace)?;
    let mut attached = Vec::new();
    for (interface, index) in indexes {
        attached.push(attacher.attach(interface, index)?);
    }
    attacher.release_others(&attached);
    // Last, so that a start that fails leaves the maps of an earlier run as they were.
    handles.configure(
        flow_tables.seed,
        options.nat_addresses,
        options.vlans,
        options.max_new_flows_per_second,
        options.min_path_mtu,
    )?;
    undo.succeeded();
    // The loader is done with the kernel's type information, and the allocator would not give that memory back.
    drop(ebpf);
    #[cfg(target_env = "gnu")]
    // SAFETY: a plain call, which may be made at any time.
    unsafe {
        libc::malloc_trim(0);
    }
    Ok(Opened {
        dataplane: handles.dataplane,
        attached,
        attacher,
        evidence: handles.evidence,
        success_counts,
        syn_acks,
        clients_seen,
        trial_budgets,
        timeout_scanner,
        reset_sender,
        logger,
        adopted,
        lost_heads,
        size,
        lock,
    })
}
