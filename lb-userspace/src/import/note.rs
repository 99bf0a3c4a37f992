//! The notes of an import: errors, losses and remarks, each with its place and a code.

use std::{cell::RefCell, fmt, rc::Rc};

use serde::{Serialize, Serializer};

use crate::printable::printable;

/// A place in an input.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    pub file: Rc<str>,
    /// From 1. 0: the file as a whole.
    pub line: u64,
    /// In characters, from 1.
    pub column: u64,
}

impl Place {
    pub(super) fn whole(file: &Rc<str>) -> Self {
        Self { file: Rc::clone(file), line: 0, column: 0 }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.line {
            0 => write!(f, "{}", self.file),
            line => write!(f, "{}:{line}:{}", self.file, self.column),
        }
    }
}

lb_core::codes! {
    /// The kind of a note. In `notes` of `import`.
    NoteCode {
        /// Error: the input is not text of its format, or it ends too early.
        Syntax = "syntax",
        /// Error: the input is larger than an import reads.
        TooLarge = "too_large",
        /// Error: a value of another type than its field has.
        WrongType = "wrong_type",
        /// Error: a value that its field cannot have.
        WrongValue = "wrong_value",
        /// Error: a field that must be there is missing.
        MissingField = "missing_field",
        /// Error: a name that nothing in the input, or on the command line, explains.
        Unresolved = "unresolved",
        /// Error: two things want the same name, address or port.
        Conflict = "conflict",
        /// Error: nothing in the input becomes a service.
        NoService = "no_service",
        /// Error: Shunt refuses the configuration that the input asks for.
        Refused = "refused",
        /// Loss: an object of a kind that an import does not read.
        UnknownKind = "unknown_kind",
        /// Loss: a field that an import does not know.
        UnknownField = "unknown_field",
        /// Loss: it needs a proxy, which Shunt is not.
        NeedsProxy = "needs_proxy",
        /// Loss: Shunt does not end or begin TLS.
        NeedsTls = "needs_tls",
        /// Loss: Shunt has nothing like it.
        NotCarried = "not_carried",
        /// Remark: Shunt does nearly the same; the text says the difference.
        Differs = "differs",
        /// Remark: it limits a proxy, and there is none.
        ProxyOnly = "proxy_only",
        /// Remark: a value stands in for one that nobody gave.
        Placeholder = "placeholder",
        /// Remark: something that surprises, and that the input asks for.
        Surprise = "surprise",
    }
}

/// How much a note weighs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Weight {
    /// Traffic is served as before.
    Remark,
    /// Traffic is served in another way.
    Loss,
    /// There is no result.
    Error,
}

impl NoteCode {
    pub const fn weight(self) -> Weight {
        match self {
            Self::Syntax
            | Self::TooLarge
            | Self::WrongType
            | Self::WrongValue
            | Self::MissingField
            | Self::Unresolved
            | Self::Conflict
            | Self::NoService
            | Self::Refused => Weight::Error,
            Self::UnknownKind | Self::UnknownField | Self::NeedsProxy | Self::NeedsTls | Self::NotCarried => {
                Weight::Loss
            }
            Self::Differs | Self::ProxyOnly | Self::Placeholder | Self::Surprise => Weight::Remark,
        }
    }
}

/// One thing that the operator has to know.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Note {
    pub weight: Weight,
    pub code: NoteCode,
    #[serde(flatten, serialize_with = "place")]
    pub place: Option<Place>,
    /// The field as its own format writes it: `spec.http[0].match`. Empty: no single field.
    pub field: String,
    pub message: String,
    /// The remedy. Empty: there is nothing to do.
    pub help: String,
}

fn place<S: Serializer>(place: &Option<Place>, to: S) -> Result<S::Ok, S::Error> {
    use serde::ser::SerializeMap as _;
    let mut map = to.serialize_map(Some(3))?;
    map.serialize_entry("file", &place.as_ref().map(|place| &*place.file))?;
    map.serialize_entry("line", &place.as_ref().map(|place| place.line).filter(|line| *line > 0))?;
    map.serialize_entry("column", &place.as_ref().map(|place| place.column).filter(|column| *column > 0))?;
    map.end()
}

/// As compilers write it, so that editors jump to the place.
impl fmt::Display for Note {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(place) = &self.place {
            write!(f, "{place}: ")?;
        }
        f.write_str(match self.weight {
            Weight::Error => "error: ",
            Weight::Loss => "lost: ",
            Weight::Remark => "note: ",
        })?;
        if !self.field.is_empty() {
            write!(f, "{}: ", self.field)?;
        }
        f.write_str(&self.message)?;
        match self.help.as_str() {
            "" => Ok(()),
            help => write!(f, "; {help}"),
        }
    }
}

/// More of them help nobody. The rest is only counted.
const MOST: usize = 200;

/// The notes so far.
#[derive(Debug, Default)]
pub(super) struct Notes {
    list: RefCell<Vec<Note>>,
}

impl Notes {
    pub(super) fn add(
        &self,
        code: NoteCode,
        place: Option<&Place>,
        field: &str,
        message: impl Into<String>,
        help: impl Into<String>,
    ) {
        let note = Note {
            weight: code.weight(),
            code,
            place: place.cloned(),
            // Words of the input may have ends of lines in them.
            field: printable(field),
            message: printable(&message.into()),
            help: printable(&help.into()),
        };
        let mut list = self.list.borrow_mut();
        // The same object may be looked at from two sides.
        if list.len() < MOST && !list.contains(&note) {
            list.push(note);
        }
    }

    /// The heaviest so far.
    pub(super) fn weight(&self) -> Option<Weight> {
        self.list.borrow().iter().map(|note| note.weight).max()
    }

    /// In the order of their places; those without one come last.
    pub(super) fn into_list(self) -> Vec<Note> {
        let mut list = self.list.into_inner();
        list.sort_by(|a, b| (a.place.is_none(), &a.place).cmp(&(b.place.is_none(), &b.place)));
        list
    }
}
