use super::*;

#[test]
fn names_are_cut_into_words() {
    let words: Vec<String> = words("fn tell_all(TimedOut, HTTPError, x5xx) -> Seat;").collect();
    assert_eq!(words, ["fn", "tell", "all", "timed", "out", "httperror", "x5xx", "seat"]);
}

#[test]
fn banned_words_are_found_in_names_and_text() {
    for (text, count) in [
        ("fn told() {}", 1),
        ("let whom_it_tells = 1;", 2),
        ("let text = \"anew\";", 1),
        ("// An intelligent storyteller. Depending on the seating.", 0),
        ("fn is_seat_free() {}", 1),
    ] {
        assert_eq!(look_at("lb-common/src/x.rs", text).len(), count, "{text}");
    }
}

#[test]
fn a_sentence_has_an_actor() {
    for (file, text, lines) in [
        ("a.rs", "/// What it was.\nfn f() {}\n", &[1][..]),
        ("a.rs", "/// The daemon runs. What\n/// it does is little.\nfn f() {}\n", &[1]),
        ("a.rs", "//! Who may ask?\n//! What is it, then?\n", &[]),
        ("a.rs", "/// It is (what it was.) whose\nfn f() {}\n", &[]),
        ("a.rs", "let what = \"What it was.\";\n", &[]),
        ("a.rs", "/// ```text\n/// What it was.\n/// ```\n", &[]),
        ("a.md", "# What Shunt does\n\nShunt forwards.\n", &[]),
        ("a.md", "- Whose it is.\n- one\n| a | What is kept |\n", &[1, 3]),
        ("a.toml", "# Whoever reads it.\nkey = 1\n", &[1]),
    ] {
        let found: Vec<usize> = look_at(file, text)
            .iter()
            .filter(|line| line.contains("without an actor"))
            .filter_map(|line| line.split(':').nth(1)?.parse().ok())
            .collect();
        assert_eq!(found, lines, "{text}");
    }
}

#[test]
fn a_long_file_says_why_it_is_one() {
    let body = "fn f() {}\n".repeat(401);
    assert_eq!(look_at("a.rs", &body).len(), 1);
    assert_eq!(look_at("a.rs", &format!("//! Facts.\n{REASON}of its table.\n{body}")).len(), 0);
    assert_eq!(look_at("a.rs", &"fn f() {}\n".repeat(400)).len(), 0);
}

#[test]
fn documents_are_wrapped_outside_tables_and_code() {
    let long = "word ".repeat(30);
    for (text, count) in [
        (long.clone(), 1),
        (format!("| {long} |\n"), 0),
        (format!("```\n{long}\n```\n"), 0),
        ("x".repeat(200), 0),
    ] {
        assert_eq!(look_at("a.md", &text).len(), count, "{text}");
    }
}

#[test]
fn an_allowance_never_grows_and_is_not_kept_in_vain() {
    let findings = |count: usize| Findings::from([("a.rs".to_owned(), vec!["a.rs:1: x".to_owned(); count])]);
    let allowed = allowance::Allowed::from([("a.rs".to_owned(), 2)]);
    for (count, wrong) in [(2, 0), (3, 3), (1, 1)] {
        let judged = allowance::judge(&allowed, &findings(count)).expect("it can be judged");
        assert_eq!(judged.len(), wrong, "{count}");
    }
    assert_eq!(allowance::judge(&allowed, &Findings::new()).expect("it can be judged").len(), 1);
}
