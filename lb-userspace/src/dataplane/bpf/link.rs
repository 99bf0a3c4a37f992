//! Links, as the kernel has them: where they are attached, and how they end at once.

use std::{
    ffi::CString,
    fs, io,
    os::{
        fd::{AsRawFd, FromRawFd, OwnedFd},
        unix::ffi::OsStrExt,
    },
    path::Path,
};

use crate::attach_mode::AttachMode;

/// How the names of links' pins begin.
const LINK_PREFIX: &str = "link-";

const OBJ_GET: libc::c_long = 7;
const OBJ_GET_INFO_BY_FD: libc::c_long = 15;
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

/// The part that asks about a link.
#[repr(C)]
struct Query {
    fd: u32,
    len: u32,
    info: u64,
}

/// `struct bpf_link_info` up to the interface of a link for XDP or tcx.
#[repr(C)]
#[derive(Default)]
struct Info {
    kind: u32,
    id: u32,
    program: u32,
    zero: u32,
    ifindex: u32,
    rest: [u32; 11],
}

/// The name of a link's pin. It has the interface's index, because its name may contain a dot and the name of a pin must
/// not, and the network namespace of the index.
pub(super) fn pin_name(namespace: u64, index: u32, mode: AttachMode) -> String {
    format!("{LINK_PREFIX}{namespace}-{index}-{}", mode.name())
}

/// The network namespace that a link was made in, by the name of its pin.
pub(super) fn namespace_of(pin: &Path) -> Option<u64> {
    let name = pin.file_name()?.to_str()?.strip_prefix(LINK_PREFIX)?;
    name.split('-').next()?.parse().ok()
}

/// The interface that a pinned link is attached to. 0: to none any more.
pub(super) fn interface(pin: &Path) -> io::Result<u32> {
    let link = open(pin)?;
    let mut info = Info::default();
    let mut query = Query {
        fd: link.as_raw_fd().cast_unsigned(),
        len: size_of::<Info>() as u32,
        info: std::ptr::from_mut(&mut info) as u64,
    };
    bpf(OBJ_GET_INFO_BY_FD, &mut query)?;
    Ok(info.ifindex)
}

/// A handle to whatever is pinned there.
pub(super) fn open(pin: &Path) -> io::Result<OwnedFd> {
    let path = CString::new(pin.as_os_str().as_bytes())?;
    let link = bpf(OBJ_GET, &mut Pin { path: path.as_ptr() as u64, fd: 0, flags: 0 })?;
    // SAFETY: the kernel has just made this handle, for nobody else.
    Ok(unsafe { OwnedFd::from_raw_fd(link) })
}

/// Linux 5.9.
fn detach(pin: &Path) -> io::Result<()> {
    let link = open(pin)?;
    bpf(LINK_DETACH, &mut Link { fd: link.as_raw_fd().cast_unsigned() }).map(drop)
}

fn bpf<T>(command: libc::c_long, attributes: &mut T) -> io::Result<i32> {
    // SAFETY: the commands read their structure, which is as long as said. A path in it ends with a zero, an answer has
    // the length that is said beside it, and both live until the call returns.
    let answer =
        unsafe { libc::syscall(libc::SYS_bpf, command, std::ptr::from_mut(attributes), size_of::<T>()) };
    if answer < 0 { Err(io::Error::last_os_error()) } else { Ok(answer as i32) }
}
