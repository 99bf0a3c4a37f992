//! The paths that a Rust file names: it knows `use` trees and inline modules, and no more.

use std::path::Path;

use super::tokens::{Token, is_name, tokens};

/// One path, resolved as far as `crate`, `self` and `super` go.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Named {
    /// `["crate", "probe", "http"]`, `["std", "time", "Instant"]`, `["std", "time", "*"]`.
    pub(super) segments: Vec<String>,
    pub(super) line: usize,
}

impl Named {
    pub(super) fn root(&self) -> &str {
        &self.segments[0]
    }

    /// The module of lb-userspace that the path leads into.
    pub(super) fn module_of_ours(&self) -> Option<&str> {
        let ours = matches!(self.root(), "crate" | "lb_userspace");
        if ours { self.segments.get(1).map(String::as_str) } else { None }
    }

    /// Whether it names `target`, something inside it, or imports what holds it.
    pub(super) fn reaches(&self, target: &str) -> bool {
        let target: Vec<&str> = target.split("::").collect();
        let own: Vec<&str> = self.segments.iter().map(String::as_str).filter(|name| *name != "*").collect();
        let common = own.len().min(target.len());
        own[..common] == target[..common]
    }
}

/// `probe/http.rs` is the module `probe::http`.
pub(super) fn module_of(file: &Path) -> Vec<String> {
    let parts = file.with_extension("");
    let names = parts.iter().map(|part| part.to_string_lossy().into_owned());
    names.filter(|name| !matches!(name.as_str(), "mod" | "lib" | "main")).collect()
}

/// All paths of two or more segments, and every crate that `use` names alone.
pub(super) fn named(file: &[String], source: &str) -> Vec<Named> {
    in_tokens(file, &tokens(source))
}

/// The same in tokens.
pub(super) fn in_tokens(file: &[String], tokens: &[Token]) -> Vec<Named> {
    let mut found = Vec::new();
    let mut module = file.to_vec();
    let mut depth = 0usize;
    // Depths at which inline modules opened.
    let mut inline = Vec::new();
    let mut at = 0;
    while at < tokens.len() {
        let token = &tokens[at];
        match token.text.as_str() {
            "mod" if tokens.get(at + 2).is_some_and(|open| open.text == "{") => {
                module.push(tokens[at + 1].text.clone());
                inline.push(depth);
                depth += 1;
                at += 3;
                continue;
            }
            "{" => depth += 1,
            "}" => {
                depth = depth.saturating_sub(1);
                if inline.last() == Some(&depth) {
                    inline.pop();
                    module.pop();
                }
            }
            "use" | "::" => {
                at = tree(tokens, at + 1, &mut Vec::new(), &module, &mut found);
                continue;
            }
            word if is_name(word) && tokens.get(at + 1).is_some_and(|next| next.text == "::") => {
                at = tree(tokens, at, &mut Vec::new(), &module, &mut found);
                continue;
            }
            _ => {}
        }
        at += 1;
    }
    found
}

/// Reads one `use` tree, or a path, from `at` on; answers where it ends.
fn tree(
    tokens: &[Token],
    mut at: usize,
    prefix: &mut Vec<String>,
    module: &[String],
    found: &mut Vec<Named>,
) -> usize {
    let begun = prefix.len();
    let line = tokens.get(at).map_or(0, |token| token.line);
    let mut grouped = false;
    while let Some(token) = tokens.get(at) {
        if token.text == "::" {
            at += 1;
        } else if token.text == "{" && (prefix.len() > begun || begun > 0 || tokens[at - 1].text == "use") {
            grouped = true;
            at += 1;
            while tokens.get(at).is_some_and(|token| token.text != "}") {
                let before = at;
                at = tree(tokens, at, prefix, module, found);
                if tokens.get(at).is_some_and(|token| token.text == ",") || at == before {
                    at += 1;
                }
            }
            at += 1;
            break;
        } else if is_name(&token.text) || token.text == "*" {
            prefix.push(token.text.clone());
            at += 1;
            if tokens.get(at).is_none_or(|next| next.text != "::") {
                break;
            }
        } else {
            break;
        }
    }
    // `as name`
    if tokens.get(at).is_some_and(|token| token.text == "as") {
        at += 2;
    }
    if !grouped && !prefix.is_empty() {
        found.push(Named { segments: resolved(prefix, module), line });
    }
    prefix.truncate(begun);
    at
}

fn resolved(path: &[String], module: &[String]) -> Vec<String> {
    let mut here = module.to_vec();
    let mut rest = path;
    let mut relative = false;
    while let Some(first) = rest.first() {
        match first.as_str() {
            "self" => {}
            "super" => drop(here.pop()),
            _ => break,
        }
        relative = true;
        rest = &rest[1..];
    }
    if !relative {
        return path.to_vec();
    }
    ["crate".to_owned()].into_iter().chain(here).chain(rest.iter().cloned()).collect()
}

/// Macros that are called, with their lines.
pub(super) fn macros(source: &str) -> Vec<(String, usize)> {
    let tokens = tokens(source);
    let calls = tokens.windows(2).filter(|pair| is_name(&pair[0].text) && pair[1].text == "!");
    calls.map(|pair| (pair[0].text.clone(), pair[0].line)).collect()
}
