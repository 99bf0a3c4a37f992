//! Asks the daemon over its socket. The CLI gets everything that it knows about a daemon from here.

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

use super::model::{
    BackendView, DocumentSchema, Explanation, Order, Problem, Reloaded, SCHEMA, SCHEMA_HEADER, Status,
    Version,
};

/// How long a response may take to begin. It is longer than the server waits for the daemon's loop.
const RESPONSE_TIMEOUT: Duration = Duration::from_secs(5);

/// In bytes. No event makes a longer line.
const LONGEST_LINE: usize = 1 << 20;

/// Makes one connection for each request.
#[derive(Clone, Debug)]
pub struct Client {
    socket: PathBuf,
}

#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    #[error("cannot reach the daemon at {}", socket.display())]
    Unreachable { socket: PathBuf, source: io::Error },
    #[error("the daemon at {} did not respond within {} s", .0.display(), RESPONSE_TIMEOUT.as_secs())]
    Silent(PathBuf),
    /// The daemon refused, and says why.
    #[error("{}", problem.error)]
    Refused { status: u16, problem: Problem },
    #[error("the connection to the daemon broke")]
    Broken(#[source] hyper::Error),
    #[error("the daemon's response is not understood")]
    Garbled(#[source] serde_json::Error),
    #[error("the daemon's response has a line of more than {LONGEST_LINE} bytes")]
    LongLine,
    /// `None`: the daemon is older than the field.
    #[error("the daemon's JSON has {}, this program reads schema {SCHEMA}", schema_words(*.0))]
    OtherSchema(Option<u32>),
}

impl ClientError {
    /// The operator's remedy.
    pub fn remedy(&self) -> String {
        match self {
            Self::Unreachable { socket, source } if source.kind() == io::ErrorKind::PermissionDenied => {
                format!("{} is for root and its group: use sudo", socket.display())
            }
            Self::Unreachable { socket, .. } => format!(
                "is `shunt run` running? The socket is expected at {}; `-s` or SHUNT_SOCKET names another one",
                socket.display()
            ),
            Self::Silent(_) => "look at the daemon's log; forwarding does not depend on it".to_owned(),
            Self::Refused { problem, .. } => problem.remedy.clone(),
            Self::Broken(_) => "did the daemon stop? Its log says why".to_owned(),
            Self::Garbled(_) | Self::LongLine => {
                "compare `shunt version` with the version of the running daemon".to_owned()
            }
            Self::OtherSchema(_) => {
                "use the `shunt` that the daemon was started with, or restart the daemon with this one"
                    .to_owned()
            }
        }
    }
}

/// Which events to ask for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct EventsQuery {
    /// Only events after this sequence number.
    pub since: Option<u64>,
    /// Continue with new events.
    pub follow: bool,
    pub service: Option<String>,
}

fn schema_words(schema: Option<u32>) -> String {
    schema.map_or_else(|| "no schema number".to_owned(), |schema| format!("schema {schema}"))
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

    /// The JSON as the daemon wrote it.
    pub async fn status_json(&self, service: Option<&str>) -> Result<Bytes, ClientError> {
        let service = service.map(|service| format!("service={}", escaped(service)));
        self.whole(&format!("/v1/status{}", query(service))).await
    }

    /// Of a daemon with any schema: this document is the same in all of them.
    pub async fn version(&self) -> Result<Version, ClientError> {
        let response = self.ok_response(Method::GET, "/v1/version", Bytes::new()).await?;
        parse(&self.collected(response).await?)
    }

    /// `connections`: the daemon also counts the connections, which takes a moment.
    pub async fn backend(
        &self,
        service: &str,
        backend: &str,
        connections: bool,
    ) -> Result<BackendView, ClientError> {
        parse(&self.backend_json(service, backend, connections).await?)
    }

    /// The JSON as the daemon wrote it.
    pub async fn backend_json(
        &self,
        service: &str,
        backend: &str,
        connections: bool,
    ) -> Result<Bytes, ClientError> {
        let connections = connections.then(|| "connections=true".to_owned());
        self.whole(&format!("{}{}", backend_path(service, backend), query(connections))).await
    }

    /// Changes a backend. Returns its state afterwards.
    pub async fn order(
        &self,
        service: &str,
        backend: &str,
        order: &Order,
    ) -> Result<BackendView, ClientError> {
        parse(&self.post(&backend_path(service, backend), order).await?)
    }

    /// The JSON as the daemon wrote it.
    pub async fn explain_json(&self, client: SocketAddr, service: &str) -> Result<Bytes, ClientError> {
        let parameters =
            [format!("client={}", escaped(&client.to_string())), format!("service={}", escaped(service))];
        self.whole(&format!("/v1/explain{}", query(parameters))).await
    }

    pub async fn explain(&self, client: SocketAddr, service: &str) -> Result<Explanation, ClientError> {
        parse(&self.explain_json(client, service).await?)
    }

    pub async fn reload(&self, dry_run: bool, force: bool) -> Result<Reloaded, ClientError> {
        let parameters = [(dry_run, "dry_run=true"), (force, "force=true")];
        let parameters =
            parameters.into_iter().filter(|(is_asked, _)| *is_asked).map(|(_, of)| of.to_owned());
        parse(&self.post(&format!("/v1/reload{}", query(parameters)), &()).await?)
    }

    pub async fn events(&self, asked: &EventsQuery) -> Result<Lines, ClientError> {
        let parameters = [
            asked.since.map(|since| format!("since={since}")),
            asked.follow.then(|| "follow=true".to_owned()),
            asked.service.as_deref().map(|service| format!("service={}", escaped(service))),
        ];
        let path = format!("/v1/events{}", query(parameters.into_iter().flatten()));
        let response = self.ok_response(Method::GET, &path, Bytes::new()).await?;
        let schema =
            response.headers().get(SCHEMA_HEADER).and_then(|value| value.to_str().ok()?.parse().ok());
        check_schema(schema)?;
        Ok(Lines { body: response.into_body(), buffer: BytesMut::new(), searched: 0 })
    }

    async fn whole(&self, path: &str) -> Result<Bytes, ClientError> {
        self.document(self.ok_response(Method::GET, path, Bytes::new()).await?).await
    }

    async fn post(&self, path: &str, body: &impl Serialize) -> Result<Bytes, ClientError> {
        let body = serde_json::to_vec(body).expect("orders are plain data with text keys");
        self.document(self.ok_response(Method::POST, path, body.into()).await?).await
    }

    /// The whole body, if it is a document of our schema.
    async fn document(&self, response: hyper::Response<Incoming>) -> Result<Bytes, ClientError> {
        let body = self.collected(response).await?;
        check_schema(parse::<DocumentSchema>(&body)?.schema)?;
        Ok(body)
    }

    async fn collected(&self, response: hyper::Response<Incoming>) -> Result<Bytes, ClientError> {
        let body = response.into_body().collect();
        self.in_time(async { Ok(body.await.map_err(ClientError::Broken)?.to_bytes()) }).await
    }

    /// A response with status 200. Any other status is an error.
    async fn ok_response(
        &self,
        method: Method,
        path: &str,
        body: Bytes,
    ) -> Result<hyper::Response<Incoming>, ClientError> {
        let response = self.in_time(self.exchange(method, path, body)).await?;
        if response.status() == StatusCode::OK {
            return Ok(response);
        }
        let status = response.status().as_u16();
        Err(ClientError::Refused { status, problem: parse(&self.collected(response).await?)? })
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
        // The task ends with the exchange. Its errors reach us through the response.
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
        response: impl Future<Output = Result<T, ClientError>>,
    ) -> Result<T, ClientError> {
        timeout(RESPONSE_TIMEOUT, response)
            .await
            .unwrap_or_else(|_| Err(ClientError::Silent(self.socket.clone())))
    }
}

/// The lines of a response as they arrive.
#[derive(Debug)]
pub struct Lines {
    body: Incoming,
    buffer: BytesMut,
    /// This many bytes of `buffer` contain no end of line.
    searched: usize,
}

impl Lines {
    /// The next line without its end, or `None` when the daemon has ended the response. A caller may drop the future
    /// and call again: no data gets lost.
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

fn check_schema(schema: Option<u32>) -> Result<(), ClientError> {
    if schema == Some(SCHEMA) { Ok(()) } else { Err(ClientError::OtherSchema(schema)) }
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
