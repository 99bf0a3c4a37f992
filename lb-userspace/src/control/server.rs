//! Answers on the control socket.
//!
//! The server runs in its own task and owns nothing but its connections: what it
//! tells it asks of the daemon's loop ([`Request`]) or reads from the
//! [`EventLog`]. It may be dropped at any time. No reader can hold up the
//! daemon: the loop answers into a oneshot, and followers of events read at
//! their own pace from a bounded queue or are cut off.

use std::{io, pin::pin, time::Duration};

use axum::{
    Json, Router,
    body::Body,
    extract::{
        ConnectInfo, Query, Request as HttpRequest, State, connect_info::Connected, rejection::QueryRejection,
    },
    http::{Method, StatusCode, Uri, header},
    middleware::{self, Next},
    response::{IntoResponse, Response},
    routing::get,
    serve::IncomingStream,
};
use serde::Deserialize;
use tokio::{
    net::UnixListener,
    sync::{mpsc, oneshot, watch},
    time::timeout,
};

use super::{
    events::{Ahead, EventLog},
    model::{Problem, Status, Version},
};

mod stream;

/// How long the daemon's loop may take to answer.
const ANSWER: Duration = Duration::from_secs(2);

/// How long open connections may take to end once the daemon stops.
const GRACE: Duration = Duration::from_secs(1);

/// What the server needs of the daemon.
#[derive(Clone, Debug)]
pub struct Handle {
    /// To the daemon's loop. A depth of 16 is plenty: who finds it full waits, at most two seconds.
    pub requests: mpsc::Sender<Request>,
    pub events: EventLog,
}

/// A question to the daemon's loop. An answer that nobody waits for any more may be dropped.
#[derive(Debug)]
pub enum Request {
    Status(oneshot::Sender<Status>),
}

/// Serves until `shutdown` completes; then ends the open connections.
pub async fn serve(
    listener: UnixListener,
    handle: Handle,
    shutdown: impl Future<Output = ()>,
) -> io::Result<()> {
    let (stop, stopped) = watch::channel(false);
    let mut graceful = stopped.clone();
    let service = router(handle, stopped).into_make_service_with_connect_info::<Peer>();
    let serving = axum::serve(listener, service).with_graceful_shutdown(async move {
        // An error means that `stop` is gone, and this future with it.
        let _ = graceful.wait_for(|stopped| *stopped).await;
    });
    let mut serving = pin!(serving.into_future());
    tokio::select! {
        ended = &mut serving => return ended,
        () = shutdown => {}
    }
    stop.send_replace(true);
    // Whoever does not read what it asked for is left behind; its task ends with the runtime.
    timeout(GRACE, serving).await.unwrap_or(Ok(()))
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
        .route("/v1/version", get(async || Json(Version::own())))
        .method_not_allowed_fallback(no_such_method)
        .fallback(no_such_path)
        .layer(middleware::from_fn(changes_are_the_owners))
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
) -> Result<Json<Status>, Refusal> {
    let Query(query) = query.map_err(|error| Refusal::query(&error, "service=NAME"))?;
    let mut status = api.ask().await?;
    if let Some(service) = query.service {
        if !status.knows(&service) {
            return Err(Refusal::no_such_service(&service, &status));
        }
        status.only(&service);
    }
    Ok(Json(status))
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
    let Query(query) =
        query.map_err(|error| Refusal::query(&error, "since=SEQ, follow=true and service=NAME"))?;
    if let Some(service) = &query.service {
        let status = api.ask().await?;
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
    Ok(([(header::CONTENT_TYPE, "application/x-ndjson")], Body::from_stream(lines)).into_response())
}

impl Api {
    async fn ask(&self) -> Result<Status, Refusal> {
        let (answer, answered) = oneshot::channel();
        let exchange = async {
            self.handle.requests.send(Request::Status(answer)).await.map_err(|_| Refusal::stopping())?;
            answered.await.map_err(|_| Refusal::stopping())
        };
        timeout(ANSWER, exchange).await.unwrap_or_else(|_| Err(Refusal::busy()))
    }
}

async fn no_such_path(uri: Uri) -> Refusal {
    Refusal::new(
        StatusCode::NOT_FOUND,
        format!("no such path: {}", uri.path()),
        "there are /v1/status, /v1/events and /v1/version",
    )
}

async fn no_such_method(method: Method, uri: Uri) -> Refusal {
    Refusal::new(
        StatusCode::METHOD_NOT_ALLOWED,
        format!("{} does not answer to {method}", uri.path()),
        "use GET: nothing can be changed through this socket yet",
    )
}

/// Who is at the other end of a connection, as the kernel says.
#[derive(Clone, Copy, Debug)]
struct Peer {
    uid: Option<u32>,
}

impl Connected<IncomingStream<'_, UnixListener>> for Peer {
    fn connect_info(stream: IncomingStream<'_, UnixListener>) -> Self {
        Self { uid: stream.io().peer_cred().ok().map(|credentials| credentials.uid()) }
    }
}

impl Peer {
    /// Root and the daemon's own user may change things.
    fn may_change(self, own_uid: u32) -> bool {
        self.uid.is_some_and(|uid| uid == 0 || uid == own_uid)
    }
}

/// Whoever can open the socket may read. All else is for root and the daemon's user.
async fn changes_are_the_owners(
    ConnectInfo(peer): ConnectInfo<Peer>,
    request: HttpRequest,
    next: Next,
) -> Response {
    if request.method().is_safe() || peer.may_change(nix::unistd::geteuid().as_raw()) {
        next.run(request).await
    } else {
        Refusal::new(StatusCode::FORBIDDEN, "only root and the daemon's user may change anything", "use sudo")
            .into_response()
    }
}

/// An answer that is not 200.
#[derive(Debug)]
struct Refusal {
    status: StatusCode,
    problem: Problem,
}

impl Refusal {
    fn new(status: StatusCode, error: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { status, problem: Problem { error: error.into(), remedy: remedy.into() } }
    }

    fn query(rejection: &QueryRejection, parameters: &str) -> Self {
        Self::new(
            StatusCode::BAD_REQUEST,
            rejection.body_text(),
            format!("the parameters are {parameters}, each optional"),
        )
    }

    fn no_such_service(asked: &str, status: &Status) -> Self {
        let names: Vec<&str> = status.snapshot.services.iter().map(|service| service.name.as_str()).collect();
        let near = names.iter().find(|name| strsim::osa_distance(name, asked) <= 2);
        let remedy = match near {
            Some(name) => format!("did you mean `{name}`?"),
            None if names.is_empty() => "no service is configured".to_owned(),
            None => format!("the services are {}", names.join(", ")),
        };
        Self::new(StatusCode::NOT_FOUND, format!("no service is named `{asked}`"), remedy)
    }

    fn stopping() -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, "the daemon is stopping", "ask again once it has started")
    }

    fn busy() -> Self {
        Self::new(
            StatusCode::SERVICE_UNAVAILABLE,
            format!("the daemon did not answer within {} s", ANSWER.as_secs()),
            "look at its log; forwarding does not depend on it",
        )
    }
}

impl From<Ahead> for Refusal {
    fn from(ahead: Ahead) -> Self {
        Self::new(
            StatusCode::BAD_REQUEST,
            ahead.to_string(),
            "the daemon has started anew since, and counts from 1 again: ask without `since`",
        )
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        (self.status, Json(self.problem)).into_response()
    }
}

#[cfg(test)]
mod tests;
