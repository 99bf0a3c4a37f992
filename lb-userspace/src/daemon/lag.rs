//! Loop lag: how late the loop dealt with something that was due.

use std::time::Duration;

use crate::control::model::LoopLag;

/// `recent` covers one to two of these.
const WINDOW: Duration = Duration::from_secs(10);

/// The longest waits. Two windows take turns, so that no single wait has to be remembered. Times count from
/// the start of the clock.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Lag {
    /// When the turn under way began its work.
    begun: Option<Duration>,
    worst: Duration,
    present: Duration,
    former: Duration,
    since: Duration,
}

impl Lag {
    /// A turn begins its work. From here on, everything else that is due waits.
    pub(super) fn begin(&mut self, at: Duration) {
        self.begun = Some(at);
    }

    /// The turn has done its work.
    pub(super) fn end(&mut self, at: Duration) {
        if let Some(begun) = self.begun.take() {
            self.note(at.saturating_sub(begun), at);
        }
    }

    /// Something that was due had to wait for so long, until `at`.
    pub(super) fn note(&mut self, waited: Duration, at: Duration) {
        self.turn(at);
        self.worst = self.worst.max(waited);
        self.present = self.present.max(waited);
    }

    pub(super) fn report(mut self, at: Duration) -> LoopLag {
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
    fn a_recent_wait_expires_and_the_worst_does_not() {
        let (ms, secs) = (Duration::from_millis, Duration::from_secs);
        let mut lag = Lag::default();
        lag.note(ms(40), secs(1));
        lag.note(ms(7), secs(2));
        let expected = |recent, worst| LoopLag { recent, worst };
        assert_eq!(lag.report(secs(2)), expected(40, 40));
        assert_eq!(lag.report(secs(19)), expected(40, 40), "the window before still counts");
        assert_eq!(lag.report(secs(20)), expected(0, 40));
        lag.note(ms(3), secs(19));
        assert_eq!(lag.report(secs(25)), expected(3, 40));
        assert_eq!(lag.report(secs(3600)), expected(0, 40));
    }
}
