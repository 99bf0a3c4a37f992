pub mod config;
pub mod mirror;
pub mod probe;
