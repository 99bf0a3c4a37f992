//! Shunt as a library: what the binary, the demo and the labs are made of.

pub mod lab;
