//! `shunt doctor` on real hosts: what is right, what is not, and what the remedy mends.

use std::fs;

use anyhow::Result;
use lb_lab::{Host, Topology};
use lb_tests::{
    answer::Answer,
    lab::{Need, shunt, skipped},
};
use serde_json::Value;

use crate::{
    config::unprivileged,
    site::{Site, interfaces, service},
};

/// The doctor's report on a host.
struct Diagnosis {
    code: Option<i32>,
    json: Value,
}

impl Diagnosis {
    fn of(node: &Host, args: &[&str]) -> Result<Self> {
        let mut command = node.command(shunt());
        let answer = Answer::of(node, command.args(["doctor", "-o", "json"]).args(args))?;
        assert_eq!(answer.stderr, "", "{answer}");
        Ok(Self { code: answer.code, json: serde_json::from_str(&answer.stdout)? })
    }

    /// Level, and what it says with its remedy.
    #[track_caller]
    fn about(&self, interface: Option<&str>, check: &str) -> (String, String) {
        let all = self.json["findings"].as_array().expect("a list");
        let is_it = |found: &&Value| found["check"] == check && found["interface"].as_str() == interface;
        let found =
            all.iter().find(is_it).unwrap_or_else(|| panic!("nothing about {check}: {:#}", self.json));
        let text = |key: &str| found[key].as_str().unwrap_or_default().to_owned();
        (text("level"), format!("{} | {}", text("says"), text("remedy")))
    }

    #[track_caller]
    fn says(&self, interface: Option<&str>, check: &str, level: &str, words: &[&str]) {
        let (is, text) = self.about(interface, check);
        assert_eq!(is, level, "{check}: {text}");
        for word in words {
            assert!(text.contains(word), "{check}: `{word}` is missing in {text}");
        }
    }

    #[track_caller]
    fn is_able(&self, able: bool) {
        assert_eq!(self.json["able"], able, "{:#}", self.json);
        assert_eq!(self.code, Some(if able { 0 } else { 6 }));
    }
}

#[test]
fn a_host_in_order_and_one_that_is_not() -> Result<()> {
    if skipped("a_host_in_order_and_one_that_is_not", &[Need::Kernel(6, 3)]) {
        return Ok(());
    }
    let topology = Topology::new("doctor", &["web-0"])?;
    let (node, client) = (&topology.node, &topology.client);
    let look = || Diagnosis::of(node, &[]);

    let good = look()?;
    good.is_able(true);
    good.says(None, "kernel", "ok", &[]);
    good.says(None, "ports", "ok", &["1024-32767", "32768-60999"]);
    good.says(None, "memory", "ok", &["max_flows = 131072"]);
    for device in &topology.devices {
        let device = Some(device.as_str());
        good.says(device, "driver", "ok", &["veth, native XDP"]);
        good.says(device, "hook", "ok", &["free"]);
        good.says(device, "mtu", "ok", &["1500"]);
        good.says(device, "redirect", "ok", &[]);
        good.says(device, "checksums", "ok", &["complete: node computes them"]);
        good.says(device, "rp_filter", "ok", &["off"]);
    }

    // Each fault alone, and gone again with its remedy.
    client.run(&["ethtool", "-K", "node", "tx", "on"])?;
    let faulty = look()?;
    faulty.is_able(true);
    let remedy = format!("ip netns exec {} ethtool -K node tx off", client.namespace());
    faulty.says(Some("client"), "checksums", "warn", &["node leaves them to an offload", &remedy]);
    faulty.says(Some("web-0"), "checksums", "ok", &[]);
    client.run(&["ethtool", "-K", "node", "tx", "off"])?;
    look()?.says(Some("client"), "checksums", "ok", &[]);

    client.run(&["ethtool", "-K", "node", "gro", "off"])?;
    let faulty = look()?;
    faulty.is_able(false);
    faulty.says(Some("client"), "redirect", "fail", &["vanish", "ethtool -K node gro on"]);
    client.run(&["ethtool", "-K", "node", "gro", "on"])?;
    look()?.is_able(true);

    node.sysctl("net/ipv4/conf/client/rp_filter", "1")?;
    look()?.says(Some("client"), "rp_filter", "warn", &["strict", "net.ipv4.conf.client.rp_filter=2"]);
    node.sysctl("net/ipv4/conf/client/rp_filter", "2")?;
    look()?.says(Some("client"), "rp_filter", "ok", &["loose"]);

    node.sysctl("net/ipv4/ip_local_port_range", "20000 60999")?;
    let faulty = look()?;
    faulty.is_able(false);
    let words = [
        "nat_ports 1024-32767 overlaps the host's own ports 20000-60999",
        "sysctl net.ipv4.ip_local_port_range",
    ];
    faulty.says(None, "ports", "fail", &words);
    node.sysctl("net/ipv4/ip_local_port_range", "32768 60999")?;
    look()?.is_able(true);

    node.ip("link set client mtu 9000")?;
    look()?.says(Some("client"), "mtu", "warn", &["9000", "web-0 has 1500"]);
    node.ip("link set client mtu 1500")?;

    // Not every kernel has VLANs; what is made of them is tested on made-up facts.
    if node.ip("link add link client name client.7 type vlan id 7").is_ok() {
        node.run(&["ethtool", "-K", "client", "rxvlan", "on"])?;
        look()?.says(Some("client"), "vlan", "warn", &["client.7", "ethtool -K client rxvlan off"]);
        node.run(&["ethtool", "-K", "client", "rxvlan", "off"])?;
        look()?.says(Some("client"), "vlan", "ok", &[]);
    }

    // By name: that one alone, and one that is not there.
    let one = Diagnosis::of(node, &["web-0"])?;
    one.is_able(true);
    assert!(
        one.json["findings"].as_array().expect("a list").iter().all(|found| found["interface"] != "client")
    );
    let none = Diagnosis::of(node, &["eth7"])?;
    none.is_able(false);
    none.says(Some("eth7"), "link", "fail", &["interface eth7 does not exist", "`ip link`"]);
    Ok(())
}

#[test]
fn the_configuration_says_what_is_needed() -> Result<()> {
    if skipped("the_configuration_says_what_is_needed", &[]) {
        return Ok(());
    }
    let topology = Topology::new("needs", &["web-0"])?;
    let node = &topology.node;
    let path = topology.lab.folder().join("needs.toml");
    let file = path.display().to_string();
    let head = "xdp_mode = \"native\"\nnat_ports = \"30000-40000\"\nbpffs = \"/nonexistent/bpf\"\nmax_flows = 16777216\n";
    fs::write(&path, head.to_owned() + &interfaces(&["web-0".to_owned(), "lo".to_owned()]) + &service(&[0]))?;
    let found = Diagnosis::of(node, &["-c", &file])?;
    found.is_able(false);
    found.says(None, "ports", "fail", &["30000-40000"]);
    found.says(None, "bpffs", "fail", &["/nonexistent/bpf"]);
    assert!(found.about(None, "memory").1.contains("max_flows = 16777216 takes 7"), "{:#}", found.json);
    if !skipped("native XDP on lo is known to be impossible", &[Need::Kernel(6, 3)]) {
        found.says(Some("lo"), "driver", "fail", &["no native XDP", "xdp_mode = \"generic\""]);
    }

    // One that is wrong is answered as everywhere.
    fs::write(&path, "interfaces = []\n")?;
    let mut command = node.command(shunt());
    Answer::of(node, command.args(["doctor", "-c", &file]))?.refuses(3, &["no interface is named"]);
    Ok(())
}

#[test]
fn the_owner_of_an_attached_program_is_named() -> Result<()> {
    if skipped("the_owner_of_an_attached_program_is_named", &[]) {
        return Ok(());
    }
    let site = Site::new("holder", 2, 1)?;
    let node = &site.topology.node;
    let found = Diagnosis::of(node, &[])?;
    let ours = format!("shunt's, instance {}", site.shunt.instance());
    found.says(Some("client"), "hook", "ok", &[&ours, "native"]);
    // An instance without its pins is somebody else's: all that can be known of a program is its name.
    let elsewhere = Diagnosis::of(node, &["-c", &other_bpffs(&site)?])?;
    elsewhere.is_able(false);
    elsewhere.says(Some("client"), "hook", "fail", &["`shunt`", "ip link set client xdp off"]);
    Ok(())
}

/// A configuration that looks for pins where there are none.
fn other_bpffs(site: &Site) -> Result<String> {
    let folder = site.topology.lab.folder();
    fs::create_dir(folder.join("bpf"))?;
    let path = folder.join("elsewhere.toml");
    let head = format!("bpffs = {:?}\n", folder.join("bpf"));
    fs::write(&path, head + &interfaces(&site.topology.devices) + &service(&[0]))?;
    Ok(path.display().to_string())
}

#[test]
fn without_privilege_it_says_what_it_cannot_see() -> Result<()> {
    if skipped("without_privilege_it_says_what_it_cannot_see", &[Need::Tool("setpriv")]) {
        return Ok(());
    }
    let site = Site::new("nobody", 1, 1)?;
    let (lab, node) = (&site.topology.lab, &site.topology.node);
    let answer = Answer::of(node, unprivileged(node, lab)?.args(["doctor", "-o", "json"]))?;
    let found = Diagnosis { code: answer.code, json: serde_json::from_str(&answer.stdout)? };
    found.is_able(true);
    found.says(None, "capabilities", "warn", &["CAP_NET_ADMIN", "as root"]);
    found.says(Some("client"), "driver", "ok", &["veth"]);
    found.says(Some("client"), "hook", "warn", &["its owner is not known", "as root"]);
    found.says(Some("client"), "checksums", "warn", &["not known", "tx off"]);
    Ok(())
}
