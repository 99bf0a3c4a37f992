//! Reports of errors, for people and for programs.

use super::*;

#[test]
fn a_report_shows_both_places_and_the_remedy() {
    let text = small_with(4, "vip = \"10.0.0.12:8080\"\nmoed = \"nat\"");
    assert_eq!(
        wrong(&text).render(false),
        r#"error: unknown key `moed`
 --> shunt.toml:5:1
  |
5 | moed = "nat"
  | ^^^^
  |
  = help: did you mean `mode`?

error: the backend 10.0.0.12:8080 is a VIP
 --> shunt.toml:9:9
  |
4 | vip = "10.0.0.12:8080"
  |       ---------------- the VIP
...
9 | web-2 = "10.0.0.12:8080"
  |         ^^^^^^^^^^^^^^^^
  |
  = help: name the address of the server itself, not of the service

shunt.toml: 2 errors
"#
    );
}

#[test]
fn colour_is_only_there_when_asked_for() {
    let diagnostics = wrong("interfaces = [");
    assert!(diagnostics.render(true).contains("\u{1b}["));
    assert!(!diagnostics.render(false).contains('\u{1b}'));
}

#[test]
fn json_has_place_path_message_and_help() {
    let json = serde_json::to_value(wrong(&small_with(12, "interval = 5"))).expect("strings and numbers");
    let expected = serde_json::json!([{
        "line": 12,
        "column": 12,
        "path": "service.web.breaker.interval",
        "message": "expected a duration, found an integer",
        "help": "write for example `interval = \"5s\"`",
    }]);
    assert_eq!(json, expected);
}

#[test]
fn control_characters_do_not_reach_the_terminal() {
    let rendered = wrong(&small_with(1, "interfaces = [\"\\u001b[2J\"]\n\"\\u001b[2J\" = 1")).render(false);
    assert!(!rendered.contains('\u{1b}'), "{rendered}");
}
