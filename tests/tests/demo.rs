//! The demo as a person runs it, and that it leaves nothing however it ends.

use std::{
    fs,
    io::{Read, Write},
    net::SocketAddr,
    panic,
    path::Path,
    process::{Child, Command, Stdio},
    thread,
    time::Duration,
};

use anyhow::{Context, Result};
use lb_lab::{
    Lab, Shunt, Topology,
    backend::{Args, Mode, Remote},
    until, until_ok,
};
use lb_tests::lab::{at, built, lab_backend, own_devices, shunt, skipped};
use nix::{
    pty::openpty,
    sys::signal::{Signal, kill},
    unistd::Pid,
};

/// Everything with the name of a lab of this process: namespaces, folders, pins, and programs that run
/// inside.
fn remains(prefix: &str, pid: u32) -> Vec<String> {
    let mut found = Vec::new();
    for (folder, name) in [
        ("/run/netns", format!("shunt-{prefix}-{pid}-")),
        ("/tmp", format!("shunt-{prefix}-{pid}-")),
        ("/sys/fs/bpf/shunt", format!("{prefix}-{pid}-")),
    ] {
        let entries = fs::read_dir(folder).into_iter().flatten().flatten();
        let names = entries.map(|entry| entry.file_name().to_string_lossy().into_owned());
        found.extend(names.filter(|entry| entry.starts_with(&name)).map(|entry| format!("{folder}/{entry}")));
    }
    found.extend(children_of(pid).into_iter().map(|child| format!("process {child}")));
    found
}

/// Programs whose command line names this lab.
fn children_of(pid: u32) -> Vec<String> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    let words = entries.filter_map(|entry| fs::read(entry.path().join("cmdline")).ok());
    let lines = words.map(|words| String::from_utf8_lossy(&words).replace('\0', " "));
    lines.filter(|line| line.contains(&format!("-{pid}-0/"))).collect()
}

fn demo(args: &[&str], stdin: Stdio, stdout: Stdio) -> Result<Child> {
    // It starts the two others, which lie beside it.
    let _ = (shunt(), lab_backend());
    let mut command = Command::new(built("lb-demo", "shunt-demo"));
    command.args(args).stdin(stdin).stdout(stdout);
    command.spawn().context("starting the demo")
}

fn signal(child: &Child, signal: Signal) -> Result<()> {
    Ok(kill(Pid::from_raw(child.id().cast_signed()), signal)?)
}

/// Whether the demo's daemon stands: its pins are there.
fn is_playing(pid: u32) -> bool {
    remains("demo", pid).iter().any(|name| name.starts_with("/sys/fs/bpf/"))
}

#[test]
fn the_script_sees_every_step() -> Result<()> {
    if skipped("the_script_sees_every_step", &[]) {
        return Ok(());
    }
    let before = own_devices();
    let child = demo(&["--script"], Stdio::null(), Stdio::piped())?;
    let pid = child.id();
    let output = child.wait_with_output()?;
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{}\n{text}", output.status);
    assert!(text.contains("9 of 9 steps seen"), "{text}");
    assert!(text.contains("Left behind: nothing."), "{text}");
    assert_eq!(remains("demo", pid), Vec::<String>::new());
    assert_eq!(own_devices(), before);
    Ok(())
}

/// Half a minute is too short to compare with Envoy in the good case; the lone app shows the difference at once.
#[test]
fn the_founding_documents_are_imported_and_run() -> Result<()> {
    if skipped("the_founding_documents_are_imported_and_run", &[]) {
        return Ok(());
    }
    let before = own_devices();
    let child = demo(&["--founding", "--seconds", "30"], Stdio::null(), Stdio::piped())?;
    let pid = child.id();
    let output = child.wait_with_output()?;
    let text = String::from_utf8_lossy(&output.stdout);
    println!("{text}");
    let good = |setting: &str, service: &str| -> Option<f64> {
        let row = text.lines().find(|line| {
            line.starts_with(setting) && line.contains(service) && line.contains("new connections")
        })?;
        let before_percent: Vec<_> = row.split_whitespace().take_while(|word| *word != "%").collect();
        before_percent.last()?.parse().ok()
    };
    let row =
        |setting, service| good(setting, service).with_context(|| format!("{setting}, {service}: {text}"));
    // As Istio does it, the lone app is out for most of the time. Shunt's floor keeps it.
    assert!(row("Istio's settings", "lone-service")? < 10.0, "{text}");
    assert!(row("the remedy", "lone-service")? < 25.0, "{text}");
    assert!(row("Shunt's own", "lone-service")? > 40.0, "{text}");
    for setting in ["Istio's settings", "the remedy", "Shunt's own"] {
        assert!(row(setting, "demo-service")? > 90.0, "{text}");
    }
    assert!(text.contains("Left behind: nothing."), "{text}");
    assert_eq!(remains("found", pid), Vec::<String>::new());
    assert_eq!(own_devices(), before);
    Ok(())
}

#[test]
fn an_interrupted_demo_leaves_nothing() -> Result<()> {
    if skipped("an_interrupted_demo_leaves_nothing", &[]) {
        return Ok(());
    }
    for how in [Signal::SIGINT, Signal::SIGTERM] {
        let mut child = demo(&["--script"], Stdio::null(), Stdio::null())?;
        let pid = child.id();
        until("the demo plays", Duration::from_secs(30), || is_playing(pid))?;
        signal(&child, how)?;
        let status = child.wait()?;
        assert!(!status.success(), "{how}: not every step was seen");
        assert!(status.code().is_some(), "{how}: it took itself down in order");
        assert_eq!(remains("demo", pid), Vec::<String>::new(), "{how}");
    }
    Ok(())
}

#[test]
fn a_killed_demo_is_removed_by_the_next_lab() -> Result<()> {
    if skipped("a_killed_demo_is_removed_by_the_next_lab", &[]) {
        return Ok(());
    }
    let mut child = demo(&["--script"], Stdio::null(), Stdio::null())?;
    let pid = child.id();
    until("the demo plays", Duration::from_secs(30), || is_playing(pid))?;
    child.kill()?;
    child.wait()?;
    assert!(!remains("demo", pid).is_empty());
    let _lab = Lab::new("sweep")?;
    until_ok("it is gone", Duration::from_secs(20), || {
        let left = remains("demo", pid);
        if left.is_empty() { Ok(()) } else { Err(left.join(", ")) }
    })?;
    Ok(())
}

#[test]
fn a_panic_beside_a_running_daemon_leaves_nothing() -> Result<()> {
    if skipped("a_panic_beside_a_running_daemon_leaves_nothing", &[]) {
        return Ok(());
    }
    let own = std::process::id();
    let outcome = panic::catch_unwind(|| {
        let topology = Topology::new("crash", &["web"]).expect("a lab can be made");
        let listen: SocketAddr = at(Topology::address(0), 8080);
        let (name, probe_path) = ("web".to_owned(), "/healthz".to_owned());
        let args = Args { listen, name, mode: Mode::Ok, broken: 0.5, seed: 1, probe_path };
        let _web = Remote::start(&topology.backends[0], lab_backend(), &args).expect("a backend starts");
        let config = format!(
            "interfaces = {:?}\n[service.web]\nvip = \"10.99.0.1:80\"\n\
             [service.web.backends]\nweb = \"{listen}\"\n",
            topology.devices
        );
        let daemon = Shunt::start(&topology.lab, &topology.node, shunt(), &config).expect("shunt starts");
        assert!(daemon.pins().exists());
        panic!("on purpose");
    });
    let message = outcome.expect_err("it panics");
    assert_eq!(message.downcast_ref::<&str>(), Some(&"on purpose"));
    assert_eq!(remains("crash", own), Vec::<String>::new());
    Ok(())
}

#[test]
fn on_a_terminal_it_draws_obeys_keys_and_gives_the_screen_back() -> Result<()> {
    if skipped("on_a_terminal_it_draws_obeys_keys_and_gives_the_screen_back", &[]) {
        return Ok(());
    }
    let terminal = openpty(None, None)?;
    let (input, output) = (terminal.slave.try_clone()?, terminal.slave);
    let mut child = demo(&[], input.into(), output.into())?;
    let pid = child.id();
    let mut screen = fs::File::from(terminal.master);
    let mut keys = screen.try_clone()?;
    // Reads until the demo, the last one to hold the other side, has ended.
    let drawn = thread::spawn(move || {
        let (mut bytes, mut chunk) = (Vec::new(), [0; 4096]);
        while let Ok(read @ 1..) = screen.read(&mut chunk) {
            bytes.extend_from_slice(&chunk[..read]);
        }
        String::from_utf8_lossy(&bytes).into_owned()
    });
    until("the demo plays", Duration::from_secs(30), || is_playing(pid))?;
    keys.write_all(b"h")?;
    keys.write_all(b"q")?;
    child.wait()?;
    let drawn = drawn.join().expect("the reader does not panic");
    assert!(drawn.contains("q quit"), "{drawn}");
    assert!(drawn.contains("\x1b[?1049h"), "it takes the other screen");
    let (_, after) = drawn.split_once("\x1b[?1049l").context("it gives the screen back")?;
    assert!(after.contains("steps seen"), "the summary stays: {after}");
    assert_eq!(remains("demo", pid), Vec::<String>::new());
    Ok(())
}

#[test]
fn this_suite_can_see_what_remains() -> Result<()> {
    if skipped("this_suite_can_see_what_remains", &[]) {
        return Ok(());
    }
    let lab = Lab::new("seen")?;
    let own = std::process::id();
    assert_eq!(remains("seen", own).len(), 1, "its folder");
    assert!(Path::new(lab.folder()).exists());
    Ok(())
}
