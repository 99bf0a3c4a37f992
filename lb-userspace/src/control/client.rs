//! Asks the daemon over its socket. What the CLI knows, it knows from here.

use std::{
    io,
    net::SocketAddr,
    path::{Path, PathBuf},
    time::Duration,
};

use bytes::{Buf, Bytes, BytesMut};
use http_body_util::{BodyExt, Full};
use hyper::{Method, StatusCode, body::Incoming, client::conn::http1};
use hyper_util::rt::TokioIo;
use serde::{Serialize, de::DeserializeOwned};
use tokio::{net::UnixStream, time::timeout};

use super::model::{BackendView, Explanation, Order, Problem, Reloaded, Status, Version};

/// How long an answer may take to begin. Longer than the server gives the daemon's loop.
const ANSWER: Duration = Duration::from_secs(5);

/// A longer line than any event makes is not one.
const LONGEST_LINE: usize = 1 << 20;

/// Makes one connection a question.
#[derive(Clone, Debug)]
pub struct Client {
    socket: PathBuf,
}

#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    #[error("cannot reach the daemon at {}", socket.display())]
    Unreachable { socket: PathBuf, source: io::Error },
    #[error("no answer from {} within {} s", .0.display(), ANSWER.as_secs())]
    Silent(PathBuf),
    /// The daemon answered, with a reason why not.
    #[error("{}", problem.error)]
    Refused { status: u16, problem: Problem },
    #[error("the connection to the daemon broke")]
    Broken(#[source] hyper::Error),
    #[error("the daemon's answer is not understood")]
    Garbled(#[source] serde_json::Error),
    #[error("the daemon's answer holds a line of more than {LONGEST_LINE} bytes")]
    LongLine,
}

impl ClientError {
    /// What the person at the keyboard can do about it.
    pub fn remedy(&self) -> String {
        match self {
            Self::Unreachable { socket, source } if source.kind() == io::ErrorKind::PermissionDenied => {
                format!("{} is for root and its group: use sudo", socket.display())
            }
            Self::Unreachable { socket, .. } => format!(
                "is `shunt run` running? It was looked for at {}; `-s` or SHUNT_SOCKET names another socket",
                socket.display()
            ),
            Self::Silent(_) => "look at the daemon's log; forwarding does not depend on it".to_owned(),
            Self::Refused { problem, .. } => problem.remedy.clone(),
            Self::Broken(_) => "did the daemon stop? Its log says why".to_owned(),
            Self::Garbled(_) | Self::LongLine => {
                "compare `shunt version` with the version of the running daemon".to_owned()
            }
        }
    }
}

/// Which events to ask for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct EventsQuery {
    /// Only those after this sequence number.
    pub since: Option<u64>,
    /// Go on with what happens.
    pub follow: bool,
    pub service: Option<String>,
}

impl Client {
    pub fn new(socket: impl Into<PathBuf>) -> Self {
        Self { socket: socket.into() }
    }

    pub fn socket(&self) -> &Path {
        &self.socket
    }

    pub async fn status(&self, service: Option<&str>) -> Result<Status, ClientError> {
        parse(&self.status_json(service).await?)
    }

    /// The answer as the daemon wrote it.
    pub async fn status_json(&self, service: Option<&str>) -> Result<Bytes, ClientError> {
        let service = service.map(|service| format!("service={}", escaped(service)));
        self.whole(&format!("/v1/status{}", query(service))).await
    }

    pub async fn version(&self) -> Result<Version, ClientError> {
        parse(&self.whole("/v1/version").await?)
    }

    /// `connections`: count them too, which takes the daemon a moment.
    pub async fn backend(
        &self,
        service: &str,
        backend: &str,
        connections: bool,
    ) -> Result<BackendView, ClientError> {
        parse(&self.backend_json(service, backend, connections).await?)
    }

    /// The answer as the daemon wrote it.
    pub async fn backend_json(
        &self,
        service: &str,
        backend: &str,
        connections: bool,
    ) -> Result<Bytes, ClientError> {
        let connections = connections.then(|| "connections=true".to_owned());
        self.whole(&format!("{}{}", backend_path(service, backend), query(connections))).await
    }

    /// Has something done to a backend. The answer: how it then is.
    pub async fn order(
        &self,
        service: &str,
        backend: &str,
        order: &Order,
    ) -> Result<BackendView, ClientError> {
        parse(&self.post(&backend_path(service, backend), order).await?)
    }

    /// The answer as the daemon wrote it.
    pub async fn explain_json(&self, client: SocketAddr, service: &str) -> Result<Bytes, ClientError> {
        let parameters =
            [format!("client={}", escaped(&client.to_string())), format!("service={}", escaped(service))];
        self.whole(&format!("/v1/explain{}", query(parameters))).await
    }

    pub async fn explain(&self, client: SocketAddr, service: &str) -> Result<Explanation, ClientError> {
        parse(&self.explain_json(client, service).await?)
    }

    pub async fn reload(&self, dry_run: bool) -> Result<Reloaded, ClientError> {
        let dry_run = dry_run.then(|| "dry_run=true".to_owned());
        parse(&self.post(&format!("/v1/reload{}", query(dry_run)), &()).await?)
    }

    pub async fn events(&self, asked: &EventsQuery) -> Result<Lines, ClientError> {
        let parameters = [
            asked.since.map(|since| format!("since={since}")),
            asked.follow.then(|| "follow=true".to_owned()),
            asked.service.as_deref().map(|service| format!("service={}", escaped(service))),
        ];
        let body = self.get(&format!("/v1/events{}", query(parameters.into_iter().flatten()))).await?;
        Ok(Lines { body, buffer: BytesMut::new(), searched: 0 })
    }

    async fn whole(&self, path: &str) -> Result<Bytes, ClientError> {
        self.collected(self.get(path).await?).await
    }

    async fn post(&self, path: &str, body: &impl Serialize) -> Result<Bytes, ClientError> {
        let body = serde_json::to_vec(body).expect("orders are plain data with text keys");
        self.collected(self.answered(Method::POST, path, body.into()).await?).await
    }

    async fn collected(&self, body: Incoming) -> Result<Bytes, ClientError> {
        self.in_time(async { Ok(body.collect().await.map_err(ClientError::Broken)?.to_bytes()) }).await
    }

    async fn get(&self, path: &str) -> Result<Incoming, ClientError> {
        self.answered(Method::GET, path, Bytes::new()).await
    }

    /// The body of a 200 answer; any other answer is an error.
    async fn answered(&self, method: Method, path: &str, body: Bytes) -> Result<Incoming, ClientError> {
        let answer = self.in_time(self.exchange(method, path, body)).await?;
        if answer.status() == StatusCode::OK {
            return Ok(answer.into_body());
        }
        let status = answer.status().as_u16();
        let body = self
            .in_time(async { answer.into_body().collect().await.map_err(ClientError::Broken) })
            .await?
            .to_bytes();
        Err(ClientError::Refused { status, problem: parse(&body)? })
    }

    async fn exchange(
        &self,
        method: Method,
        path: &str,
        body: Bytes,
    ) -> Result<hyper::Response<Incoming>, ClientError> {
        let stream = UnixStream::connect(&self.socket)
            .await
            .map_err(|source| ClientError::Unreachable { socket: self.socket.clone(), source })?;
        let (mut sender, connection) =
            http1::handshake(TokioIo::new(stream)).await.map_err(ClientError::Broken)?;
        // Ends with the exchange; its errors reach us through the answer.
        tokio::spawn(connection);
        let request = hyper::Request::builder()
            .method(method)
            .uri(path)
            .header(hyper::header::HOST, "shunt")
            .header(hyper::header::CONTENT_TYPE, "application/json")
            .body(Full::new(body))
            .expect("paths are made here, of ASCII without spaces");
        sender.send_request(request).await.map_err(ClientError::Broken)
    }

    async fn in_time<T>(
        &self,
        answer: impl Future<Output = Result<T, ClientError>>,
    ) -> Result<T, ClientError> {
        timeout(ANSWER, answer).await.unwrap_or_else(|_| Err(ClientError::Silent(self.socket.clone())))
    }
}

/// The lines of an answer as they arrive.
#[derive(Debug)]
pub struct Lines {
    body: Incoming,
    buffer: BytesMut,
    /// So much of `buffer` holds no end of line.
    searched: usize,
}

impl Lines {
    /// The next line without its end; `None` once the daemon has ended the answer. Safe to abandon and call again.
    pub async fn next(&mut self) -> Result<Option<String>, ClientError> {
        loop {
            if let Some(end) = self.buffer[self.searched..].iter().position(|byte| *byte == b'\n') {
                let line = self.buffer.split_to(self.searched + end);
                self.buffer.advance(1);
                self.searched = 0;
                return Ok(Some(String::from_utf8_lossy(&line).into_owned()));
            }
            self.searched = self.buffer.len();
            if self.searched > LONGEST_LINE {
                return Err(ClientError::LongLine);
            }
            match self.body.frame().await {
                Some(frame) => {
                    if let Ok(data) = frame.map_err(ClientError::Broken)?.into_data() {
                        self.buffer.extend_from_slice(&data);
                    }
                }
                None => return Ok(None),
            }
        }
    }
}

fn parse<T: DeserializeOwned>(body: &[u8]) -> Result<T, ClientError> {
    serde_json::from_slice(body).map_err(ClientError::Garbled)
}

fn backend_path(service: &str, backend: &str) -> String {
    format!("/v1/backends/{}/{}", escaped(service), escaped(backend))
}

fn query(parameters: impl IntoIterator<Item = String>) -> String {
    let joined = parameters.into_iter().collect::<Vec<_>>().join("&");
    if joined.is_empty() { joined } else { format!("?{joined}") }
}

/// Percent-encoding for a value in a query or a part of a path (RFC 3986 section 2.1).
fn escaped(value: &str) -> String {
    value
        .bytes()
        .map(|byte| match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => {
                char::from(byte).to_string()
            }
            other => format!("%{other:02X}"),
        })
        .collect()
}

#[cfg(test)]
mod tests;
