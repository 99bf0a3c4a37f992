//! Loading the program, adopting the maps of an earlier run, attaching to interfaces.

use std::{
    collections::BTreeMap,
    fs, io,
    net::{IpAddr, SocketAddr},
    ops::RangeInclusive,
    os::fd::AsFd,
    path::{Path, PathBuf},
    sync::Arc,
};

use aya::{
    Btf, Ebpf, EbpfError, EbpfLoader,
    maps::{Array, Map, MapData, MapInfo},
    programs::{Program, ProgramError, links::PinnedLink},
};
use aya_log::EbpfLogger;
use lb_common::{
    MAX_BACKENDS,
    abi::{
        self, Address, Backend, CLIENT_WAYS, Config, OwnAddrFilter, REPLY_SETS, Service, ServiceKey, V4,
        VLAN_IDS, Vlans, backend_flags, port_flags, service_flags,
    },
    hash::HashKeys,
};
use lb_core::io::{Adopted, BackendId, Generation, ServiceId};
use tracing::warn;

use super::{
    super::host::{self, ONE_BUFFER_MTU},
    Bpf, EvidenceRing, SuccessCounts, attach, backend_address,
    flows::{Family, FlowTables, Shared},
    idle::{Idle, IdleTicks, Tally},
    pins::{self, Undo},
    reset_sender::ResetSender,
    returns::Returns,
    room,
    sources::SourceRules,
    spoof_guard::SpoofGuard,
    timeouts::Watch,
};
use crate::attach_mode::{AttachMode, XdpMode};

/// The program, as `build.rs` embedded it, for each hook.
static XDP_OBJECT: &[u8] = aya::include_bytes_aligned!(env!("SHUNT_BPF_OBJECT"));
static TC_OBJECT: &[u8] = aya::include_bytes_aligned!(env!("SHUNT_BPF_TC_OBJECT"));

/// Its name in both.
pub(super) const PROGRAM: &str = "shunt";

/// Maps that outlive the daemon.
const PINNED: [&str; 21] = [
    "CONFIG",
    "PORTS",
    "VLANS",
    "SERVICES",
    "SOURCES",
    "OWN_ADDRS",
    "TABLES",
    "BACKENDS",
    "REVERSE_NAT",
    "CLIENTS4",
    "CLIENTS6",
    "REPLIES4",
    "REPLIES6",
    "FLOWS4",
    "FLOWS6",
    "PACE",
    "TRIAL_BUDGETS",
    "BACKEND_COUNTERS",
    "DROPS",
    "ICMP_CLOCKS",
    "EVIDENCE",
];

/// The flow tables: their maps, and how many entries a set of clients stands for.
const FLOW_MAPS: [(&str, u32); 6] = [
    ("CLIENTS4", 1),
    ("CLIENTS6", 1),
    ("REPLIES4", REPLY_SETS),
    ("REPLIES6", REPLY_SETS),
    ("FLOWS4", CLIENT_WAYS as u32),
    ("FLOWS6", CLIENT_WAYS as u32),
];

/// How large the flow tables are, and how they are hashed. They keep both as long as they live.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Tables {
    client_sets: u32,
    pub(super) seed: u64,
}

impl Tables {
    pub(super) fn new(max_flows: u32) -> io::Result<Self> {
        let mut seed = [0; 8];
        // SAFETY: the kernel writes at most so many bytes.
        let got = unsafe { libc::getrandom(seed.as_mut_ptr().cast(), seed.len(), 0) };
        if got != seed.len() as isize {
            return Err(io::Error::last_os_error());
        }
        let client_sets = u32::try_from(room::client_sets(max_flows)).map_err(io::Error::other)?;
        Ok(Self { client_sets, seed: u64::from_ne_bytes(seed) })
    }

    /// Those of an earlier run.
    fn pinned(dir: &Path) -> Result<Option<Self>, aya::maps::MapError> {
        let (config, clients) = (dir.join("CONFIG"), dir.join("CLIENTS4"));
        if !config.exists() || !clients.exists() {
            return Ok(None);
        }
        let client_sets = MapInfo::from_pin(clients)?.max_entries();
        let config = Array::<_, Config>::try_from(Map::Array(MapData::from_pin(config)?))?;
        Ok(Some(Self { client_sets, seed: config.get(&0, 0)?.seed }))
    }
}

/// Which of the two programs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hook {
    Xdp,
    Tc,
}

impl From<XdpMode> for Hook {
    fn from(mode: XdpMode) -> Self {
        match mode {
            XdpMode::Auto | XdpMode::Native | XdpMode::Generic => Self::Xdp,
            XdpMode::Tc => Self::Tc,
        }
    }
}

pub struct Options<'a> {
    pub interfaces: &'a [String],
    pub xdp_mode: XdpMode,
    pub bpffs: &'a Path,
    pub instance: &'a str,
    pub nat_ports: RangeInclusive<u16>,
    pub nat_addresses: &'a [IpAddr],
    pub max_flows: u32,
    /// Tagged frames with these ids are looked at.
    pub vlans: &'a [u16],
    pub idle: Idle,
    /// On each CPU. 0: no limit.
    pub max_new_flows_per_second: u32,
    /// Answer on the interface a frame came from by a redirect to it: needed for veth.
    pub tx_by_redirect: bool,
}

#[derive(Debug)]
pub struct Attached {
    pub interface: String,
    pub mode: AttachMode,
    pub index: u32,
    pub(super) _link: PinnedLink,
}

/// Reads the program's aya-log records into `tracing`.
pub type Logger = EbpfLogger<&'static dyn log::Log>;

/// Everything that the daemon needs of a loaded program.
pub struct Opened {
    pub dataplane: Bpf,
    pub attached: Vec<Attached>,
    pub heads: EvidenceRing,
    pub goods: SuccessCounts,
    /// Of exchanges that wait too long.
    pub watch: Watch,
    pub endings: ResetSender,
    /// `None` when the program logs nothing.
    pub logger: Option<Logger>,
    /// Backends of an earlier run, whose flows go on.
    pub adopted: Vec<Adopted>,
    pub shape: Shape,
    /// Keep it as long as the dataplane is used.
    pub lock: pins::Lock,
}

/// How large what was loaded is.
#[derive(Clone, Debug, Default)]
pub struct Shape {
    /// Instructions that the verifier went through.
    pub verified_instructions: Option<u32>,
    /// Map name, entries, and bytes that the kernel holds for it.
    pub maps: Vec<(String, u32, u64)>,
}

impl Shape {
    /// Of both families.
    pub fn flow_table_bytes(&self) -> u64 {
        let of_flows = |name: &str| FLOW_MAPS.iter().any(|(flow_map, _)| *flow_map == name);
        self.maps.iter().filter(|(name, ..)| of_flows(name)).map(|(_, _, bytes)| bytes).sum()
    }
}

#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    #[error("another daemon of instance {0} is running")]
    Running(String),
    #[error("interface {0} does not exist")]
    NoInterface(String),
    #[error("interface {interface} already has an XDP program")]
    Busy { interface: String },
    #[error("interface {interface} takes no {mode} XDP program")]
    Attach {
        interface: String,
        mode: &'static str,
        #[source]
        source: ProgramError,
    },
    #[error("interface {interface} takes no program at tc ingress")]
    AttachTc {
        interface: String,
        #[source]
        source: ProgramError,
    },
    #[error("not permitted to load BPF programs")]
    NotPermitted,
    #[error("cannot prepare the BPF filesystem at {}", path.display())]
    Bpffs {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("map {name} pinned in {} has another layout", dir.display())]
    Layout { name: &'static str, dir: PathBuf },
    #[error("cannot load the BPF program")]
    Load(#[source] EbpfError),
    #[error("the kernel refused the BPF program")]
    Verifier(#[source] ProgramError),
    #[error("the BPF object lacks {0}")]
    Object(&'static str),
    #[error("cannot read the maps")]
    Descriptor(#[source] io::Error),
    #[error("cannot write the maps")]
    Map(#[source] aya::maps::MapError),
    #[error("nat_ports {}-{} overlaps the host's own ports {}-{}", nat.start(), nat.end(), host.start(), host.end())]
    PortOverlap { nat: RangeInclusive<u16>, host: RangeInclusive<u16> },
    #[error("max_flows = {max_flows} takes {} MiB, {} MiB are available", needed >> 20, available >> 20)]
    Memory { max_flows: u32, needed: u64, available: u64 },
    #[error("interface {interface} has an MTU of {mtu}, more than its driver takes in native XDP")]
    Mtu {
        interface: String,
        mtu: u32,
        #[source]
        source: ProgramError,
    },
}

impl OpenError {
    /// What the operator can do about it.
    pub fn remedy(&self) -> Option<String> {
        Some(match self {
            Self::Running(_) => {
                "stop it, or give this one a name of its own: `instance = \"…\"` in the configuration"
                    .to_owned()
            }
            Self::NoInterface(_) => "`ip link` lists the interfaces".to_owned(),
            Self::Busy { interface } => format!(
                "`ip link show {interface}` names it; remove it with `ip link set {interface} xdp off`, or with \
                 `shunt detach` if it is another instance of shunt"
            ),
            Self::Attach { .. } => "set xdp_mode = \"generic\" if the driver has no XDP".to_owned(),
            Self::AttachTc { .. } => {
                "xdp_mode = \"tc\" needs Linux 6.6 (tcx); the other modes do not".to_owned()
            }
            Self::NotPermitted => {
                "run it as root, or with CAP_BPF, CAP_NET_ADMIN, CAP_PERFMON and CAP_SYS_ADMIN".to_owned()
            }
            Self::Bpffs { path, .. } => format!("mount it: `mount -t bpf bpf {}`", path.display()),
            Self::Layout { .. } => {
                "another build of shunt made it; `shunt detach` removes it and its connections".to_owned()
            }
            Self::PortOverlap { host, .. } => format!(
                "choose nat_ports outside of it, or move it: `sysctl net.ipv4.ip_local_port_range` is now {} {}",
                host.start(),
                host.end()
            ),
            Self::Memory { available, .. } => {
                format!(
                    "choose max_flows of at most {}, or give it more memory",
                    room::flows_within(*available)
                )
            }
            Self::Mtu { interface, .. } => format!(
                "`ip link set {interface} mtu {ONE_BUFFER_MTU}` or less, or set xdp_mode = \"generic\""
            ),
            Self::Load(_) | Self::Verifier(_) | Self::Object(_) | Self::Descriptor(_) | Self::Map(_) => {
                return None;
            }
        })
    }
}

/// Loads the program around the maps of an earlier run if there are any, and attaches it.
/// An interface that the earlier run is attached to is switched over without a gap.
pub fn open(options: &Options<'_>) -> Result<Opened, OpenError> {
    let indexes = interface_indexes(options.interfaces)?;
    check_ports(&options.nat_ports)?;
    let (dir, lock) = pins::prepare(options.bpffs, options.instance)
        .map_err(|source| {
            if source.kind() == io::ErrorKind::PermissionDenied {
                OpenError::NotPermitted
            } else {
                OpenError::Bpffs { path: options.bpffs.to_owned(), source }
            }
        })?
        .ok_or_else(|| OpenError::Running(options.instance.to_owned()))?;
    // From here to the end, every failure takes back what was pinned and attached until then.
    let undo =
        Undo::new(&dir).map_err(|source| OpenError::Bpffs { path: options.bpffs.to_owned(), source })?;
    check_layouts(&dir)?;
    let tables = match Tables::pinned(&dir).map_err(OpenError::Map)? {
        Some(tables) => tables,
        None => {
            room::check_memory(options.max_flows)?;
            Tables::new(options.max_flows).map_err(OpenError::Descriptor)?
        }
    };
    let idle = IdleTicks::from(options.idle);
    let mut ebpf = load(options.xdp_mode.into(), Some(&dir), tables, idle, options.tx_by_redirect)?;
    let logger = EbpfLogger::init(&mut ebpf)
        .inspect_err(|error| warn!(%error, "the BPF program's log is not readable"))
        .ok();
    let flows = Arc::new(flows(&ebpf, tables.seed, idle)?);
    let goods = success_counts(&ebpf)?;
    let filter = own_addr_filter(&ebpf)?;
    let take = |name| ebpf.take_map(name).ok_or(OpenError::Object(name));
    let mut maps = Maps::take(take, filter, flows, options.nat_ports.clone())?;
    let (watch, endings) = (maps.dataplane.watch(), maps.dataplane.endings());
    let adopted = adopt(&mut maps.dataplane).map_err(OpenError::Map)?;
    let shape = Shape { verified_instructions: verify(&mut ebpf)?, maps: sizes(&dir) };
    let mut attached = Vec::new();
    for (interface, index) in indexes {
        attached.push(attach::attach(&mut ebpf, &dir, interface, index, options.xdp_mode)?);
    }
    attach::release_others(&dir, &attached);
    // Only now, so that a start that fails changes nothing of what an earlier run's maps say.
    maps.configure(tables.seed, options.nat_addresses, options.vlans, options.max_new_flows_per_second)?;
    undo.succeeded();
    // The loader is done with the kernel's type information, and the allocator would keep its room for ever.
    drop(ebpf);
    #[cfg(target_env = "gnu")]
    // SAFETY: a plain call, which may be made at any time.
    unsafe {
        libc::malloc_trim(0);
    }
    Ok(Opened {
        dataplane: maps.dataplane,
        attached,
        heads: maps.heads,
        goods,
        watch,
        endings,
        logger,
        adopted,
        shape,
        lock,
    })
}

pub(super) fn load(
    hook: Hook,
    dir: Option<&Path>,
    tables: Tables,
    idle: IdleTicks,
    tx_by_redirect: bool,
) -> Result<Ebpf, OpenError> {
    let (tx_by_redirect, keys) = (u8::from(tx_by_redirect), HashKeys::from_seed(tables.seed));
    let btf = Btf::from_sys_fs().ok();
    let mut loader = EbpfLoader::new();
    loader
        .btf(btf.as_ref())
        .override_global("CLIENT_SETS", &tables.client_sets, true)
        .override_global("HASH_KEYS", &keys, true)
        .override_global("SILENCE", &idle.established, true);
    let object = match hook {
        Hook::Xdp => {
            loader.override_global("TX_BY_REDIRECT", &tx_by_redirect, true);
            XDP_OBJECT
        }
        Hook::Tc => TC_OBJECT,
    };
    for (name, each) in FLOW_MAPS {
        loader.map_max_entries(name, tables.client_sets.saturating_mul(each));
    }
    loader.map_max_entries("SUCCESS_COUNTS", cpus()? as u32);
    if let Some(dir) = dir {
        for name in PINNED {
            loader.map_pin_path(name, dir.join(name));
        }
    }
    loader.load(object).map_err(|error| {
        if is_os_error(&error, libc::EPERM) { OpenError::NotPermitted } else { OpenError::Load(error) }
    })
}

pub(super) fn verify(ebpf: &mut Ebpf) -> Result<Option<u32>, OpenError> {
    let program = ebpf.program_mut(PROGRAM).ok_or(OpenError::Object("program shunt"))?;
    let loaded = match program {
        Program::Xdp(program) => program.load(),
        Program::SchedClassifier(program) => program.load(),
        _ => return Err(OpenError::Object("program shunt for XDP or tc")),
    };
    loaded.map_err(|error| {
        if is_os_error(&error, libc::EPERM) { OpenError::NotPermitted } else { OpenError::Verifier(error) }
    })?;
    Ok(program.info().ok().and_then(|info| info.verified_instruction_count()))
}

/// That may ever run.
fn cpus() -> Result<usize, OpenError> {
    aya::util::nr_cpus().map_err(|(_, error)| OpenError::Descriptor(error))
}

/// The good responses that a loaded program counts.
pub(super) fn success_counts(ebpf: &Ebpf) -> Result<SuccessCounts, OpenError> {
    let Some(Map::Array(map)) = ebpf.map("SUCCESS_COUNTS") else {
        return Err(OpenError::Object("SUCCESS_COUNTS"));
    };
    SuccessCounts::new(map.fd().as_fd(), cpus()?).map_err(OpenError::Descriptor)
}

/// A map that the daemon reads and writes as its own memory.
fn shared<T: Copy>(ebpf: &Ebpf, name: &'static str) -> Result<Shared<T>, OpenError> {
    let Some(Map::Array(map)) = ebpf.map(name) else { return Err(OpenError::Object(name)) };
    let entries = map.info().map_err(OpenError::Map)?.max_entries() as usize;
    Shared::new(map.fd().as_fd(), entries).map_err(OpenError::Descriptor)
}

pub(super) fn own_addr_filter(ebpf: &Ebpf) -> Result<Shared<OwnAddrFilter>, OpenError> {
    shared(ebpf, "OWN_ADDR_FILTER")
}

/// The flow tables of a loaded program.
pub(super) fn flows(ebpf: &Ebpf, seed: u64, idle: IdleTicks) -> Result<FlowTables, OpenError> {
    fn family<A: Address>(
        ebpf: &Ebpf,
        keys: HashKeys,
        [clients, replies, flows]: [&'static str; 3],
    ) -> Result<Family<A>, OpenError> {
        Ok(Family {
            clients: shared(ebpf, clients)?,
            replies: shared(ebpf, replies)?,
            flows: shared(ebpf, flows)?,
            keys,
        })
    }
    let keys = HashKeys::from_seed(seed);
    Ok(FlowTables {
        v4: family(ebpf, keys, ["CLIENTS4", "REPLIES4", "FLOWS4"])?,
        v6: family(ebpf, keys, ["CLIENTS6", "REPLIES6", "FLOWS6"])?,
        idle,
        forgotten: Tally::default(),
    })
}

/// The maps out of a loaded object, typed.
pub(super) struct Maps {
    config: Array<MapData, Config>,
    vlans: Array<MapData, Vlans>,
    pub(super) dataplane: Bpf,
    pub(super) heads: EvidenceRing,
}

impl Maps {
    /// `map` gives a map by its name.
    pub(super) fn take(
        mut map: impl FnMut(&'static str) -> Result<Map, OpenError>,
        filter: Shared<OwnAddrFilter>,
        flows: Arc<FlowTables>,
        nat_ports: RangeInclusive<u16>,
    ) -> Result<Self, OpenError> {
        fn take<T: TryFrom<Map>>(
            map: &mut impl FnMut(&'static str) -> Result<Map, OpenError>,
            name: &'static str,
        ) -> Result<T, OpenError> {
            T::try_from(map(name)?).map_err(|_| OpenError::Object(name))
        }
        Ok(Self {
            config: take(&mut map, "CONFIG")?,
            vlans: take(&mut map, "VLANS")?,
            heads: EvidenceRing::new(take(&mut map, "EVIDENCE")?),
            dataplane: Bpf {
                ports: take(&mut map, "PORTS")?,
                services: take(&mut map, "SERVICES")?,
                tables: take(&mut map, "TABLES")?,
                backends: take(&mut map, "BACKENDS")?,
                trial: take(&mut map, "TRIAL_BUDGETS")?,
                mirror_modes: take(&mut map, "MIRROR_MODES")?,
                backend_counters: take(&mut map, "BACKEND_COUNTERS")?,
                drops: take(&mut map, "DROPS")?,
                sources: SourceRules::adopt(take(&mut map, "SOURCES")?).map_err(OpenError::Map)?,
                origins: SpoofGuard::adopt(take(&mut map, "OWN_ADDRS")?, filter).map_err(OpenError::Map)?,
                returns: Returns::new(take(&mut map, "REVERSE_NAT")?),
                flows,
                cuts: Arc::default(),
                next_hops: BTreeMap::new(),
                nat_ports,
                vips: BTreeMap::new(),
                ports_due: false,
                told: BTreeMap::new(),
            },
        })
    }

    pub(super) fn configure(
        &mut self,
        seed: u64,
        nat_addresses: &[IpAddr],
        vlans: &[u16],
        new_flows: u32,
    ) -> Result<(), OpenError> {
        let ports = &self.dataplane.nat_ports;
        let mut config = Config {
            seed,
            nat_first: *ports.start(),
            nat_last: *ports.end(),
            syn_interval_ns: 1_000_000_000u32.checked_div(new_flows).unwrap_or(0),
            ..Config::default()
        };
        for address in nat_addresses {
            // More than there is room for are refused with the configuration.
            match address {
                IpAddr::V4(v4) => {
                    if let Some(place) = config.nat4.get_mut(usize::from(config.nat4_len)) {
                        *place = V4(u32::from_ne_bytes(v4.octets()));
                        config.nat4_len += 1;
                    }
                }
                IpAddr::V6(_) => {
                    if let Some(place) = config.nat6.get_mut(usize::from(config.nat6_len)) {
                        *place = (*address).into();
                        config.nat6_len += 1;
                    }
                }
            }
        }
        self.config.set(0, config, 0).map_err(OpenError::Map)?;
        let mut looked_at = Vlans([0; VLAN_IDS]);
        for id in vlans {
            // Others are refused with the configuration.
            if let Some(place) = looked_at.0.get_mut(usize::from(*id)) {
                *place = 1;
            }
        }
        self.vlans.set(0, looked_at, 0).map_err(OpenError::Map)?;
        self.dataplane.write_ports().map_err(OpenError::Map)
    }
}

/// Reads what an earlier run left in the maps. The engine keeps what is still configured, and
/// removes the rest.
fn adopt(dataplane: &mut Bpf) -> Result<Vec<Adopted>, aya::maps::MapError> {
    let services: Vec<(ServiceKey, Service)> = dataplane.services.iter().collect::<Result<_, _>>()?;
    let vips: BTreeMap<u16, SocketAddr> =
        services.iter().map(|(key, value)| (value.id, abi::socket_addr(key.addr, key.port))).collect();
    dataplane.vips = vips.iter().map(|(id, vip)| (*vip, ServiceId(*id))).collect();
    let mut adopted = Vec::new();
    if services.is_empty() {
        return Ok(adopted);
    }
    for id in 0..MAX_BACKENDS {
        let value: Backend = dataplane.backends.get(&id, 0)?;
        if value.generation != 0 {
            adopted.push(Adopted {
                service: ServiceId(value.service),
                vip: vips.get(&value.service).copied(),
                admits: value.flags & (backend_flags::ADMIT | backend_flags::TRIAL) != 0,
                id: BackendId(id as u16),
                generation: Generation(value.generation),
                address: backend_address(&value),
            });
        }
    }
    let kept = services.iter().filter(|(_, value)| value.flags & service_flags::DNAT != 0);
    let kept = kept.map(|(key, value)| (ServiceId(value.id), abi::socket_addr(key.addr, key.port))).collect();
    let ports = Box::new(dataplane.ports.get(&0, 0)?);
    let of_replies =
        (0..=u16::MAX).filter(|port| ports.0[usize::from(*port)] & port_flags::DNAT != 0).collect();
    dataplane.returns.adopt(kept, &adopted, of_replies)?;
    Ok(adopted)
}

/// A pinned map is reused as it is, so its layout has to be looked at first.
fn check_layouts(dir: &Path) -> Result<(), OpenError> {
    let fresh = match PINNED.iter().any(|name| dir.join(name).exists()) {
        true => load(Hook::Xdp, None, Tables { client_sets: 1, seed: 0 }, Idle::default().into(), false)?,
        false => return Ok(()),
    };
    for name in PINNED {
        let path = dir.join(name);
        if !path.exists() {
            continue;
        }
        let wanted = fresh.map(name).ok_or(OpenError::Object(name))?;
        let wanted = map_info(wanted).map_err(OpenError::Map)?;
        let pinned = MapInfo::from_pin(&path).map_err(OpenError::Map)?;
        // The number of flows may differ: it is the earlier run's until a detach.
        let sized = FLOW_MAPS.iter().any(|(flow_map, _)| *flow_map == name);
        let same = pinned.map_type().ok() == wanted.map_type().ok()
            && pinned.key_size() == wanted.key_size()
            && pinned.value_size() == wanted.value_size()
            && (sized || pinned.max_entries() == wanted.max_entries());
        if !same {
            return Err(OpenError::Layout { name, dir: dir.to_owned() });
        }
    }
    Ok(())
}

pub(super) fn map_info(map: &Map) -> Result<MapInfo, aya::maps::MapError> {
    match map {
        Map::Array(data)
        | Map::ArrayOfMaps(data)
        | Map::HashMap(data)
        | Map::LpmTrie(data)
        | Map::PerCpuArray(data)
        | Map::RingBuf(data) => data.info(),
        // The program declares no other kinds.
        _ => Err(aya::maps::MapError::InvalidMapType { map_type: 0 }),
    }
}

fn sizes(dir: &Path) -> Vec<(String, u32, u64)> {
    PINNED
        .iter()
        .filter_map(|name| {
            let info = MapInfo::from_pin(dir.join(name)).ok()?;
            let fd = info.fd().ok()?;
            Some(((*name).to_owned(), info.max_entries(), memlock(&fd).unwrap_or(0)))
        })
        .collect()
}

/// The kernel's own account of a map's memory.
fn memlock(fd: &aya::maps::MapFd) -> Option<u64> {
    use std::os::fd::{AsFd as _, AsRawFd as _};
    let info = fs::read_to_string(format!("/proc/self/fdinfo/{}", fd.as_fd().as_raw_fd())).ok()?;
    info.lines().find_map(|line| line.strip_prefix("memlock:")?.trim().parse().ok())
}

fn interface_indexes(interfaces: &[String]) -> Result<Vec<(&str, u32)>, OpenError> {
    interfaces
        .iter()
        .map(|name| {
            let index = nix::net::if_::if_nametoindex(name.as_str())
                .map_err(|_| OpenError::NoInterface(name.clone()))?;
            Ok((name.as_str(), index))
        })
        .collect()
}

/// The NAT ports must not be ones that this host's own connections may get.
fn check_ports(nat: &RangeInclusive<u16>) -> Result<(), OpenError> {
    // A host without such a range has none to keep away from.
    match host::ephemeral_ports() {
        Ok(host) if host::overlap(nat, &host) => Err(OpenError::PortOverlap { nat: nat.clone(), host }),
        Ok(_) | Err(_) => Ok(()),
    }
}

/// Whether an OS error is anywhere among the causes.
pub(super) fn is_os_error(error: &(dyn std::error::Error + 'static), code: i32) -> bool {
    let mut cause = Some(error);
    while let Some(error) = cause {
        if error.downcast_ref::<io::Error>().is_some_and(|error| error.raw_os_error() == Some(code)) {
            return true;
        }
        cause = error.source();
    }
    false
}
