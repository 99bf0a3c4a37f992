//! Responses on the control socket.
//!
//! The server runs in its own task and owns only its connections. It asks the daemon's loop ([`Request`]) or reads the
//! [`EventLog`]. Its task may be dropped at any time. No reader can slow the daemon down: the loop answers into a
//! oneshot, and a follower of events reads from a bounded queue. If the queue is full, the server ends its stream. Nor
//! can readers take each other's places: [`admission`] counts connections, [`connections`] ends those that ask nothing.

use std::{net::SocketAddr, time::Duration};

use axum::{
    Json, Router,
    body::Body,
    extract::{Query, State, rejection::QueryRejection},
    http::{HeaderName, HeaderValue, Method, Uri, header},
    middleware,
    response::{IntoResponse, Response},
    routing::{get, post},
};
use lb_core::{engine::Refused, io::Operation};
use serde::Deserialize;
use tokio::{
    net::UnixListener,
    sync::{mpsc, oneshot, watch},
    time::timeout,
};

use self::{peer::only_owners_change, refusal::Refusal};
use super::{
    events::EventLog,
    model::{
        BackendView, Document, Explanation, Problem, ProblemKind, Reloaded, SCHEMA, SCHEMA_HEADER, Status,
        Version,
    },
};

mod admission;
mod backend;
mod connections;
mod peer;
mod refusal;
mod stream;

/// How long the daemon's loop may take to answer.
const LOOP_TIMEOUT: Duration = Duration::from_secs(2);

/// The server's access to the daemon.
#[derive(Clone, Debug)]
pub struct Handle {
    /// To the daemon's loop. A depth of 16 is plenty: if it is full, a request waits, at most two seconds.
    pub requests: mpsc::Sender<Request>,
    pub events: EventLog,
    /// The loop answers. Until then the daemon is starting.
    pub started: watch::Receiver<bool>,
}

/// A question to the daemon's loop. The loop may drop an answer whose receiver is gone.
#[derive(Debug)]
pub enum Request {
    Status(oneshot::Sender<Status>),
    /// One backend. `connections`: count its connections. `None`: there is no such backend.
    Backend {
        service: String,
        backend: String,
        connections: bool,
        answer: oneshot::Sender<Option<Result<Box<BackendView>, Problem>>>,
    },
    Operate(Operation, oneshot::Sender<Result<(), Refused>>),
    /// The backend that a client's connection goes to. `None`: there is no such service.
    Explain {
        client: SocketAddr,
        service: String,
        answer: oneshot::Sender<Option<Result<Box<Explanation>, Problem>>>,
    },
    /// Read the configuration again. `dry_run`: only report what would change. `force`: in spite of hazards.
    Reload {
        dry_run: bool,
        force: bool,
        answer: oneshot::Sender<Result<Reloaded, Problem>>,
    },
}

/// Serves until `shutdown` completes. Then it ends the open connections.
pub async fn serve(listener: UnixListener, handle: Handle, shutdown: impl Future<Output = ()>) {
    let (stop, stopped) = watch::channel(false);
    connections::serve(listener, router(handle, stopped), stop, shutdown).await;
}

#[derive(Clone)]
struct Api {
    handle: Handle,
    stopped: watch::Receiver<bool>,
}

fn router(handle: Handle, stopped: watch::Receiver<bool>) -> Router {
    Router::new()
        .route("/v1/status", get(status))
        .route("/v1/events", get(events))
        .route("/v1/backends/{service}/{backend}", get(backend::view).post(backend::change))
        .route("/v1/explain", get(explain))
        .route("/v1/reload", post(reload))
        .route("/v1/version", get(async || document(Version::own())))
        .method_not_allowed_fallback(no_such_method)
        .fallback(no_such_path)
        .layer(middleware::from_fn(only_owners_change))
        .with_state(Api { handle, stopped })
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct StatusQuery {
    service: Option<String>,
}

async fn status(
    State(api): State<Api>,
    query: Result<Query<StatusQuery>, QueryRejection>,
) -> Result<Json<Document<Status>>, Refusal> {
    let Query(query) = query.map_err(|error| Refusal::query(&error, "the only parameter is service=NAME"))?;
    let mut status = api.status().await?;
    if let Some(service) = query.service {
        if !status.knows(&service) {
            return Err(Refusal::no_such_service(&service, &status));
        }
        status.only(&service);
    }
    Ok(document(status))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct EventsQuery {
    since: Option<u64>,
    #[serde(default)]
    follow: bool,
    service: Option<String>,
}

async fn events(
    State(api): State<Api>,
    query: Result<Query<EventsQuery>, QueryRejection>,
) -> Result<Response, Refusal> {
    let parameters = "the parameters are since=SEQ, follow=true and service=NAME, each optional";
    let Query(query) = query.map_err(|error| Refusal::query(&error, parameters))?;
    if let Some(service) = &query.service {
        let status = api.status().await?;
        if !status.knows(service) {
            return Err(Refusal::no_such_service(service, &status));
        }
    }
    let (backlog, live) = if query.follow {
        let (backlog, live) = api.handle.events.follow(query.since)?;
        (backlog, Some(live))
    } else {
        (api.handle.events.read(query.since)?, None)
    };
    let lines = stream::lines(backlog, live, query.service, api.stopped);
    let headers = [
        (header::CONTENT_TYPE, HeaderValue::from_static("application/x-ndjson")),
        (HeaderName::from_static(SCHEMA_HEADER), HeaderValue::from(SCHEMA)),
    ];
    Ok((headers, Body::from_stream(lines)).into_response())
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ExplainQuery {
    client: SocketAddr,
    service: String,
}

async fn explain(
    State(api): State<Api>,
    query: Result<Query<ExplainQuery>, QueryRejection>,
) -> Result<Json<Document<Explanation>>, Refusal> {
    let parameters = "the parameters are client=ADDRESS:PORT and service=NAME";
    let Query(ExplainQuery { client, service }) =
        query.map_err(|error| Refusal::query(&error, parameters))?;
    let asked = service.clone();
    match api.ask(|answer| Request::Explain { client, service, answer }).await? {
        Some(Ok(explanation)) => Ok(document(*explanation)),
        Some(Err(problem)) => Err(problem.into()),
        None => Err(Refusal::no_such_service(&asked, &api.status().await?)),
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ReloadQuery {
    #[serde(default)]
    dry_run: bool,
    #[serde(default)]
    force: bool,
}

async fn reload(
    State(api): State<Api>,
    query: Result<Query<ReloadQuery>, QueryRejection>,
) -> Result<Json<Document<Reloaded>>, Refusal> {
    let Query(ReloadQuery { dry_run, force }) =
        query.map_err(|error| Refusal::query(&error, "the parameters are dry_run=true and force=true"))?;
    Ok(document(api.ask(|answer| Request::Reload { dry_run, force, answer }).await??))
}

fn document<T>(body: T) -> Json<Document<T>> {
    Json(Document::new(body))
}

impl Api {
    async fn status(&self) -> Result<Status, Refusal> {
        self.ask(Request::Status).await
    }

    async fn ask<T>(&self, request: impl FnOnce(oneshot::Sender<T>) -> Request) -> Result<T, Refusal> {
        if !*self.handle.started.borrow() {
            return Err(Refusal::starting());
        }
        let (answer, answered) = oneshot::channel();
        let exchange = async {
            self.handle.requests.send(request(answer)).await.map_err(|_| Refusal::stopping())?;
            answered.await.map_err(|_| Refusal::stopping())
        };
        timeout(LOOP_TIMEOUT, exchange).await.unwrap_or_else(|_| Err(Refusal::busy()))
    }
}

async fn no_such_path(uri: Uri) -> Refusal {
    Refusal::new(
        ProblemKind::NoSuchPath,
        format!("no such path: {}", uri.path()),
        "the paths are /v1/status, /v1/events, /v1/backends/SERVICE/BACKEND, /v1/explain, /v1/reload and /v1/version",
    )
}

async fn no_such_method(method: Method, uri: Uri) -> Refusal {
    Refusal::new(
        ProblemKind::NoSuchMethod,
        format!("{} does not support {method}", uri.path()),
        "GET reads; changes are POST to /v1/backends/SERVICE/BACKEND or /v1/reload",
    )
}

#[cfg(test)]
mod tests;
