//! Rules of Shunt's breaker that other programs do not have.

use toml::Value;

use super::{
    draft::{Entry, Origin},
    fields::{Field, Fields},
    given::Given,
    note::{NoteCode, Notes},
};

/// Shunt's own floor, half-open and decay, or with `--faithful` those of a program like Envoy.
pub(super) fn own_or_faithful(program: &'static str, given: &Given<'_>) -> Vec<Entry> {
    if given.options.faithful {
        let as_there = Origin::Option("--faithful");
        let entry = |key, value: Value| Entry::new(key, value, as_there.clone());
        return vec![
            entry("min_serving", 0.into()),
            entry("half_open_trials", 0.into()),
            entry("backoff_decay", "time".into()),
            entry("min_clients", 1.into()),
            entry("confirm_l4_failures", false.into()),
        ];
    }
    let message = format!(
        "the breaker keeps Shunt's floor, half-open trials and decay by evidence, which {program} does not have"
    );
    given.notes.add(
        NoteCode::Differs,
        None,
        "",
        message,
        format!("--faithful gives {program}'s own behaviour"),
    );
    let own = Origin::Option("Shunt's own; see --faithful");
    let entry = |key, value: Value, differs| Entry::new(key, value, own.clone()).differs(differs);
    vec![
        entry("min_serving", 1.into(), "The last backend stays, whatever it answers"),
        entry("half_open_trials", 3.into(), "A backend returns through trial connections"),
        entry("backoff_decay", "evidence".into(), "The ejection number falls by good responses only"),
    ]
}

/// A ceiling below one backend.
pub(super) fn warn_of_ceiling(entries: &[Entry], backends: usize, program: &str, notes: &Notes) {
    let of = |key: &str| entries.iter().find(|entry| entry.key == key);
    let Some(ceiling) = of("max_ejection_percent") else { return };
    let percent = ceiling.value.as_integer().unwrap_or(100);
    let one = of("always_eject_one").is_some_and(|entry| entry.value.as_bool() == Some(true));
    let backends = i64::try_from(backends).unwrap_or(i64::MAX);
    if one || percent == 0 || backends == 0 || percent.saturating_mul(backends) >= 100 {
        return;
    }
    let (place, path) = match &ceiling.origin {
        Origin::Field { path, place } => (Some(place), path.as_str()),
        Origin::Default { field, .. } => (None, *field),
        Origin::Option(_) | Origin::Both { .. } => (None, ""),
    };
    let message = format!(
        "{percent} % of {backends} backends are less than one: none is ever ejected, also in {program}"
    );
    notes.add(NoteCode::Surprise, place, path, message, "raise the percentage");
}

/// A program without a rule for outliers ejects nobody.
pub(super) fn without_outlier(program: &'static str, field: &'static str) -> Entry {
    let differs = "Without a rule for outliers nobody was ejected, so the breaker only reports";
    Entry::new("enforce", false, Origin::Default { of: program, field }).differs(differs)
}

/// A field, or the program's default of it.
pub(super) fn placed(
    program: &'static str,
    fields: &Fields<'_>,
    field: &'static str,
    key: &'static str,
    default: impl Into<Value>,
    read: impl FnOnce(&Field<'_>) -> Option<Value>,
) -> Option<Entry> {
    match fields.get(field) {
        Some(field) => Some(Entry::new(key, read(&field)?, &field)),
        None => Some(Entry::new(key, default, Origin::Default { of: program, field })),
    }
}
