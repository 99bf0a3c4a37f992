//! An exact count over a window: ten buckets, of which the oldest is dropped whole.
//!
//! A decaying average would be cheaper, but it can sleep through an outage. Buckets are aligned to the
//! engine's clock, so the window covers the present bucket up to now and the nine before it.

use std::{mem, net::IpAddr};

use super::sources::Sources;
use crate::time::{Instant, Millis};

const BUCKETS: u64 = 10;

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ring {
    /// Ten buckets are as long as this. 0: nothing was counted yet.
    window: Millis,
    buckets: [Bucket; BUCKETS as usize],
    /// The sum of all buckets.
    sum: Bucket,
    /// The number of the newest bucket since the clock's start.
    newest: u64,
    /// The sources of the bad ones, for each bucket. `None`: there were none yet.
    sources: Option<Box<[Sources; BUCKETS as usize]>>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Bucket {
    total: u64,
    bad: u64,
}

impl Ring {
    pub fn add_bad(&mut self, client: Option<IpAddr>, window: Millis, now: Instant) {
        self.add_many(1, 1, window, now);
        let sources = self.sources.get_or_insert_default();
        sources[(self.newest % BUCKETS) as usize].add(client);
    }

    pub fn add_good(&mut self, count: u64, window: Millis, now: Instant) {
        self.add_many(count, 0, window, now);
    }

    fn add_many(&mut self, total: u64, bad: u64, window: Millis, now: Instant) {
        self.turn(window, now);
        for bucket in [&mut self.buckets[(self.newest % BUCKETS) as usize], &mut self.sum] {
            bucket.total += total;
            bucket.bad += bad;
        }
    }

    /// All in the window that ends at `now`, and the bad ones among them.
    pub fn count(&self, window: Millis, now: Instant) -> (u64, u64) {
        let mut ring = self.clone();
        ring.turn(window, now);
        ring.counted()
    }

    /// The same, as of the last outcome that was added.
    pub fn counted(&self) -> (u64, u64) {
        (self.sum.total, self.sum.bad)
    }

    /// The sources of the bad ones that [`Ring::counted`] counts.
    pub fn sources(&self) -> Sources {
        let mut all = Sources::default();
        self.sources.iter().flat_map(|buckets| buckets.iter()).for_each(|bucket| all.merge(bucket));
        all
    }

    fn turn(&mut self, window: Millis, now: Instant) {
        if self.window != window {
            self.rescale(window);
        }
        let number = scaled(now.0, BUCKETS, window.0);
        let passed = number.saturating_sub(self.newest).min(BUCKETS);
        for step in 1..=passed {
            let oldest = &mut self.buckets[((self.newest + step) % BUCKETS) as usize];
            self.sum.total -= oldest.total;
            self.sum.bad -= oldest.bad;
            *oldest = Bucket::default();
            if let Some(sources) = &mut self.sources {
                sources[((self.newest + step) % BUCKETS) as usize] = Sources::default();
            }
        }
        self.newest = self.newest.max(number);
    }

    /// A reload has changed the window. Each count moves into the bucket of the same time.
    fn rescale(&mut self, window: Millis) {
        let before = mem::take(self);
        let number = |before_number| scaled(before_number, before.window.0, window.0);
        self.window = window;
        self.newest = number(before.newest);
        for old in before.newest.saturating_sub(BUCKETS - 1)..=before.newest {
            let new = number(old);
            if new + BUCKETS <= self.newest {
                continue;
            }
            let (from, to) = ((old % BUCKETS) as usize, (new % BUCKETS) as usize);
            for bucket in [&mut self.buckets[to], &mut self.sum] {
                bucket.total += before.buckets[from].total;
                bucket.bad += before.buckets[from].bad;
            }
            if let Some(sources) = &before.sources {
                self.sources.get_or_insert_default()[to].merge(&sources[from]);
            }
        }
    }
}

/// `number` * `by` / `of`, rounded down.
fn scaled(number: u64, by: u64, of: u64) -> u64 {
    u64::try_from(u128::from(number) * u128::from(by) / u128::from(of.max(1))).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const WINDOW: Millis = Millis(1000);

    #[test]
    fn outcomes_older_than_ten_buckets_are_dropped_whole() {
        let mut ring = Ring::default();
        ring.add_bad(None, WINDOW, Instant(0));
        ring.add_good(1, WINDOW, Instant(99));
        ring.add_bad(None, WINDOW, Instant(100));
        assert_eq!(ring.count(WINDOW, Instant(999)), (3, 2));
        assert_eq!(ring.count(WINDOW, Instant(1000)), (1, 1));
        assert_eq!(ring.count(WINDOW, Instant(1099)), (1, 1));
        assert_eq!(ring.count(WINDOW, Instant(1100)), (0, 0));
    }

    #[test]
    fn it_agrees_with_counting_everything() {
        let mut ring = Ring::default();
        let mut all = Vec::new();
        let mut now = 0;
        for word in 0..2000 {
            let drawn = crate::random::draw(3, word);
            now += drawn % 90 * u64::from(drawn.is_multiple_of(7)) * (1 + drawn % 5);
            let bad = drawn.is_multiple_of(3);
            match bad {
                true => ring.add_bad(None, WINDOW, Instant(now)),
                false => ring.add_good(1, WINDOW, Instant(now)),
            }
            all.push((now / 100, bad));
            let inside: Vec<_> = all.iter().filter(|(at, _)| now / 100 - at < 10).collect();
            let bad = inside.iter().filter(|(_, bad)| *bad).count();
            assert_eq!(ring.counted(), (inside.len() as u64, bad as u64), "at {now}");
        }
    }

    #[test]
    fn sources_leave_with_their_buckets() {
        let client = |last| Some(IpAddr::from([192, 0, 2, last]));
        let mut ring = Ring::default();
        ring.add_bad(client(1), WINDOW, Instant(0));
        ring.add_bad(client(2), WINDOW, Instant(500));
        ring.add_good(1, WINDOW, Instant(900));
        assert_eq!(ring.sources().count().addresses, 2);
        ring.add_good(1, WINDOW, Instant(1000));
        assert_eq!(ring.sources().count().addresses, 1);
        ring.add_good(1, WINDOW, Instant(9000));
        assert_eq!(ring.sources().count().addresses, 0);
    }

    #[test]
    fn another_window_counts_by_the_same_clock() {
        const HOUR: u64 = 3_600_000;
        let (short, long) = (Millis(10_000), Millis(60_000));
        for (before, after) in [(short, long), (long, short)] {
            let mut ring = Ring::default();
            for second in 0..10 {
                ring.add_bad(None, before, Instant(HOUR + second * 1000));
            }
            let now = HOUR + 9_500;
            let kept = ring.count(after, Instant(now));
            assert!((6..=10).contains(&kept.1), "{before:?} to {after:?}: {kept:?}");
            ring.add_good(1, after, Instant(now));
            // All of it is forgotten in time, and what comes next counts.
            let later = now + after.0 + after.0 / 10;
            assert_eq!(ring.count(after, Instant(later)), (0, 0), "{before:?} to {after:?}");
            for at in 0..100 {
                ring.add_bad(None, after, Instant(later + at));
            }
            assert_eq!(ring.counted(), (100, 100));
            // And back again.
            ring.add_good(1, before, Instant(later + 200));
            assert_eq!(ring.count(before, Instant(later + 200)), (101, 100));
            assert_eq!(ring.count(before, Instant(later + 200 + before.0 + before.0 / 10)), (0, 0));
        }
    }

    #[test]
    fn another_width_keeps_the_count_sound() {
        let mut ring = Ring::default();
        for at in 0..50 {
            ring.add_bad(None, WINDOW, Instant(at * 10));
        }
        // Buckets are four times as long now: the numbers go back, and nothing is lost or counted twice.
        ring.add_good(1, Millis(4000), Instant(600));
        assert_eq!(ring.counted(), (51, 50));
        assert_eq!(ring.count(Millis(4000), Instant(60_000)), (0, 0));
    }
}
