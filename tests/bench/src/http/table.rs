//! The report, for people.

use std::fmt::Write as _;

use super::{
    pattern::{BULK, Demand, PATTERNS, Pattern},
    report::Report,
    row::Row,
};
use crate::peers::Watches;

/// If others take more than this part of the CPUs' time, a request's cost is lost in theirs.
const QUIET: f64 = 0.05;
/// If less is left of it at a fixed rate, that rate was too much.
const SPARE: f64 = 0.1;

impl Report {
    pub(crate) fn table(&self) -> String {
        let mut text = String::new();
        let repetitions = self.rows.first().map_or(0, |row| row.rate.count);
        let xdp = self.xdp.as_deref().unwrap_or("?");
        put(
            &mut text,
            format!(
                "http: 2 nginx of one worker behind one VIP, {repetitions} x {} s, namespaces of its own each; {}; shunt's XDP: {xdp}",
                self.seconds, self.offloads
            ),
        );
        let first = PATTERNS.first().map_or("", |pattern| pattern.name);
        for row in self.rows.iter().filter(|row| row.pattern == first) {
            let watches = match row.watches {
                Watches::Nothing => "",
                Watches::Connects => "; takes backends out by failed connects",
                Watches::Responses => "; takes backends out by their responses",
            };
            put(&mut text, format!("  {:<23} {}{watches}", row.peer, row.what));
        }
        for pattern in PATTERNS {
            put(&mut text, format!("\n  {} ({})", pattern.what, pattern.name));
            let rows = self.rows.iter().filter(|row| row.pattern == pattern.name);
            match pattern.demand {
                Demand::Closed { .. } => closed(&mut text, pattern, rows),
                Demand::Open { .. } => open(&mut text, rows),
            }
        }
        self.write_remarks(&mut text);
        text
    }

    fn write_remarks(&self, text: &mut String) {
        if self.at_once {
            put(
                text,
                "\n  Many were measured at the same time: all of this works, and its numbers say nothing."
                    .to_owned(),
            );
            return;
        }
        put(text, "\n  goals, as ratios inside this run".to_owned());
        for goal in &self.goals {
            let bound = match (goal.at_least, goal.at_most) {
                (Some(least), _) => format!("≥ {least}"),
                (None, Some(most)) => format!("≤ {most}"),
                (None, None) => String::new(),
            };
            let value = goal.value.map_or("-".to_owned(), |value| format!("{value:.2}"));
            let met = match goal.met() {
                Some(true) => "yes",
                Some(false) => "NO",
                None => "not known",
            };
            put(text, format!("  {:<70} {value:>6}  {bound:<7} {met}", goal.measure));
        }
        put(
            text,
            "\n  CPU µs: what all CPUs were not idle, from /proc/stat, divided by requests. Work in softirq counts, and so does\n  \
             whatever else the machine does; only differences inside a repetition say anything."
                .to_owned(),
        );
        let costs = self.rows.iter().filter_map(|row| row.cost.as_ref());
        let background = costs.map(|cost| cost.background).fold(0.0, f64::max);
        if background > QUIET {
            let percent = background * 100.0;
            put(
                text,
                format!("  Others took up to {percent:.0} % of the CPUs: CPU µs are not to be trusted."),
            );
        }
        let busy = self.rows.iter().filter(|row| row.cost.is_some() && row.idle < SPARE);
        let busy: Vec<_> = busy.map(|row| format!("{} {}", row.peer, row.pattern)).collect();
        if !busy.is_empty() {
            put(
                text,
                format!("  Hardly idle, so that latency is mostly a queue for CPUs: {}", busy.join(", ")),
            );
        }
    }
}

fn closed<'a>(text: &mut String, pattern: &Pattern, rows: impl Iterator<Item = &'a Row>) {
    let unit = if pattern.name == BULK { "Gbit/s" } else { "req/s" };
    put(
        text,
        format!(
            "  {:<23} {unit:>8} {:>8} {:>15}  {:>8} {:>6} {:>10}  {:>9} {:>6}  {:>7} {:>7} {:>6}",
            "",
            "median",
            "least..most",
            "÷ direct",
            "median",
            "least..most",
            "÷ routing",
            "median",
            "p50 ms",
            "p99 ms",
            "errors"
        ),
    );
    for row in rows {
        let speed = if pattern.name == BULK { &row.gbits } else { &row.rate };
        let digits = if pattern.name == BULK { 2 } else { 0 };
        let (direct, routing) = (&row.to_direct, &row.to_routing);
        put(
            text,
            format!(
                "  {:<23} {:>8.digits$} {:>8.digits$} {:>15}  {:>8.2} {:>6.2} {:>10}  {:>9.2} {:>6.2}  {:>7.2} {:>7.2} {:>6}",
                row.peer,
                speed.most,
                speed.median,
                format!("{:.digits$}..{:.digits$}", speed.least, speed.most),
                direct.best,
                direct.each.median,
                format!("{:.2}..{:.2}", direct.each.least, direct.each.most),
                routing.best,
                routing.each.median,
                row.p50_ms.median,
                row.p99_ms.median,
                row.errors,
            ),
        );
    }
}

fn open<'a>(text: &mut String, rows: impl Iterator<Item = &'a Row>) {
    put(
        text,
        format!(
            "  {:<23} {:>7} {:>7} {:>13} {:>9} {:>11}  {:>10} {:>11} {:>15}  {:>6} {:>6}",
            "",
            "p50 ms",
            "p99 ms",
            "least..most",
            "÷ routing",
            "least..most",
            "CPU µs/req",
            "over direct",
            "least..most",
            "idle %",
            "errors"
        ),
    );
    for row in rows {
        let Some(cost) = &row.cost else { continue };
        let over = &cost.over_direct_us;
        put(
            text,
            format!(
                "  {:<23} {:>7.2} {:>7.2} {:>13} {:>9.2} {:>11}  {:>10.1} {:>+11.1} {:>15}  {:>6.0} {:>6}",
                row.peer,
                row.p50_ms.median,
                row.p99_ms.median,
                format!("{:.2}..{:.2}", row.p99_ms.least, row.p99_ms.most),
                row.p99_to_routing.median,
                format!("{:.2}..{:.2}", row.p99_to_routing.least, row.p99_to_routing.most),
                cost.cpu_us.median,
                over.median,
                format!("{:+.1}..{:+.1}", over.least, over.most),
                row.idle * 100.0,
                row.errors,
            ),
        );
    }
}

fn put(text: &mut String, line: String) {
    writeln!(text, "{line}").expect("a string takes everything");
}
