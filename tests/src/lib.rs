//! What the suites share.

pub mod frame;
pub mod kernel;
