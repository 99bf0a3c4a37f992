pub mod config;
pub mod mirror;
