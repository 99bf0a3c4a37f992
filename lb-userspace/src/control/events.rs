//! The events that are kept for those who ask, and handed on to those who follow.
//!
//! The daemon's loop is the only writer. Nobody who reads can slow it down: the
//! ring forgets its oldest event, and a follower that falls behind is told so.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use lb_core::event::Event;
use tokio::sync::broadcast;

/// Kept for `since`: at one event a second, a quarter of an hour.
const KEPT: usize = 1024;

/// How far a follower may fall behind before it is cut off. A burst (a
/// configuration of a thousand backends appearing) is larger; whoever is cut off
/// finds the rest among the events that are kept.
const FOLLOW_DEPTH: usize = 256;

#[derive(Clone, Debug)]
pub struct EventLog(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    kept: Mutex<VecDeque<Arc<Event>>>,
    live: broadcast::Sender<Arc<Event>>,
}

/// What is kept of the events that were asked for, oldest first.
#[derive(Debug)]
pub struct Backlog {
    /// What was asked for; 0: everything.
    pub since: u64,
    /// Events asked for that are no longer kept.
    pub missed: u64,
    pub events: Vec<Arc<Event>>,
    /// Sequence number of the last event of all; 0 before the first.
    pub last_seq: u64,
}

/// The sequence number asked for has not been given yet: it is of another run of the daemon.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("since={since} is ahead of the last event, {last_seq}")]
pub struct Ahead {
    pub since: u64,
    pub last_seq: u64,
}

impl EventLog {
    pub fn new() -> Self {
        Self(Arc::new(Inner {
            kept: Mutex::new(VecDeque::with_capacity(KEPT)),
            live: broadcast::Sender::new(FOLLOW_DEPTH),
        }))
    }

    /// Never waits for a reader.
    pub fn push(&self, event: Event) {
        let event = Arc::new(event);
        let mut kept = self.kept();
        if kept.len() == KEPT {
            kept.pop_front();
        }
        kept.push_back(Arc::clone(&event));
        // Under the lock, so that no event is between `kept` and `live` when somebody starts to follow.
        // It fails only when nobody follows.
        let _ = self.0.live.send(event);
    }

    /// Sequence number of the last event; 0 before the first.
    pub fn last_seq(&self) -> u64 {
        self.kept().back().map_or(0, |event| event.seq)
    }

    /// The kept events after sequence number `since`; all of them for `None`.
    pub fn read(&self, since: Option<u64>) -> Result<Backlog, Ahead> {
        backlog(&self.kept(), since)
    }

    /// As [`read`](Self::read), and every later event, without a gap between the two.
    pub fn follow(&self, since: Option<u64>) -> Result<(Backlog, broadcast::Receiver<Arc<Event>>), Ahead> {
        let kept = self.kept();
        Ok((backlog(&kept, since)?, self.0.live.subscribe()))
    }

    fn kept(&self) -> MutexGuard<'_, VecDeque<Arc<Event>>> {
        // Each change of the ring is one call that cannot panic half-way.
        self.0.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Default for EventLog {
    fn default() -> Self {
        Self::new()
    }
}

fn backlog(kept: &VecDeque<Arc<Event>>, since: Option<u64>) -> Result<Backlog, Ahead> {
    let last_seq = kept.back().map_or(0, |event| event.seq);
    let Some(since) = since else {
        return Ok(Backlog { since: 0, missed: 0, events: kept.iter().cloned().collect(), last_seq });
    };
    if since > last_seq {
        return Err(Ahead { since, last_seq });
    }
    let oldest = kept.front().map_or(0, |event| event.seq);
    Ok(Backlog {
        since,
        missed: oldest.saturating_sub(since + 1),
        events: kept.iter().filter(|event| event.seq > since).cloned().collect(),
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
    fn the_oldest_are_forgotten_and_counted() {
        let log = filled(KEPT as u64 + 10);
        let all = log.read(None).expect("all");
        assert_eq!((all.missed, all.events.len(), seqs(&all)[0]), (0, KEPT, 11));
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
