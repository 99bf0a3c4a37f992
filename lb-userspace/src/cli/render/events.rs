//! Events as lines for people.

use lb_core::{
    codes::EventReason,
    event::{Event, EventKind},
    snapshot::PathState,
};

use super::text::printable;
use crate::cli::palette::{Paint, Palette};

const DAY_MS: u64 = 24 * 60 * 60 * 1000;

/// Turns events into lines, with a line for the date where it changes. Times are UTC.
#[derive(Clone, Debug)]
pub struct EventLines {
    started_unix_ms: u64,
    palette: Palette,
    /// The day of the last line, in days since 1970.
    day: Option<u64>,
}

impl EventLines {
    /// `started_unix_ms` as in [`Status`](crate::control::model::Status).
    pub fn new(started_unix_ms: u64, palette: Palette) -> Self {
        Self { started_unix_ms, palette, day: None }
    }

    /// Without dates: times count from the start.
    pub fn relative(palette: Palette) -> Self {
        Self { started_unix_ms: 0, palette, day: Some(0) }
    }

    /// `HH:MM:SS.mmm  KIND  what happened and why`, after a line with the date if it is another one.
    pub fn show(&mut self, event: &Event) -> String {
        let unix_ms = self.started_unix_ms.saturating_add(event.t_ms.0);
        let day = unix_ms / DAY_MS;
        let mut text = String::new();
        if self.day.replace(day) != Some(day) {
            text = self.palette.paint(Paint::Faint, &format!("{} UTC", day_words(day)));
            text.push('\n');
        }
        let time = time_words(unix_ms);
        let (name, paint) = kind(event);
        let name = self.palette.paint(paint, &format!("{name:<10}"));
        text += &format!(
            "{}  {name}  {}\n",
            self.palette.paint(Paint::Faint, &time),
            printable(&event.sentence())
        );
        text
    }
}

/// `11:59:01.500`, with the date if it is not today.
pub(super) fn moment(unix_ms: u64, now_unix_ms: u64) -> String {
    if unix_ms / DAY_MS == now_unix_ms / DAY_MS {
        return time_words(unix_ms);
    }
    format!("{} {}", day_words(unix_ms / DAY_MS), time_words(unix_ms))
}

fn time_words(unix_ms: u64) -> String {
    let ms = unix_ms % DAY_MS;
    let (hours, minutes, seconds) = (ms / 3_600_000, ms / 60_000 % 60, ms / 1000 % 60);
    format!("{hours:02}:{minutes:02}:{seconds:02}.{:03}", ms % 1000)
}

fn day_words(day: u64) -> String {
    let (year, month, day) = date(day);
    format!("{year:04}-{month:02}-{day:02}")
}

fn kind(event: &Event) -> (&'static str, Paint) {
    match event.kind {
        EventKind::Eject => ("EJECT", Paint::Bad),
        EventKind::Trial => ("TRIAL", Paint::Warning),
        EventKind::Readmit => ("READMIT", Paint::Good),
        EventKind::Refused => ("REFUSED", Paint::Warning),
        EventKind::Suspected => ("SUSPECTED", Paint::Warning),
        EventKind::Probe => ("PROBE", Paint::Plain),
        EventKind::Path if event.to == PathState::Ok.to_string() => ("PATH", Paint::Good),
        EventKind::Path => ("PATH", Paint::Bad),
        EventKind::Operator => ("OPERATOR", Paint::Plain),
        EventKind::Weight => ("WEIGHT", Paint::Plain),
        EventKind::Membership => ("MEMBERSHIP", Paint::Plain),
        EventKind::Fallback => ("FALLBACK", Paint::Bad),
        EventKind::Panic => ("PANIC", Paint::Bad),
        EventKind::Drained => ("DRAINED", Paint::Plain),
        EventKind::Dataplane => ("DATAPLANE", Paint::Warning),
        EventKind::Interface if event.to == "attached" => ("INTERFACE", Paint::Good),
        EventKind::Interface => ("INTERFACE", Paint::Bad),
        EventKind::Limit if event.reason == EventReason::Full => ("LIMIT", Paint::Warning),
        EventKind::Limit => ("LIMIT", Paint::Good),
        EventKind::Discovery if event.backend.is_some() => ("DISCOVERY", Paint::Plain),
        EventKind::Discovery if event.reason == EventReason::Current => ("DISCOVERY", Paint::Good),
        EventKind::Discovery => ("DISCOVERY", Paint::Bad),
    }
}

/// Year, month and day of the Gregorian calendar, from days since 1970. The year
/// is taken to begin in March, so that the leap day is its last (Howard Hinnant,
/// "chrono-Compatible Low-Level Date Algorithms", `civil_from_days`).
fn date(days: u64) -> (u64, u64, u64) {
    let days = days + 719_468;
    let (era, day_of_era) = (days / 146_097, days % 146_097);
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    (era * 400 + year_of_era + u64::from(month <= 2), month, day)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::fixture;

    #[test]
    fn dates_are_those_of_the_calendar() {
        for (days, expected) in [
            (0, (1970, 1, 1)),
            (11_016, (2000, 2, 29)),
            (11_017, (2000, 3, 1)),
            (20_148, (2025, 3, 1)),
            (20_453, (2025, 12, 31)),
            (47_540, (2100, 2, 28)),
            (47_541, (2100, 3, 1)),
        ] {
            assert_eq!(date(days), expected);
        }
    }

    #[test]
    fn what_is_well_again_is_green() {
        for (event, to, paint) in [
            (EventKind::Path, "ok", Paint::Good),
            (EventKind::Path, "no_route", Paint::Bad),
            (EventKind::Interface, "attached", Paint::Good),
            (EventKind::Interface, "gone", Paint::Bad),
        ] {
            let event = Event { kind: event, to: to.to_owned(), ..fixture::event(1, "web") };
            assert_eq!(kind(&event).1, paint, "{to}");
        }
    }

    #[test]
    fn each_event_has_a_line_and_each_date_too() {
        let mut lines = EventLines::new(fixture::STARTED, Palette::PLAIN);
        assert_eq!(
            lines.show(&fixture::event(1, "web")),
            "2025-03-01 UTC\n\
             11:59:01.500  EJECT       web/web-2: closed -> open (consecutive_5xx), 3 of 3 failures in a row, \
             last 500, probe up, for 30000 ms\n"
        );
        assert!(lines.show(&fixture::event(60, "web")).starts_with("12:00:00.500  EJECT "));
        // Half a day on, the date is another one.
        assert!(lines.show(&fixture::event(43_260, "web")).starts_with("2025-03-02 UTC\n00:00:00.500"));
    }
}
