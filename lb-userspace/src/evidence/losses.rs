//! Records that did not fit into the ring.

use std::collections::BTreeMap;

use lb_common::abi::ExchangeRecord;

/// The last count of lost records that each CPU reported for each backend. Bounded by their numbers.
#[derive(Debug, Default)]
pub(super) struct Losses(BTreeMap<(u16, u32), u32>);

impl Losses {
    /// How many records were lost between the previous record of this backend and CPU and this one. The count
    /// in the first record may be an earlier run's, so only what is added to it counts.
    pub(super) fn before(&mut self, record: &ExchangeRecord) -> Option<u64> {
        let known = self.0.insert((record.backend, record.cpu), record.lost).unwrap_or(record.lost);
        match record.lost.wrapping_sub(known) {
            0 => None,
            lost => Some(lost.into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn losses_are_counted_once_for_each_backend_and_cpu() {
        // SAFETY: a `ExchangeRecord` is made of integers.
        let mut record: ExchangeRecord = unsafe { std::mem::zeroed() };
        let mut losses = Losses::default();
        let mut see = |backend, cpu, lost| {
            (record.backend, record.cpu, record.lost) = (backend, cpu, lost);
            losses.before(&record)
        };
        assert_eq!(see(1, 0, 5), None, "an earlier run's");
        assert_eq!(see(1, 0, 5), None);
        assert_eq!(see(1, 0, 7), Some(2));
        assert_eq!(see(1, 1, 0), None);
        assert_eq!(see(1, 1, 1), Some(1));
        assert_eq!(see(2, 0, 0), None);
        assert_eq!(see(1, 0, 7), None);
    }
}
