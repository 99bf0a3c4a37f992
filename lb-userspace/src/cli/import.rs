//! `shunt import`.

use std::{io::Read as _, path::Path};

use anyhow::Context as _;
use serde_json::json;

use super::{
    args::{self, ImportOutput},
    exit::{Exit, Failure},
    out,
    palette::Palette,
    render,
};
use crate::{
    control::model::SCHEMA,
    import::{self, Imported, Note, Source, Weight},
};

pub(super) fn run(args: &args::Import) -> Result<Exit, Failure> {
    let sources = args.files.iter().map(|file| read(file)).collect::<Result<Vec<_>, _>>()?;
    let imported = import::import(args.format.format(), &sources, &args.options());
    let is_refused = imported.toml.is_none() || (imported.weight() >= Some(Weight::Loss) && !args.lossy);
    match args.output {
        ImportOutput::Json => {
            out::print(&format!("{}\n", as_json(&imported, is_refused)))?;
        }
        ImportOutput::Toml => {
            for note in &imported.notes {
                out::remark(note);
            }
            if args.explain {
                out::print(&render::import(&imported.rows, Palette::of_stdout()))?;
            } else if let Some(toml) = imported.toml.as_ref().filter(|_| !is_refused) {
                out::print(toml)?;
            }
            if let Some(last) = conclusion(&imported.notes, is_refused) {
                out::remark(last);
            }
        }
    }
    Ok(if is_refused { Exit::Config } else { Exit::Done })
}

/// One byte more than an import takes shows that it is too much.
fn read(file: &Path) -> Result<Source, Failure> {
    const MOST: u64 = import::MAX_BYTES as u64 + 1;
    let mut bytes = Vec::new();
    let (name, done) = if file.as_os_str() == "-" {
        ("<stdin>".to_owned(), std::io::stdin().lock().take(MOST).read_to_end(&mut bytes))
    } else {
        let read = |file: std::fs::File| file.take(MOST).read_to_end(&mut bytes);
        (file.display().to_string(), std::fs::File::open(file).and_then(read))
    };
    done.with_context(|| format!("cannot read {name}"))?;
    Ok(Source { name, bytes })
}

fn count(notes: &[Note], weight: Weight) -> usize {
    notes.iter().filter(|note| note.weight == weight).count()
}

/// The last line on stderr, if it has something to say.
fn conclusion(notes: &[Note], is_refused: bool) -> Option<String> {
    let plural = |number: usize, noun: &str| match number {
        1 => format!("1 {noun}"),
        _ => format!("{number} {noun}s"),
    };
    let (errors, losses) = (count(notes, Weight::Error), count(notes, Weight::Loss));
    match (errors, losses) {
        (0, 0) => None,
        (0, _) if is_refused => Some(format!(
            "error: {} would change how traffic is served, so nothing is printed\n\
             help: read the lines marked `lost`; --lossy prints the result without them",
            plural(losses, "loss").replace("losss", "losses")
        )),
        (0, _) => None,
        (_, _) => Some(format!("error: {}, so there is no result", plural(errors, "error"))),
    }
}

fn as_json(imported: &Imported, is_refused: bool) -> serde_json::Value {
    json!({
        "schema": SCHEMA,
        "toml": imported.toml.as_ref().filter(|_| !is_refused),
        "refused": is_refused,
        "notes": imported.notes,
        "rows": imported.rows,
    })
}
