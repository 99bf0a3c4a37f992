//! The errors and warnings of a configuration, and their places.
//!
//! A reader that finds a wrong value notes a [`Problem`] and continues. At the end all of them become [`Diagnostics`],
//! which are text with a caret for people and JSON for programs.

use std::{cell::RefCell, collections::BTreeSet, fmt, ops::Range};

use annotate_snippets::{AnnotationKind, Level, Renderer, Snippet};
use serde::Serialize;

pub(super) type Span = Range<usize>;

/// A longer list does not help. Further errors are only counted.
const MOST: usize = 100;

/// The TOML parser's message about each line that it takes for the next element of an array.
pub(super) const ARRAY_GOES_ON: &str = "missing comma between array elements";

/// One error or warning, with its place in bytes.
#[derive(Debug)]
pub(super) struct Problem {
    pub(super) span: Span,
    pub(super) path: String,
    pub(super) message: String,
    pub(super) help: String,
    /// A second place that is involved, with a label.
    pub(super) also: Option<(Span, &'static str)>,
    pub(super) class: Class,
}

lb_core::codes! {
    /// The kind of an error or warning of a configuration. In `problems` and `warnings` of `check`.
    Code {
        /// Error: not TOML.
        Syntax = "syntax",
        /// Error: a value that is not allowed.
        Value = "value",
        /// Error: something is missing.
        Missing = "missing",
        /// Warning: with these limits no backend is ever ejected.
        NeverEjects = "never_ejects",
        /// Warning: `on_eject` no longer holds for backends that are drained, disabled or removed.
        OnDrainIsApart = "on_drain_is_apart",
        /// Warning: the Maglev table has few slots for each backend.
        CoarseTable = "coarse_table",
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Class {
    /// Not TOML.
    Syntax,
    /// A value that is not allowed.
    Value,
    /// Something is missing. That means little while the file is not valid TOML.
    Absence,
    /// A value that is allowed and hardly meant. Only files without errors show these.
    Warning(Code),
}

impl Class {
    /// For programs.
    const fn code(self) -> Code {
        match self {
            Self::Syntax => Code::Syntax,
            Self::Value => Code::Value,
            Self::Absence => Code::Missing,
            Self::Warning(code) => code,
        }
    }
}

/// The errors and warnings that readers have noted.
#[derive(Debug, Default)]
pub(super) struct Problems(RefCell<Vec<Problem>>);

impl Problems {
    pub(super) fn note(&self, problem: Problem) {
        self.0.borrow_mut().push(problem);
    }

    /// The errors, and the warnings.
    pub(super) fn into_parts(self) -> (Vec<Problem>, Vec<Problem>) {
        let is_error = |problem: &Problem| !matches!(problem.class, Class::Warning(_));
        self.0.into_inner().into_iter().partition(is_error)
    }
}

/// One error or warning, with its place. Serialises without the byte offsets.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Diagnostic {
    /// From 1.
    pub line: usize,
    /// In characters, from 1.
    pub column: usize,
    pub code: Code,
    /// The key as TOML writes it: `service.web.breaker.interval`. Empty: the whole file.
    pub path: String,
    pub message: String,
    /// The remedy.
    pub help: String,
    /// In bytes.
    #[serde(skip)]
    pub span: Range<usize>,
    #[serde(skip)]
    also: Option<(Range<usize>, &'static str)>,
}

/// Every error of one file, or every warning, in the order of their places. Never empty.
///
/// Serialises as an array of [`Diagnostic`].
#[derive(Clone, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub struct Diagnostics {
    list: Vec<Diagnostic>,
    /// They are warnings, and the file is valid.
    #[serde(skip)]
    are_warnings: bool,
    /// How many further ones there were.
    #[serde(skip)]
    more: usize,
    #[serde(skip)]
    name: String,
    #[serde(skip)]
    text: String,
}

impl Diagnostics {
    pub(super) fn new(name: &str, text: &str, problems: Vec<Problem>) -> Self {
        assert!(!problems.is_empty(), "there is an error");
        let are_warnings = problems.iter().all(|problem| matches!(problem.class, Class::Warning(_)));
        let lines = Lines::new(text);
        let mut problems = without_echoes(problems, &lines);
        problems.sort_by_key(|problem| (problem.span.start, problem.span.end));
        let more = problems.len().saturating_sub(MOST);
        problems.truncate(MOST);
        let list = problems
            .into_iter()
            .map(|problem| {
                let span = lines.clamp(problem.span);
                let (line, column) = lines.locate(span.start);
                Diagnostic {
                    line,
                    column,
                    code: problem.class.code(),
                    path: problem.path,
                    message: problem.message,
                    help: problem.help,
                    span,
                    also: problem.also.map(|(span, label)| (lines.clamp(span), label)),
                }
            })
            .collect();
        Self { list, are_warnings, more, name: name.to_owned(), text: text.to_owned() }
    }

    /// An error of the whole file, whose text is not shown.
    pub(super) fn whole(name: &str, message: String, help: &str) -> Self {
        let class = Class::Value;
        let problem =
            Problem { span: 0..0, path: String::new(), message, help: help.to_owned(), also: None, class };
        Self::new(name, "", vec![problem])
    }

    pub fn iter(&self) -> impl Iterator<Item = &Diagnostic> {
        self.list.iter()
    }

    /// How many there are, with those that the list leaves out.
    pub fn count(&self) -> usize {
        self.list.len() + self.more
    }

    /// For people: each with its line, a caret under the place, and the remedy.
    pub fn render(&self, color: bool) -> String {
        let renderer = if color { Renderer::styled() } else { Renderer::plain() };
        let mut out = String::new();
        for diagnostic in &self.list {
            out += &self.render_one(&renderer, diagnostic);
            out += "\n\n";
        }
        let s = if self.count() == 1 { "" } else { "s" };
        let noun = if self.are_warnings { "warning" } else { "error" };
        out += &format!("{}: {} {noun}{s}", self.name, self.count());
        if self.more > 0 {
            out += &format!(", the first {} are shown", self.list.len());
        }
        out.push('\n');
        out
    }

    fn render_one(&self, renderer: &Renderer, diagnostic: &Diagnostic) -> String {
        let level = if self.are_warnings { Level::WARNING } else { Level::ERROR };
        let title = level.primary_title(diagnostic.message.as_str());
        let help = Level::HELP.message(diagnostic.help.as_str());
        if self.text.is_empty() {
            return renderer.render(&[title.element(help)]);
        }
        // Only the lines that are involved: a report takes time in proportion to its source.
        let also = diagnostic.also.as_ref();
        let first = also.map_or(diagnostic.span.start, |(span, _)| span.start.min(diagnostic.span.start));
        let last = also.map_or(diagnostic.span.end, |(span, _)| span.end.max(diagnostic.span.end));
        let start = self.text[..first].rfind('\n').map_or(0, |at| at + 1);
        let end = self.text[last..].find('\n').map_or(self.text.len(), |at| last + at);
        let within = |span: &Span| span.start - start..span.end - start;
        let mut snippet = Snippet::source(&self.text[start..end])
            .path(self.name.as_str())
            .line_start(1 + self.text[..start].matches('\n').count())
            .annotation(AnnotationKind::Primary.span(within(&diagnostic.span)));
        if let Some((span, label)) = also {
            snippet = snippet.annotation(AnnotationKind::Context.span(within(span)).label(*label));
        }
        renderer.render(&[title.element(snippet).element(help)])
    }
}

impl fmt::Debug for Diagnostics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.render(false))
    }
}

impl fmt::Display for Diagnostics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let first = &self.list[0];
        write!(f, "{}:{}:{}: {}", self.name, first.line, first.column, first.message)?;
        match self.count() - 1 {
            0 => Ok(()),
            more => write!(f, " (and {more} more)"),
        }
    }
}

impl std::error::Error for Diagnostics {}

/// Removes errors that only follow from a syntax error. A parser that fails on a line reports this several times, sees a
/// value that the file does not have, and misses everything that it skipped.
fn without_echoes(problems: Vec<Problem>, lines: &Lines<'_>) -> Vec<Problem> {
    let mut broken = BTreeSet::new();
    let (syntax, others): (Vec<_>, Vec<_>) =
        problems.into_iter().partition(|problem| problem.class == Class::Syntax);
    if syntax.is_empty() {
        return others;
    }
    let mut swallowed = false;
    let mut remaining: Vec<_> = syntax
        .into_iter()
        .filter(|problem| {
            let first = broken.insert(lines.line(problem.span.start));
            // An array without its end includes the rest of the file, line by line.
            let run = problem.message.starts_with(ARRAY_GOES_ON);
            first && !(run && std::mem::replace(&mut swallowed, run))
        })
        .collect();
    remaining.extend(others.into_iter().filter(|problem| {
        problem.class != Class::Absence
            && !problem.span.is_empty()
            && !broken.contains(&lines.line(problem.span.start))
    }));
    remaining
}

/// The beginnings of the lines.
struct Lines<'t> {
    text: &'t str,
    starts: Vec<usize>,
}

impl<'t> Lines<'t> {
    fn new(text: &'t str) -> Self {
        let starts = std::iter::once(0).chain(text.match_indices('\n').map(|(at, _)| at + 1)).collect();
        Self { text, starts }
    }

    /// From 0.
    fn line(&self, offset: usize) -> usize {
        self.starts.partition_point(|&start| start <= offset) - 1
    }

    /// Line and column, from 1. `offset` is on a character.
    fn locate(&self, offset: usize) -> (usize, usize) {
        let line = self.line(offset);
        (line + 1, self.text[self.starts[line]..offset].chars().count() + 1)
    }

    /// The part of `span` that lies within the text and begins and ends on a character.
    fn clamp(&self, span: Span) -> Span {
        let start = self.text.floor_char_boundary(span.start);
        start..self.text.ceil_char_boundary(span.end).max(start)
    }
}
