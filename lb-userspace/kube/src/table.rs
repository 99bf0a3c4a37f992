//! The table of `--once`.

use std::path::PathBuf;

use crate::{
    files::Backend,
    objects::{Family, Key},
    sets::{Place, State},
};

/// One line a file.
pub(crate) fn table(files: &[(Place, Vec<Backend>, PathBuf)]) -> String {
    let heads = ["NAMESPACE", "SERVICE", "PORT", "IP", "READY", "DRAINING", "OUT", "FILE"].map(str::to_owned);
    let mut rows = vec![heads];
    for (Place { service: Key { namespace, name }, port, family }, backends, path) in files {
        let count = |state| backends.iter().filter(|of| of.state == state).count().to_string();
        let family = match family {
            Family::V4 => "v4",
            Family::V6 => "v6",
        };
        rows.push([
            namespace.clone(),
            name.clone(),
            port.clone(),
            family.to_owned(),
            count(State::Ready),
            count(State::Draining),
            count(State::Out),
            path.display().to_string(),
        ]);
    }
    let width = |column: usize| rows.iter().map(|row| row[column].len()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..rows[0].len()).map(width).collect();
    let line = |row: &[String; 8]| {
        let cells = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}"));
        cells.collect::<Vec<_>>().join("  ").trim_end().to_owned() + "\n"
    };
    rows.iter().map(line).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_a_file() {
        let service = Key { namespace: "shop".to_owned(), name: "web".to_owned() };
        let place = Place { service, port: "http".to_owned(), family: Family::V4 };
        let backend = |state| Backend {
            name: "a".to_owned(),
            address: "10.0.0.1:80".parse().expect("literal"),
            state,
            id: None,
        };
        let backends = vec![backend(State::Ready), backend(State::Ready), backend(State::Out)];
        let text = table(&[(place, backends, "/run/x.json".into())]);
        let expected = "NAMESPACE  SERVICE  PORT  IP  READY  DRAINING  OUT  FILE\n\
                        shop       web      http  v4  2      0         1    /run/x.json\n";
        assert_eq!(text, expected);
    }
}
