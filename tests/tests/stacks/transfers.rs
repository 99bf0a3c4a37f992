//! curl and nginx, and much data.

use std::{
    fs::File,
    io::{Seek as _, Write as _},
    os::fd::AsRawFd as _,
    process::{Command, Stdio},
};

use anyhow::{Context as _, Result, ensure};
use lb_lab::{Host, Process};
use lb_tests::lab::{Need, nginx, skipped};
use nix::sys::memfd::{MFdFlags, memfd_create};

use crate::stage::{PATIENCE, Stage, backend, backend6, vip, vip6};

const MIB: usize = 1 << 20;

/// So many bytes that nobody could guess and everybody gets alike, in memory.
fn noise(bytes: usize) -> Result<File> {
    let mut file = File::from(memfd_create(c"noise", MFdFlags::MFD_CLOEXEC)?);
    let mut word = 0x9e37_79b9_7f4a_7c15u64;
    let mut chunk = vec![0; MIB];
    for _ in 0..bytes / MIB {
        for bytes in chunk.chunks_exact_mut(8) {
            // Marsaglia, "Xorshift RNGs", 2003.
            word ^= word << 13;
            word ^= word >> 7;
            word ^= word << 17;
            bytes.copy_from_slice(&word.to_le_bytes());
        }
        file.write_all(&chunk)?;
    }
    file.rewind()?;
    Ok(file)
}

/// Where other processes of the same user find an open file.
fn path_of(file: &File) -> String {
    format!("/proc/{}/fd/{}", std::process::id(), file.as_raw_fd())
}

/// The SHA-256 of a file that is there, or is coming through a pipe.
fn hash(from: impl Into<Stdio>) -> Result<String> {
    let output = Command::new("sha256sum").stdin(from).output().context("sha256sum, of coreutils")?;
    ensure!(output.status.success(), "sha256sum: {}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout)?;
    Ok(text.split_whitespace().next().context("a hash")?.to_owned())
}

/// `curl` on this host, and the hash of what it got.
fn curl(host: &Host, words: &[&str]) -> Result<String> {
    let mut command = host.command("curl");
    command.args(["--silent", "--show-error", "--fail", "--max-time", "60"]).args(words);
    let mut process: Process = host.spawn(command.stdin(Stdio::null()).stdout(Stdio::piped()))?;
    let body = process.child().stdout.take().context("standard output is piped")?;
    let hash = hash(body)?;
    let ended = process.wait(PATIENCE)?;
    ensure!(ended.success(), "curl {words:?}: {ended}");
    Ok(hash)
}

fn serve(stage: &Stage, file: &File) -> Result<Process> {
    let servers = format!(
        "sendfile on; server {{ listen {}; listen {}; client_max_body_size 0;\n\
         location = /noise {{ alias {}; }}\n\
         location /small {{ return 200 'fine\\n'; }} }}",
        backend(0),
        backend6(0),
        path_of(file),
    );
    Ok(nginx(&stage.topology.lab, &stage.topology.backends[0], backend(0), &servers)?)
}

#[test]
fn a_gigabyte_arrives_as_it_was_sent() -> Result<()> {
    if skipped("a_gigabyte_arrives_as_it_was_sent", &[Need::Tool("nginx"), Need::Tool("curl")]) {
        return Ok(());
    }
    let stage = Stage::new("gigabyte", 1)?;
    let file = noise(1024 * MIB)?;
    let sent = hash(file.try_clone()?)?;
    let _nginx = serve(&stage, &file)?;
    let client = &stage.topology.client;
    assert_eq!(curl(client, &[&format!("http://{}/noise", vip())])?, sent);
    Ok(())
}

#[test]
fn curl_and_nginx_understand_each_other() -> Result<()> {
    const SIZE: usize = 32 * MIB;
    if skipped("curl_and_nginx_understand_each_other", &[Need::Tool("nginx"), Need::Tool("curl")]) {
        return Ok(());
    }
    let stage = Stage::new("curl", 1)?;
    let file = noise(SIZE)?;
    let sent = hash(file.try_clone()?)?;
    let _nginx = serve(&stage, &file)?;
    let client = &stage.topology.client;
    for vip in [vip(), vip6()] {
        let (noise, small) = (format!("http://{vip}/noise"), format!("http://{vip}/small"));
        assert_eq!(curl(client, &[&noise])?, sent, "{vip}");
        // In two halves that come back together, on one connection.
        let halves = ["0-1000000", "1000001-"].map(|range| ["--range", range]);
        let words =
            [&halves[0][..], &[&noise, "--next", "--silent", "--fail"], &halves[1], &[&noise]].concat();
        assert_eq!(curl(client, &words)?, sent, "{vip}");
        // Fifty at a time, a hundred in all.
        let many = format!("{small}/[1-100]");
        let words = ["--parallel", "--parallel-immediate", "--parallel-max", "50", &many];
        let all = Command::new("sh").args(["-c", "yes fine | head -100"]).stdout(Stdio::piped()).spawn()?;
        assert_eq!(curl(client, &words)?, hash(all.stdout.context("piped")?)?, "{vip}");
        // The other way: nginx reads it all before it says that it may not be.
        let upload =
            ["--request", "POST", "--data-binary", "@-", "--output", "-", "--write-out", "%{size_upload}"];
        let url = format!("http://{vip}/small");
        let mut command = client.command("curl");
        command.args(["--silent", "--max-time", "30", "--header", "Expect:"]).args(upload).arg(&url);
        let output = command.stdin(File::open(path_of(&file))?).output()?;
        assert_eq!(String::from_utf8_lossy(&output.stdout), format!("fine\n{SIZE}"), "{vip}");
    }
    Ok(())
}
