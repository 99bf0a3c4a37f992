//! The demo on the screen: a live picture on a terminal, lines otherwise.

use std::{
    io::{self, Write},
    time::Duration,
};

use lb_core::event::{Event, EventKind};

use super::{
    load::{Kind, Sample},
    moment::{Moment, STEPS, Step, percent, service_of},
    scene::{BAD, EJECTION, GOOD, IN_A_ROW, INTERVAL, TRIALS},
    terminal::Terminal,
};

/// Columns that are always there.
const WIDTH: usize = 100;
const LAST_EVENTS: usize = 4;

#[derive(Debug)]
pub(super) enum View {
    Lines,
    Live(Terminal),
}

impl View {
    pub(super) fn lines() -> Self {
        Self::Lines
    }

    pub(super) fn live() -> io::Result<Self> {
        Terminal::take().map(Self::Live)
    }

    pub(super) fn is_live(&self) -> bool {
        matches!(self, Self::Live(_))
    }

    pub(super) fn key(&self) -> Option<char> {
        match self {
            Self::Lines => None,
            Self::Live(terminal) => terminal.key(),
        }
    }

    /// The first words: what is about to happen.
    pub(super) fn opening(&self) {
        match self {
            Self::Lines => line(&opening()),
            Self::Live(terminal) => terminal.draw(&format!("{}\n\nbuilding the network …", opening())),
        }
    }

    pub(super) fn remark(&self, at: Duration, text: &str) {
        if !self.is_live() {
            line(&format!("{}   {text}", stamp(at)));
        }
    }

    pub(super) fn event(&self, at: Duration, event: &Event) {
        let loud = match event.kind {
            EventKind::Eject | EventKind::Trial | EventKind::Readmit | EventKind::Refused => true,
            EventKind::Suspected
            | EventKind::Probe
            | EventKind::Path
            | EventKind::Operator
            | EventKind::Weight
            | EventKind::Membership
            | EventKind::Fallback
            | EventKind::Panic
            | EventKind::Drained
            | EventKind::Dataplane
            | EventKind::Interface
            | EventKind::Discovery
            | EventKind::Limit => false,
        };
        // A lone backend that is half bad is refused again and again; the view that stays shows the first.
        if loud && event.kind != EventKind::Refused {
            self.remark(at, &format!("event: {}", event.sentence()));
        }
    }

    pub(super) fn step(&self, at: Duration, number: usize, step: &Step) {
        if self.is_live() {
            return;
        }
        let title = STEPS[number];
        match step {
            Step::Awaited => {}
            Step::Seen(what) => line(&format!("{} ✓ {title}\n            {what}", stamp(at))),
            Step::Missed(why) => line(&format!("{} ✗ NOT SEEN: {title}\n            {why}", stamp(at))),
        }
    }

    pub(super) fn draw(&self, moment: &Moment<'_>) {
        if let Self::Live(terminal) = self {
            terminal.draw(&picture(moment));
        }
    }
}

/// A line of the script. A reader that went away is no reason to stop before everything is taken down.
pub(super) fn line(text: &str) {
    let _ = writeln!(io::stdout(), "{text}");
}

fn stamp(at: Duration) -> String {
    format!("[{:5.1} s]", at.as_secs_f64())
}

fn opening() -> String {
    format!(
        "client ── node (Shunt in XDP) ──┬── {GOOD}  answers 200\n\
         {:32}└── {BAD}  answers 500 to half of its requests; its probe path says 200\n\
         50 new connections a second, and four clients that keep theirs for 20 requests.\n\
         Ejected after {IN_A_ROW} failures in a row, for {} s the first time (30 s is usual; this is a demo),\n\
         looked at every {} s, half-open with {TRIALS} trial connections.",
        "",
        EJECTION.as_secs(),
        INTERVAL.as_secs(),
    )
}

/// The live picture, as lines of at most [`WIDTH`] characters.
fn picture(moment: &Moment<'_>) -> String {
    let mut lines = vec![
        format!("Shunt demo   service `{}`   {:.0} s", moment.service, moment.since_begin.as_secs_f64()),
        String::new(),
        format!(
            "{:<10} {:<9} {:<8} {:<10} {:>8} {:>7} {:>6}  run",
            "backend", "state", "probe", "breaker", "share", "2xx", "5xx"
        ),
    ];
    if let Some(service) = service_of(moment.status, moment.service) {
        for backend in &service.backends {
            lines.push(format!(
                "{:<10} {:<9} {:<8} {:<10} {:>8} {:>7} {:>6}  {}",
                backend.name,
                backend.effective,
                backend.probe,
                backend.breaker,
                percent(backend.share),
                backend.responses.s2xx,
                backend.responses.s5xx,
                backend.run_5xx,
            ));
            lines.extend(backend.reason.as_ref().map(|reason| format!("           {reason}")));
        }
    }
    lines.push(String::new());
    for (kind, name) in [(Kind::Fresh, "one connection a request"), (Kind::Kept, "keep-alive")] {
        lines.push(format!("{name:<26} {}", answers(moment.samples, kind)));
    }
    lines.push(String::new());
    for (title, step) in STEPS.iter().zip(moment.steps) {
        lines.push(match step {
            Step::Awaited => format!("  · {title}"),
            Step::Seen(_) => format!("  ✓ {title}"),
            Step::Missed(why) => format!("  ✗ {title}: {why}"),
        });
    }
    lines.push(String::new());
    let shown = moment.events.len().saturating_sub(LAST_EVENTS);
    lines.extend(moment.events[shown..].iter().map(|heard| heard.event.sentence()));
    lines.push(String::new());
    lines.push(format!("b break {BAD}   h heal it   q quit"));
    lines.iter().map(|line| line.chars().take(WIDTH).collect::<String>() + "\n").collect()
}

/// Good answers and errors of one kind of client, over all and of late.
fn answers(samples: &[Sample], kind: Kind) -> String {
    const LATE: usize = 100;
    let own: Vec<&Sample> = samples.iter().filter(|sample| sample.kind == kind).collect();
    let good = |part: &[&Sample]| part.iter().filter(|sample| sample.is_good()).count();
    let late = &own[own.len().saturating_sub(LATE)..];
    format!(
        "{:>6} requests, {:>6} good; of the last {:>3}: {:>3} good",
        own.len(),
        good(&own),
        late.len(),
        good(late)
    )
}
