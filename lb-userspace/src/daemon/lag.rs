//! How late the loop is: what was due, and had to wait for it.

use std::time::Duration;

use crate::control::model::LoopLag;

/// `recent` covers one to two of these.
const WINDOW: Duration = Duration::from_secs(10);

/// The longest waits. Two windows take turns, so that nothing has to be remembered one by one.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Lag {
    worst: Duration,
    present: Duration,
    former: Duration,
    since: Duration,
}

impl Lag {
    /// Something had to wait for so long, as is known `at` that time after the start.
    pub(super) fn note(&mut self, waited: Duration, at: Duration) {
        self.turn(at);
        self.worst = self.worst.max(waited);
        self.present = self.present.max(waited);
    }

    pub(super) fn told(mut self, at: Duration) -> LoopLag {
        self.turn(at);
        let ms = |lag: Duration| lag.as_millis() as u64;
        LoopLag { recent: ms(self.present.max(self.former)), worst: ms(self.worst) }
    }

    fn turn(&mut self, at: Duration) {
        let windows = at.saturating_sub(self.since).as_nanos() / WINDOW.as_nanos();
        match windows {
            0 => return,
            1 => self.former = self.present,
            _ => self.former = Duration::ZERO,
        }
        self.present = Duration::ZERO;
        self.since += WINDOW.saturating_mul(windows.try_into().unwrap_or(u32::MAX));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_recent_is_forgotten_and_the_worst_is_not() {
        let (ms, secs) = (Duration::from_millis, Duration::from_secs);
        let mut lag = Lag::default();
        lag.note(ms(40), secs(1));
        lag.note(ms(7), secs(2));
        let told = |recent, worst| LoopLag { recent, worst };
        assert_eq!(lag.told(secs(2)), told(40, 40));
        assert_eq!(lag.told(secs(19)), told(40, 40), "the window before still counts");
        assert_eq!(lag.told(secs(20)), told(0, 40));
        lag.note(ms(3), secs(19));
        assert_eq!(lag.told(secs(25)), told(3, 40));
        assert_eq!(lag.told(secs(3600)), told(0, 40));
    }
}
