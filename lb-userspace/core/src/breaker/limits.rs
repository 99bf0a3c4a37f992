//! Whether a service can do without one more backend.

use std::fmt;

use super::Window;
use crate::{
    codes::{BackendReason, EventReason},
    config::Breaker as Policy,
};

/// A service at the moment of a detection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BackendCounts {
    pub backends: u32,
    /// Backends whose breaker is not closed.
    pub out: u32,
    /// Backends that the table gives new connections to.
    pub serving: u32,
    /// The number that would still serve without the backend in question.
    pub left: u32,
}

/// Why a detection does not act.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    EvidenceLost { lost: u64, heads: u64 },
    Ceiling { out: u32, backends: u32, percent: u8 },
    Floor { serving: u32, backends: u32, min: u32 },
}

/// Evidence first, then the ceiling, then the floor.
pub fn allow(policy: &Policy, window: &Window, counts: &BackendCounts) -> Result<(), Refusal> {
    let BackendCounts { backends, out, serving, left } = *counts;
    if window.distrusted() {
        return Err(Refusal::EvidenceLost { lost: window.lost, heads: window.heads });
    }
    let percent = policy.max_ejection_percent;
    let within = 100 * (u64::from(out) + 1) <= u64::from(percent) * u64::from(backends);
    let the_one = out == 0 && policy.always_eject_one;
    if !within && !the_one {
        return Err(Refusal::Ceiling { out, backends, percent });
    }
    if left < policy.min_serving {
        return Err(Refusal::Floor { serving, backends, min: policy.min_serving });
    }
    Ok(())
}

impl From<&Refusal> for EventReason {
    fn from(refusal: &Refusal) -> Self {
        match refusal {
            Refusal::EvidenceLost { .. } => Self::EvidenceLost,
            Refusal::Ceiling { .. } => Self::Ceiling,
            Refusal::Floor { .. } => Self::Floor,
        }
    }
}

impl From<&Refusal> for BackendReason {
    fn from(refusal: &Refusal) -> Self {
        match refusal {
            Refusal::EvidenceLost { .. } => Self::EvidenceLost,
            Refusal::Ceiling { .. } => Self::Ceiling,
            Refusal::Floor { .. } => Self::Floor,
        }
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::EvidenceLost { lost, heads } => {
                write!(f, "kept for lack of evidence: {lost} of {} heads were lost", heads + lost)
            }
            Self::Ceiling { out, backends, percent } => {
                write!(
                    f,
                    "kept by the ceiling: {out} of {backends} are out and max_ejection_percent is {percent}"
                )
            }
            Self::Floor { serving, backends, min } => {
                write!(
                    f,
                    "kept by the floor: {serving} of {backends} backends serve and min_serving is {min}"
                )
            }
        }
    }
}
