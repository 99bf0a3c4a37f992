//! Other users of the host: readers of the control socket, and those who get to folders first.

use std::{
    fs, io,
    io::{Read as _, Write as _},
    os::unix::{
        fs::{PermissionsExt as _, chown, symlink},
        net::UnixStream,
    },
    path::Path,
    thread,
    time::Duration,
};

use anyhow::Result;
use lb_core::snapshot::{Effective, ProbeState};
use lb_lab::{Topology, until};
use lb_tests::{
    answer::Answer,
    attempt::Attempt,
    http::PATIENCE,
    lab::{shunt, skipped},
    socket::many_files,
};

use crate::site::{Site, interfaces, service};

const NOBODY: libc::uid_t = 65534;

/// A probe that asks often.
const PROBE: &str = "[service.web.probe.http]\npath = \"/healthz\"\ninterval = \"200ms\"\n";

impl Site {
    fn probed(prefix: &str) -> Result<Self> {
        let mut site = Self::new(prefix, 2, 2)?;
        let config = fs::read_to_string(site.shunt.config())?;
        fs::write(site.shunt.config(), config + PROBE)?;
        site.shunt.process().signal(nix::sys::signal::Signal::SIGHUP)?;
        until("both are up for their probes", PATIENCE, || site.both_up())?;
        Ok(site)
    }

    fn both_up(&self) -> bool {
        self.shunt.status().is_ok_and(|status| {
            let mut backends = status.snapshot.services.iter().flat_map(|service| &service.backends);
            backends.all(|of| of.probe == ProbeState::Up && of.effective == Effective::Serving)
        })
    }

    fn went_down(&self) -> Result<bool> {
        Ok(self.ask(&["events"])?.stdout.contains("up -> down"))
    }
}

/// As another user of the socket's group. The kernel takes the user from the thread that connects.
fn as_nobody<T: Send>(work: impl FnOnce() -> T + Send) -> T {
    thread::scope(|scope| {
        let nobody = scope.spawn(|| {
            // SAFETY: a plain call. It changes the user of this thread alone, which ends with its work.
            let done = unsafe { libc::syscall(libc::SYS_setresuid, NOBODY, NOBODY, NOBODY) };
            assert_eq!(done, 0, "{}", io::Error::last_os_error());
            work()
        });
        nobody.join().expect("no panic")
    })
}

#[test]
fn readers_who_hold_the_control_socket_stop_no_probe() -> Result<()> {
    if skipped("readers_who_hold_the_control_socket_stop_no_probe", &[]) {
        return Ok(());
    }
    many_files(4096)?;
    let site = Site::probed("readers")?;
    let path = site.shunt.socket();
    let idle: Vec<UnixStream> =
        as_nobody(|| (0..1000).filter_map(|_| UnixStream::connect(path).ok()).collect());
    assert!(idle.len() > 900, "the daemon accepts and refuses quickly: {}", idle.len());
    // One user's 32 places are taken. All others were refused, with a word or without.
    let open = |streams: &[UnixStream]| {
        let still = |stream: &&UnixStream| {
            let mut stream = *stream;
            stream.set_nonblocking(true).expect("a socket");
            let mut byte = [0];
            matches!(stream.read(&mut byte), Err(error) if error.kind() == io::ErrorKind::WouldBlock)
        };
        streams.iter().filter(still).count()
    };
    until("all but 32 are refused", PATIENCE, || open(&idle) <= 32)?;
    assert_eq!(open(&idle), 32);
    let answer = as_nobody(|| -> io::Result<String> {
        let mut stream = UnixStream::connect(path)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.write_all(b"GET /v1/version HTTP/1.1\r\nHost: x\r\n\r\n")?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        Ok(answer)
    })?;
    assert!(answer.starts_with("HTTP/1.1 503 ") && answer.contains("\"remedy\":"), "{answer}");
    // Root has places of its own, and the probes have descriptors.
    site.ask(&["status"])?.succeeds();
    until("idle connections end by themselves", Duration::from_secs(20), || open(&idle) == 0)?;
    assert!(site.both_up() && !site.went_down()?, "{}", site.shunt.log());
    assert!(site.shunt.log().contains("a connection to the control socket was refused"));
    Ok(())
}

#[test]
fn a_probe_that_the_daemon_cannot_send_fails_no_backend() -> Result<()> {
    if skipped("a_probe_that_the_daemon_cannot_send_fails_no_backend", &[]) {
        return Ok(());
    }
    let site = Site::probed("lacking")?;
    // The daemon's host has two ports left, and each rests for a minute after its probe.
    site.topology.node.sysctl("net/ipv4/ip_local_port_range", "60000 60001")?;
    until("status says what is lacking", PATIENCE, || {
        site.shunt.status().is_ok_and(|status| status.daemon.probe_error.is_some())
    })?;
    let shown = site.ask(&["status"])?;
    assert!(shown.stdout.contains("probes wait, and no backend is judged for it: "), "{shown}");
    // Three failures in a row, 200 ms apart, would take a backend down.
    let until_then = lb_lab::clock::now() + Duration::from_secs(2);
    while lb_lab::clock::now() < until_then {
        assert!(site.both_up(), "{}", site.shunt.log());
        thread::sleep(Duration::from_millis(50));
    }
    site.topology.node.sysctl("net/ipv4/ip_local_port_range", "32768 60999")?;
    until("probes go on", PATIENCE, || {
        site.shunt.status().is_ok_and(|status| status.daemon.probe_error.is_none())
    })?;
    assert!(site.both_up() && !site.went_down()?);
    let log = site.shunt.log();
    assert_eq!(log.matches("probes wait, and no backend is judged for it").count(), 1, "{log}");
    site.serves(2)
}

#[test]
fn a_reason_is_one_line_of_text() -> Result<()> {
    if skipped("a_reason_is_one_line_of_text", &[]) {
        return Ok(());
    }
    let site = Site::new("reason", 2, 2)?;
    for (reason, number) in [("deploy\n2026 INFO EJECT web/web-1", "U+000A"), ("x\u{202e}y", "U+202E")] {
        let error = format!("error: the reason has a control or format character, {number}");
        site.ask(&["backend", "drain", "web/web-0", "--reason", reason])?
            .refuses(2, &[&error, "help: write the reason as one line of plain text"]);
    }
    site.ask(&["backend", "drain", "web/web-0", "--reason", "größer 部署"])?.succeeds();
    assert!(site.ask(&["status"])?.stdout.contains("größer 部署"));
    Ok(())
}

#[test]
fn files_that_others_planted_are_not_used() -> Result<()> {
    if skipped("files_that_others_planted_are_not_used", &[]) {
        return Ok(());
    }
    let topology = Topology::new("planted", &["web-0"])?;
    let (lab, node) = (&topology.lab, &topology.node);
    let folder = lab.folder();
    let precious = folder.join("precious");
    fs::write(&precious, "precious")?;
    let shared = folder.join("shared");
    fs::create_dir(&shared)?;
    let mode = |mode| fs::set_permissions(&shared, fs::Permissions::from_mode(mode));
    let toml = interfaces(&topology.devices) + &service(&[0]);
    let line = |key: &str, path: &Path| format!("{key} = {:?}\n", path.display().to_string());

    // Any user may rename what is in there.
    mode(0o777)?;
    let attempt = Attempt::new(lab, node, "planted", &toml)?;
    let said = format!("error: {} may be changed by other users: its mode is 777", shared.display());
    attempt.run_on(&shared.join("control.sock"))?.refuses(6, &[&said, "help: `chmod go-w "]);
    let record = toml.clone() + "[record]\n" + &line("path", &shared.join("events.jsonl"));
    let attempt = Attempt::new(lab, node, "planted", &record)?;
    attempt
        .run()?
        .refuses(6, &["error: cannot record to ", "may be changed by other users", "help: `chmod go-w "]);
    let head = |state: &Path| {
        let (socket, instance) = (folder.join("planted.sock"), "planted");
        line("control_socket", &socket) + &line("state_file", state) + &line("instance", Path::new(instance))
    };
    let state = head(&shared.join("state.json")) + &toml;
    let attempt = Attempt::verbatim(lab, node, "planted", state.as_bytes())?;
    attempt.run()?.refuses(6, &["error: the folder of the state file, ", "help: `chmod go-w "]);

    // Any user may add to it. Links lead to a file that only root may write.
    mode(0o1777)?;
    symlink(&precious, shared.join("events.jsonl"))?;
    let attempt = Attempt::new(lab, node, "planted", &record)?;
    attempt.run()?.refuses(6, &["error: cannot record to ", "is a symbolic link", "help: look who made it"]);
    symlink(&precious, shared.join("control.sock.lock"))?;
    std::os::unix::net::UnixListener::bind(shared.join("control.sock"))?;
    chown(shared.join("control.sock"), Some(NOBODY), None)?;
    let said = format!("control.sock belongs to the user {NOBODY}");
    attempt.run_on(&shared.join("control.sock"))?.refuses(6, &[&said, "help: "]);
    assert_eq!(fs::read_to_string(&precious)?, "precious");
    attempt.left_nothing();
    Ok(())
}

#[test]
fn pins_of_another_user_decide_nothing() -> Result<()> {
    if skipped("pins_of_another_user_decide_nothing", &[]) {
        return Ok(());
    }
    let topology = Topology::new("pins", &["web-0"])?;
    let (lab, node) = (&topology.lab, &topology.node);
    let attempt = Attempt::new(lab, node, "pins", &(interfaces(&topology.devices) + &service(&[0])))?;
    let pins = Path::new("/sys/fs/bpf/shunt").join(&attempt.instance);
    let detach = || Answer::of(node, node.command(shunt()).args(["detach", "--instance", &attempt.instance]));

    fs::create_dir_all(&pins)?;
    chown(&pins, Some(NOBODY), None)?;
    let said = format!("{} belongs to the user {NOBODY}", pins.display());
    attempt.run()?.refuses(6, &["error: the pins are not to be trusted: ", &said, "help: "]);
    detach()?.refuses(6, &[&said, "help: "]);
    chown(&pins, Some(0), None)?;
    fs::set_permissions(&pins, fs::Permissions::from_mode(0o777))?;
    attempt
        .run()?
        .refuses(6, &["error: the pins are not to be trusted: ", "its mode is 777", "`chmod go-w "]);
    fs::remove_dir(&pins)?;

    // A link would lead `detach` through any folder of the host.
    let elsewhere = lab.folder().join("elsewhere");
    fs::create_dir(&elsewhere)?;
    fs::write(elsewhere.join("precious"), "precious")?;
    symlink(&elsewhere, &pins)?;
    for answer in [attempt.run()?, detach()?] {
        answer.refuses(6, &[&format!("{} is a symbolic link", pins.display()), "help: "]);
    }
    fs::remove_file(&pins)?;
    assert!(elsewhere.join("precious").exists());
    attempt.left_nothing();
    Ok(())
}
