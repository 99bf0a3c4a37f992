//! Times and counts of a server's health check.

use lb_core::time::Millis;

use super::{say::at_time, words::Word};
use crate::import::{
    draft::{Entry, Origin, span},
    note::Notes,
};

pub(super) const INTER: Millis = Millis::secs(2);

/// `inter`, `fastinter`, `downinter`, `rise`, `fall` of a server.
#[derive(Clone, Default)]
pub(super) struct CheckTimes<'s> {
    pub(super) inter: Option<(Millis, &'s Word)>,
    fast: Option<(Millis, &'s Word)>,
    down: Option<(Millis, &'s Word)>,
    rise: Option<(u32, &'s Word)>,
    fall: Option<(u32, &'s Word)>,
}

impl<'s> CheckTimes<'s> {
    pub(super) fn set_time(&mut self, name: &str, word: &'s Word, notes: &Notes) {
        let time = at_time(word, notes).map(|time| (time, word));
        match name {
            "inter" => self.inter = time,
            "fastinter" => self.fast = time,
            _ => self.down = time,
        }
    }

    pub(super) fn set_count(&mut self, name: &str, count: Option<(u32, &'s Word)>) {
        match name {
            "rise" => self.rise = count,
            _ => self.fall = count,
        }
    }

    /// How long a server that was marked down stays out at least: until `rise` checks have passed.
    pub(super) fn time_out(&self) -> Millis {
        let each = self.down.or(self.inter).map_or(INTER, |(time, _)| time);
        Millis(each.0 * u64::from(self.rise.map_or(2, |(rise, _)| rise))).max(Millis(1))
    }

    pub(super) fn is_same(&self, other: &Self) -> bool {
        let times = |of: &Self| [of.inter, of.fast, of.down].map(|time| time.map(|(time, _)| time));
        let counts = |of: &Self| [of.rise, of.fall].map(|count| count.map(|(count, _)| count));
        times(self) == times(other) && counts(self) == counts(other)
    }

    pub(super) fn entries(&self) -> Vec<Entry> {
        let from =
            |word: &Word, path: &str| Origin::Field { path: path.to_owned(), place: word.place.clone() };
        let by_default = |field| Origin::Default { of: "HAProxy", field };
        let (inter, inter_from) = match self.inter {
            Some((time, word)) => (time, from(word, "inter")),
            None => (INTER, by_default("inter")),
        };
        let mut entries = vec![Entry::new("interval", span(inter), inter_from)];
        for (key, path, time) in
            [("fast_interval", "fastinter", self.fast), ("down_interval", "downinter", self.down)]
        {
            entries.extend(time.map(|(time, word)| Entry::new(key, span(time), from(word, path))));
        }
        for (key, count, default) in [("rise", self.rise, 2), ("fall", self.fall, 3)] {
            entries.push(match count {
                Some((count, word)) => Entry::new(key, i64::from(count), from(word, key)),
                None => Entry::new(key, default, by_default(key)),
            });
        }
        entries
    }
}
