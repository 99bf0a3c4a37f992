//! Detaching an interface at once.

use std::{
    ffi::CString,
    fs, io,
    os::{
        fd::{AsRawFd, FromRawFd, OwnedFd},
        unix::ffi::OsStrExt,
    },
    path::Path,
};

/// How the names of links' pins begin.
pub(super) const LINK_PREFIX: &str = "link-";

const OBJ_GET: libc::c_long = 7;
const LINK_DETACH: libc::c_long = 34;

/// The part of `union bpf_attr` that names a pin.
#[repr(C)]
struct Pin {
    path: u64,
    fd: u32,
    flags: u32,
}

/// The part that names a link.
#[repr(C)]
struct Link {
    fd: u32,
}

/// Removes a pin. If it is the pin of a link, the interface is free when this returns. Without the detach the kernel
/// would free it some milliseconds after the last handle is closed, and refuse other programs until then.
pub(super) fn unpin(pin: &Path) -> io::Result<()> {
    if is_link(pin)
        && let Err(error) = detach(pin)
        // The interface is gone, and its link does nothing.
        && !matches!(error.raw_os_error(), Some(libc::ENOLINK | libc::ENODEV))
    {
        tracing::debug!(pin = %pin.display(), %error, "detached by removing its pin alone");
    }
    fs::remove_file(pin)
}

pub(super) fn is_link(pin: &Path) -> bool {
    pin.file_name().is_some_and(|name| name.to_string_lossy().starts_with(LINK_PREFIX))
}

/// Linux 5.9.
fn detach(pin: &Path) -> io::Result<()> {
    let path = CString::new(pin.as_os_str().as_bytes())?;
    let link = bpf(OBJ_GET, &mut Pin { path: path.as_ptr() as u64, fd: 0, flags: 0 })?;
    // SAFETY: the kernel has just made this handle, for nobody else.
    let link = unsafe { OwnedFd::from_raw_fd(link) };
    bpf(LINK_DETACH, &mut Link { fd: link.as_raw_fd().cast_unsigned() }).map(drop)
}

fn bpf<T>(command: libc::c_long, attributes: &mut T) -> io::Result<i32> {
    // SAFETY: both commands only read their structure, which is as long as said, and the path in it, which ends with a
    // zero and lives until the call returns.
    let answer =
        unsafe { libc::syscall(libc::SYS_bpf, command, std::ptr::from_mut(attributes), size_of::<T>()) };
    if answer < 0 { Err(io::Error::last_os_error()) } else { Ok(answer as i32) }
}
