//! Shunt's daemon and command line, as a library for `shunt` itself and for tests.

pub mod attach_mode;
pub mod cli;
pub mod config;
pub mod control;
pub mod daemon;
pub mod dataplane;
pub mod doctor;
pub mod evidence;
pub mod journal;
pub mod probe;
pub mod replay;
pub mod state;
