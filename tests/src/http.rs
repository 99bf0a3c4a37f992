//! An HTTP/1.1 client of a few lines, which decides by itself what goes into which connection.

use std::{
    io::{self, Read, Write},
    net::{SocketAddr, TcpStream},
    time::Duration,
};

use lb_lab::{Error, Host, Result};

/// Longer than a few lost segments take.
pub const PATIENCE: Duration = Duration::from_secs(20);

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Response {
    pub status: u16,
    /// With the status line and the empty line at its end.
    pub head: String,
    pub body: Vec<u8>,
}

impl Response {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.head
            .lines()
            .skip(1)
            .filter_map(|line| line.split_once(':'))
            .find_map(|(key, value)| key.eq_ignore_ascii_case(name).then(|| value.trim()))
    }
}

/// A connection from a host, with time limits on everything.
pub fn connect(host: &Host, to: SocketAddr, limit: Duration) -> io::Result<TcpStream> {
    let stream = host.enter(|| TcpStream::connect_timeout(&to, limit)).map_err(io::Error::other)??;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(limit))?;
    stream.set_write_timeout(Some(limit))?;
    Ok(stream)
}

/// `METHOD PATH` on a connection that stays open.
pub fn ask(stream: &mut TcpStream, request: &str) -> io::Result<Response> {
    write!(stream, "{request} HTTP/1.1\r\nHost: lab\r\n\r\n")?;
    read(stream, !request.starts_with("HEAD "))
}

/// No server of the tests has a longer one.
const LONGEST_HEAD: usize = 64 << 10;

/// The next response. Its body is as long as `Content-Length` says, by default empty.
pub fn read(stream: &mut TcpStream, with_body: bool) -> io::Result<Response> {
    let mut bytes = Vec::new();
    let mut byte = [0];
    while !bytes.ends_with(b"\r\n\r\n") {
        stream.read_exact(&mut byte)?;
        bytes.push(byte[0]);
        if bytes.len() > LONGEST_HEAD {
            return Err(io::Error::other("a head that does not end"));
        }
    }
    let head = String::from_utf8_lossy(&bytes).into_owned();
    let status = head.split(' ').nth(1).and_then(|status| status.parse().ok());
    let status = status.ok_or_else(|| io::Error::other(format!("not a response: {head}")))?;
    let mut response = Response { status, head, body: Vec::new() };
    let length = response.header("content-length").and_then(|length| length.parse().ok()).unwrap_or(0);
    if with_body {
        response.body.resize(length, 0);
        stream.read_exact(&mut response.body)?;
    }
    Ok(response)
}

/// One request on a connection of its own.
pub fn get(host: &Host, to: SocketAddr, path: &str) -> Result<Response> {
    let exchange = || {
        let mut stream = connect(host, to, PATIENCE)?;
        write!(stream, "GET {path} HTTP/1.1\r\nHost: lab\r\nConnection: close\r\n\r\n")?;
        read(&mut stream, true)
    };
    exchange().map_err(|source| Error::Io { what: format!("GET {path} of {to}"), source })
}
