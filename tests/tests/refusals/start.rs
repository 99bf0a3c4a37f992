//! A daemon that may not start: what the host lacks, and who was there first.

use std::{
    fs,
    os::unix::fs::{PermissionsExt as _, chown},
    path::Path,
    process::Stdio,
};

use anyhow::Result;
use lb_lab::{Topology, until};
use lb_tests::{
    answer::Answer,
    attempt::{Attempt, programs},
    http::PATIENCE,
    lab::{Need, shunt, skipped},
};

use crate::{
    config::unprivileged,
    site::{Site, ask, interfaces, service},
};

#[test]
fn what_the_host_lacks() -> Result<()> {
    if skipped("what_the_host_lacks", &[]) {
        return Ok(());
    }
    let topology = Topology::new("lacks", &["web-0"])?;
    let (lab, node) = (&topology.lab, &topology.node);
    let devices = interfaces(&topology.devices);
    let cases = [
        (
            "interface",
            interfaces(&[topology.devices[0].clone(), "eth7".to_owned()]),
            6,
            ["error: interface eth7 does not exist", "help: `ip link` lists the interfaces"],
        ),
        (
            "driver",
            "interfaces = [\"lo\"]\nxdp_mode = \"native\"\n".to_owned(),
            6,
            ["error: interface lo takes no native XDP program", "help: set xdp_mode = \"generic\""],
        ),
        (
            "ports",
            devices.clone() + "nat_ports = \"1024-40000\"\n",
            5,
            [
                "error: nat_ports 1024-40000 overlaps the host's own ports 32768-60999",
                "help: choose nat_ports outside of it, or move it: `sysctl net.ipv4.ip_local_port_range` is now 32768 60999",
            ],
        ),
        (
            "bpffs",
            devices.clone() + "bpffs = \"/nonexistent/bpf\"\n",
            6,
            ["error: cannot prepare the BPF filesystem at /nonexistent/bpf", "help: mount it: `mount -t bpf"],
        ),
    ];
    for (name, head, code, words) in cases {
        let attempt = Attempt::new(lab, node, name, &(head + &service(&[0])))?;
        attempt.check()?.succeeds();
        attempt.run()?.refuses(code, &words);
        attempt.left_nothing();
    }
    Ok(())
}

#[test]
fn flow_tables_that_do_not_fit() -> Result<()> {
    if skipped("flow_tables_that_do_not_fit", &[Need::Tool("unshare"), Need::Tool("mount")]) {
        return Ok(());
    }
    let topology = Topology::new("memory", &["web-0"])?;
    let (lab, node) = (&topology.lab, &topology.node);
    let toml = interfaces(&topology.devices) + "max_flows = 1000000\n" + &service(&[0]);
    let attempt = Attempt::new(lab, node, "memory", &toml)?;
    // A host with little memory, as far as its programs can see.
    let meminfo = lab.folder().join("meminfo");
    fs::write(&meminfo, "MemTotal: 500000 kB\nMemAvailable: 102400 kB\n")?;
    let mut run = node.command("unshare");
    let script = "mount --bind \"$1\" /proc/meminfo && exec \"$2\" run -c \"$3\"";
    run.args(["--mount", "sh", "-c", script, "sh"]).arg(&meminfo).arg(shunt()).arg(&attempt.config);
    let words = [
        "error: max_flows = 1000000 takes 4",
        " MiB, 100 MiB are available",
        "help: choose max_flows of at most 1",
    ];
    Answer::of(node, &mut run)?.refuses(6, &words);
    attempt.left_nothing();
    Ok(())
}

#[test]
fn a_control_group_that_is_too_small_is_named() -> Result<()> {
    let needs = [Need::Tool("unshare"), Need::Tool("mount")];
    if skipped("a_control_group_that_is_too_small_is_named", &needs) {
        return Ok(());
    }
    let topology = Topology::new("group", &["web-0"])?;
    let (lab, node) = (&topology.lab, &topology.node);
    let toml = interfaces(&topology.devices) + &service(&[0]);
    let attempt = Attempt::new(lab, node, "group", &toml)?;
    // As a process sees it that a unit with MemoryMax=100M runs, in version 2.
    let folder = lab.folder();
    let unit = folder.join("shunt.service");
    fs::create_dir(&unit)?;
    fs::write(unit.join("memory.max"), "104857600\n")?;
    fs::write(unit.join("memory.current"), "1048576\n")?;
    fs::write(folder.join("cgroup"), "0::/shunt.service\n")?;
    let mount = format!("30 22 0:26 / {} rw - cgroup2 cgroup2 rw\n", folder.display());
    fs::write(folder.join("mountinfo"), mount)?;
    let mut run = node.command("unshare");
    let script = "for file in cgroup mountinfo; do mount --bind \"$1/$file\" /proc/$$/$file || exit 99; done; \
                  exec \"$2\" run -c \"$3\"";
    run.args(["--mount", "sh", "-c", script, "sh"]).arg(folder).arg(shunt()).arg(&attempt.config);
    let limit = format!("{}/memory.max = 100 MiB leaves 99 MiB", unit.display());
    let words = ["error: a start takes about 2", &limit, "help: raise the limit to at least 2"];
    Answer::of(node, &mut run)?.refuses(6, &words);
    attempt.left_nothing();
    Ok(())
}

#[test]
fn a_socket_that_cannot_be() -> Result<()> {
    if skipped("a_socket_that_cannot_be", &[]) {
        return Ok(());
    }
    let topology = Topology::new("socket", &["web-0"])?;
    let folder = topology.lab.folder();
    let toml = interfaces(&topology.devices) + &service(&[0]);
    let attempt = Attempt::new(&topology.lab, &topology.node, "socket", &toml)?;

    let long = folder.join("s".repeat(108));
    let said = "error: the path of the control socket is too long for the kernel";
    attempt.run_on(&long)?.refuses(2, &[said, "help: choose a path of at most 107 bytes with `-s`"]);
    // The same in the file, found by `check`.
    let line = format!("control_socket = {long:?}\n");
    let written = Attempt::verbatim(&topology.lab, &topology.node, "written", (line + &toml).as_bytes())?;
    for answer in [written.check()?, written.run()?] {
        answer.refuses(3, &[":1:18", "bytes, at most 107 are possible", "help: choose a shorter path"]);
    }

    let file = folder.join("file");
    fs::write(&file, "a file\n")?;
    let is_file = format!("error: {} exists and is not a socket", file.display());
    attempt.run_on(&file)?.refuses(2, &[&is_file, "help: remove "]);
    let below = attempt.run_on(&file.join("control.sock"))?;
    below.refuses(
        6,
        &["error: cannot create the directory ", "File exists", "help: choose another socket with `-s`"],
    );
    assert_eq!(fs::read_to_string(&file)?, "a file\n", "it is not ours");

    let left: Vec<_> = fs::read_dir(folder)?.flatten().map(|entry| entry.file_name()).collect();
    assert!(
        !left.iter().any(|name| Path::new(name).extension().is_some_and(|last| last == "lock")),
        "{left:?}"
    );
    assert!(!long.exists());
    attempt.left_nothing();
    Ok(())
}

#[test]
fn without_root() -> Result<()> {
    if skipped("without_root", &[Need::Tool("setpriv")]) {
        return Ok(());
    }
    let topology = Topology::new("noroot", &["web-0"])?;
    let (lab, node) = (&topology.lab, &topology.node);
    let toml = interfaces(&topology.devices) + &service(&[0]);
    let attempt = Attempt::new(lab, node, "noroot", &toml)?;
    let nobody = || unprivileged(node, lab);

    let check = Answer::of(node, nobody()?.arg("check").arg("-c").arg(&attempt.config))?;
    check.succeeds();

    let mut run = nobody()?;
    let answer = Answer::of(node, run.arg("run").arg("-c").arg(&attempt.config))?;
    answer.refuses(6, &["error: cannot open ", "Permission denied", "help: run as root"]);

    // With a socket that it may make, it is the program that it may not load.
    let own = lab.folder().join("own");
    fs::create_dir(&own)?;
    chown(&own, Some(65534), Some(65534))?;
    let mut run = nobody()?;
    run.arg("run").arg("-c").arg(&attempt.config).arg("-s").arg(own.join("control.sock"));
    let answer = Answer::of(node, &mut run)?;
    answer
        .refuses(6, &["error: not permitted to load BPF programs", "help: run it as root, or with CAP_BPF"]);
    assert_eq!(fs::read_dir(&own)?.count(), 0, "socket and lock are gone");
    attempt.left_nothing();
    Ok(())
}

#[test]
fn a_stranger_neither_asks_nor_detaches() -> Result<()> {
    if skipped("a_stranger_neither_asks_nor_detaches", &[Need::Tool("setpriv")]) {
        return Ok(());
    }
    let site = Site::new("stranger", 1, 1)?;
    let (lab, node) = (&site.topology.lab, &site.topology.node);
    let nobody = || unprivileged(node, lab);
    for words in [&["status"][..], &["events"]] {
        let answer = Answer::of(node, nobody()?.arg("-s").arg(site.shunt.socket()).args(words))?;
        answer.refuses(4, &["Permission denied", "is for root and its group: use sudo"]);
    }
    let before = programs(node)?;
    assert_eq!(before.len(), 2);
    let detach = Answer::of(node, nobody()?.args(["detach", "--instance", site.shunt.instance()]))?;
    detach.refuses(6, &["Permission denied", "help: run it as root"]);
    // Root gets the same answer, as long as the daemon runs.
    site.ask(&["detach", "--instance", site.shunt.instance()])?
        .refuses(5, &["is running", "help: stop the daemon first"]);
    assert_eq!(programs(node)?, before);
    assert!(site.shunt.pins().exists());
    site.serves(1)
}

/// The mode of the socket lets it ask. The peer's user decides who may change anything.
#[test]
fn who_may_ask_may_not_change() -> Result<()> {
    if skipped("who_may_ask_may_not_change", &[Need::Tool("setpriv")]) {
        return Ok(());
    }
    let site = Site::new("asks", 1, 1)?;
    let (lab, node) = (&site.topology.lab, &site.topology.node);
    for (path, mode) in [(site.shunt.socket(), 0o666), (lab.folder(), 0o755)] {
        fs::set_permissions(path, fs::Permissions::from_mode(mode))?;
    }
    let ask = |words: &[&str]| -> Result<Answer> {
        let mut command = unprivileged(node, lab)?;
        Ok(Answer::of(node, command.arg("-s").arg(site.shunt.socket()).args(words))?)
    };
    ask(&["status"])?.succeeds();
    let name = "web/web-0";
    for words in [&["reload"][..], &["backend", "drain", name, "--force"], &["backend", "admit", name]] {
        ask(words)?.refuses(6, &["only root and the daemon's user may change anything", "help: use sudo"]);
    }
    assert_eq!(site.shunt.status()?.config_generation, 1, "nothing was reloaded");
    site.serves(1)
}

/// The same service with a VIP of its own.
fn other_service(numbers: &[usize]) -> String {
    service(numbers).replace("203.0.113.10:80", "203.0.113.11:80")
}

#[test]
fn an_interface_that_has_a_program() -> Result<()> {
    if skipped("an_interface_that_has_a_program", &[]) {
        return Ok(());
    }
    // The other instance would take the interface of a third backend first, and then the client's.
    let site = Site::new("busy", 2, 1)?;
    let (lab, node) = (&site.topology.lab, &site.topology.node);
    let before = programs(node)?;
    assert_eq!(before.len(), 2, "{before:?}");
    let devices = [site.topology.devices[2].clone(), site.topology.devices[0].clone()];
    for mode in ["auto", "native", "generic"] {
        let toml = interfaces(&devices) + &format!("xdp_mode = {mode:?}\n") + &other_service(&[1]);
        let attempt = Attempt::new(lab, node, mode, &toml)?;
        let remedy = format!("`shunt detach --instance {}`", site.shunt.instance());
        let words =
            ["error: interface client already has an XDP program: program ", " `shunt`, pinned at ", &remedy];
        attempt.run()?.refuses(5, &words);
        attempt.left(&before);
        site.serves(1)?;
    }
    Ok(())
}

#[test]
fn a_second_daemon() -> Result<()> {
    if skipped("a_second_daemon", &[]) {
        return Ok(());
    }
    let mut site = Site::new("second", 1, 1)?;
    let pid = site.shunt.process().id();
    let (lab, node) = (&site.topology.lab, &site.topology.node);
    let before = programs(node)?;
    let generation = site.shunt.status()?.config_generation;

    // On the same socket, whatever its name.
    let other = Attempt::new(lab, node, "other", &(interfaces(&site.topology.devices) + &service(&[0])))?;
    let in_use = format!("error: {} is in use by process {pid}", site.shunt.socket().display());
    other
        .run_on(site.shunt.socket())?
        .refuses(5, &[&in_use, "help: each daemon needs its own socket: stop the other"]);
    other.left(&before);

    // Of the same name, on another socket.
    let socket = lab.folder().join("another.sock");
    let mut twin = node.command(shunt());
    twin.arg("run").arg("-c").arg(site.shunt.config()).arg("-s").arg(&socket);
    let running = format!("error: another daemon of instance {} is running", site.shunt.instance());
    Answer::of(node, &mut twin)?.refuses(5, &[&running, "help: stop it, or give this one a name of its own"]);
    assert!(!socket.exists() && !socket.with_extension("sock.lock").exists());

    // The first has not noticed.
    assert_eq!(programs(node)?, before);
    let status = site.shunt.status()?;
    assert_eq!((status.pid, status.config_generation), (pid, generation));
    ask(node, site.shunt.socket(), &["version"])?.succeeds();
    site.serves(1)
}

#[test]
fn a_refused_restart_leaves_forwarding_in_place() -> Result<()> {
    if skipped("a_refused_restart_leaves_forwarding_in_place", &[]) {
        return Ok(());
    }
    let mut site = Site::new("restart", 2, 1)?;
    let (lab, node) = (&site.topology.lab, &site.topology.node);
    let taken = interfaces(&site.topology.devices[2..]) + &other_service(&[1]);
    let socket = lab.folder().join("other.sock");
    let other = Attempt::new(lab, node, "other", &taken)?;
    let mut other_daemon = node.command(shunt());
    let mut other_daemon =
        node.spawn(other_daemon.arg("run").arg("-c").arg(&other.config).stderr(Stdio::null()))?;
    until("the other daemon answers", PATIENCE, || {
        ask(node, &socket, &["status"]).is_ok_and(|answer| answer.code == Some(0))
    })?;

    site.shunt.process().stop(PATIENCE)?;
    let before = programs(node)?.len();
    let head = fs::read_to_string(site.shunt.config())?;
    let (head, _) = head.split_once("interfaces").expect("it names its interfaces");
    let wider = head.to_owned() + &interfaces(&site.topology.devices) + &service(&[0]);
    let wider = Attempt::verbatim(lab, node, "wider", wider.as_bytes())?;
    wider.run()?.refuses(5, &["error: interface web-1 already has an XDP program"]);

    until("it is attached where it was", PATIENCE, || programs(node).is_ok_and(|now| now.len() == before))?;
    assert!(site.shunt.pins().exists() && !site.shunt.socket().exists());
    let answers = site.answers(10)?;
    assert!(answers.keys().eq(["web-0"]), "{answers:?}");
    // With the old configuration it comes back.
    site.shunt.start_again()?;
    site.serves(1)?;

    other_daemon.stop(PATIENCE)?;
    Answer::of(node, node.command(shunt()).args(["detach", "--instance", &other.instance]))?.succeeds();
    Ok(())
}
