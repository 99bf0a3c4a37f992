//! Common parts of the suites.

pub mod answer;
pub mod attempt;
pub mod cpu;
pub mod devices;
pub mod flock;
pub mod frame;
pub mod holdings;
pub mod http;
pub mod icmp;
pub mod kernel;
pub mod lab;
pub mod ledger;
pub mod load;
pub mod maps;
pub mod model;
pub mod noise;
pub mod program;
pub mod road;
pub mod scripted;
pub mod site;
pub mod socket;
pub mod storm;
pub mod swarm;
pub mod tally;
pub mod test_run;
pub mod wire;
