//! Requests and their answers.

use std::{
    collections::BTreeMap,
    convert::Infallible,
    io,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use hyper::{Request, Response, body::Incoming, header, server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpListener, TcpStream},
};

use super::{
    Shared,
    answers::{Body, document, stamped, status},
    groups, lock,
    objects::{Kind, Selection, Store},
    watch,
};

pub(super) async fn accept(listener: std::net::TcpListener, shared: Arc<Shared>) {
    let listener = TcpListener::from_std(listener).expect("inside a runtime");
    loop {
        let Ok((stream, _)) = listener.accept().await else {
            tokio::time::sleep(Duration::from_millis(10)).await;
            continue;
        };
        if shared.away.load(Ordering::SeqCst) {
            // As a port without a listener does, nearly.
            let _ = socket_reset(&stream);
            continue;
        }
        let shared = Arc::clone(&shared);
        tokio::spawn(async move {
            match shared.tls.clone() {
                None => converse(stream, shared).await,
                // A client that breaks the handshake off is not served.
                Some(tls) => {
                    if let Ok(stream) = tls.accept(stream).await {
                        converse(stream, shared).await;
                    }
                }
            }
        });
    }
}

/// Has the stream end with a reset.
fn socket_reset(stream: &TcpStream) -> io::Result<()> {
    use nix::sys::socket::{setsockopt, sockopt};
    let linger = libc::linger { l_onoff: 1, l_linger: 0 };
    setsockopt(stream, sockopt::Linger, &linger).map_err(io::Error::from)
}

async fn converse<S>(stream: S, shared: Arc<Shared>)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let mut cuts = shared.cuts.subscribe();
    cuts.mark_unchanged();
    let answers = Arc::clone(&shared);
    let service = service_fn(move |request: Request<Incoming>| {
        let answer = answer(&request, &answers);
        async move { Ok::<_, Infallible>(answer) }
    });
    tokio::select! {
        _ = http1::Builder::new().serve_connection(TokioIo::new(stream), service) => {}
        // In the middle of whatever it was.
        _ = cuts.changed() => {}
    }
}

fn answer(request: &Request<Incoming>, shared: &Arc<Shared>) -> Response<Body> {
    let uri = request.uri();
    let refusal = {
        let mut faults = lock(&shared.faults);
        faults.requests.push(uri.to_string());
        let given = request.headers().get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
        let given = given.and_then(|value| value.strip_prefix("Bearer ")).unwrap_or_default();
        if faults.token.as_deref().is_some_and(|token| token != given) {
            Some((401, None))
        } else if faults.forbidden {
            Some((403, None))
        } else if faults.refusals.is_empty() {
            None
        } else {
            Some(faults.refusals.remove(0))
        }
    };
    if let Some((code, retry_after)) = refusal {
        let mut response = status(code, "refused by the test");
        if let Some(seconds) = retry_after {
            response.headers_mut().insert(header::RETRY_AFTER, seconds.into());
        }
        return response;
    }
    if request.method() != hyper::Method::GET {
        return status(405, "this server is only read");
    }
    let query = query(uri.query().unwrap_or_default());
    let path = uri.path().trim_end_matches('/');
    match path {
        "/api" => return document(200, &groups::core()),
        "/apis" => return document(200, &groups::groups(&shared.versions)),
        "/version" => return document(200, &json!({ "major": "1", "minor": "32", "gitVersion": "v1.32.0" })),
        "/readyz" | "/livez" | "/healthz" => return document(200, &json!("ok")),
        _ => {}
    }
    let Some((group_version, rest)) = split(path) else { return status(404, "there is no such path") };
    if rest.is_empty() {
        return match groups::resources(&group_version, &shared.versions) {
            Some(list) => document(200, &list),
            None => status(404, "there is no such version"),
        };
    }
    if groups::resources(&group_version, &shared.versions).is_none() {
        return status(404, "there is no such version");
    }
    let Some((kind, namespace, name)) = resource(&group_version, rest) else {
        return status(404, "there is no such object");
    };
    if let Some(name) = name {
        let store = lock(&shared.store);
        return match store.get(kind, &namespace.unwrap_or_default(), &name) {
            Some(object) => document(200, &stamped(object, kind, &group_version)),
            None => status(404, "there is no such object"),
        };
    }
    let field = query.get("fieldSelector").and_then(|field| field.strip_prefix("metadata.name="));
    let labels = query.get("labelSelector").cloned().unwrap_or_default();
    let selection = Selection { namespace, labels, name: field.map(str::to_owned) };
    match query.get("watch").map(String::as_str) {
        Some("true" | "1") => watch::stream(shared, kind, group_version, selection, &query),
        _ => list(&lock(&shared.store), kind, &group_version, &selection, &query),
    }
}

/// `/api/v1/…` and `/apis/GROUP/VERSION/…`: group and version, and the rest.
fn split(path: &str) -> Option<(String, &str)> {
    if let Some(rest) = path.strip_prefix("/api/v1") {
        return Some(("v1".to_owned(), rest.trim_start_matches('/')));
    }
    let rest = path.strip_prefix("/apis/")?;
    let mut parts = rest.splitn(3, '/');
    let (group, version) = (parts.next()?, parts.next()?);
    Some((format!("{group}/{version}"), parts.next().unwrap_or_default()))
}

/// `services`, `namespaces/NS/services`, `namespaces/NS/services/NAME`.
fn resource(group_version: &str, rest: &str) -> Option<(Kind, Option<String>, Option<String>)> {
    let parts: Vec<&str> = rest.split('/').collect();
    let (namespace, plural, name) = match parts.as_slice() {
        ["namespaces", namespace, plural] => (Some(*namespace), *plural, None),
        ["namespaces", namespace, plural, name] => (Some(*namespace), *plural, Some(*name)),
        [plural] => (None, *plural, None),
        _ => return None,
    };
    let kind = match (group_version, plural) {
        ("v1", "services") => Kind::Service,
        (of, "endpointslices") if of.starts_with("discovery.k8s.io/") => Kind::EndpointSlice,
        _ => return None,
    };
    Some((kind, namespace.map(str::to_owned), name.map(str::to_owned)))
}

/// A page of a list. A `continue` names the version of its first page and the number of objects before.
fn list(
    store: &Store,
    kind: Kind,
    group_version: &str,
    selection: &Selection,
    query: &BTreeMap<String, String>,
) -> Response<Body> {
    let number = |key: &str| query.get(key).and_then(|value| value.parse::<usize>().ok());
    let (mut version, mut from) = (store.version, 0);
    if let Some((of, place)) = query.get("continue").and_then(|token| token.split_once('.')) {
        (version, from) = (of.parse().unwrap_or(0), place.parse().unwrap_or(0));
        if version < store.oldest {
            return status(410, "the provided continue parameter is too old");
        }
    }
    let all = store.all(kind, selection);
    let limit = number("limit").filter(|limit| *limit > 0).unwrap_or(usize::MAX);
    // The list says of which kind and version they are, and they do not.
    let page: Vec<Value> = all.iter().skip(from).take(limit).map(|object| (*object).clone()).collect();
    let end = from + page.len();
    let mut metadata = json!({ "resourceVersion": version.to_string() });
    if end < all.len() {
        metadata["continue"] = json!(format!("{version}.{end}"));
        metadata["remainingItemCount"] = json!(all.len() - end);
    }
    let list = format!("{}List", kind.name());
    document(200, &json!({ "kind": list, "apiVersion": group_version, "metadata": metadata, "items": page }))
}

/// Keys and values, with `%XX` and `+` read.
fn query(text: &str) -> BTreeMap<String, String> {
    let plain = |text: &str| {
        let mut bytes = Vec::new();
        let mut rest = text.as_bytes();
        while let [first, tail @ ..] = rest {
            rest = tail;
            let hex = tail.get(..2).and_then(|two| std::str::from_utf8(two).ok());
            match (first, hex.and_then(|two| u8::from_str_radix(two, 16).ok())) {
                (b'%', Some(byte)) => {
                    bytes.push(byte);
                    rest = &tail[2..];
                }
                (b'+', _) => bytes.push(b' '),
                (other, _) => bytes.push(*other),
            }
        }
        String::from_utf8_lossy(&bytes).into_owned()
    };
    let pairs = text.split('&').filter_map(|pair| pair.split_once('='));
    pairs.map(|(key, value)| (plain(key), plain(value))).collect()
}
