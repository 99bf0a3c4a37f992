//! Shunt's daemon and command line, as a library for `shunt` itself and for tests.

pub mod dataplane;
