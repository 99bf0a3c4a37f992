//! Results of single map operations.

use aya::maps::MapError;

use crate::dataplane::error::Error;

/// Turns an error of this map into one of the port.
pub(super) fn on_map(map: &'static str) -> impl Fn(MapError) -> Error {
    move |source| Error::new(map, source)
}

/// `None` where the map has no such key.
pub(super) fn found<T>(result: Result<T, MapError>) -> Result<Option<T>, MapError> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(MapError::KeyNotFound) => Ok(None),
        Err(error) => Err(error),
    }
}

/// The result of a removal, where it does not matter whether the key was there.
pub(super) fn absent_is_fine(result: Result<(), MapError>) -> Result<(), MapError> {
    match result {
        Err(MapError::KeyNotFound) => Ok(()),
        Err(MapError::SyscallError(error)) if error.io_error.raw_os_error() == Some(libc::ENOENT) => Ok(()),
        other => other,
    }
}
