//! Attaching the program to interfaces, by links that outlive the daemon.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use aya::{
    Ebpf,
    programs::{
        LinkOrder, Program, ProgramError, SchedClassifier, TcAttachType, Xdp, XdpMode as AyaMode,
        links::{FdLink, PinnedLink},
        tc::{SchedClassifierLink, TcAttachOptions},
        xdp::XdpLink,
    },
};
use aya_obj::programs::XdpAttachType;
use tracing::{info, warn};

use super::{
    error::{OpenError, is_os_error},
    holder::holder,
    link::{self, is_link, pin_name, unpin},
    program::PROGRAM,
};
use crate::{
    attach_mode::{AttachMode, Fallback, XdpMode},
    dataplane::{
        device,
        error::chain,
        host::{self, ONE_BUFFER_MTU},
    },
};

/// An interface that the program is attached to.
#[derive(Debug)]
pub struct Attached {
    pub interface: String,
    pub mode: AttachMode,
    pub index: u32,
    pin: PathBuf,
    _link: PinnedLink,
}

impl Attached {
    /// Whether the program still runs there. It does not when the interface was removed, or somebody detached it or removed
    /// its pin. Without an answer (the daemon has no descriptor left) it does.
    pub fn holds(&self) -> bool {
        match link::interface(&self.pin) {
            Ok(index) => index == self.index,
            Err(error) => error.kind() != io::ErrorKind::NotFound,
        }
    }
}

/// A loaded program, to be attached for as long as the daemon runs.
#[derive(Debug)]
pub struct Attacher {
    program: Loaded,
    bpffs: PathBuf,
    dir: PathBuf,
    wanted: XdpMode,
    /// The network namespace of the interfaces.
    namespace: u64,
}

#[derive(Debug)]
enum Loaded {
    Xdp(Xdp),
    Tc(SchedClassifier),
}

impl Attacher {
    /// Beside the loader, whose memory is not needed any more once everything is loaded.
    pub(super) fn new(
        ebpf: &Ebpf,
        (bpffs, dir): (&Path, &Path),
        wanted: XdpMode,
        namespace: u64,
    ) -> Result<Self, OpenError> {
        let failed = |source| OpenError::Verifier(source);
        let program = match ebpf.program(PROGRAM).ok_or(OpenError::Object("program shunt"))? {
            Program::Xdp(program) => {
                let info = program.info().map_err(failed)?;
                Loaded::Xdp(
                    Xdp::from_program_info(info, PROGRAM.into(), XdpAttachType::Interface).map_err(failed)?,
                )
            }
            Program::SchedClassifier(program) => {
                let info = program.info().map_err(failed)?;
                Loaded::Tc(SchedClassifier::from_program_info(info, PROGRAM.into()).map_err(failed)?)
            }
            _ => return Err(OpenError::Object("program shunt for XDP or tc")),
        };
        Ok(Self { program, bpffs: bpffs.to_owned(), dir: dir.to_owned(), wanted, namespace })
    }

    /// Attaches the program to an interface. If an earlier run left a link of the wanted mode, the program takes it over
    /// without a gap.
    pub fn attach(&mut self, interface: &str, index: u32) -> Result<Attached, OpenError> {
        for mode in AttachMode::ALL {
            let pin = self.pin(index, mode);
            if !pin.exists() {
                continue;
            }
            if !self.wanted.accepts(mode) {
                info!(interface, was = mode.name(), "xdp_mode has changed: attaching again");
                // Native and generic XDP exclude each other. At another hook the earlier program works on until all
                // interfaces have the new one, see [`release_others`](Self::release_others).
                if self.wanted != XdpMode::Tc && mode != AttachMode::Tc {
                    release(pin)?;
                }
                continue;
            }
            match self.take_over(&pin) {
                Ok(link) => {
                    info!(interface, "switched over from the earlier program");
                    return Ok(Attached { interface: interface.to_owned(), mode, index, pin, _link: link });
                }
                Err(error) => {
                    info!(interface, %error, "the earlier link cannot be taken over: attaching again");
                    release(pin)?;
                }
            }
        }
        let (link, mode) = match self.wanted {
            XdpMode::Native => (self.attach_xdp(interface, index, AyaMode::Driver)?, AttachMode::Native),
            XdpMode::Generic => {
                check_generic(interface)?;
                (self.attach_xdp(interface, index, AyaMode::Skb)?, AttachMode::Generic)
            }
            XdpMode::Tc => (self.attach_tc(interface)?, AttachMode::Tc),
            XdpMode::Auto => match self.attach_xdp(interface, index, AyaMode::Driver) {
                Ok(link) => (link, AttachMode::Native),
                Err(error @ OpenError::Busy { .. }) => return Err(error),
                Err(error) => match fallback(interface) {
                    Fallback::Generic => {
                        warn!(
                            interface,
                            error = chain(&error),
                            "no native XDP here: using generic XDP, which is slower"
                        );
                        (self.attach_xdp(interface, index, AyaMode::Skb)?, AttachMode::Generic)
                    }
                    Fallback::Tc | Fallback::None => {
                        let interface = interface.to_owned();
                        return Err(OpenError::Unfinished { interface, source: Box::new(error) });
                    }
                },
            },
        };
        let pin = self.pin(index, mode);
        let pinned = link.pin(&pin);
        let link = pinned
            .map_err(|error| OpenError::Bpffs { path: pin.clone(), source: io::Error::other(error) })?;
        Ok(Attached { interface: interface.to_owned(), mode, index, pin, _link: link })
    }

    /// Detaches the program from other interfaces than these, and from another hook.
    pub fn release_others<'a>(&self, attached: impl IntoIterator<Item = &'a Attached>) {
        let current: Vec<_> = attached.into_iter().map(|attached| attached.pin.clone()).collect();
        for entry in fs::read_dir(&self.dir).into_iter().flatten().flatten() {
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

    fn attach_xdp(&mut self, interface: &str, index: u32, mode: AyaMode) -> Result<FdLink, OpenError> {
        let native = matches!(mode, AyaMode::Driver);
        let bpffs = self.bpffs.clone();
        let failed = |source: ProgramError| {
            // EEXIST: the interface has another program in the other mode.
            if is_os_error(&source, libc::EBUSY) || is_os_error(&source, libc::EEXIST) {
                let holder = holder(&bpffs, index);
                return OpenError::Busy { interface: interface.to_owned(), holder };
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
        let Loaded::Xdp(program) = &mut self.program else {
            return Err(OpenError::Object("XDP program shunt"));
        };
        let id = program.attach_to_if_index(index, mode).map_err(failed)?;
        let link = program.take_link(id).map_err(failed)?;
        FdLink::try_from(link).map_err(|_| OpenError::Object("a kernel with XDP links (Linux 5.9)"))
    }

    /// Behind the other programs of that hook.
    fn attach_tc(&mut self, interface: &str) -> Result<FdLink, OpenError> {
        let failed = |source| OpenError::AttachTc { interface: interface.to_owned(), source };
        let Loaded::Tc(program) = &mut self.program else {
            return Err(OpenError::Object("tc program shunt"));
        };
        let options = TcAttachOptions::TcxOrder(LinkOrder::default());
        let id = program.attach_with_options(interface, TcAttachType::Ingress, options).map_err(failed)?;
        let link = program.take_link(id).map_err(failed)?;
        FdLink::try_from(link).map_err(|_| OpenError::Object("a kernel with tcx links (Linux 6.6)"))
    }

    fn take_over(&mut self, pin: &Path) -> Result<PinnedLink, Box<dyn std::error::Error>> {
        let link: FdLink = PinnedLink::from_pin(pin)?.into();
        // The pin stays in place. This only drops a second handle to the same link.
        let _: FdLink = match &mut self.program {
            Loaded::Xdp(program) => {
                let id = program.attach_to_link(XdpLink::try_from(link)?)?;
                program.take_link(id)?.try_into()?
            }
            Loaded::Tc(program) => {
                let id = program.attach_to_link(SchedClassifierLink::try_from(link)?)?;
                program.take_link(id)?.try_into()?
            }
        };
        Ok(PinnedLink::from_pin(pin)?)
    }

    fn pin(&self, index: u32, mode: AttachMode) -> PathBuf {
        self.dir.join(pin_name(self.namespace, index, mode))
    }
}

/// The way of `auto` without native XDP.
fn fallback(interface: &str) -> Fallback {
    let driver = device::driver(interface).unwrap_or_default();
    let has_tcx = host::kernel().is_none_or(|kernel| kernel >= host::TCX);
    Fallback::of(&driver, device::unfinished_checksums(interface), has_tcx)
}

/// Refuses generic XDP where frames may come with unfinished checksums: it would take them for finished ones.
pub(super) fn check_generic(interface: &str) -> Result<(), OpenError> {
    match fallback(interface) {
        Fallback::Generic => Ok(()),
        Fallback::Tc | Fallback::None => {
            Err(OpenError::UnfinishedGeneric { interface: interface.to_owned() })
        }
    }
}

fn release(pin: PathBuf) -> Result<(), OpenError> {
    unpin(&pin).map_err(|source| OpenError::Bpffs { path: pin, source })
}
