//! The connections of the control socket: accepts them, gives each a task, and ends them.

use std::{io, sync::Arc, time::Duration};

use axum::{Router, extract::ConnectInfo, response::IntoResponse as _};
use hyper::{
    Request,
    body::Incoming,
    server::conn::http1,
    service::{Service as _, service_fn},
};
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    service::TowerToHyperService,
};
use tokio::{
    net::{UnixListener, UnixStream},
    sync::{Semaphore, watch},
    task::JoinSet,
    time::{sleep, timeout},
};
use tracing::{debug, warn};

use super::{
    admission::{Admission, Full},
    peer::Peer,
};

/// How long the head of a request may take, and how long a connection may be idle.
pub(super) const HEAD_TIMEOUT: Duration = Duration::from_secs(10);

/// How long open connections may take to end once the daemon stops.
const GRACE: Duration = Duration::from_secs(1);

/// After an error of the listener, which is a lack of descriptors or of memory.
const PAUSE: Duration = Duration::from_millis(100);

/// Refusals that are written at a time. The others see their connection closed without a word.
const REFUSALS: usize = 16;
const REFUSAL_TIMEOUT: Duration = Duration::from_secs(1);

/// Serves until `shutdown` completes. Then it ends the open connections; `stop` lets the open answers end.
pub(super) async fn serve(
    listener: UnixListener,
    router: Router,
    stop: watch::Sender<bool>,
    shutdown: impl Future<Output = ()>,
) {
    let admission = Admission::default();
    let refusals = Arc::new(Semaphore::new(REFUSALS));
    let mut connections = JoinSet::new();
    let accepting = async {
        loop {
            let stream = accept(&listener).await;
            // Those that have ended.
            while connections.try_join_next().is_some() {}
            let peer = Peer::of(&stream);
            match admission.admit(peer) {
                Ok(place) => {
                    let talk = talk(stream, peer, router.clone(), stop.subscribe());
                    connections.spawn(async move {
                        talk.await;
                        drop(place);
                    });
                }
                Err(full) => {
                    if let Ok(permit) = refusals.clone().try_acquire_owned() {
                        connections.spawn(async move {
                            refuse(stream, full).await;
                            drop(permit);
                        });
                    }
                }
            }
        }
    };
    tokio::select! {
        () = accepting => {}
        () = shutdown => {}
    }
    drop(listener);
    stop.send_replace(true);
    // A client that does not read its response is abandoned: its task ends with the set.
    let ended = async { while connections.join_next().await.is_some() {} };
    let _ = timeout(GRACE, ended).await;
}

async fn accept(listener: &UnixListener) -> UnixStream {
    let mut failed = false;
    loop {
        match listener.accept().await {
            Ok((stream, _)) => return stream,
            Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => {}
            Err(error) => {
                if !std::mem::replace(&mut failed, true) {
                    warn!(%error, "the control socket cannot accept a connection; it tries again");
                }
                sleep(PAUSE).await;
            }
        }
    }
}

/// Answers the requests of one connection.
async fn talk(stream: UnixStream, peer: Peer, router: Router, mut stopped: watch::Receiver<bool>) {
    let router = TowerToHyperService::new(router);
    let service = service_fn(move |mut request: Request<Incoming>| {
        request.extensions_mut().insert(ConnectInfo(peer));
        router.call(request)
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT)
        .serve_connection(TokioIo::new(stream), service);
    let mut connection = std::pin::pin!(connection);
    let ended = tokio::select! {
        ended = &mut connection => Some(ended),
        // An error means that the server is gone.
        () = async { drop(stopped.wait_for(|stopped| *stopped).await) } => None,
    };
    let ended = match ended {
        Some(ended) => ended,
        None => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = ended {
        debug!(%error, "a connection of the control socket ended");
    }
}

/// Answers one request with a refusal.
async fn refuse(stream: UnixStream, full: Full) {
    let service = service_fn(async |_: Request<Incoming>| {
        Ok::<_, std::convert::Infallible>(full.refusal().into_response())
    });
    let connection = http1::Builder::new().keep_alive(false).serve_connection(TokioIo::new(stream), service);
    // A client that asks nothing, or reads nothing, is not waited for.
    let _ = timeout(REFUSAL_TIMEOUT, connection).await;
}
