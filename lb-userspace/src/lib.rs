//! Shunt's daemon and command line, as a library for the program `shunt`, the demo and the tests.
//!
//! [`cli`] reads the command line and [`config`] the configuration. [`daemon`] runs the engine of `lb_core` and connects
//! it with the edges: [`dataplane`] writes the maps and reads counters, [`evidence`] turns records into inputs, [`probe`]
//! checks backends, [`discovery`] reads the sets that other programs keep, [`control`] serves operators, [`state`] and
//! [`journal`] write files. [`replay`] runs a recording through the same engine. [`doctor`] checks the host. [`files`],
//! [`naming`] and [`printable`] keep out what others planted or wrote.

pub mod attach_mode;
pub mod cli;
pub mod config;
pub mod control;
pub mod daemon;
pub mod dataplane;
pub mod discovery;
pub mod doctor;
pub mod evidence;
pub mod files;
pub mod import;
pub mod journal;
pub mod naming;
pub mod printable;
pub mod probe;
pub mod replay;
pub mod state;
