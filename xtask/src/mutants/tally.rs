//! How many mutants ended how.

pub(super) struct Tally {
    pub(super) all: usize,
    pub(super) caught: usize,
    pub(super) timeout: usize,
    pub(super) missed: usize,
    pub(super) unviable: usize,
}

impl Tally {
    pub(super) fn percent(&self) -> f64 {
        let noticed = self.caught + self.timeout;
        let built = noticed + self.missed;
        if built == 0 { 100.0 } else { 100.0 * noticed as f64 / built as f64 }
    }
}

impl std::fmt::Display for Tally {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { all, caught, timeout, missed, unviable } = self;
        let tried = caught + timeout + missed + unviable;
        write!(
            f,
            "{tried} of {all} tried: {caught} caught, {timeout} timeout, {missed} missed, {unviable} unviable; \
             {:.1} % of those that build are noticed",
            self.percent()
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_does_not_build_is_not_counted() {
        let tally = Tally { all: 20, caught: 8, timeout: 1, missed: 1, unviable: 5 };
        assert!((tally.percent() - 90.0).abs() < 0.001);
        assert!(tally.to_string().starts_with("15 of 20 tried: 8 caught"));
    }
}
