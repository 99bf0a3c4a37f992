//! The command line.

pub mod palette;
pub mod render;
