//! Parsers of input from outside, and what must hold for any input.
//!
//! Each target takes bytes and panics when something does not hold. `cargo xtask fuzz NAME` looks for such
//! bytes; `tests/corpus.rs` runs each target over all that were kept, in `corpus/NAME`.

mod config;
mod drive;
mod heads;
mod replay;
mod state;

/// One reader and its properties.
#[derive(Clone, Copy)]
pub struct Target {
    /// Also of its folder under `corpus`.
    pub name: &'static str,
    pub run: fn(&[u8]),
}

/// All of them, by name.
pub const TARGETS: &[Target] = &[
    Target { name: "config", run: config::run },
    Target { name: "heads", run: heads::run },
    Target { name: "replay", run: replay::run },
    Target { name: "state", run: state::run },
];

pub fn find(name: &str) -> Option<Target> {
    TARGETS.iter().find(|target| target.name == name).copied()
}
