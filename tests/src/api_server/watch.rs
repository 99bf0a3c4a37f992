//! Watches: the changes since a version, then each further one, with bookmarks between them.

use std::{collections::BTreeMap, io, sync::Arc, time::Duration};

use bytes::Bytes;
use futures_util::stream;
use http_body_util::{BodyExt as _, StreamBody};
use hyper::{Response, body::Frame};
use serde_json::{Value, json};
use tokio::{sync::mpsc, time::timeout};

use super::{
    Shared,
    answers::{Body, failure, json_response, stamped},
    lock,
    objects::{Change, Kind, Selection},
};

/// Of a watch that names no other.
const LONGEST: Duration = Duration::from_secs(300);

type Sender = mpsc::Sender<Bytes>;

/// The answer to a request with `watch=true`.
pub(super) fn stream(
    shared: &Arc<Shared>,
    kind: Kind,
    group_version: String,
    selection: Selection,
    query: &BTreeMap<String, String>,
) -> Response<Body> {
    let from = query.get("resourceVersion").and_then(|version| version.parse::<u64>().ok()).unwrap_or(0);
    let seconds = query.get("timeoutSeconds").and_then(|seconds| seconds.parse().ok());
    let longest = seconds.map_or(LONGEST, Duration::from_secs);
    let bookmarks = query.get("allowWatchBookmarks").is_some_and(|value| value == "true" || value == "1");
    // A client that is slow holds up its own watch.
    let (sender, lines) = mpsc::channel(16);
    let watch = Watch { shared: Arc::clone(shared), kind, group_version, selection, bookmarks };
    tokio::spawn(async move {
        // A client that is gone ends it, too.
        let _ = timeout(longest, watch.run(from, sender)).await;
    });
    let frames = stream::unfold(lines, |mut lines| async {
        lines.recv().await.map(|line| (Ok::<_, io::Error>(Frame::data(line)), lines))
    });
    json_response(200, StreamBody::new(frames).boxed_unsync())
}

struct Watch {
    shared: Arc<Shared>,
    kind: Kind,
    group_version: String,
    selection: Selection,
    bookmarks: bool,
}

/// The client is gone.
struct Gone;

impl Watch {
    async fn run(&self, from: u64, lines: Sender) -> Result<(), Gone> {
        let mut version = self.shared.version.subscribe();
        let mut seen = from;
        if from == 0 {
            // Without a version it begins with everything that there is.
            let (objects, now) = {
                let store = lock(&self.shared.store);
                let all = store.all(self.kind, &self.selection);
                (all.into_iter().cloned().collect::<Vec<_>>(), store.version)
            };
            for object in objects {
                self.send(&lines, "ADDED", &object).await?;
            }
            seen = now;
        }
        loop {
            version.mark_unchanged();
            let (changes, oldest, now) = {
                let store = lock(&self.shared.store);
                (store.since(self.kind, seen), store.oldest, store.version)
            };
            if seen < oldest {
                let gone = failure(410, &format!("too old resource version: {seen} ({oldest})"));
                return line(&lines, &json!({ "type": "ERROR", "object": gone })).await;
            }
            for change in changes {
                seen = change.version;
                if let Some((event, object)) = self.event(&change) {
                    self.send(&lines, event, &object).await?;
                }
            }
            seen = seen.max(now);
            if timeout(self.shared.bookmarks, version.changed()).await.is_err() && self.bookmarks {
                let metadata = json!({ "resourceVersion": seen.to_string(), "creationTimestamp": null });
                self.send(&lines, "BOOKMARK", &json!({ "metadata": metadata })).await?;
            }
        }
    }

    /// How a change looks to a client that sees the selected objects only.
    fn event(&self, change: &Change) -> Option<(&'static str, Value)> {
        let fits = |object: &Option<Value>| object.as_ref().is_some_and(|object| self.selection.fits(object));
        let (before, after) = (fits(&change.before), fits(&change.after));
        let (event, object) = match (before, after) {
            (false, false) => return None,
            (false, true) => ("ADDED", change.after.clone()),
            (true, true) => ("MODIFIED", change.after.clone()),
            (true, false) => ("DELETED", change.before.clone()),
        };
        let mut object = object?;
        object["metadata"]["resourceVersion"] = json!(change.version.to_string());
        Some((event, object))
    }

    async fn send(&self, lines: &Sender, event: &str, object: &Value) -> Result<(), Gone> {
        let object = stamped(object, self.kind, &self.group_version);
        line(lines, &json!({ "type": event, "object": object })).await
    }
}

async fn line(lines: &Sender, of: &Value) -> Result<(), Gone> {
    lines.send(Bytes::from(format!("{of}\n"))).await.map_err(|_| Gone)
}
