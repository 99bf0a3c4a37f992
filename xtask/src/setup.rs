//! Installs what is missing, and nothing else.
//!
//! Two parts: a compiler and linker for BPF ([`toolchain`]), and the programs that
//! the demo and the tests run ([`packages`]). Nothing is recorded: what is there is looked
//! at each time, so that a machine set up by hand or by packages is as good.

mod packages;
mod peers;
mod toolchain;

use anyhow::Result;

pub(crate) use self::packages::is_root;

/// For what the machine is to be ready.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Need {
    Build,
    Demo,
    Tests,
}

/// For a machine that runs other kernels.
pub(crate) fn machine() -> Result<()> {
    packages::install_tools(packages::MACHINE)
}

/// The balancers that the benchmark compares with, as far as they can be had.
pub(crate) fn peers() {
    peers::install();
}

pub(crate) fn run(need: Need) -> Result<()> {
    let tools = match need {
        Need::Build => packages::BUILD,
        Need::Demo => packages::DEMO,
        Need::Tests => packages::TESTS,
    };
    packages::install_tools(tools)?;
    let chosen = toolchain::ready()?;
    eprintln!("setup: BPF is built with the toolchain `{chosen}`");
    Ok(())
}
