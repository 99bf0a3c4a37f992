//! The detections of a finished interval: compares the backends of a service with each other.
//!
//! All arithmetic is in integers, so that the boundary is exact.

use super::{
    Window,
    detector::{Detection, Shown},
};
use crate::{
    config::{Breaker as Policy, Detector},
    event::Rate,
};

/// A rate of one. Rates are rounded down to this many parts, mean and deviation are exact over them.
const WHOLE: u64 = 1_000_000_000;

/// The outcomes of one backend in the interval: all, and the good ones.
#[derive(Clone, Copy, Debug)]
struct Score {
    index: usize,
    total: u64,
    good: u64,
}

/// All detections of one interval: by detector, then in the order of `windows`. No backend in `windows` is out.
pub fn detect(policy: &Policy, windows: &[(usize, Window)]) -> Vec<(usize, Detection)> {
    let scores = |of: fn(&Window) -> (u64, u64)| -> Vec<Score> {
        let score = |(index, window): &(usize, Window)| {
            let (total, bad) = of(window);
            Score { index: *index, total, good: total - bad }
        };
        windows.iter().map(score).filter(|score| score.total > 0).collect()
    };
    let http = scores(responses);
    let mut found = success_rate(policy, Detector::SuccessRate, &http);
    found.extend(failure_percentage(policy, Detector::FailurePercentage, &http));
    if policy.split_l4_failures {
        let connects = scores(connects);
        found.extend(success_rate(policy, Detector::SuccessRateL4, &connects));
        found.extend(failure_percentage(policy, Detector::FailurePercentageL4, &connects));
    }
    found
}

fn success_rate(policy: &Policy, detector: Detector, scores: &[Score]) -> Vec<(usize, Detection)> {
    let (least, factor) = (policy.success_rate_min_responses, policy.success_rate_stdev_factor);
    let scores: Vec<_> = scores.iter().filter(|score| score.total >= u64::from(least)).collect();
    if factor == 0 || scores.len() < policy.success_rate_min_backends as usize {
        return Vec::new();
    }
    let rates: Vec<u64> = scores.iter().map(|score| rate(score.good, score.total)).collect();
    let spread = Spread::of(&rates);
    let threshold = spread.threshold(factor);
    let below = scores.iter().zip(&rates).filter(|(_, rate)| spread.is_below(**rate, factor));
    below
        .map(|(score, _)| {
            let rate = Rate::of(score.good, score.total, threshold, policy.interval);
            (score.index, Detection { detector, shown: Shown::Rate(rate) })
        })
        .collect()
}

/// Where `success_rate` would draw the line if the interval ended now, for responses and for connects.
pub fn lines(policy: &Policy, windows: &[(usize, Window)]) -> (Option<u32>, Option<u32>) {
    let line = |of: fn(&Window) -> (u64, u64)| {
        let least = u64::from(policy.success_rate_min_responses).max(1);
        let rates: Vec<u64> = windows
            .iter()
            .map(|(_, window)| of(window))
            .filter(|(total, _)| *total >= least)
            .map(|(total, bad)| rate(total - bad, total))
            .collect();
        let enough = !rates.is_empty() && rates.len() >= policy.success_rate_min_backends as usize;
        enough.then(|| Spread::of(&rates).threshold(policy.success_rate_stdev_factor))
    };
    (line(responses), line(connects))
}

fn rate(good: u64, total: u64) -> u64 {
    (u128::from(good) * u128::from(WHOLE) / u128::from(total)) as u64
}

/// Counts responses, and the failures among them.
fn responses(window: &Window) -> (u64, u64) {
    (window.responses, window.failures)
}

/// Counts connects, and the failures among them. An answer shows that its connection was good.
fn connects(window: &Window) -> (u64, u64) {
    (window.responses + window.answers + window.l4_failures, window.l4_failures)
}

/// Mean and population standard deviation of rates, as sums.
struct Spread {
    count: u128,
    sum: u128,
    /// count² × variance.
    variance: u128,
}

impl Spread {
    fn of(rates: &[u64]) -> Self {
        let count = rates.len() as u128;
        let sum: u128 = rates.iter().map(|rate| u128::from(*rate)).sum();
        let squares: u128 = rates.iter().map(|rate| u128::from(*rate).pow(2)).sum();
        Self { count, sum, variance: count * squares - sum * sum }
    }

    /// rate < mean − factor × stdev, `factor` in thousandths. Multiplied by the count and squared, so
    /// that no root is drawn. Below 2^127 for 4096 rates and a factor of 1000.
    fn is_below(&self, rate: u64, factor: u32) -> bool {
        let Some(short) = self.sum.checked_sub(self.count * u128::from(rate)).filter(|short| *short > 0)
        else {
            return false;
        };
        (1000 * short).pow(2) > u128::from(factor).pow(2) * self.variance
    }

    /// The threshold for people: in hundredths of a percent, rounded down, at least 0.
    fn threshold(&self, factor: u32) -> u32 {
        let deviation = (u128::from(factor).pow(2) * self.variance).isqrt().div_ceil(1000);
        let rate = self.sum.saturating_sub(deviation) / self.count.max(1);
        (rate * 10_000 / u128::from(WHOLE)) as u32
    }
}

fn failure_percentage(policy: &Policy, detector: Detector, scores: &[Score]) -> Vec<(usize, Detection)> {
    let (least, percent) = (policy.failure_percentage_min_responses, policy.failure_percentage_threshold);
    let scores: Vec<_> = scores.iter().filter(|score| score.total >= u64::from(least)).collect();
    if percent == 0 || scores.len() < policy.failure_percentage_min_backends as usize {
        return Vec::new();
    }
    let over = |score: &&&Score| 100 * (score.total - score.good) >= u64::from(percent) * score.total;
    scores
        .iter()
        .filter(over)
        .map(|score| {
            let rate =
                Rate::of(score.total - score.good, score.total, u32::from(percent) * 100, policy.interval);
            (score.index, Detection { detector, shown: Shown::Rate(rate) })
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn windows(scores: &[(u64, u64)]) -> Vec<(usize, Window)> {
        let window = |(good, total): &(u64, u64)| Window {
            responses: *total,
            failures: total - good,
            ..Window::default()
        };
        scores.iter().map(window).enumerate().collect()
    }

    fn found(policy: &Policy, scores: &[(u64, u64)]) -> Vec<(usize, Detector)> {
        detect(policy, &windows(scores)).into_iter().map(|(index, found)| (index, found.detector)).collect()
    }

    /// Four at 100 % and one at 0 %: mean 80, standard deviation 40.
    const FOUR_TO_ONE: [(u64, u64); 5] = [(100, 100), (300, 300), (100, 100), (777, 777), (0, 100)];

    #[test]
    fn success_rate_is_exact_at_the_boundary() {
        let policy = |factor| Policy { success_rate_stdev_factor: factor, ..Policy::default() };
        // 80 - 2.0 * 40 is 0, and 0 is not below 0.
        assert_eq!(found(&policy(2000), &FOUR_TO_ONE), []);
        assert_eq!(found(&policy(1999), &FOUR_TO_ONE), [(4, Detector::SuccessRate)]);
        assert_eq!(found(&policy(0), &FOUR_TO_ONE), []);
        let shown = detect(&policy(1900), &windows(&FOUR_TO_ONE)).remove(0).1.shown;
        let Shown::Rate(rate) = shown else { panic!("a rate") };
        // 80 - 1.9 * 40.
        assert_eq!((rate.rate, rate.threshold, rate.total), (0, 400, 100));
    }

    #[test]
    fn equal_rates_detect_nothing_however_small_the_factor() {
        let policy = Policy { success_rate_stdev_factor: 1, ..Policy::default() };
        assert_eq!(
            found(&policy, &[(100, 300), (200, 600), (1, 3 * 100), (100, 300), (100, 300)]),
            [(2, Detector::SuccessRate)]
        );
        assert_eq!(found(&policy, &[(100, 300), (200, 600), (300, 900), (100, 300), (100, 300)]), []);
        assert_eq!(found(&policy, &[(0, 300); 5]), []);
    }

    #[test]
    fn the_largest_service_does_not_overflow() {
        let policy = Policy { success_rate_stdev_factor: 10_000, ..Policy::default() };
        let mut scores = vec![(u64::MAX / 200, u64::MAX / 200); 4096];
        scores[7] = (0, u64::MAX / 200);
        assert_eq!(found(&policy, &scores), [(7, Detector::SuccessRate)]);
    }

    #[test]
    fn both_minima_count_backends_that_qualify() {
        let policy = Policy { success_rate_stdev_factor: 1000, ..Policy::default() };
        let mut scores = FOUR_TO_ONE;
        scores[1] = (99, 99);
        assert_eq!(found(&policy, &scores), []);
        let policy = Policy { success_rate_min_backends: 4, ..policy };
        assert_eq!(found(&policy, &scores), [(4, Detector::SuccessRate)]);
        // A backend with too few responses is not detected itself.
        scores[4] = (0, 99);
        assert_eq!(found(&Policy { success_rate_min_backends: 1, ..policy }, &scores), []);
    }

    #[test]
    fn a_backend_without_an_outcome_takes_no_part() {
        let policy = Policy {
            success_rate_stdev_factor: 1,
            success_rate_min_responses: 0,
            success_rate_min_backends: 3,
            failure_percentage_threshold: 1,
            failure_percentage_min_responses: 0,
            failure_percentage_min_backends: 3,
            ..Policy::default()
        };
        assert_eq!(found(&policy, &[(0, 0), (9, 9), (0, 9)]), []);
        let both = [(2, Detector::SuccessRate), (2, Detector::FailurePercentage)];
        assert_eq!(found(&policy, &[(1, 1), (9, 9), (0, 9)]), both);
    }

    #[test]
    fn failure_percentage_is_at_least() {
        let policy = Policy { failure_percentage_threshold: 30, ..Policy::default() };
        let scores = [(71, 100), (70, 100), (35, 50), (34, 49), (7000, 10_000), (100, 100)];
        let all = [1, 2, 4].map(|index| (index, Detector::FailurePercentage));
        assert_eq!(found(&policy, &scores), all);
        // With 49 responses a backend is neither evaluated nor counted.
        assert_eq!(found(&policy, &scores[1..5]), []);
    }

    #[test]
    fn split_rates_take_responses_as_good_connects() {
        let mut all = windows(&[(0, 100), (100, 100), (100, 100), (100, 100), (100, 100)]);
        all[1].1.l4_failures = 100;
        let policy = Policy {
            split_l4_failures: true,
            failure_percentage_threshold: 50,
            success_rate_stdev_factor: 1500,
            ..Policy::default()
        };
        let found: Vec<_> =
            detect(&policy, &all).iter().map(|(index, found)| (*index, found.detector)).collect();
        let expected = [
            (0, Detector::SuccessRate),
            (0, Detector::FailurePercentage),
            (1, Detector::SuccessRateL4),
            (1, Detector::FailurePercentageL4),
        ];
        assert_eq!(found, expected);
    }
}
