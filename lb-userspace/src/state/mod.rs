//! The state file: the memory of a restart. It holds the engine's state ([`lb_core::state`]) and the last good sets of
//! discovery.
//!
//! It is one JSON document with the wall-clock time of its writing. It is replaced as a whole: the daemon
//! writes a new file beside it, waits until that is on the disk, and renames it. [`load`] reads the file at
//! start and never fails: it sets an unusable file aside, and the daemon begins without a state. [`Keeper`]
//! writes the file, in a task of its own. The file belongs to the daemon that holds the instance's lock.

mod file;
mod keeper;
#[cfg(test)]
mod tests;

pub use self::{
    file::{Discovered, Record, UntrustedFolder, files, load, trust_folder},
    keeper::Keeper,
};
