//! Paths that hold unless an option names others.

pub const DEFAULT_CONFIG: &str = "/etc/shunt/shunt.toml";
pub const DEFAULT_SOCKET: &str = "/run/shunt/control.sock";
