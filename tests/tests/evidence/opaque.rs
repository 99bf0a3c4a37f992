//! Connections that Shunt cannot read.

use std::{
    io::{self, Read as _, Write as _},
    net::TcpStream,
};

use anyhow::Result;
use lb_lab::until;
use lb_tests::{
    http::PATIENCE,
    lab::{Need, nginx, skipped},
    tally::Tally,
};
use lb_userspace::control::model::Evidence;

use crate::stage::{Stage, backend, vip};

#[test]
fn tls_is_opaque_and_no_error() -> Result<()> {
    if skipped(
        "tls_is_opaque_and_no_error",
        &[Need::Tool("nginx"), Need::Tool("curl"), Need::Tool("openssl")],
    ) {
        return Ok(());
    }
    let stage = Stage::new("tls")?;
    let folder = stage.topology.lab.folder().display().to_string();
    let (key, certificate) = (format!("{folder}/key.pem"), format!("{folder}/certificate.pem"));
    let host = &stage.topology.backends[0];
    host.run(&[
        "openssl",
        "req",
        "-x509",
        "-newkey",
        "ec",
        "-pkeyopt",
        "ec_paramgen_curve:prime256v1",
        "-nodes",
        "-days",
        "1",
        "-subj",
        "/CN=lab",
        "-keyout",
        &key,
        "-out",
        &certificate,
    ])?;
    let server = format!(
        "server {{ listen {} ssl http2; ssl_protocols TLSv1.2 TLSv1.3; ssl_certificate {certificate}; ssl_certificate_key {key};\n\
         location / {{ return 500 'oops\n'; }} }}",
        backend(),
    );
    let _nginx = nginx(&stage.topology.lab, host, backend(), &server)?;
    drop(stage.connect()?);
    let url = format!("https://{}/", vip());
    let kinds = [["--http1.1", "--tlsv1.2"], ["--http1.1", "--tlsv1.3"], ["--http2", "--tlsv1.3"]];
    for options in kinds {
        let mut words = vec![
            "curl",
            "--silent",
            "--show-error",
            "--insecure",
            "--max-time",
            "5",
            "--output",
            "/dev/null",
        ];
        words.extend([
            "--output",
            "/dev/null",
            "--write-out",
            "%{http_code} %{num_connects} %{http_version}\n",
        ]);
        words.extend(options);
        words.extend([url.as_str(), url.as_str()]);
        let said = stage.topology.client.run(&words)?;
        let version = if options[0] == "--http2" { "2" } else { "1.1" };
        assert_eq!(said, format!("500 1 {version}\n500 0 {version}\n"), "{options:?}");
    }
    assert_eq!(stage.tally()?, Tally { opaque_connections: 3, ..Tally::default() });
    let status = stage.status()?;
    assert_eq!(status.forwarding[0].evidence, Evidence::Opaque);
    let shown = stage.shunt.ask(&["status"])?;
    assert!(shown.contains("opaque"), "{shown}");
    assert!(shown.contains("Shunt cannot read its responses (TLS, HTTP/2 or no HTTP)"), "{shown}");
    Ok(())
}

#[test]
fn http2_in_the_clear_is_opaque() -> Result<()> {
    if skipped("http2_in_the_clear_is_opaque", &[Need::Tool("nginx"), Need::Tool("curl")]) {
        return Ok(());
    }
    let stage = Stage::new("h2c")?;
    let server = format!("server {{ listen {} http2; location / {{ return 500 'oops\\n'; }} }}", backend());
    let _nginx = nginx(&stage.topology.lab, &stage.topology.backends[0], backend(), &server)?;
    let url = format!("http://{}/", vip());
    let mut words = vec!["curl", "--silent", "--show-error", "--max-time", "5", "--http2-prior-knowledge"];
    words.extend(["--output", "/dev/null", "--write-out", "%{http_code} %{http_version}", url.as_str()]);
    assert_eq!(stage.topology.client.run(&words)?, "500 2");
    assert_eq!(stage.tally()?, Tally { opaque_connections: 1, ..Tally::default() });
    assert_eq!(stage.status()?.forwarding[0].evidence, Evidence::Opaque);
    Ok(())
}

#[test]
fn bytes_that_are_not_http_are_no_error() -> Result<()> {
    if skipped("bytes_that_are_not_http_are_no_error", &[]) {
        return Ok(());
    }
    let stage = Stage::new("other")?;
    let _server = stage.scripted(|line| {
        // The server speaks first, as SMTP and SSH do.
        line.say("220 lab ESMTP\r\n")?;
        let mut buffer = [0; 64];
        while line.stream().read(&mut buffer)? > 0 {
            line.say("500 HTTP/1.1 500 what?\r\n")?;
        }
        Ok(())
    })?;
    let mut stream = stage.connect()?;
    let listen =
        |stream: &mut TcpStream, length: usize| -> io::Result<()> { stream.read_exact(&mut vec![0; length]) };
    listen(&mut stream, 15)?;
    // Looks like a method, so the answer is looked at, and is no HTTP.
    stream.write_all(b"EHLO lab\r\n")?;
    listen(&mut stream, 24)?;
    until("the answer is counted", PATIENCE, || stage.tally().is_ok_and(|tally| tally.opaque == 1))?;

    let mut other = stage.connect()?;
    listen(&mut other, 15)?;
    other.write_all(b"\x00\x01\x02\x03")?;
    listen(&mut other, 24)?;
    other.write_all(b"GET / HTTP/1.1\r\n\r\n")?;
    listen(&mut other, 24)?;
    // The last exchange of the first connection comes after all of the second.
    stream.write_all(b"QUIT\r\n")?;
    listen(&mut stream, 24)?;
    until("the last answer is counted", PATIENCE, || stage.tally().is_ok_and(|tally| tally.opaque >= 2))?;
    assert_eq!(stage.tally()?, Tally { opaque: 2, heads: 2, opaque_connections: 1, ..Tally::default() });
    Ok(())
}
