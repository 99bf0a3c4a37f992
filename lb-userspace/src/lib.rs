//! Shunt.

pub mod cli;
pub mod control;
