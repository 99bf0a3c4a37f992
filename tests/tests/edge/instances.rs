//! Things of others: other instances, network namespaces and mount namespaces.

use std::{fs, path::PathBuf};

use anyhow::Result;
use lb_lab::{Topology, until};
use lb_tests::{
    answer::Answer,
    attempt::{Attempt, programs},
    lab::{shunt, skipped},
    site::NAMES,
};

use crate::stage::{PATIENCE, SERVICES, Stage, interfaces, services};

const MEMBERS: [(&str, [&str; 2]); 1] = [("a", ["10.20.0.2", "fd20:0::2"])];

fn stage(prefix: &str) -> Result<Stage> {
    let topology = Topology::new(prefix, &NAMES[..2])?;
    let settings = interfaces(&topology.devices[..2]);
    Stage::new(topology, &settings, &MEMBERS, "")
}

#[test]
fn pins_of_another_network_namespace_are_left_alone() -> Result<()> {
    if skipped("pins_of_another_network_namespace_are_left_alone", &[]) {
        return Ok(());
    }
    let mut stage = stage("mine")?;
    stage.answers(5)?;
    stage.shunt.process().stop(PATIENCE)?;
    // The same file on another host of the same kernel: the same instance, interfaces and indexes.
    let other = Topology::new("theirs", &NAMES[..2])?;
    let config = fs::read(stage.shunt.config())?;
    let attempt = Attempt::verbatim(&other.lab, &other.node, "theirs", &config)?;
    let said = format!(
        "the pins of instance {} belong to a daemon in another network namespace",
        stage.shunt.instance()
    );
    for _ in 0..2 {
        attempt.run()?.refuses(5, &[&said, "help: give this daemon a name of its own"]);
    }
    assert_eq!(programs(&other.node)?, Vec::<String>::new());
    stage.answers(20)?;
    stage.shunt.start_again()?;
    stage.answers(5)?;
    // Once nothing is attached there any more, the pins are anybody's.
    stage.shunt.process().stop(PATIENCE)?;
    for device in ["client", "web-0"] {
        stage.topology.node.ip(&format!("link del {device}"))?;
    }
    let mut command = other.node.command(shunt());
    let mut daemon = other.node.spawn(command.arg("run").arg("-c").arg(&attempt.config))?;
    until("it is attached there", PATIENCE, || programs(&other.node).is_ok_and(|now| now.len() == 2))?;
    daemon.stop(PATIENCE)?;
    Ok(())
}

#[test]
fn detach_knows_the_instances() -> Result<()> {
    if skipped("detach_knows_the_instances", &[]) {
        return Ok(());
    }
    let stage = stage("typo")?;
    let node = &stage.topology.node;
    let slip = format!("{}x", stage.shunt.instance());
    let answer = Answer::of(node, node.command(shunt()).args(["detach", "--instance", &slip]))?;
    answer.refuses(2, &[&format!("there is no instance {slip}"), "instances that have pins here: "]);
    assert!(answer.stderr.contains(stage.shunt.instance()), "{answer}");
    stage.answers(5)?;
    Ok(())
}

#[test]
fn a_purge_leaves_nothing_of_an_instance() -> Result<()> {
    if skipped("a_purge_leaves_nothing_of_an_instance", &[]) {
        return Ok(());
    }
    let mut stage = stage("purge")?;
    let backend = format!("{}/a", SERVICES[0]);
    stage.ask(&["backend", "drain", &backend, "--force", "--reason", "keep"])?.succeeds();
    let (config, instance) = (stage.shunt.config().to_owned(), stage.shunt.instance().to_owned());
    let purge = |stage: &Stage, yes: &[&str]| {
        let mut command = stage.topology.node.command(shunt());
        command.args(["detach", "--purge", "-c"]).arg(&config).args(yes);
        Answer::of(&stage.topology.node, &mut command)
    };
    purge(&stage, &["--yes"])?.refuses(5, &["a daemon of instance", "stop the daemon first"]);
    stage.shunt.process().stop(PATIENCE)?;
    assert!(stage.shunt.state_file().exists(), "the daemon writes it when it stops");
    // Without a daemon status says what still forwards.
    let forwards = format!("instance {instance} forwards on client, web-0");
    stage.ask(&["status"])?.refuses(4, &["cannot reach the daemon", &forwards]);
    // Nobody can agree, so nothing goes.
    let listed = stage.shunt.state_file().display().to_string();
    purge(&stage, &[])?.refuses(2, &[&listed, "`--yes` removes it without a question"]);
    assert!(stage.shunt.state_file().exists() && stage.shunt.pins().exists());
    let purged = purge(&stage, &["--yes"])?;
    purged.succeeds();
    assert!(purged.stdout.contains(&format!("removed {listed}")), "{purged}");
    let socket = stage.shunt.socket().to_owned();
    for left in [stage.shunt.state_file(), &stage.shunt.pins(), &socket, &socket.with_extension("sock.lock")]
    {
        assert!(!left.exists(), "{}", left.display());
    }
    stage.ask(&["status"])?.refuses(4, &["no instance forwards here without a daemon"]);
    Ok(())
}

#[test]
fn a_vip_has_one_instance() -> Result<()> {
    if skipped("a_vip_has_one_instance", &[]) {
        return Ok(());
    }
    let stage = stage("twice")?;
    let Topology { lab, node, devices, .. } = &stage.topology;
    let said = format!("is forwarded by instance {} already", stage.shunt.instance());
    let remedy = format!("`shunt detach --instance {}`", stage.shunt.instance());
    let same = interfaces(&devices[2..]) + &services(&MEMBERS, "");
    let attempt = Attempt::new(lab, node, "same", &same)?;
    attempt.run()?.refuses(5, &["the VIP 10.99.0.10:80", &said, &remedy]);
    assert!(!stage.shunt.pins().with_file_name(&attempt.instance).exists(), "nothing is left of it");

    // By a reload neither.
    let own = same.replace("10.99.0.10:80", "10.99.0.10:81").replace("[fd99::10]:80", "[fd99::10]:81");
    let second = Attempt::new(lab, node, "second", &own)?;
    let mut command = node.command(shunt());
    let mut daemon = node.spawn(command.arg("run").arg("-c").arg(&second.config))?;
    let ask =
        |args: &[&str]| Answer::of(node, node.command(shunt()).arg("-s").arg(&second.socket).args(args));
    until("the second answers", PATIENCE, || ask(&["status"]).is_ok_and(|answer| answer.code == Some(0)))?;
    let config = fs::read_to_string(&second.config)?;
    fs::write(&second.config, config.replace("[fd99::10]:81", "[fd99::10]:80"))?;
    ask(&["reload"])?.refuses(3, &["the VIP [fd99::10]:80", &said, "nothing has changed"]);
    daemon.stop(PATIENCE)?;
    Answer::of(node, node.command(shunt()).args(["detach", "--instance", &second.instance]))?.succeeds();

    // An interface that is taken: by which program, and where it is pinned.
    let taken =
        interfaces(&devices[1..2]) + "[service.x]\nvip = \"10.99.0.11:80\"\nbackends.a = \"10.20.0.2:80\"\n";
    let attempt = Attempt::new(lab, node, "taken", &taken)?;
    let pinned = format!("`shunt`, pinned at {}", stage.shunt.pins().display());
    attempt.run()?.refuses(5, &["interface web-0 already has an XDP program: program ", &pinned, &remedy]);
    stage.answers(5)?;
    Ok(())
}

#[test]
fn a_private_file_system_is_said_everywhere() -> Result<()> {
    if skipped("a_private_file_system_is_said_everywhere", &[]) {
        return Ok(());
    }
    let topology = Topology::new("private", &NAMES[..1])?;
    let (lab, node) = (&topology.lab, &topology.node);
    let toml = interfaces(&topology.devices) + &services(&MEMBERS, "");
    let attempt = Attempt::new(lab, node, "private", &toml)?;
    let log: PathBuf = lab.folder().join("private.log");
    // As `ip netns exec` and units with a mount namespace do.
    // However often it is mounted here.
    let script = "while mountpoint -q /sys/fs/bpf; do umount -l /sys/fs/bpf; done; exec \"$@\"";
    let inside = |args: &[&str]| {
        let mut command = node.command("unshare");
        command
            .args(["--mount", "--propagation", "private", "sh", "-c", script, "sh"])
            .arg(shunt())
            .args(args);
        command.arg("-c").arg(&attempt.config);
        command
    };
    let doctor = Answer::of(node, &mut inside(&["doctor"]))?;
    assert!(doctor.stdout.contains("mount namespace of this process's own"), "{doctor}");
    assert!(doctor.stdout.contains("nsenter --net=/run/netns/NAME"), "{doctor}");
    let mut daemon = node.spawn(inside(&["run"]).stderr(fs::File::create(&log)?))?;
    let status = || Answer::of(node, node.command(shunt()).arg("-s").arg(&attempt.socket).arg("status"));
    until("it answers", PATIENCE, || status().is_ok_and(|answer| answer.code == Some(0)))?;
    let shown = status()?;
    assert!(shown.stdout.contains("ends with the daemon"), "{shown}");
    daemon.stop(PATIENCE)?;
    let log = fs::read_to_string(&log)?;
    assert!(log.contains("forwarding ends now") && !log.contains("forwarding goes on"), "{log}");
    until("nothing is attached", PATIENCE, || programs(node).is_ok_and(|now| now.is_empty()))?;
    Ok(())
}
