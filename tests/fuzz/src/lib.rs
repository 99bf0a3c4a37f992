//! Parsers of input from outside, and what must hold for any input.
//!
//! Each target takes bytes and panics when something does not hold. `cargo xtask fuzz NAME` looks for such
//! bytes; `tests/corpus.rs` runs each target over all that were kept, in `corpus/NAME`.

mod config;
mod drive;
mod heads;
mod import;
mod replay;
mod state;

use lb_userspace::import::Format;

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
    Target { name: "import_envoy", run: |bytes| import::run(Format::Envoy, bytes) },
    Target { name: "import_haproxy", run: |bytes| import::run(Format::Haproxy, bytes) },
    Target { name: "import_istio", run: |bytes| import::run(Format::Istio, bytes) },
    Target { name: "replay", run: replay::run },
    Target { name: "state", run: state::run },
];

pub fn find(name: &str) -> Option<Target> {
    TARGETS.iter().find(|target| target.name == name).copied()
}
