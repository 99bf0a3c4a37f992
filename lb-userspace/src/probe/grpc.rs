//! `grpc.health.v1.Health/Check`, the health protocol of gRPC, over HTTP/2.
//!
//! <https://github.com/grpc/grpc/blob/master/doc/health-checking.md>, and for how a call looks
//! in HTTP/2 `doc/PROTOCOL-HTTP2.md` beside it.

use std::{
    net::SocketAddr,
    pin::pin,
    sync::{Arc, Mutex, PoisonError},
};

use bytes::{BufMut, Bytes, BytesMut};
use futures_util::future::{Either, select};
use http_body_util::{BodyExt, Full};
use hyper::{
    HeaderMap, Request, Response, Uri, body::Incoming, client::conn::http2, header, http::HeaderValue,
    rt::Executor,
};
use hyper_util::rt::TokioIo;
use lb_core::config::GrpcProbe;
use prost::Message;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    task::JoinSet,
    time::timeout,
};

use super::{close::LINGER, deadline::Deadline, failure::Failure, http::USER_AGENT};

/// Bytes of the answer. A usual one has a few.
const MOST_READ: usize = 4096;
/// Bytes before each message: whether it is compressed, and its length.
const PREFIX: usize = 5;

/// `grpc.health.v1.HealthCheckRequest`.
#[derive(Clone, PartialEq, Message)]
struct Question {
    #[prost(string, tag = "1")]
    service: String,
}

/// `grpc.health.v1.HealthCheckResponse`.
#[derive(Clone, PartialEq, Message)]
struct Answer {
    #[prost(enumeration = "Health", tag = "1")]
    status: i32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, prost::Enumeration)]
#[repr(i32)]
enum Health {
    Unknown = 0,
    Serving = 1,
    NotServing = 2,
    ServiceUnknown = 3,
}

/// Asks once. Without an error, the backend serves.
pub(super) async fn check(
    stream: impl AsyncRead + AsyncWrite + Send + Unpin + 'static,
    address: SocketAddr,
    probe: &GrpcProbe,
    deadline: Deadline,
) -> Result<(), Failure> {
    let request = request(address, probe, deadline).map_err(Failure::Request)?;
    let tasks = Tasks::default();
    let handshake = http2::Builder::new(tasks.clone())
        .max_header_list_size(16 * 1024)
        .initial_stream_window_size(MOST_READ as u32)
        .handshake(TokioIo::new(stream));
    let (mut sender, connection) =
        deadline.limit(handshake).await?.map_err(|error| Failure::hyper(&error))?;
    let answer = async move {
        let response = deadline.limit(sender.send_request(request)).await?;
        let response = response.map_err(|error| Failure::hyper(&error))?;
        deadline.limit(judge(response)).await?
    };
    match select(pin!(answer), pin!(connection)).await {
        Either::Left((result, connection)) => {
            if result.is_ok() {
                let _ = timeout(LINGER, connection).await;
                tasks.end().await;
            }
            result
        }
        Either::Right((_, answer)) => answer.await,
    }
}

fn request(
    address: SocketAddr,
    probe: &GrpcProbe,
    deadline: Deadline,
) -> Result<Request<Full<Bytes>>, hyper::http::Error> {
    let authority = probe.host.clone().unwrap_or_else(|| address.to_string());
    let uri = Uri::builder()
        .scheme(if probe.tls.is_some() { "https" } else { "http" })
        .authority(authority)
        .path_and_query("/grpc.health.v1.Health/Check")
        .build()?;
    let question = Question { service: probe.service.clone() };
    let mut message = BytesMut::with_capacity(PREFIX + question.encoded_len());
    message.put_u8(0);
    message.put_u32(question.encoded_len() as u32);
    question.encode(&mut message).expect("the buffer grows");
    Request::post(uri)
        .header(header::CONTENT_TYPE, "application/grpc")
        .header(header::TE, "trailers")
        // At most eight digits.
        .header("grpc-timeout", format!("{}m", deadline.after.0.min(99_999_999)))
        .header(header::USER_AGENT, USER_AGENT)
        .body(Full::new(message.freeze()))
}

async fn judge(response: Response<Incoming>) -> Result<(), Failure> {
    if response.status() != hyper::StatusCode::OK {
        return Err(Failure::NotGrpc(format!("status {}", response.status().as_u16())));
    }
    let kind = response.headers().get(header::CONTENT_TYPE);
    if !kind.is_some_and(|kind| kind.as_bytes().starts_with(b"application/grpc")) {
        return Err(Failure::NotGrpc(format!("content type {}", shown(kind))));
    }
    // A call that fails at once ends in its head.
    if let Some(status) = status(response.headers())? {
        return Err(Failure::NotGrpc(status));
    }
    let mut body = response.into_body();
    let (mut message, mut ended) = (Vec::new(), false);
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|error| Failure::hyper(&error))?;
        match frame.into_data() {
            Ok(data) => message.extend_from_slice(&data),
            Err(frame) => ended = frame.trailers_ref().map(status).transpose()?.flatten().is_some(),
        }
        if message.len() > MOST_READ {
            return Err(Failure::NotGrpc("a message that is too long".to_owned()));
        }
    }
    if !ended {
        return Err(Failure::EndedEarly);
    }
    served(&message)
}

/// Reads the one message of the answer.
fn served(message: &[u8]) -> Result<(), Failure> {
    let not = |what: &str| Failure::NotGrpc(what.to_owned());
    let (prefix, message) = message.split_at_checked(PREFIX).ok_or_else(|| not("no message"))?;
    let (compressed, length) = prefix.split_at(1);
    if compressed != [0] {
        return Err(not("a compressed message that nobody asked for"));
    }
    if length != (message.len() as u32).to_be_bytes() {
        return Err(not("a message of another length than it says"));
    }
    let answer = Answer::decode(message).map_err(|_| not("a message that cannot be decoded"))?;
    match Health::try_from(answer.status) {
        Ok(Health::Serving) => Ok(()),
        Ok(Health::NotServing) => Err(Failure::Health("NOT_SERVING".to_owned())),
        Ok(Health::Unknown) => Err(Failure::Health("UNKNOWN".to_owned())),
        Ok(Health::ServiceUnknown) => Err(Failure::Health("SERVICE_UNKNOWN".to_owned())),
        Err(_) => Err(Failure::Health(answer.status.to_string())),
    }
}

/// The `grpc-status` in the head or the trailers of a call: none, an end without an error, or an error.
fn status(headers: &HeaderMap) -> Result<Option<String>, Failure> {
    const NAMES: [&str; 17] = [
        "OK",
        "CANCELLED",
        "UNKNOWN",
        "INVALID_ARGUMENT",
        "DEADLINE_EXCEEDED",
        "NOT_FOUND",
        "ALREADY_EXISTS",
        "PERMISSION_DENIED",
        "RESOURCE_EXHAUSTED",
        "FAILED_PRECONDITION",
        "ABORTED",
        "OUT_OF_RANGE",
        "UNIMPLEMENTED",
        "INTERNAL",
        "UNAVAILABLE",
        "DATA_LOSS",
        "UNAUTHENTICATED",
    ];
    let Some(status) = headers.get("grpc-status") else { return Ok(None) };
    let number = status.to_str().ok().and_then(|text| text.parse::<usize>().ok());
    match number.and_then(|number| NAMES.get(number)) {
        Some(&"OK") => Ok(Some("an end without a message".to_owned())),
        Some(&"NOT_FOUND") => Err(Failure::GrpcStatus("NOT_FOUND: it does not know the service".to_owned())),
        Some(&"UNIMPLEMENTED") => {
            Err(Failure::GrpcStatus("UNIMPLEMENTED: it has no grpc.health.v1".to_owned()))
        }
        Some(name) => Err(Failure::GrpcStatus((*name).to_owned())),
        None => Err(Failure::GrpcStatus(shown(Some(status)))),
    }
}

/// Text of a backend, bounded and in visible ASCII.
fn shown(value: Option<&HeaderValue>) -> String {
    const LONGEST: usize = 60;
    match value.map(HeaderValue::to_str) {
        Some(Ok(text)) => text.chars().take(LONGEST).collect(),
        Some(Err(_)) => "that is not text".to_owned(),
        None => "missing".to_owned(),
    }
}

/// Runs the tasks that hyper spawns for a connection, and ends them with the probe.
#[derive(Clone, Default)]
struct Tasks(Arc<Mutex<JoinSet<()>>>);

impl<F: Future<Output = ()> + Send + 'static> Executor<F> for Tasks {
    fn execute(&self, task: F) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).spawn(task);
    }
}

impl Tasks {
    /// Lets the connection end by itself for a moment.
    async fn end(self) {
        let mut tasks = std::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner));
        let _ = timeout(LINGER, async { while tasks.join_next().await.is_some() {} }).await;
    }
}
