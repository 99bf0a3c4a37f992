//! The virtual time of a replay, and how the times of lines map to it.

use lb_core::time::{Instant, Millis};

use super::unfit::Unfit;

/// Time may not jump further. The engine runs every sweep of such a jump, and a longer one is a mistake.
const LONGEST_JUMP: Millis = Millis::secs(400 * 24 * 3600);

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Timeline {
    pub(super) now: Instant,
    /// `None`: the times of lines are virtual times.
    pub(super) clock: Option<Clock>,
}

/// The clock of the daemon that wrote the lines.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Clock {
    pub(super) began_unix_ms: u64,
    /// The virtual time of its 0.
    pub(super) origin: Instant,
}

impl Timeline {
    /// The virtual time of a line.
    pub(super) fn moment(&self, at: Instant) -> Result<Instant, Unfit> {
        let origin = self.clock.map_or(Instant(0), |clock| clock.origin);
        let moment = origin + Millis(at.0);
        if moment < self.now {
            let message = format!("time runs back, from {} to {} ms", (self.now - origin).0, at.0);
            let help = "put the lines in the order of `t_ms`, for example by `jq -cs 'sort_by(.t_ms)[]'`";
            return Err(Unfit::new(message, help));
        }
        if moment - self.now > LONGEST_JUMP {
            return Err(Unfit::too_far());
        }
        Ok(moment)
    }

    /// The virtual time at which a daemon began that started again after the one of `clock`.
    pub(super) fn restart(&self, clock: Clock, began_unix_ms: u64) -> Result<Instant, Unfit> {
        let since = Millis(began_unix_ms.saturating_sub(clock.began_unix_ms));
        // The wall clock may have been set back. Virtual time does not run back with it.
        let origin = (clock.origin + since).max(self.now);
        if origin - self.now > LONGEST_JUMP {
            return Err(Unfit::too_far());
        }
        Ok(origin)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_jumps_no_further_than_400_days() {
        let timeline = Timeline { now: Instant(5), clock: None };
        let furthest = 5 + LONGEST_JUMP.0;
        assert_eq!(timeline.moment(Instant(furthest)).ok(), Some(Instant(furthest)));
        assert!(timeline.moment(Instant(furthest + 1)).is_err());
        let clock = Clock { began_unix_ms: 1000, origin: Instant(0) };
        let restart = |later| timeline.restart(clock, 1000 + later).ok();
        assert_eq!(restart(furthest), Some(Instant(furthest)));
        assert_eq!(restart(furthest + 1), None);
        assert_eq!(restart(3), Some(Instant(5)), "a clock that was set back");
    }
}
