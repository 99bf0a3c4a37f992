//! Configurations of other programs as Shunt's: Istio with Kubernetes, Envoy, HAProxy.
//!
//! [`import`] reads texts and gives a commented TOML, which the reader of [`config`](crate::config) accepts. It
//! notes each field that it cannot carry: a [`Note`] has its place, and a [`Weight`], by which traffic is served as before or
//! not.
//! Nothing here touches files or the network.

use std::{fmt, net::IpAddr, net::SocketAddr, rc::Rc};

mod draft;
mod envoy;
mod fields;
mod given;
mod haproxy;
mod istio;
mod limits;
mod note;
mod policy;
mod write;
mod yaml;

use draft::{Draft, Entry, Origin};
use given::Given;
use note::Notes;
pub use note::{Note, NoteCode, Place, Weight};
pub use write::Row;

use crate::config;

/// The largest input, in bytes, all files together. A cluster of a thousand services fits in.
pub const MAX_BYTES: usize = 4 << 20;

/// The programs whose configurations are read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// Objects of Kubernetes and Istio, as YAML or JSON.
    Istio,
    /// A bootstrap of Envoy's API v3, as YAML or JSON.
    Envoy,
    Haproxy,
}

impl Format {
    pub const fn name(self) -> &'static str {
        match self {
            Self::Istio => "istio",
            Self::Envoy => "envoy",
            Self::Haproxy => "haproxy",
        }
    }
}

/// One file.
#[derive(Clone, Debug)]
pub struct Source {
    pub name: String,
    pub bytes: Vec<u8>,
}

/// Options of the command line.
#[derive(Clone, Debug, Default)]
pub struct Options {
    pub interfaces: Vec<String>,
    /// The VIP of a service, or of all of them.
    pub vips: Vec<(Option<String>, IpAddr)>,
    /// Addresses of a Deployment, a cluster or a server.
    pub backends: Vec<(String, SocketAddr)>,
    /// The other program's own behaviour instead of Shunt's floor, half-open and decay.
    pub faithful: bool,
    /// Where `shunt-kube` keeps its discovery files.
    pub discovery: String,
}

/// The result, with everything that was said on the way.
#[derive(Clone, Debug)]
pub struct Imported {
    /// `None`: there are errors.
    pub toml: Option<String>,
    pub rows: Vec<Row>,
    /// In the order of their places.
    pub notes: Vec<Note>,
}

impl Imported {
    /// The heaviest note.
    pub fn weight(&self) -> Option<Weight> {
        self.notes.iter().map(|note| note.weight).max()
    }
}

impl fmt::Display for Format {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// Reads all sources as one picture.
pub fn import(format: Format, sources: &[Source], options: &Options) -> Imported {
    let notes = Notes::default();
    let given = Given::new(options, &notes);
    let draft = texts(sources, &notes).and_then(|texts| {
        let draft = match format {
            Format::Istio => istio::draft(&texts, &given),
            Format::Envoy => envoy::draft(&texts, &given),
            Format::Haproxy => haproxy::draft(&texts, &given),
        }?;
        given.report_unused();
        Some(whole(draft, options, &notes))
    });
    drop(given);
    let is_wrong = notes.weight() == Some(Weight::Error);
    let mut notes = notes.into_list();
    let draft = draft.filter(|_| !is_wrong);
    let files: Vec<_> = sources.iter().map(|source| source.name.as_str()).collect();
    let toml = draft.as_ref().map(|draft| write::toml(format, &files, draft, &notes));
    let toml = toml.and_then(|toml| accepted(toml, &mut notes));
    Imported { toml, rows: draft.as_ref().map(write::rows).unwrap_or_default(), notes }
}

/// A file with its name.
struct Text {
    name: Rc<str>,
    text: String,
}

fn texts(sources: &[Source], notes: &Notes) -> Option<Vec<Text>> {
    let mut left = MAX_BYTES;
    let mut all = Some(Vec::new());
    for source in sources {
        let name: Rc<str> = source.name.as_str().into();
        let fail = |code, message: &str, help: &str| {
            notes.add(code, Some(&Place::whole(&name)), "", message, help);
        };
        match left.checked_sub(source.bytes.len()) {
            Some(less) => left = less,
            None => {
                let most = format!("the input is larger than {} MiB", MAX_BYTES >> 20);
                fail(NoteCode::TooLarge, &most, "import the services in parts");
                return None;
            }
        }
        match std::str::from_utf8(&source.bytes) {
            Ok(text) => {
                let text = text.strip_prefix('\u{feff}').unwrap_or(text).to_owned();
                if let Some(all) = &mut all {
                    all.push(Text { name, text });
                }
            }
            Err(error) => {
                let before = String::from_utf8_lossy(&source.bytes[..error.valid_up_to()]);
                let (line, column) = (
                    1 + before.matches('\n').count() as u64,
                    1 + before.rsplit('\n').next().unwrap_or_default().chars().count() as u64,
                );
                let place = Place { file: name, line, column };
                let message = "the file is not UTF-8";
                notes.add(NoteCode::Syntax, Some(&place), "", message, "save it as UTF-8 text");
                all = None;
            }
        }
    }
    all
}

/// The draft with the keys of the top level.
fn whole(mut draft: Draft, options: &Options, notes: &Notes) -> Draft {
    if draft.services.is_empty() && notes.weight() < Some(Weight::Error) {
        notes.add(
            NoteCode::NoService,
            None,
            "",
            "nothing in the input becomes a service",
            "are all files there that belong together?",
        );
    }
    one_vip_each(&draft, notes);
    let interfaces = if options.interfaces.is_empty() {
        notes.add(
            NoteCode::Placeholder,
            None,
            "",
            "`interfaces` stands in for those of your node",
            "give --interface NAME",
        );
        Entry::new("interfaces", vec!["eth0"], Origin::Option("PLACEHOLDER, give --interface"))
    } else {
        Entry::new("interfaces", options.interfaces.clone(), Origin::Option("--interface"))
    };
    draft.entries.insert(0, interfaces);
    draft
}

/// Services at one address and port cannot be kept apart.
fn one_vip_each(draft: &Draft, notes: &Notes) {
    let vip = |service: &draft::Service| {
        service.entries.iter().find(|entry| entry.key == "vip").map(|entry| entry.value.to_string())
    };
    for (at, service) in draft.services.iter().enumerate() {
        if let Some(other) = draft.services[..at].iter().find(|other| vip(other) == vip(service)) {
            let message = format!(
                "{} and {} both have the VIP {}",
                other.name,
                service.name,
                vip(service).unwrap_or_default()
            );
            let help = format!("give one of them its own: --vip {}=ADDRESS", service.name);
            notes.add(NoteCode::Conflict, None, "", message, help);
        }
    }
}

/// The text, if the reader of configurations takes it.
fn accepted(toml: String, notes: &mut Vec<Note>) -> Option<String> {
    let refused = match config::parse("the result", &toml) {
        Ok(_) => return Some(toml),
        Err(refused) => refused,
    };
    for diagnostic in refused.iter() {
        notes.push(Note {
            weight: Weight::Error,
            code: NoteCode::Refused,
            place: None,
            field: diagnostic.path.clone(),
            message: format!("Shunt does not take this: {}", diagnostic.message),
            help: diagnostic.help.clone(),
        });
    }
    None
}
