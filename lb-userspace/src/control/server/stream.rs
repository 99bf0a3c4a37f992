//! The body of `GET /v1/events`: JSON lines, made when the connection takes them.

use std::{convert::Infallible, sync::Arc, vec};

use bytes::Bytes;
use futures_util::{Stream, stream};
use lb_core::event::Event;
use serde::Serialize;
use tokio::sync::{broadcast, watch};

use crate::control::{
    events::Backlog,
    model::{Missed, MissedKind},
};

/// First the events of the log. Then, with `live`, new events until `stopped`.
pub(super) fn lines(
    backlog: Backlog,
    live: Option<broadcast::Receiver<Arc<Event>>>,
    service: Option<String>,
    stopped: watch::Receiver<bool>,
) -> impl Stream<Item = Result<Bytes, Infallible>> {
    // A gap before the backlog comes first.
    let gap = (backlog.missed > 0).then(|| lagged(backlog.missed, backlog.since));
    let feed =
        Feed { gap, last_seq: backlog.last_seq, backlog: backlog.events.into_iter(), live, service, stopped };
    stream::unfold(feed, async |mut feed| Some((Ok(feed.next().await?), feed)))
}

struct Feed {
    gap: Option<Missed>,
    backlog: vec::IntoIter<Arc<Event>>,
    /// Sequence number of the last event that was read.
    last_seq: u64,
    live: Option<broadcast::Receiver<Arc<Event>>>,
    service: Option<String>,
    stopped: watch::Receiver<bool>,
}

impl Feed {
    async fn next(&mut self) -> Option<Bytes> {
        if let Some(gap) = self.gap.take() {
            return Some(line(&gap));
        }
        let service = self.service.as_deref();
        let wanted = |event: &Event| service.is_none_or(|service| event.service == service);
        if let Some(event) = self.backlog.find(|event| wanted(event)) {
            return Some(line(event.as_ref()));
        }
        let live = self.live.as_mut()?;
        loop {
            let received = tokio::select! {
                received = live.recv() => received,
                _ = self.stopped.wait_for(|stopped| *stopped) => return None,
            };
            match received {
                Ok(event) => {
                    self.last_seq = event.seq;
                    if wanted(&event) {
                        return Some(line(event.as_ref()));
                    }
                }
                Err(broadcast::error::RecvError::Lagged(missed)) => {
                    let last = line(&lagged(missed, self.last_seq));
                    self.live = None;
                    return Some(last);
                }
                Err(broadcast::error::RecvError::Closed) => return None,
            }
        }
    }
}

fn lagged(missed: u64, since: u64) -> Missed {
    Missed { kind: MissedKind::Lagged, missed, since }
}

fn line(record: &impl Serialize) -> Bytes {
    let mut line = serde_json::to_vec(record).expect("events are plain data with text keys");
    line.push(b'\n');
    line.into()
}
