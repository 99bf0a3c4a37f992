//! The result of a replay, for people.

use super::{
    table::{
        self, Cell,
        Side::{Left, Right},
    },
    text::printable,
};
use crate::{
    cli::palette::{Paint, Palette},
    replay::{
        compare::{Comparison, Side},
        summary::{Summary, Totals},
    },
};

/// The summary of one run.
pub fn summary(summary: &Summary, palette: Palette) -> String {
    let Totals { responses, client_errors, errors, diverted, unserved, .. } = summary.total;
    let span = seconds((summary.ended_ms - summary.began_ms).0);
    let mut lines = vec![format!(
        "{responses} responses in {span}, {errors} of them errors; clients saw {client_errors} errors"
    )];
    if diverted > 0 {
        lines.push(format!("other backends would have answered {diverted} of them"));
    }
    if unserved > 0 {
        lines.push(format!(
            "{unserved} of them would have found no backend; they count as errors that clients saw"
        ));
    }
    let heads = [
        ("BACKEND", Left),
        ("RESPONSES", Right),
        ("ERRORS", Right),
        ("CLIENTS-SAW", Right),
        ("DIVERTED", Right),
        ("OUT-OF-SERVICE", Right),
        ("EJECTIONS", Right),
        ("READMITTED", Right),
        ("FALSELY", Right),
        ("REFUSED", Right),
    ];
    let rows: Vec<Vec<Cell>> = summary
        .backends
        .iter()
        .map(|of| {
            let totals = &of.totals;
            let number = |number: u64| Cell::plain(number.to_string());
            vec![
                Cell::plain(format!("{}/{}", of.service, of.backend)),
                number(totals.responses),
                number(totals.errors),
                alarming(totals.client_errors),
                number(totals.diverted + totals.unserved),
                Cell::plain(seconds(totals.out_ms)),
                number(totals.ejections),
                number(totals.readmissions),
                alarming(totals.false_readmissions),
                number(totals.refused),
            ]
        })
        .collect();
    lines.extend(table::lines(&heads, &rows, None, palette));
    lines.extend(remarks(summary));
    lines.join("\n")
}

/// Two runs side by side.
pub fn comparison(of: &Comparison, palette: Palette) -> String {
    let Comparison { a, b, .. } = of;
    let span = seconds((of.ended_ms - a.summary.began_ms).0);
    let mut lines = vec![
        format!("{} responses in {span}", a.summary.total.responses),
        format!("A is {}, B is {}", printable(&a.config), printable(&b.config)),
    ];
    let heads = [("", Left), ("", Left), ("A", Right), ("B", Right), ("B - A", Right)];
    let mut rows = measures("all", &a.summary.total, &b.summary.total);
    for backend in &of.backends {
        let name = (backend.service.clone(), backend.backend.clone());
        let totals = |side: &Side| side.totals(&name).unwrap_or_default();
        rows.extend(measures(&format!("{}/{}", name.0, name.1), &totals(a), &totals(b)));
    }
    lines.extend(table::lines(&heads, &rows, None, palette));
    for side in [a, b] {
        lines.extend(remarks(&side.summary).into_iter().map(|remark| format!("{}: {remark}", side.config)));
    }
    lines.join("\n") + "\n"
}

fn measures(name: &str, a: &Totals, b: &Totals) -> Vec<Vec<Cell>> {
    type Measure = (&'static str, fn(&Totals) -> u64, fn(u64) -> String);
    const ALL: [Measure; 4] = [
        ("errors that clients saw", |totals| totals.client_errors, |number| number.to_string()),
        ("time out of service", |totals| totals.out_ms, seconds),
        ("ejections", |totals| totals.ejections, |number| number.to_string()),
        ("false readmissions", |totals| totals.false_readmissions, |number| number.to_string()),
    ];
    let rows = ALL.iter().enumerate().map(|(i, (what, of, shown))| {
        let (of_a, of_b) = (of(a), of(b));
        let (sign, paint) = match of_b.cmp(&of_a) {
            std::cmp::Ordering::Less => ("-", Paint::Good),
            std::cmp::Ordering::Equal => ("", Paint::Faint),
            std::cmp::Ordering::Greater => ("+", Paint::Warning),
        };
        vec![
            Cell::plain(if i == 0 { name } else { "" }),
            Cell::plain(*what),
            Cell::plain(shown(of_a)),
            Cell::plain(shown(of_b)),
            Cell::painted(format!("{sign}{}", shown(of_a.abs_diff(of_b))), paint),
        ]
    });
    rows.collect()
}

/// Facts that limit what the numbers mean.
fn remarks(summary: &Summary) -> Vec<String> {
    let mut remarks = Vec::new();
    if summary.missing > 0 {
        remarks.push(format!("warning: {} lines are missing in the recording", summary.missing));
    }
    if summary.unused_probes > 0 {
        remarks.push(format!(
            "warning: replay ignored {} probe results, because their services have no probe",
            summary.unused_probes
        ));
    }
    for service in &summary.unprobed {
        remarks.push(format!(
            "warning: service {} has a probe, but the events have no result of it: with \
             `probe_readmits` an ejected backend stays ejected",
            printable(service)
        ));
    }
    if summary.misplaced > 0 {
        let s = if summary.misplaced == 1 { "" } else { "s" };
        remarks.push(format!("replay left out {} order{s} about nobody who is there", summary.misplaced));
    }
    if summary.skipped > 0 {
        remarks.push(format!("replay left out {} lines about other services", summary.skipped));
    }
    remarks
}

fn alarming(number: u64) -> Cell {
    Cell::painted(number.to_string(), if number == 0 { Paint::Plain } else { Paint::Warning })
}

/// Exact to the millisecond.
fn seconds(ms: u64) -> String {
    format!("{}.{:03} s", ms / 1000, ms % 1000)
}

#[cfg(test)]
mod tests {
    use lb_core::time::Instant;

    use super::*;
    use crate::replay::summary::BackendSummary;

    fn run(client_errors: u64, out_ms: u64) -> Summary {
        let totals =
            Totals { responses: 100, errors: 9, client_errors, out_ms, diverted: 2, ..Totals::default() };
        let backend = BackendSummary { service: "web".to_owned(), backend: "web-1".to_owned(), totals };
        Summary { ended_ms: Instant(61_500), total: totals, backends: vec![backend], ..Summary::default() }
    }

    #[test]
    fn a_summary_says_what_clients_saw() {
        let text = summary(&Summary { missing: 3, ..run(7, 30_000) }, Palette::PLAIN);
        assert_eq!(
            text,
            "\
100 responses in 61.500 s, 9 of them errors; clients saw 7 errors
other backends would have answered 2 of them
  BACKEND   RESPONSES ERRORS CLIENTS-SAW DIVERTED OUT-OF-SERVICE EJECTIONS READMITTED FALSELY REFUSED
  web/web-1       100      9           7        2       30.000 s         0          0       0       0
warning: 3 lines are missing in the recording"
        );
    }

    #[test]
    fn there_are_only_the_remarks_that_there_is_a_reason_for() {
        let quiet = Summary { total: Totals { diverted: 0, ..run(0, 0).total }, ..run(0, 0) };
        assert_eq!(remarks(&quiet), Vec::<String>::new());
        assert_eq!(summary(&quiet, Palette::PLAIN).lines().count(), 3);
        let total = Totals { unserved: 4, ..quiet.total };
        let loud = Summary { total, unused_probes: 5, misplaced: 1, skipped: 6, ..quiet };
        let said = [
            "warning: replay ignored 5 probe results, because their services have no probe",
            "replay left out 1 order about nobody who is there",
            "replay left out 6 lines about other services",
        ];
        assert_eq!(remarks(&loud), said);
        assert!(summary(&loud, Palette::PLAIN).contains("\n4 of them would have found no backend;"));
        let two = Summary { misplaced: 2, ..loud };
        assert_eq!(remarks(&two)[1], "replay left out 2 orders about nobody who is there");
    }

    #[test]
    fn errors_that_clients_saw_are_marked() {
        let painted = |number| format!("{:?}", alarming(number));
        assert!(painted(0).contains("Plain") && painted(1).contains("Warning"), "{}", painted(1));
    }

    #[test]
    fn a_comparison_shows_the_difference() {
        let side = |config: &str, summary| Side { config: config.to_owned(), summary };
        let text = comparison(
            &Comparison::new(side("a.toml", run(7, 0)), side("b.toml", run(4, 30_000))),
            Palette::PLAIN,
        );
        assert!(text.contains("A is a.toml, B is b.toml\n"), "{text}");
        let line = |name: &str| text.lines().find(|line| line.contains(name)).expect("shown").to_owned();
        let words = |line: String| line.split_whitespace().map(str::to_owned).collect::<Vec<_>>().join(" ");
        assert_eq!(words(line("errors that clients saw")), "all errors that clients saw 7 4 -3");
        assert_eq!(words(line("time out of service")), "time out of service 0.000 s 30.000 s +30.000 s");
        assert_eq!(words(line("web/web-1")), "web/web-1 errors that clients saw 7 4 -3");
        assert_eq!(words(line("ejections")), "ejections 0 0 0");
    }
}
