//! Errors in a line, with their remedies.

/// An error in a line.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct LineError {
    /// Where it became clear, in bytes, from 1.
    pub column: usize,
    pub message: String,
    /// The remedy.
    pub help: String,
}

const EXAMPLE: &str =
    r#"a line is one JSON object, for example {"t_ms":1200,"backend":"web-1","status":503}"#;

/// An error whose place in the line is not known yet.
pub(super) struct Trouble {
    pub(super) message: String,
    pub(super) help: String,
}

impl Trouble {
    pub(super) fn new(message: impl Into<String>, help: impl Into<String>) -> Self {
        Self { message: message.into(), help: help.into() }
    }

    /// Not JSON, or not an object.
    pub(super) fn json(error: &serde_json::Error) -> Self {
        let said = error.to_string();
        let said = said.split(" at line ").next().unwrap_or(&said);
        Self::new(format!("not a line of events: {said}"), EXAMPLE)
    }
}

/// The candidate that is a few slips of the finger away from `word`.
pub fn nearest<'a>(word: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    const LONGEST: usize = 64;
    if word.len() > LONGEST {
        return None;
    }
    let near = candidates.into_iter().map(|known| (strsim::damerau_levenshtein(word, known), known));
    near.filter(|(distance, known)| *distance <= 1 + known.len() / 5).min().map(|(_, known)| known)
}
