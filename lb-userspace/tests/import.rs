//! Files of other programs with the result that is expected, in `tests/import/FORMAT`.
//!
//! A first line `# args: …` has the options. The expected notes and result stand in the file of the same name
//! with `.expected` behind it; `BLESS=1 cargo test -p lb-userspace --test import` writes them. The name of an input says how
//! it ends: `good-`, `lossy-` (traffic is served in another way), `refused-` (asked for and not possible), `broken-`.

use std::{
    collections::BTreeMap,
    env, fs,
    path::{Path, PathBuf},
};

use clap::Parser as _;
use lb_userspace::{
    cli::args::{Cli, Command},
    config,
    import::{self, Format, Imported, Source, Weight},
};

const FORMATS: [(&str, Format); 3] =
    [("istio", Format::Istio), ("envoy", Format::Envoy), ("haproxy", Format::Haproxy)];

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/import")
}

/// All inputs of a format, by name.
fn inputs(format: &str) -> BTreeMap<String, Vec<u8>> {
    let folder = folder().join(format);
    let entries = fs::read_dir(&folder).expect("the folder of a format");
    let paths = entries.map(|entry| entry.expect("an entry").path());
    let is_input = |path: &PathBuf| path.extension().is_some_and(|extension| extension != "expected");
    paths
        .filter(is_input)
        .map(|path| {
            let name = path.file_name().expect("a file").to_string_lossy().into_owned();
            (name, fs::read(path).expect("an input can be read"))
        })
        .collect()
}

fn run(format: &str, name: &str, bytes: &[u8]) -> Imported {
    let text = String::from_utf8_lossy(bytes);
    let options = text.lines().next().and_then(|line| line.strip_prefix("# args: ")).unwrap_or_default();
    let words = ["shunt", "import", format, name].into_iter().chain(options.split_whitespace());
    let Command::Import(args) = Cli::try_parse_from(words).expect(name).command else { panic!("{name}") };
    let source = Source { name: name.to_owned(), bytes: bytes.to_vec() };
    import::import(args.format.format(), &[source], &args.options())
}

fn shown(imported: &Imported) -> String {
    let mut out = String::new();
    for note in &imported.notes {
        out += &format!("{} {note}\n", note.code);
    }
    out + "----\n" + imported.toml.as_deref().unwrap_or("nothing\n")
}

/// How an input must end.
fn is_as_named(name: &str, imported: &Imported) -> bool {
    let weight = imported.weight();
    match name.split('-').next() {
        Some("good") => imported.toml.is_some() && weight < Some(Weight::Loss),
        Some("lossy") => imported.toml.is_some() && weight == Some(Weight::Loss),
        Some("refused" | "broken") => imported.toml.is_none() && weight == Some(Weight::Error),
        _ => false,
    }
}

#[test]
fn each_input_gives_what_is_expected() {
    let mut wrong = Vec::new();
    let mut count = 0;
    for (format, _) in FORMATS {
        for (name, bytes) in inputs(format) {
            count += 1;
            let imported = run(format, &name, &bytes);
            if !is_as_named(&name, &imported) {
                wrong.push(format!("{format}/{name} does not end as its name says:\n{}", shown(&imported)));
            }
            let file = folder().join(format).join(format!("{name}.expected"));
            let shown = shown(&imported);
            if env::var_os("BLESS").is_some() {
                fs::write(&file, &shown).expect("it can be written");
            } else if fs::read_to_string(&file).unwrap_or_default() != shown {
                wrong.push(format!("{format}/{name} gives:\n{shown}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{}\n{} of {count} are wrong", wrong.join("\n"), wrong.len());
    assert!(count >= 60, "only {count} inputs");
}

#[test]
fn results_are_configurations() {
    for (format, _) in FORMATS {
        for (name, bytes) in inputs(format) {
            if let Some(toml) = run(format, &name, &bytes).toml {
                config::parse(&name, &toml).unwrap_or_else(|wrong| panic!("{name}: {wrong}"));
                let fits = |line: &str| line.chars().count() <= 100 || line.split(' ').count() <= 2;
                assert!(toml.lines().all(fits), "{name}: {toml}");
            }
        }
    }
}

/// A truncated file is a usual mistake.
#[test]
fn no_part_of_an_input_makes_it_panic() {
    for (format, kind) in FORMATS {
        for (name, bytes) in inputs(format) {
            // Each part of it is a bomb, too, and takes its time.
            if name.contains("bomb") {
                continue;
            }
            for end in (0..bytes.len()).step_by(1 + bytes.len() / 12) {
                let source = Source { name: name.clone(), bytes: bytes[..end].to_vec() };
                import::import(kind, &[source], &import::Options::default());
            }
        }
    }
}

#[test]
fn ten_megabytes_are_refused_at_once() {
    for (_, format) in FORMATS {
        let bytes = b"# args\na: [x, y]\n".repeat(10 << 16);
        let source = Source { name: "large".to_owned(), bytes };
        let imported = import::import(format, &[source], &import::Options::default());
        let said: Vec<_> = imported.notes.iter().map(ToString::to_string).collect();
        assert_eq!(said, ["large: error: the input is larger than 4 MiB; import the services in parts"]);
    }
}
