//! Many measurements in a few numbers.

use serde::Serialize;

/// The median of some measurements, and how far they lie apart.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub(crate) struct Spread {
    pub(crate) median: f64,
    pub(crate) least: f64,
    pub(crate) most: f64,
    pub(crate) count: usize,
}

impl Spread {
    /// `None` of nothing.
    pub(crate) fn of(values: impl IntoIterator<Item = f64>) -> Option<Self> {
        let sorted = sorted(values);
        let (least, most) = (*sorted.first()?, *sorted.last()?);
        let middle = sorted.len() / 2;
        let median = match sorted.len() % 2 {
            0 => f64::midpoint(sorted[middle - 1], sorted[middle]),
            _ => sorted[middle],
        };
        Some(Self { median, least, most, count: sorted.len() })
    }
}

/// The mean of the middle half: as deaf to outliers as a median, and finer than the kernel's whole nanoseconds.
pub(crate) fn middle_mean(values: impl IntoIterator<Item = f64>) -> Option<f64> {
    let sorted = sorted(values);
    let quarter = sorted.len() / 4;
    let middle = &sorted[quarter..sorted.len() - quarter];
    (!middle.is_empty()).then(|| middle.iter().sum::<f64>() / middle.len() as f64)
}

fn sorted(values: impl IntoIterator<Item = f64>) -> Vec<f64> {
    let mut sorted: Vec<f64> = values.into_iter().collect();
    sorted.sort_by(f64::total_cmp);
    sorted
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn medians() {
        assert_eq!(Spread::of([]), None);
        assert_eq!(
            Spread::of([3.0, 1.0, 2.0]),
            Some(Spread { median: 2.0, least: 1.0, most: 3.0, count: 3 })
        );
        assert_eq!(Spread::of([4.0, 1.0, 2.0, 3.0]).map(|spread| spread.median), Some(2.5));
    }

    #[test]
    fn outliers_do_not_count() {
        assert_eq!(middle_mean([10.0, 11.0, 12.0, 13.0, 14.0, 15.0, -500.0, 9000.0]), Some(12.5));
        assert_eq!(middle_mean([5.0]), Some(5.0));
        assert_eq!(middle_mean([]), None);
    }
}
