//! Records that did not fit into the ring.

use std::collections::BTreeMap;

use lb_common::abi::ExchangeRecord;
use lb_core::io::{BackendId, Generation};

/// How many records each CPU has lost of each backend, as far as the engine knows. Bounded by their numbers.
///
/// A CPU without an entry has lost none: the program counts from 0 when it is loaded, and from 0 again for a new
/// backend.
#[derive(Debug, Default)]
pub(super) struct Losses(BTreeMap<(u16, u32), Known>);

#[derive(Clone, Copy, Debug, Default)]
struct Known {
    generation: u32,
    lost: u32,
}

impl Losses {
    /// Continues with the counters of an earlier run: what each CPU had lost of a backend when this run began.
    pub(super) fn after(counters: impl IntoIterator<Item = (BackendId, Generation, Vec<u32>)>) -> Self {
        let mut known = BTreeMap::new();
        for (backend, Generation(generation), cpus) in counters {
            for (cpu, lost) in (0..).zip(cpus) {
                known.insert((backend.0, cpu), Known { generation, lost });
            }
        }
        Self(known)
    }

    /// How many records were lost that the engine does not know of, up to this record.
    pub(super) fn before(&mut self, record: &ExchangeRecord) -> Option<u64> {
        let known = self.0.entry((record.backend, record.cpu)).or_default();
        if record.generation < known.generation {
            // Of the backend that had this id before. Its losses decide nothing any more.
            return None;
        }
        let counted = if record.generation == known.generation { known.lost } else { 0 };
        *known = Known { generation: record.generation, lost: record.lost };
        // A record that the earlier run has left in the ring may have a smaller count than the counters had when this
        // run began. From such a record on, everything is new.
        let lost = record.lost.wrapping_sub(counted) as i32;
        u64::try_from(lost).ok().filter(|lost| *lost > 0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Backend 1 of generation 4.
    fn see(losses: &mut Losses, cpu: u32, lost: u32) -> Option<u64> {
        of(losses, 4, cpu, lost)
    }

    fn of(losses: &mut Losses, generation: u32, cpu: u32, lost: u32) -> Option<u64> {
        // SAFETY: a `ExchangeRecord` is made of integers.
        let mut record: ExchangeRecord = unsafe { std::mem::zeroed() };
        (record.backend, record.generation, record.cpu, record.lost) = (1, generation, cpu, lost);
        losses.before(&record)
    }

    #[test]
    fn losses_are_counted_once_for_each_cpu() {
        let mut losses = Losses::default();
        assert_eq!(see(&mut losses, 0, 0), None);
        assert_eq!(see(&mut losses, 0, 2), Some(2));
        assert_eq!(see(&mut losses, 0, 2), None);
        assert_eq!(see(&mut losses, 1, 1), Some(1));
        assert_eq!(see(&mut losses, 0, 2), None);
    }

    #[test]
    fn the_first_record_of_a_cpu_hides_nothing() {
        let mut losses = Losses::default();
        assert_eq!(see(&mut losses, 0, 0), None);
        assert_eq!(see(&mut losses, 1, 4893), Some(4893), "the other CPU had filled the ring");
        assert_eq!(see(&mut losses, 1, 4893), None);
    }

    #[test]
    fn what_an_earlier_run_had_lost_is_not_counted_again() {
        let mut losses = Losses::after([(BackendId(1), Generation(4), vec![7, 9])]);
        assert_eq!(see(&mut losses, 0, 7), None);
        assert_eq!(see(&mut losses, 0, 8), Some(1));
        assert_eq!(see(&mut losses, 2, 3), Some(3), "a CPU that was not there");
        // The earlier run has left this one in the ring, and then the ring was full.
        assert_eq!(see(&mut losses, 1, 5), None);
        assert_eq!(see(&mut losses, 1, 9), Some(4));
    }

    #[test]
    fn a_new_backend_begins_at_zero() {
        let mut losses = Losses::after([(BackendId(1), Generation(4), vec![7])]);
        assert_eq!(see(&mut losses, 0, 12), Some(5));
        assert_eq!(of(&mut losses, 5, 0, 3), Some(3), "the counters were set to 0 for it");
        assert_eq!(see(&mut losses, 0, 4), None, "a late record of the former one");
        assert_eq!(of(&mut losses, 5, 0, 3), None);
        assert_eq!(of(&mut losses, 6, 0, 0), None);
    }

    #[test]
    fn the_count_may_go_round() {
        let mut losses = Losses::after([(BackendId(1), Generation(4), vec![u32::MAX - 1])]);
        assert_eq!(see(&mut losses, 0, 1), Some(3));
    }
}
