use super::*;
use crate::place::workspace;

#[test]
fn every_rule_of_the_specification_has_its_tests() {
    assert_eq!(check(&workspace()).expect("it can be read"), Vec::<String>::new());
}

#[test]
fn rules_are_the_rows_of_the_tables_of_their_page() {
    let text = "\
# The breaker's rules
Words.
| rule | shown by |
|---|---|
| a run `restarts` | `engine::tests::rules::one`, `reference::two` |
| nobody proves it | later |

## Ejecting
| another table | `x::three` |
";
    let expected = [
        Rule { line: 5, tests: vec!["engine::tests::rules::one", "reference::two"] },
        Rule { line: 6, tests: vec![] },
        Rule { line: 9, tests: vec!["x::three"] },
    ];
    assert_eq!(rules(text), expected);
}

#[test]
fn promises_are_the_rows_above_the_limits() {
    let text = "\
# Specification
| promise | shown by |
|---|---|
| it holds | `file.rs`: `a_test` |
## Limits
| services | `not::this_either` |
";
    assert_eq!(promises(text), [Rule { line: 4, tests: vec!["file.rs", "a_test"] }]);
}

#[test]
fn a_promise_names_files_and_their_tests() {
    let mut sources = Vec::new();
    collect(&workspace(), &mut sources).expect("it can be read");
    for (cell, expected) in [
        ("`lb-core`: `maglev/tests.rs`", &[][..]),
        ("`packet/steering.rs`: `half_open_takes_its_budget_and_no_more`", &[]),
        ("`probe/tests/`: `we_close_first_and_the_backend_has_nothing_to_remember`", &[]),
        ("`engine::tests::rules::the_ceiling_is_exact`", &[]),
        ("`packet/steering.rs`: `half_open_takes_its_budget`", &["there is no `half_open_takes_its_budget`"]),
        ("`steer.rs`", &["there is no `steer.rs`"]),
        (
            "`breaker.rs`: `half_open_takes_its_budget_and_no_more`",
            &["there is no `half_open_takes_its_budget_and_no_more`"],
        ),
        ("`the_ceiling_is_exact`", &["there is no `the_ceiling_is_exact`"]),
        ("`lb-core`, `cargo xtask fuzz`", &["a promise without a test"]),
    ] {
        assert_eq!(missing(&workspace(), &sources, &quoted(cell)), expected, "{cell}");
    }
}

#[test]
fn a_test_is_found_where_it_is_and_nowhere_else() {
    for (test, there) in [
        // A file, a folder's file, a module inside a file, an integration test, another crate.
        ("engine::tests::rules::the_ceiling_is_exact", true),
        ("breaker::ring::tests::it_agrees_with_counting_everything", true),
        ("reference::the_engine_decides_what_the_rules_say", true),
        ("lb_userspace::config::tests::defaults_are_filled_in", true),
        ("lb_tests::packet::steering::half_open_takes_its_budget_and_no_more", true),
        // Renamed, elsewhere, a part of a name, no test.
        ("engine::tests::rules::the_ceiling_is_precise", false),
        ("engine::tests::probing::the_ceiling_is_exact", false),
        ("engine::tests::rules::the_ceiling_is", false),
        ("engine::tests::rules::two", false),
        ("breaker::ring::it_agrees_with_counting_everything", false),
        ("breaker::sweep::others::success_rate_is_exact_at_the_boundary", false),
        ("the_ceiling_is_exact", false),
    ] {
        assert_eq!(exists(&workspace(), test), there, "{test}");
    }
}
