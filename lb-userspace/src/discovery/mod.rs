//! Discovery: another program keeps the backends of a service in a file, and the daemon follows that file.
//!
//! [`document`] reads the content, [`read`] the file, and [`follow`] does both at each interval. The daemon compares
//! contents and watches no names, because a ConfigMap changes by the swap of a link, and other programs rename.
//!
//! Nothing here decides whether a set comes into force. `daemon` does, which knows the services.

mod document;
mod fault;
mod file;
#[cfg(test)]
mod tests;
mod watch;

pub use self::{
    document::{Document, MAX_BYTES, SCHEMA, parse},
    fault::Fault,
    file::read,
    watch::{Found, Reading, Source, follow},
};
