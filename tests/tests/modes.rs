//! The two hooks of the program, and changing from one to the other.

use std::{fs, net::SocketAddr, path::PathBuf};

use anyhow::{Context as _, Result};
use lb_lab::{
    Shunt, Topology,
    backend::{Args, Mode, Remote},
    until_ok,
};
use lb_tests::{
    http,
    lab::{Need, at, lab_backend, shunt, skipped},
    site::{NAMES, PATIENCE},
};

const VIP: &str = "10.99.0.10:80";
const OTHER_VIP: &str = "10.99.0.11:80";

fn backend(topology: &Topology) -> Result<Remote> {
    let args = Args {
        listen: at(Topology::address(0), 8080),
        name: NAMES[0].to_owned(),
        mode: Mode::Ok,
        broken: 1.0,
        seed: 1,
        probe_path: "/healthz".to_owned(),
    };
    Ok(Remote::start(&topology.backends[0], lab_backend(), &args)?)
}

fn config(topology: &Topology, mode: &str, vip: &str) -> String {
    format!(
        "interfaces = {:?}\nxdp_mode = {mode:?}\n[service.web]\nvip = {vip:?}\nbackends.web-0 = \"{}:8080\"\n",
        topology.devices,
        Topology::address(0)
    )
}

/// Of another instance on the same host.
fn second_config(first: &Shunt, topology: &Topology, config: &str) -> Result<PathBuf> {
    let folder = topology.lab.folder();
    let (path, socket) = (folder.join("second.toml"), folder.join("second.sock"));
    let own = format!(
        "instance = \"{}b\"\ncontrol_socket = {socket:?}\nstate_file = {:?}\nnat_ports = \"50000-50999\"\n",
        first.instance(),
        folder.join("second.json"),
    );
    topology.node.sysctl("net/ipv4/ip_local_port_range", "40000 49999")?;
    fs::write(&path, own + config)?;
    Ok(path)
}

fn change_mode(shunt: &Shunt, before: &str, mode: &str) -> Result<()> {
    let text = fs::read_to_string(shunt.config())?;
    let line = |mode: &str| format!("xdp_mode = {mode:?}");
    fs::write(shunt.config(), text.replace(&line(before), &line(mode)))?;
    Ok(())
}

/// Also from a mode to itself: that is an upgrade.
#[test]
fn a_connection_outlives_every_change_of_the_mode() -> Result<()> {
    if skipped("a_connection_outlives_every_change_of_the_mode", &[Need::Kernel(6, 6)]) {
        return Ok(());
    }
    let topology = Topology::new("modes", &NAMES[..1])?;
    let _backend = backend(&topology)?;
    let vip: SocketAddr = VIP.parse()?;
    let mut shunt = Shunt::start(&topology.lab, &topology.node, shunt(), &config(&topology, "native", VIP))?;
    let mut stream = None;
    until_ok("the VIP answers", PATIENCE, || {
        http::get(&topology.client, vip, "/").map(|_| ()).map_err(|error| error.to_string())?;
        stream = http::connect(&topology.client, vip, PATIENCE).ok();
        Ok::<_, String>(())
    })?;
    let mut stream = stream.context("connected")?;
    assert_eq!(http::ask(&mut stream, "GET /")?.status, 200);
    let mut before = "native";
    for mode in ["tc", "tc", "native", "generic", "tc", "native"] {
        shunt.process().stop(PATIENCE)?;
        // The attached program works without the daemon.
        assert_eq!(http::ask(&mut stream, "GET /")?.status, 200, "{before}, without its daemon");
        change_mode(&shunt, before, mode)?;
        shunt.start_again()?;
        let modes: Vec<_> =
            shunt.status()?.interfaces.iter().map(|interface| interface.mode.to_string()).collect();
        assert_eq!(modes, [mode; 2], "after {before}");
        assert_eq!(http::ask(&mut stream, "GET /")?.status, 200, "from {before} to {mode}");
        assert_eq!(http::get(&topology.client, vip, "/")?.status, 200, "new, from {before} to {mode}");
        before = mode;
    }
    Ok(())
}

/// The second program gets the frames that the first one passes.
#[test]
fn two_instances_share_an_interface_at_tc() -> Result<()> {
    if skipped("two_instances_share_an_interface_at_tc", &[Need::Kernel(6, 6)]) {
        return Ok(());
    }
    let topology = Topology::new("shared", &NAMES[..1])?;
    let _backend = backend(&topology)?;
    let first = Shunt::start(&topology.lab, &topology.node, shunt(), &config(&topology, "tc", VIP))?;
    let path = second_config(&first, &topology, &config(&topology, "tc", OTHER_VIP))?;
    let mut second = topology.node.command(shunt());
    let mut second = topology.node.spawn(second.arg("run").arg("-c").arg(&path))?;
    for vip in [VIP, OTHER_VIP] {
        let vip: SocketAddr = vip.parse()?;
        until_ok("the VIP answers", PATIENCE, || {
            http::get(&topology.client, vip, "/").map(|_| ()).map_err(|error| error.to_string())
        })?;
    }
    second.stop(PATIENCE)?;
    let mut detach = topology.node.command(shunt());
    let detached = detach.arg("detach").arg("-c").arg(&path).output()?;
    assert!(detached.status.success(), "{}", String::from_utf8_lossy(&detached.stderr));
    assert_eq!(http::get(&topology.client, VIP.parse()?, "/")?.status, 200);
    Ok(())
}

/// The daemon reports the other program, and the earlier one stays at its hook.
#[test]
fn a_change_of_the_mode_that_fails_ends_nothing() -> Result<()> {
    if skipped("a_change_of_the_mode_that_fails_ends_nothing", &[Need::Kernel(6, 6)]) {
        return Ok(());
    }
    let topology = Topology::new("refused", &NAMES[..1])?;
    let _backend = backend(&topology)?;
    let mut first = Shunt::start(&topology.lab, &topology.node, shunt(), &config(&topology, "tc", VIP))?;
    let vip: SocketAddr = VIP.parse()?;
    until_ok("the VIP answers", PATIENCE, || {
        http::get(&topology.client, vip, "/").map(|_| ()).map_err(|error| error.to_string())
    })?;
    let mut stream = http::connect(&topology.client, vip, PATIENCE)?;
    assert_eq!(http::ask(&mut stream, "GET /")?.status, 200);

    // The client's interface is free, the backend's is not.
    let taken = &topology.devices[1];
    let own = config(&topology, "native", OTHER_VIP)
        .replace(&format!("{:?}", topology.devices), &format!("[{taken:?}]"));
    let path = second_config(&first, &topology, &own)?;
    let mut second = topology.node.command(shunt());
    let mut second = topology.node.spawn(second.arg("run").arg("-c").arg(&path))?;
    let attached =
        |device: &str| topology.node.ip(&format!("link show {device}")).map(|link| link.contains("prog/xdp"));
    until_ok("the second is attached", PATIENCE, || match attached(taken) {
        Ok(true) => Ok(()),
        Ok(false) => Err("not yet".to_owned()),
        Err(error) => Err(error.to_string()),
    })?;

    // Each sees the other.
    let name = format!("{}b", first.instance());
    let also = first.status()?.interfaces.into_iter().map(|of| of.also).collect::<Vec<_>>();
    assert!(also[0].is_empty() && also[1].len() == 1, "{also:?}");
    assert!(also[1][0].starts_with(&format!("shunt's instance {name} (program ")), "{also:?}");
    first.process().stop(PATIENCE)?;
    change_mode(&first, "tc", "native")?;
    let refused = first.start_again().err().context("it started")?.to_string();
    assert!(refused.contains(&format!("interface {taken} already has an XDP program")), "{refused}");
    assert!(!attached(&topology.devices[0])?, "half of the change is left");
    assert_eq!(http::ask(&mut stream, "GET /")?.status, 200, "by what was there before");
    second.stop(PATIENCE)?;
    let mut detach = topology.node.command(shunt());
    let detached = detach.arg("detach").arg("-c").arg(&path).output()?;
    assert!(detached.status.success(), "{}", String::from_utf8_lossy(&detached.stderr));
    // Free from that moment on.
    assert!(!attached(taken)?);
    first.start_again()?;
    assert_eq!(http::ask(&mut stream, "GET /")?.status, 200, "by XDP");
    Ok(())
}
