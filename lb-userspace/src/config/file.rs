//! The top level of the file.

use std::{collections::HashMap, net::IpAddr, path::PathBuf};

use lb_common::abi::NAT_ADDRESSES;
use lb_core::config::Config;

use super::{
    DEFAULT_MAX_FLOWS, DEFAULT_NAT_PORTS, File, LogLevel, XdpMode, keys, path_mtu,
    reader::{Node, Table, quoted},
    record, service, timeouts, value,
};

const DEFAULT_INSTANCE: &str = "default";
const DEFAULT_MAX_NEW_FLOWS: u32 = 500_000;
const DEFAULT_MAX_SOURCE_SHARE: u8 = 10;
/// `sun_path` of a Unix socket address without its final zero.
const LONGEST_SOCKET_PATH: usize = 107;
const LONGEST_PATH: usize = 1024;

pub(super) fn read(root: &Node<'_>) -> Option<File> {
    let table = root.table(&keys::ROOT, "interfaces = [\"eth0\"]")?;
    let instance = table.or("instance", DEFAULT_INSTANCE.to_owned(), instance);
    let interfaces = table.required("interfaces", "interfaces = [\"eth0\"]", interfaces);
    let xdp_mode = table.or("xdp_mode", XdpMode::default(), |node| {
        let choices = [
            ("auto", XdpMode::Auto),
            ("native", XdpMode::Native),
            ("generic", XdpMode::Generic),
            ("tc", XdpMode::Tc),
        ];
        value::choice(node, &choices)
    });
    let control_socket = match table.node("control_socket") {
        Some(node) => {
            let example = "control_socket = \"/run/shunt/control.sock\"";
            value::absolute_path(node, example, LONGEST_SOCKET_PATH)
        }
        None => instance.as_ref().map(|instance| default_socket(&instance.value)),
    };
    let state_file = match table.node("state_file") {
        Some(node) => value::absolute_path(node, "state_file = \"/var/lib/shunt/state.json\"", LONGEST_PATH),
        None => instance.as_ref().map(|instance| default_state_file(&instance.value)),
    };
    let bpffs = table.or("bpffs", PathBuf::from("/sys/fs/bpf"), |node| {
        value::absolute_path(node, "bpffs = \"/sys/fs/bpf\"", LONGEST_PATH)
    });
    let nat_addresses = table.or("nat_addresses", Vec::new(), nat_addresses);
    let vlans = table.or("vlans", Vec::new(), vlans);
    let nat_ports = table.or("nat_ports", DEFAULT_NAT_PORTS, value::nat_ports);
    // With fewer, one set would be most of a flow table. With more, the tables take gigabytes.
    let max_flows = table.or("max_flows", DEFAULT_MAX_FLOWS, |node| node.integer(1024..=16_777_216));
    // A CPU cannot do more than ten million.
    let max_new_flows_per_second =
        table.or("max_new_flows_per_second", DEFAULT_MAX_NEW_FLOWS, |node| node.integer(0..=10_000_000));
    let max_source_share = table.or("max_source_share", DEFAULT_MAX_SOURCE_SHARE, |node| {
        node.integer(1..=100).and_then(|percent| u8::try_from(percent).ok())
    });
    let log = table.or("log", LogLevel::default(), |node| {
        let choices = [
            ("error", LogLevel::Error),
            ("warn", LogLevel::Warn),
            ("info", LogLevel::Info),
            ("debug", LogLevel::Debug),
            ("trace", LogLevel::Trace),
        ];
        value::choice(node, &choices)
    });
    let record = record::read(&table);
    let timeouts = timeouts::read(&table);
    let min_path_mtu = path_mtu::read(&table);
    let (services, discovery) = services(&table).unzip();
    Some(File {
        instance: instance?.value,
        interfaces: interfaces?,
        xdp_mode: xdp_mode?.value,
        control_socket: control_socket?,
        state_file: state_file?,
        bpffs: bpffs?.value,
        nat_addresses: nat_addresses?.value,
        nat_ports: nat_ports?.value,
        vlans: vlans?.value,
        max_flows: max_flows?.value,
        max_new_flows_per_second: max_new_flows_per_second?.value,
        max_source_share: max_source_share?.value,
        min_path_mtu: min_path_mtu?,
        log: log?.value,
        record: record?,
        timeouts: timeouts?,
        core: Config { services: services? },
        discovery: discovery?,
        // The caller knows them all.
        warnings: None,
    })
}

fn instance(node: &Node<'_>) -> Option<String> {
    let name = value::name(node)?;
    if name == "control" {
        return node.reject("`control` is the socket of the default instance", "choose another name");
    }
    if name == "state" {
        return node.reject("`state` is the state file of the default instance", "choose another name");
    }
    Some(name)
}

pub fn default_socket(instance: &str) -> PathBuf {
    let file = if instance == DEFAULT_INSTANCE { "control" } else { instance };
    PathBuf::from(format!("/run/shunt/{file}.sock"))
}

pub fn default_state_file(instance: &str) -> PathBuf {
    let file = if instance == DEFAULT_INSTANCE { "state" } else { instance };
    PathBuf::from(format!("/var/lib/shunt/{file}.json"))
}

fn interfaces(node: &Node<'_>) -> Option<Vec<String>> {
    let example = "interfaces = [\"eth0\"]";
    let items = node.items("an array of interfaces", example)?;
    if items.is_empty() {
        return node.reject("no interface is named", format!("write for example `{example}`"));
    }
    each_once(&items, value::interface, |interface| {
        format!("the interface {} is named twice", quoted(interface))
    })
}

fn nat_addresses(node: &Node<'_>) -> Option<Vec<IpAddr>> {
    let items = node.items("an array of addresses", "nat_addresses = [\"10.0.0.2\"]")?;
    let addresses =
        each_once(&items, value::address, |address| format!("the address {address} is named twice"))?;
    for family in [IpAddr::is_ipv4, IpAddr::is_ipv6] {
        let mut of_family = items.iter().zip(&addresses).filter(|(_, address)| family(address));
        if let Some((node, _)) = of_family.nth(NAT_ADDRESSES) {
            return node.reject(
                format!("more than {NAT_ADDRESSES} NAT addresses of one family are not possible"),
                "remove some",
            );
        }
    }
    Some(addresses)
}

/// An id of 802.1Q is 1 to 4094.
fn vlans(node: &Node<'_>) -> Option<Vec<u16>> {
    let items = node.items("an array of VLAN ids", "vlans = [10, 20]")?;
    let id = |node: &Node<'_>| node.integer(1..=4094).and_then(|id| u16::try_from(id).ok());
    each_once(&items, id, |id| format!("the VLAN {id} is named twice"))
}

fn each_once<'a, T: Clone + Eq + std::hash::Hash>(
    items: &[Node<'a>],
    read: impl Fn(&Node<'a>) -> Option<T>,
    twice: impl Fn(&T) -> String,
) -> Option<Vec<T>> {
    let mut seen: HashMap<T, &Node<'a>> = HashMap::new();
    let values: Vec<_> = items
        .iter()
        .map(|node| {
            let value = read(node)?;
            if let Some(first) = seen.get(&value) {
                let first = first.span.clone();
                return node.conflict(twice(&value), "remove one of them", first, "first named here");
            }
            seen.insert(value.clone(), node);
            Some(value)
        })
        .collect();
    values.into_iter().collect()
}

fn services(table: &Table<'_>) -> Option<service::Services> {
    match table.node("service") {
        Some(node) => service::read_all(node),
        None if table.is_misspelt("service") => None,
        None => service::no_services(&table.node),
    }
}
