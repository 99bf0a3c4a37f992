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
    config::{self, Diagnostics, LoadError},
    control::model::SCHEMA,
};

/// The result of reading a configuration.
#[derive(Clone, Debug, PartialEq)]
enum Checked {
    Valid { services: usize, backends: usize, warnings: Reported },
    Invalid(Reported),
}

/// Errors or warnings.
#[derive(Clone, Debug, PartialEq)]
struct Reported {
    /// For people, each with line, column, caret and remedy, and their number.
    rendered: String,
    /// The same as a JSON array.
    list: Value,
}

impl Reported {
    fn none() -> Self {
        Self { rendered: String::new(), list: json!([]) }
    }

    fn of(diagnostics: &Diagnostics, palette: Palette) -> Result<Self, Failure> {
        Ok(Self {
            rendered: diagnostics.render(palette.is_coloured()),
            list: serde_json::to_value(diagnostics).map_err(|error| Failure::new(Exit::Failed, error))?,
        })
    }
}

pub(super) fn run(args: &args::Check) -> Result<Exit, Failure> {
    let checked = check(&args.config, Palette::of_stderr())?;
    match args.output {
        Plain::Json => {
            out::print(&format!("{}\n", as_json(&args.config, &checked)))?;
        }
        Plain::Table => match &checked {
            Checked::Valid { services, backends, warnings } => {
                if !warnings.rendered.is_empty() {
                    out::remark(warnings.rendered.trim_end());
                }
                let (services, backends) = (count(*services, "service"), count(*backends, "backend"));
                out::print(&format!("{}: valid, {services}, {backends}\n", args.config.display()))?;
            }
            Checked::Invalid(errors) => out::remark(errors.rendered.trim_end()),
        },
    }
    Ok(match checked {
        Checked::Valid { .. } => Exit::Done,
        Checked::Invalid(_) => Exit::Config,
    })
}

/// Reads and checks a configuration. An error means that the file cannot be read.
fn check(config: &Path, palette: Palette) -> Result<Checked, Failure> {
    let loaded = match config.as_os_str() == "-" {
        true => config::read("<stdin>", std::io::stdin().lock()),
        false => config::load(config),
    };
    match loaded {
        Ok(file) => {
            let services = &file.core.services;
            Ok(Checked::Valid {
                services: services.len(),
                backends: services.iter().map(|service| service.everyone().count()).sum(),
                warnings: match &file.warnings {
                    Some(warnings) => Reported::of(warnings, palette)?,
                    None => Reported::none(),
                },
            })
        }
        Err(LoadError::Invalid(diagnostics)) => Ok(Checked::Invalid(Reported::of(&diagnostics, palette)?)),
        Err(error @ LoadError::Io { .. }) => Err(wiring::unreadable(error)),
    }
}

fn as_json(config: &Path, checked: &Checked) -> Value {
    let file = config.display().to_string();
    match checked {
        Checked::Valid { services, backends, warnings } => {
            json!({
                "schema": SCHEMA,
                "file": file,
                "valid": true,
                "services": services,
                "backends": backends,
                "problems": [],
                "warnings": warnings.list,
            })
        }
        Checked::Invalid(errors) => json!({
            "schema": SCHEMA,
            "file": file,
            "valid": false,
            "problems": errors.list,
            "warnings": [],
        }),
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
        let found = json!([{ "line": 3 }]);
        let reported = Reported { rendered: String::new(), list: found.clone() };
        let valid = Checked::Valid { services: 1, backends: 2, warnings: reported.clone() };
        let valid = as_json(path, &valid);
        assert_eq!((&valid["valid"], &valid["problems"]), (&json!(true), &json!([])));
        assert_eq!(valid["warnings"], found);
        let invalid = as_json(path, &Checked::Invalid(reported));
        assert_eq!((&invalid["valid"], &invalid["problems"]), (&json!(false), &found));
    }

    #[test]
    fn nouns_are_counted() {
        assert_eq!(count(1, "service"), "1 service");
        assert_eq!(count(0, "backend"), "0 backends");
    }
}
