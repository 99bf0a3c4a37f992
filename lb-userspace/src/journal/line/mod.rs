//! One line: one input of a run, and when it came.
//!
//! A line is one JSON object. `t_ms` counts from the start of the run; the lines are in its order. The other
//! keys say what happened then:
//!
//! | keys | what |
//! |---|---|
//! | `backend`, `status` (or `failure`, `answered: true`, `opaque: true`), perhaps `ttfb_ms`, `client` | one exchange |
//! | … and perhaps `prefixes`, `addresses`, `late: true` | what was known about the clients: see [`Context`](lb_core::io::Context) |
//! | `backend`, `confirmation`: as `probe`, perhaps `syn_answered: true` | a connection of Shunt's own to a suspect |
//! | `backend`, `trials_taken: true` | a half-open backend has used trials |
//! | `backend`, `probe`: `pass`, `fail`, `timeout` or a status, perhaps `detail` and `code` | one result of an active probe |
//! | `backend`, `path`: `ok` or a code of [`PathState`](lb_core::snapshot::PathState) | whether the packet path can reach it |
//! | `backend`, `op`, perhaps `weight`, `for_ms`, `force`, `actor`, `reason` | what an operator wants |
//! | `backend`, `op`: `add` (perhaps `address`, `weight`) or `remove` | a reload that changes the membership |
//! | `members`: `[{"name", "address", "weight"}, …]` | a reload: the service has exactly these |
//! | `backend`, `lost` | response heads that were lost |
//! | `backend`, `good` | so many good responses that the program counted and did not mirror |
//! | `lost` alone | so many lines are missing here |
//! | `ask`: `snapshot` | prints the state |
//! | `began_unix_ms`, perhaps `seed` | the clock of the lines that follow: when it stood at 0 |
//! | nothing | time passes |
//!
//! `service` names the service of the backend. [`parse`] reads a line, and [`Line::write`] writes one that
//! reads back the same.

mod content;
mod given;
mod parse;
#[cfg(test)]
mod tests;
mod trouble;
mod value;
mod write;

pub use self::{
    content::{Line, Member, Order, What},
    parse::parse,
    trouble::{LineError, nearest},
};
