//! What the suites share.

pub mod frame;
pub mod kernel;
pub mod lab;
pub mod load;
