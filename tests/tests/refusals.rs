//! Bad input to the real program, on a real node: it is answered with what is wrong and what to do, traffic
//! does not suffer, and nothing is left behind.

#[path = "refusals/config.rs"]
mod config;
#[path = "refusals/control.rs"]
mod control;
#[path = "refusals/doctor.rs"]
mod doctor;
#[path = "refusals/frames.rs"]
mod frames;
#[path = "refusals/running.rs"]
mod running;
#[path = "refusals/site.rs"]
mod site;
#[path = "refusals/start.rs"]
mod start;
#[path = "refusals/strangers.rs"]
mod strangers;
