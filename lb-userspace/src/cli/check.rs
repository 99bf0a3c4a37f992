//! `shunt check`.

use std::path::Path;

use serde_json::{Value, json};

use super::{
    args::{self, Plain},
    exit::{Exit, Failure},
    out,
    palette::Palette,
    wiring,
};
use crate::{
    config::{self, LoadError},
    control::model::SCHEMA,
};

/// The result of reading a configuration.
#[derive(Clone, Debug, PartialEq)]
enum Checked {
    Valid {
        services: usize,
        backends: usize,
    },
    Invalid {
        /// All errors for people, each with line, column, caret and remedy, and their number.
        rendered: String,
        /// The same as a JSON array.
        problems: Value,
    },
}

pub(super) fn run(args: &args::Check) -> Result<Exit, Failure> {
    let checked = check(&args.config, Palette::of_stderr())?;
    match args.output {
        Plain::Json => {
            out::print(&format!("{}\n", as_json(&args.config, &checked)))?;
        }
        Plain::Table => match &checked {
            Checked::Valid { services, backends } => {
                let (services, backends) = (count(*services, "service"), count(*backends, "backend"));
                out::print(&format!("{}: valid, {services}, {backends}\n", args.config.display()))?;
            }
            Checked::Invalid { rendered, .. } => out::remark(rendered.trim_end()),
        },
    }
    Ok(match checked {
        Checked::Valid { .. } => Exit::Done,
        Checked::Invalid { .. } => Exit::Config,
    })
}

/// Reads and checks a configuration. An error means that the file cannot be read.
fn check(config: &Path, palette: Palette) -> Result<Checked, Failure> {
    match config::load(config) {
        Ok(file) => {
            let services = &file.core.services;
            Ok(Checked::Valid {
                services: services.len(),
                backends: services.iter().map(|service| service.everyone().count()).sum(),
            })
        }
        Err(LoadError::Invalid(diagnostics)) => Ok(Checked::Invalid {
            rendered: diagnostics.render(palette.is_coloured()),
            problems: serde_json::to_value(&diagnostics)
                .map_err(|error| Failure::new(Exit::Failed, error))?,
        }),
        Err(error @ LoadError::Io { .. }) => Err(wiring::unreadable(error)),
    }
}

fn as_json(config: &Path, checked: &Checked) -> Value {
    let file = config.display().to_string();
    match checked {
        Checked::Valid { services, backends } => {
            json!({
                "schema": SCHEMA,
                "file": file,
                "valid": true,
                "services": services,
                "backends": backends,
                "problems": [],
            })
        }
        Checked::Invalid { problems, .. } => {
            json!({ "schema": SCHEMA, "file": file, "valid": false, "problems": problems })
        }
    }
}

fn count(number: usize, noun: &str) -> String {
    format!("{number} {noun}{}", if number == 1 { "" } else { "s" })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_always_has_problems() {
        let path = Path::new("a.toml");
        let valid = as_json(path, &Checked::Valid { services: 1, backends: 2 });
        assert_eq!((&valid["valid"], &valid["problems"]), (&json!(true), &json!([])));
        let problems = json!([{ "line": 3 }]);
        let invalid = Checked::Invalid { rendered: String::new(), problems: problems.clone() };
        let invalid = as_json(path, &invalid);
        assert_eq!((&invalid["valid"], &invalid["problems"]), (&json!(false), &problems));
    }

    #[test]
    fn nouns_are_counted() {
        assert_eq!(count(1, "service"), "1 service");
        assert_eq!(count(0, "backend"), "0 backends");
    }
}
