//! Names and addresses from the command line, and whether the input has use for them.

use std::{
    cell::RefCell,
    collections::BTreeSet,
    net::{IpAddr, SocketAddr},
};

use super::{
    Options,
    draft::{Entry, Origin, placeholder},
    note::{NoteCode, Notes},
};

/// The options of one import.
pub(super) struct Given<'o> {
    pub(super) options: &'o Options,
    pub(super) notes: &'o Notes,
    /// Names for which somebody has asked.
    asked: RefCell<BTreeSet<String>>,
}

impl<'o> Given<'o> {
    pub(super) fn new(options: &'o Options, notes: &'o Notes) -> Self {
        Self { options, notes, asked: RefCell::default() }
    }

    /// `vip` of a service: as given by its own name, or for all. Without either the input's own, or a placeholder.
    pub(super) fn vip(
        &self,
        service: &str,
        (port, at): (u16, Origin),
        own: Option<(IpAddr, Origin)>,
        is_ipv6: bool,
    ) -> Entry {
        self.asked.borrow_mut().insert(service.to_owned());
        let vips = &self.options.vips;
        let named = vips.iter().find(|(name, _)| name.as_deref() == Some(service));
        let for_all = || vips.iter().find(|(name, address)| name.is_none() && address.is_ipv6() == is_ipv6);
        let any = || vips.iter().find(|(name, _)| name.is_none());
        let (address, origin) = match (named.or_else(for_all).or_else(any), own) {
            (Some((_, address)), _) => (*address, at.with("--vip")),
            (None, Some(own)) => own,
            (None, None) => {
                self.notes.add(
                    NoteCode::Placeholder,
                    None,
                    "",
                    format!("the VIP of {service} stands in for one that nobody gave"),
                    format!("give --vip ADDRESS, or --vip {service}=ADDRESS"),
                );
                (placeholder(is_ipv6), at.with("PLACEHOLDER, give --vip"))
            }
        };
        Entry::new("vip", SocketAddr::new(address, port).to_string(), origin)
    }

    /// The addresses that `--backend NAME=…` gives.
    pub(super) fn backends(&self, name: &str) -> Vec<SocketAddr> {
        self.asked.borrow_mut().insert(name.to_owned());
        let given = self.options.backends.iter().filter(|(of, _)| of == name);
        given.map(|(_, address)| *address).collect()
    }

    /// A name that fits nothing is a typing error.
    pub(super) fn report_unused(&self) {
        let asked = self.asked.borrow();
        let vips = self.options.vips.iter().filter_map(|(name, _)| Some(("--vip", name.as_ref()?)));
        let backends = self.options.backends.iter().map(|(name, _)| ("--backend", name));
        for (option, name) in vips.chain(backends).filter(|(_, name)| !asked.contains(*name)) {
            let near = |other: &&String| strsim::damerau_levenshtein(name, other) <= 1 + name.len() / 4;
            let help = match asked.iter().find(near) {
                Some(meant) => format!("did you mean {meant}?"),
                None if asked.is_empty() => String::new(),
                None => {
                    format!("the input has {}", asked.iter().take(10).cloned().collect::<Vec<_>>().join(", "))
                }
            };
            let message = format!("{option} names {name}, which the input does not have");
            self.notes.add(NoteCode::Unresolved, None, "", message, help);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_vip_of_its_own_comes_before_that_of_all() {
        let ip = |text: &str| text.parse::<IpAddr>().expect("an address");
        let notes = Notes::default();
        let vips =
            vec![(None, ip("10.0.0.1")), (Some("web".to_owned()), ip("10.0.0.2")), (None, ip("2001:db8::2"))];
        let options = Options { vips, ..Options::default() };
        let given = Given::new(&options, &notes);
        let vip = |service, own, is_ipv6| {
            given.vip(service, (80, Origin::Option("x")), own, is_ipv6).value.to_string()
        };
        assert_eq!(vip("web", None, false), "\"10.0.0.2:80\"");
        assert_eq!(vip("other", None, false), "\"10.0.0.1:80\"");
        assert_eq!(vip("other", None, true), "\"[2001:db8::2]:80\"");
        assert_eq!(notes.weight(), None);
        let none = Options::default();
        let given = Given::new(&none, &notes);
        let own = Some((ip("10.9.9.9"), Origin::Option("x")));
        assert_eq!(
            given.vip("web", (80, Origin::Option("x")), own, false).value.to_string(),
            "\"10.9.9.9:80\""
        );
        assert_eq!(
            given.vip("web", (80, Origin::Option("x")), None, true).value.to_string(),
            "\"[2001:db8::1]:80\""
        );
        assert_eq!(notes.into_list().len(), 1);
    }

    #[test]
    fn a_name_that_fits_nothing_is_reported() {
        let notes = Notes::default();
        let address = "10.0.0.1:80".parse().expect("an address");
        let options = Options { backends: vec![("ap-v200".to_owned(), address)], ..Options::default() };
        let given = Given::new(&options, &notes);
        assert_eq!(given.backends("app-v200"), []);
        given.report_unused();
        let said: Vec<_> = notes.into_list().iter().map(ToString::to_string).collect();
        assert_eq!(
            said,
            ["error: --backend names ap-v200, which the input does not have; did you mean app-v200?"]
        );
    }
}
