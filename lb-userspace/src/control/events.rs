//! The log of recent events, for readers and followers.
//!
//! The daemon's loop is the only writer. No reader can slow it down: the ring drops its oldest event, and a follower
//! that falls behind gets a message about the gap.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use lb_core::event::Event;
use tokio::sync::broadcast;

/// How many events the log has. At one event a second this is a quarter of an hour.
const CAPACITY: usize = 1024;

/// How far a follower may fall behind before the daemon ends its stream. A burst can be larger, for example when a
/// configuration with a thousand backends is loaded. Then the follower finds the rest in the log.
const FOLLOW_DEPTH: usize = 256;

#[derive(Clone, Debug)]
pub struct EventLog(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    recent: Mutex<VecDeque<Arc<Event>>>,
    live: broadcast::Sender<Arc<Event>>,
}

/// The events that a reader asked for, as far as the log still has them, oldest first.
#[derive(Debug)]
pub struct Backlog {
    /// The sequence number that the reader asked for. 0: everything.
    pub since: u64,
    /// How many of these events the log no longer has.
    pub missed: u64,
    pub events: Vec<Arc<Event>>,
    /// Sequence number of the last event of all; 0 before the first.
    pub last_seq: u64,
}

/// No event has this sequence number yet: it comes from another run of the daemon.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("since={since} is ahead of the last event, {last_seq}")]
pub struct Ahead {
    pub since: u64,
    pub last_seq: u64,
}

impl EventLog {
    pub fn new() -> Self {
        Self(Arc::new(Inner {
            recent: Mutex::new(VecDeque::with_capacity(CAPACITY)),
            live: broadcast::Sender::new(FOLLOW_DEPTH),
        }))
    }

    /// Never waits for a reader.
    pub fn push(&self, event: Event) {
        let event = Arc::new(event);
        let mut recent = self.recent();
        if recent.len() == CAPACITY {
            recent.pop_front();
        }
        recent.push_back(Arc::clone(&event));
        // Under the lock, so that no event is between `recent` and `live` when a follower starts.
        // It fails only when there is no follower.
        let _ = self.0.live.send(event);
    }

    /// Sequence number of the last event; 0 before the first.
    pub fn last_seq(&self) -> u64 {
        self.recent().back().map_or(0, |event| event.seq)
    }

    /// The events after sequence number `since`, or all events for `None`.
    pub fn read(&self, since: Option<u64>) -> Result<Backlog, Ahead> {
        backlog(&self.recent(), since)
    }

    /// As [`read`](Self::read), and every later event, without a gap between the two.
    pub fn follow(&self, since: Option<u64>) -> Result<(Backlog, broadcast::Receiver<Arc<Event>>), Ahead> {
        let recent = self.recent();
        Ok((backlog(&recent, since)?, self.0.live.subscribe()))
    }

    fn recent(&self) -> MutexGuard<'_, VecDeque<Arc<Event>>> {
        // Each change of the ring is one call that cannot panic half-way.
        self.0.recent.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Default for EventLog {
    fn default() -> Self {
        Self::new()
    }
}

fn backlog(recent: &VecDeque<Arc<Event>>, since: Option<u64>) -> Result<Backlog, Ahead> {
    let last_seq = recent.back().map_or(0, |event| event.seq);
    let Some(since) = since else {
        return Ok(Backlog { since: 0, missed: 0, events: recent.iter().cloned().collect(), last_seq });
    };
    if since > last_seq {
        return Err(Ahead { since, last_seq });
    }
    let oldest = recent.front().map_or(0, |event| event.seq);
    Ok(Backlog {
        since,
        missed: oldest.saturating_sub(since + 1),
        events: recent.iter().filter(|event| event.seq > since).cloned().collect(),
        last_seq,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::fixture;

    fn filled(last: u64) -> EventLog {
        let log = EventLog::new();
        for seq in 1..=last {
            log.push(fixture::event(seq, "web"));
        }
        log
    }

    fn seqs(backlog: &Backlog) -> Vec<u64> {
        backlog.events.iter().map(|event| event.seq).collect()
    }

    #[test]
    fn since_is_exclusive() {
        let log = filled(5);
        assert_eq!(log.last_seq(), 5);
        assert_eq!(seqs(&log.read(None).expect("all")), [1, 2, 3, 4, 5]);
        assert_eq!(seqs(&log.read(Some(3)).expect("known")), [4, 5]);
        assert_eq!(seqs(&log.read(Some(5)).expect("known")), [0; 0]);
    }

    #[test]
    fn the_oldest_events_are_dropped_and_counted() {
        let log = filled(CAPACITY as u64 + 10);
        let all = log.read(None).expect("all");
        assert_eq!((all.missed, all.events.len(), seqs(&all)[0]), (0, CAPACITY, 11));
        assert_eq!(log.read(Some(4)).expect("known").missed, 6);
        assert_eq!(log.read(Some(10)).expect("known").missed, 0);
    }

    #[test]
    fn a_number_of_another_run_is_refused() {
        assert_eq!(filled(3).read(Some(9)).expect_err("ahead"), Ahead { since: 9, last_seq: 3 });
        assert!(EventLog::new().read(Some(0)).is_ok());
    }

    #[test]
    fn following_leaves_no_gap() {
        let log = filled(2);
        let (backlog, mut live) = log.follow(None).expect("all");
        log.push(fixture::event(3, "web"));
        assert_eq!(seqs(&backlog), [1, 2]);
        assert_eq!(live.try_recv().expect("pushed").seq, 3);
        assert!(live.try_recv().is_err());
    }
}
