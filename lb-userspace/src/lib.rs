//! Shunt.

pub mod control;
