//! One line of the result.

use std::fmt;

use super::attack::{Beside, Policy, Sources};

#[derive(Clone, Debug)]
pub(crate) struct Row {
    pub(crate) attack: &'static str,
    pub(crate) policy: Policy,
    pub(crate) sources: Sources,
    pub(crate) beside: Beside,
    /// Handshakes that a backend completed with the attacker's clients. Those that hear nothing know of none.
    pub(crate) handshakes: usize,
    /// Ejections of healthy backends, detections that only the ceiling or the floor held back, and failed probes.
    pub(crate) ejected: usize,
    /// Of these, by the rules that decided.
    pub(crate) reasons: Vec<String>,
    /// Readmissions of a bad backend. `None`: none is bad.
    pub(crate) freed: Option<usize>,
    pub(crate) good: usize,
    pub(crate) failed: usize,
}

impl Row {
    pub(crate) const HEAD: &'static str =
        "attack                          policy  sources  beside  handshakes  ejected  freed  good failed";

    pub(crate) fn holds(&self) -> bool {
        self.ejected == 0 && self.freed.unwrap_or(0) == 0
    }
}

impl fmt::Display for Row {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let freed = self.freed.map_or_else(|| "-".to_owned(), |freed| freed.to_string());
        write!(
            f,
            "{:<30}  {:<6}  {:<7}  {:<6}  {:>10}  {:>7}  {freed:>5}  {:>4} of {}",
            self.attack,
            self.policy,
            self.sources,
            self.beside,
            self.handshakes,
            self.ejected,
            self.failed,
            self.good
        )?;
        if self.reasons.is_empty() { Ok(()) } else { write!(f, "  {}", self.reasons.join(", ")) }
    }
}
