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
            "code": "value",
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

fn warnings(text: &str) -> Vec<(&'static str, String)> {
    let file = parse("shunt.toml", text).unwrap_or_else(|wrong| panic!("{}", wrong.render(false)));
    file.warnings.iter().flat_map(Diagnostics::iter).map(|of| (of.code.as_str(), of.path.clone())).collect()
}

#[test]
fn what_is_hardly_meant_is_a_warning() {
    assert_eq!(warnings(SMALL), []);
    let never = |key: &str| [("never_ejects", format!("service.web.breaker.{key}"))];
    assert_eq!(warnings(&small_with(12, "min_serving = 2")), never("min_serving"));
    assert_eq!(warnings(&small_with(12, "min_serving = 1")), []);
    assert_eq!(warnings(&small_with(12, "max_ejection_percent = 49")), never("max_ejection_percent"));
    for fine in ["50", "0", "49\nalways_eject_one = true"] {
        assert_eq!(warnings(&small_with(12, &format!("max_ejection_percent = {fine}"))), []);
    }
    let apart = [("on_drain_is_apart", "service.web.on_eject".to_owned())];
    assert_eq!(warnings(&small_with(5, "on_eject = \"reset\"")), apart);
    assert_eq!(warnings(&small_with(5, "on_eject = \"reset\"\non_drain = \"drain\"")), []);
    let many: String =
        (0..656).map(|n| format!("w{n} = \"10.0.{}.{}:80\"\n", n / 250, n % 250 + 1)).collect();
    let text =
        format!("interfaces = [\"eth0\"]\n[service.s]\nvip = \"192.0.2.1:80\"\n[service.s.backends]\n{many}");
    assert_eq!(warnings(&text), [("coarse_table", "service.s.backends".to_owned())]);
}

#[test]
fn a_warning_is_shown_as_one_and_a_file_with_errors_has_none() {
    let file = parse("a.toml", &small_with(12, "min_serving = 2")).expect("valid");
    let shown = file.warnings.expect("one").render(false);
    assert!(shown.starts_with("warning: the service has 2 backends and 2 must serve"), "{shown}");
    assert!(shown.ends_with("a.toml: 1 warning\n"), "{shown}");
    let wrong = parse("a.toml", &small_with(12, "min_serving = 2\nenforce = 7")).expect_err("invalid");
    assert_eq!(wrong.count(), 1);
}
