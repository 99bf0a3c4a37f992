//! No circle between the files of a crate.
//!
//! A file refers to another when a path of its own names something in it, by `use` or in its code. A path leads to the
//! file of the last module in it: `crate::engine::backend::Backend` to `engine/backend.rs`, `super::Error` to the file of
//! the parent, also when the parent only passes `Error` on. These are no references:
//!
//! - from a module to its own children, at any depth. A parent declares its children and puts them together, and its
//!   children stand on the types that it declares; they are read together, and neither is of use without the other;
//! - everything in tests.
//!
//! So siblings, and the parts of different modules, stand in one order. Methods that are called on a value are not seen.

use std::collections::{BTreeMap, BTreeSet};

use super::{
    is_test, paths,
    tokens::{tokens, without_tests},
};

/// A file of one crate, as it is shown, with its module and its text.
pub(super) struct File {
    pub(super) shown: String,
    pub(super) module: Vec<String>,
    pub(super) text: String,
}

/// Files that refer to each other, and the lines that make it so.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Circle {
    pub(super) files: Vec<String>,
    pub(super) lines: Vec<String>,
}

/// For each file the files that it refers to, with the first line that does.
type Graph = BTreeMap<usize, BTreeMap<usize, usize>>;

pub(super) fn find(files: &[File]) -> Vec<Circle> {
    let graph = graph(files);
    let reached: Vec<BTreeSet<usize>> = (0..files.len()).map(|file| reachable(&graph, file)).collect();
    let mut circles = Vec::new();
    for first in 0..files.len() {
        let members: Vec<usize> =
            reached[first].iter().copied().filter(|other| reached[*other].contains(&first)).collect();
        // Each circle once, by its first file.
        if members.first() != Some(&first) || members.len() < 2 {
            continue;
        }
        let mut lines = Vec::new();
        for from in &members {
            for (to, line) in graph.get(from).into_iter().flatten().filter(|(to, _)| members.contains(to)) {
                lines.push(format!("{}:{line} names {}", files[*from].shown, files[*to].shown));
            }
        }
        circles
            .push(Circle { files: members.iter().map(|file| files[*file].shown.clone()).collect(), lines });
    }
    circles
}

fn reachable(graph: &Graph, from: usize) -> BTreeSet<usize> {
    let (mut found, mut next) = (BTreeSet::new(), vec![from]);
    while let Some(file) = next.pop() {
        let others = graph.get(&file).into_iter().flatten().map(|(to, _)| *to);
        next.extend(others.filter(|to| found.insert(*to)));
    }
    found
}

fn graph(files: &[File]) -> Graph {
    let scanned: Vec<_> = files.iter().map(|file| without_tests(&tokens(&file.text))).collect();
    // `#[cfg(test)] mod fixture;` makes `fixture.rs` and all below it tests.
    let tests: Vec<Vec<String>> = files
        .iter()
        .zip(&scanned)
        .flat_map(|(file, (_, names))| {
            names.iter().map(|name| [&file.module[..], std::slice::from_ref(name)].concat())
        })
        .collect();
    let is_test = |module: &[String]| is_test(module) || tests.iter().any(|test| module.starts_with(test));
    let modules: BTreeMap<&[String], usize> =
        files.iter().enumerate().map(|(number, file)| (&file.module[..], number)).collect();
    let mut graph = Graph::new();
    for (number, (file, (tokens, _))) in files.iter().zip(&scanned).enumerate() {
        if is_test(&file.module) {
            continue;
        }
        for named in paths::in_tokens(&file.module, tokens) {
            let Some(path) = within(&file.module, &named.segments, &modules) else { continue };
            let target = resolve(&path, &modules);
            // Itself, or a child.
            if files[target].module.starts_with(&file.module) {
                continue;
            }
            graph.entry(number).or_default().entry(target).or_insert(named.line);
        }
    }
    graph
}

/// The path below the root of the crate, if it leads into it: from `crate`, or from a child of this module.
fn within(
    module: &[String],
    segments: &[String],
    modules: &BTreeMap<&[String], usize>,
) -> Option<Vec<String>> {
    let (first, rest) = segments.split_first()?;
    if first == "crate" {
        return Some(rest.to_vec());
    }
    let child = [module, &segments[..1]].concat();
    modules.contains_key(&child[..]).then(|| [module, segments].concat())
}

/// The file of the last module in the path.
fn resolve(path: &[String], modules: &BTreeMap<&[String], usize>) -> usize {
    let mut shorter = (0..=path.len()).rev();
    let found = shorter.find_map(|length| modules.get(&path[..length]).copied());
    found.expect("the root of a crate is a module of it")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn files(texts: &[(&str, &str)]) -> Vec<File> {
        let file = |(path, text): &(&str, &str)| File {
            shown: format!("{path}.rs"),
            module: path.split('/').filter(|part| *part != "lib").map(str::to_owned).collect(),
            text: (*text).to_owned(),
        };
        texts.iter().map(file).collect()
    }

    fn circles(texts: &[(&str, &str)]) -> Vec<Vec<String>> {
        find(&files(texts)).into_iter().map(|circle| circle.files).collect()
    }

    #[test]
    fn two_files_that_name_each_other_are_a_circle() {
        let circle = [("lib", "mod a; mod b;"), ("a", "use crate::b::B;"), ("b", "use crate::a::A;")];
        assert_eq!(circles(&circle), [["a.rs", "b.rs"]]);
        assert_eq!(find(&files(&circle))[0].lines, ["a.rs:1 names b.rs", "b.rs:1 names a.rs"]);
        let line = [("lib", "mod a; mod b;"), ("a", "use crate::b::B;"), ("b", "struct B;")];
        assert!(circles(&line).is_empty());
    }

    #[test]
    fn a_circle_over_three_files_is_found_once() {
        let circle = [
            ("lib", ""),
            ("a", "use crate::b::B;"),
            ("b", "fn f() { crate::c::g() }"),
            ("c", "use super::a::A;"),
            ("d", "use crate::a::A;"),
        ];
        assert_eq!(circles(&circle), [["a.rs", "b.rs", "c.rs"]]);
    }

    #[test]
    fn a_parent_and_its_children_are_no_circle_and_siblings_are() {
        let family = [("lib", ""), ("a", "mod b; use b::B; pub struct A;"), ("a/b", "use super::A;")];
        assert!(circles(&family).is_empty());
        let siblings =
            [("lib", ""), ("a", "mod b; mod c;"), ("a/b", "use super::c::C;"), ("a/c", "use super::b::B;")];
        assert_eq!(circles(&siblings), [["a/b.rs", "a/c.rs"]]);
    }

    #[test]
    fn tests_make_no_circle() {
        let tests =
            [("lib", ""), ("a", "use crate::b::B;"), ("b", "#[cfg(test)] mod tests { use crate::a::A; }")];
        assert!(circles(&tests).is_empty());
    }
}
