//! Attaching the program to interfaces, by links that outlive the daemon.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use aya::{
    Ebpf,
    programs::{
        LinkOrder, ProgramError, SchedClassifier, TcAttachType, Xdp, XdpMode as AyaMode,
        links::{FdLink, PinnedLink},
        tc::{SchedClassifierLink, TcAttachOptions},
        xdp::XdpLink,
    },
};
use tracing::{info, warn};

use super::{
    error::{OpenError, is_os_error},
    link::{LINK_PREFIX, is_link, unpin},
    program::PROGRAM,
};
use crate::{
    attach_mode::{AttachMode, XdpMode},
    dataplane::{device, error::chain, host::ONE_BUFFER_MTU},
};

/// An interface that the program is attached to.
#[derive(Debug)]
pub struct Attached {
    pub interface: String,
    pub mode: AttachMode,
    pub index: u32,
    _link: PinnedLink,
}

/// Attaches the program to an interface. If an earlier run left a link of the wanted mode, the program takes it over
/// without a gap.
pub(super) fn attach(
    ebpf: &mut Ebpf,
    dir: &Path,
    interface: &str,
    index: u32,
    wanted: XdpMode,
) -> Result<Attached, OpenError> {
    for mode in AttachMode::ALL {
        let pin = link_pin(dir, index, mode);
        if !pin.exists() {
            continue;
        }
        if !wanted.accepts(mode) {
            info!(interface, was = mode.name(), "xdp_mode has changed: attaching again");
            // Native and generic XDP exclude each other. At another hook the earlier program works on until all
            // interfaces have the new one, see [`release_others`].
            if wanted != XdpMode::Tc && mode != AttachMode::Tc {
                release(pin)?;
            }
            continue;
        }
        match take_over(ebpf, &pin, mode) {
            Ok(link) => {
                info!(interface, "switched over from the earlier program");
                return Ok(Attached { interface: interface.to_owned(), mode, index, _link: link });
            }
            Err(error) => {
                info!(interface, %error, "the earlier link cannot be taken over: attaching again");
                release(pin)?;
            }
        }
    }
    let (link, mode) = match wanted {
        XdpMode::Native => (attach_xdp(ebpf, interface, index, AyaMode::Driver)?, AttachMode::Native),
        XdpMode::Generic => (attach_xdp(ebpf, interface, index, AyaMode::Skb)?, AttachMode::Generic),
        XdpMode::Tc => (attach_tc(ebpf, interface)?, AttachMode::Tc),
        XdpMode::Auto => match attach_xdp(ebpf, interface, index, AyaMode::Driver) {
            Ok(link) => (link, AttachMode::Native),
            Err(error @ OpenError::Busy { .. }) => return Err(error),
            Err(error) => {
                warn!(
                    interface,
                    error = chain(&error),
                    "no native XDP here: using generic XDP, which is slower"
                );
                (attach_xdp(ebpf, interface, index, AyaMode::Skb)?, AttachMode::Generic)
            }
        },
    };
    let pin = link_pin(dir, index, mode);
    let link =
        link.pin(&pin).map_err(|error| OpenError::Bpffs { path: pin, source: io::Error::other(error) })?;
    Ok(Attached { interface: interface.to_owned(), mode, index, _link: link })
}

fn release(pin: PathBuf) -> Result<(), OpenError> {
    unpin(&pin).map_err(|source| OpenError::Bpffs { path: pin, source })
}

fn xdp(ebpf: &mut Ebpf) -> Result<&mut Xdp, OpenError> {
    let program = ebpf.program_mut(PROGRAM).ok_or(OpenError::Object("program shunt"))?;
    program.try_into().map_err(|_| OpenError::Object("XDP program shunt"))
}

fn classifier(ebpf: &mut Ebpf) -> Result<&mut SchedClassifier, OpenError> {
    let program = ebpf.program_mut(PROGRAM).ok_or(OpenError::Object("program shunt"))?;
    program.try_into().map_err(|_| OpenError::Object("tc program shunt"))
}

fn attach_xdp(ebpf: &mut Ebpf, interface: &str, index: u32, mode: AyaMode) -> Result<FdLink, OpenError> {
    let native = matches!(mode, AyaMode::Driver);
    let failed = |source: ProgramError| {
        // EEXIST: the interface has another program in the other mode.
        if is_os_error(&source, libc::EBUSY) || is_os_error(&source, libc::EEXIST) {
            return OpenError::Busy { interface: interface.to_owned() };
        }
        let interface = interface.to_owned();
        match device::mtu(&interface) {
            // Drivers refuse an MTU with different errors. EOPNOTSUPP always means that there is no native XDP.
            Ok(mtu) if native && mtu > ONE_BUFFER_MTU && !is_os_error(&source, libc::EOPNOTSUPP) => {
                OpenError::Mtu { interface, mtu, source }
            }
            Ok(_) | Err(_) => {
                let mode = if native { AttachMode::Native } else { AttachMode::Generic };
                OpenError::Attach { interface, mode: mode.name(), source }
            }
        }
    };
    let program = xdp(ebpf)?;
    let id = program.attach_to_if_index(index, mode).map_err(failed)?;
    let link = program.take_link(id).map_err(failed)?;
    FdLink::try_from(link).map_err(|_| OpenError::Object("a kernel with XDP links (Linux 5.9)"))
}

/// Behind the other programs of that hook.
fn attach_tc(ebpf: &mut Ebpf, interface: &str) -> Result<FdLink, OpenError> {
    let failed = |source| OpenError::AttachTc { interface: interface.to_owned(), source };
    let program = classifier(ebpf)?;
    let options = TcAttachOptions::TcxOrder(LinkOrder::default());
    let id = program.attach_with_options(interface, TcAttachType::Ingress, options).map_err(failed)?;
    let link = program.take_link(id).map_err(failed)?;
    FdLink::try_from(link).map_err(|_| OpenError::Object("a kernel with tcx links (Linux 6.6)"))
}

fn take_over(
    ebpf: &mut Ebpf,
    pin: &Path,
    mode: AttachMode,
) -> Result<PinnedLink, Box<dyn std::error::Error>> {
    let link: FdLink = PinnedLink::from_pin(pin)?.into();
    // The pin stays in place. This only drops a second handle to the same link.
    let _: FdLink = match mode {
        AttachMode::Native | AttachMode::Generic => {
            let program = xdp(ebpf)?;
            let id = program.attach_to_link(XdpLink::try_from(link)?)?;
            program.take_link(id)?.try_into()?
        }
        AttachMode::Tc => {
            let program = classifier(ebpf)?;
            let id = program.attach_to_link(SchedClassifierLink::try_from(link)?)?;
            program.take_link(id)?.try_into()?
        }
    };
    Ok(PinnedLink::from_pin(pin)?)
}

/// Detaches the program of an earlier run where the configuration no longer asks for it: from other interfaces, and
/// from another hook.
pub(super) fn release_others(dir: &Path, attached: &[Attached]) {
    let current: Vec<_> =
        attached.iter().map(|attached| link_pin(dir, attached.index, attached.mode)).collect();
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        if is_link(&entry.path()) && !current.contains(&entry.path()) {
            match unpin(&entry.path()) {
                Ok(()) => {
                    info!(pin = %entry.path().display(), "detached an interface or a hook that is no longer configured")
                }
                Err(error) => warn!(pin = %entry.path().display(), %error, "cannot detach"),
            }
        }
    }
}

/// With the interface's index, because its name may contain a dot and the name of a pin must not.
fn link_pin(dir: &Path, index: u32, mode: AttachMode) -> PathBuf {
    dir.join(format!("{LINK_PREFIX}{index}-{}", mode.name()))
}
