//! Shunt's daemon and command line, as a library for `shunt` itself and for tests.

pub mod config;
pub mod control;
pub mod dataplane;
pub mod lab;
