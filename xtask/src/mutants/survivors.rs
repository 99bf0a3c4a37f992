//! `tests/mutants.toml`: mutants that no test needs to notice, with the reason.

use std::path::Path;

use anyhow::{Context, Result, ensure};
use toml::Table;

use super::mutant::{Ended, Mutant, Outcome};
use crate::files;

pub(super) const FILE: &str = "tests/mutants.toml";

#[derive(Debug)]
pub(super) struct Survivor {
    file: String,
    change: String,
    /// Where the same change can be made in several lines of the function.
    line: Option<String>,
}

impl Survivor {
    fn is(&self, mutant: &Mutant) -> bool {
        self.file == mutant.file
            && self.change == mutant.change
            && self.line.as_ref().is_none_or(|line| *line == mutant.line)
    }
}

pub(super) fn read(workspace: &Path) -> Result<Vec<Survivor>> {
    parse(&files::read(&workspace.join(FILE))?)
}

fn parse(text: &str) -> Result<Vec<Survivor>> {
    rows(text, "survivor", FILE)?
        .iter()
        .map(|row| {
            let field = |name: &str| field(row, name, FILE);
            let line = row.get("line").map(|_| field("line")).transpose()?;
            ensure!(field("why")?.len() > 20, "{FILE}: {row}why?");
            Ok(Survivor { file: field("file")?, change: field("change")?, line })
        })
        .collect()
}

/// The tables of `[[name]]`.
pub(super) fn rows(text: &str, name: &str, file: &str) -> Result<Vec<Table>> {
    let table: Table = text.parse().with_context(|| format!("reading {file}"))?;
    let rows = table.get(name).and_then(|rows| rows.as_array()).into_iter().flatten();
    rows.map(|row| row.as_table().cloned().with_context(|| format!("{file}: a row that is none"))).collect()
}

/// A text in a row.
pub(super) fn field(row: &Table, name: &str, file: &str) -> Result<String> {
    let text = row.get(name).and_then(|value| value.as_str());
    Ok(text.with_context(|| format!("{file}: {row}has no `{name}`"))?.to_owned())
}

/// The missed mutants of a folder that are not listed, and the listed ones that need not be.
pub(super) fn judge(survivors: &[Survivor], folder: &str, mutants: &[Mutant], ended: &Ended) -> Vec<String> {
    let mut wrong = Vec::new();
    for mutant in mutants.iter().filter(|mutant| ended.of(mutant) == Some(Outcome::Missed)) {
        if !survivors.iter().any(|survivor| survivor.is(mutant)) {
            wrong.push(format!("missed: {}\n    in: {}", mutant.name, mutant.line));
        }
    }
    for survivor in survivors.iter().filter(|survivor| survivor.file.starts_with(folder)) {
        let its: Vec<_> = mutants.iter().filter(|mutant| survivor.is(mutant)).collect();
        let shown = format!("{FILE}: {}: {}", survivor.file, survivor.change);
        if its.is_empty() {
            wrong.push(format!("{shown}: there is no such mutant any more"));
        } else if its.iter().all(|mutant| ended.of(mutant).is_some_and(|ended| ended != Outcome::Missed)) {
            wrong.push(format!("{shown}: it is noticed by now"));
        }
    }
    wrong
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{mutants::mutant::example, place::workspace};

    #[test]
    fn every_survivor_has_a_reason_and_its_line_is_there() {
        for survivor in read(&workspace()).expect("the list is sound") {
            let text = files::read(&workspace().join(&survivor.file)).expect("the file is there");
            if let Some(line) = &survivor.line {
                assert!(
                    text.lines().any(|other| other.trim() == line),
                    "{survivor:?}: there is no such line"
                );
            }
        }
    }

    #[test]
    fn missed_and_listed_are_the_same() {
        let [first, second] = ["a < b", "a < c"].map(|line| example("replace < with <= in f", line));
        let mutants = [first.clone(), second.clone()];
        let mut ended = Ended::default();
        ended.note(&first, Outcome::Missed);
        ended.note(&second, Outcome::Caught);
        let list = |line: &str, change: &str| {
            let text = format!(
                "[[survivor]]\nfile = 'a.rs'\nchange = '{change}'\nline = '{line}'\nwhy = 'because it is only an example'"
            );
            judge(&parse(&text).expect("a list"), "", &mutants, &ended)
        };
        assert_eq!(list("a < b", "replace < with <= in f"), Vec::<String>::new());
        let wrong = list("a < c", "replace < with <= in f");
        assert!(wrong[0].starts_with("missed: a.rs:2:9"), "{wrong:?}");
        assert!(wrong[1].ends_with("it is noticed by now"), "{wrong:?}");
        assert!(list("a < b", "replace < with > in f")[1].ends_with("there is no such mutant any more"));
    }

    #[test]
    fn what_was_not_tried_yet_is_no_fault() {
        let mutants = [example("replace f with ()", "a();")];
        let text = "[[survivor]]\nfile = 'a.rs'\nchange = 'replace f with ()'\nwhy = 'because it is only an example'";
        let list = parse(text).expect("a list");
        assert_eq!(judge(&list, "", &mutants, &Ended::default()), Vec::<String>::new());
        assert_eq!(judge(&list, "b/", &[], &Ended::default()), Vec::<String>::new());
    }
}
