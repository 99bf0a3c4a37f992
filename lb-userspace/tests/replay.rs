//! `shunt replay` as people and scripts use it.

use std::{
    fs,
    io::Write,
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
};

use serde_json::Value;

const CONFIG: &str = r#"
interfaces = ["lo"]
[service.web]
vip = "203.0.113.10:80"
[service.web.backends]
web-1 = "10.0.0.11:80"
web-2 = "10.0.0.12:80"
[service.web.breaker]
consecutive_5xx = 3
interval = "5s"
base_ejection_time = "30s"
max_ejection_percent = 100
"#;

const EVENTS: &str = r#"{"t_ms":100,"backend":"web-1","status":200,"ttfb_ms":1.5,"client":"192.0.2.7:4000"}
{"t_ms":200,"backend":"web-1","status":500}

{"t_ms":300,"backend":"web-1","failure":"reset"}
{"t_ms":400,"backend":"web-1","status":503}
{"t_ms":500,"backend":"web-1","status":500}
{"t_ms":600,"ask":"snapshot"}
{"t_ms":20400}
"#;

struct Site {
    dir: tempfile::TempDir,
}

impl Site {
    fn new() -> Self {
        let site = Self { dir: tempfile::tempdir().expect("temp dir") };
        site.write("a.toml", CONFIG);
        site.write("events.jsonl", EVENTS);
        site
    }

    fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = self.dir.path().join(name);
        fs::write(&path, text).expect("written");
        path
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_shunt"));
        command.current_dir(self.dir.path()).arg("replay").args(args).env_remove("SHUNT_LOG");
        command
    }

    fn run(&self, args: &[&str]) -> (i32, String, String) {
        result(self.command(args).output().expect("the program starts"))
    }

    fn piped(&self, args: &[&str], input: &str) -> (i32, String, String) {
        let mut child = self
            .command(args)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the program starts");
        let mut stdin = child.stdin.take().expect("piped");
        stdin.write_all(input.as_bytes()).expect("it reads");
        drop(stdin);
        result(child.wait_with_output().expect("it exits"))
    }
}

fn result(output: Output) -> (i32, String, String) {
    let text = |bytes| String::from_utf8(bytes).expect("text");
    (output.status.code().expect("it exits"), text(output.stdout), text(output.stderr))
}

fn records(stdout: &str) -> Vec<Value> {
    stdout.lines().map(|line| serde_json::from_str(line).expect("a JSON line")).collect()
}

#[test]
fn events_come_as_the_daemons_own_and_a_summary_for_people() {
    let site = Site::new();
    let (code, stdout, stderr) = site.run(&["-c", "a.toml", "events.jsonl"]);
    assert_eq!(code, 0, "{stderr}");
    let shown: Vec<_> =
        records(&stdout).into_iter().filter(|record| record["type"] != "membership").collect();
    assert_eq!(shown.len(), 2, "{stdout}");
    let (eject, snapshot) = (&shown[0], &shown[1]);
    for (key, expected) in [
        ("t_ms", 400.into()),
        ("type", "eject".into()),
        ("service", "web".into()),
        ("backend", "web-1".into()),
        ("from", "closed".into()),
        ("to", "open".into()),
        ("reason", Value::from("consecutive_5xx")),
        ("enforced", true.into()),
        ("ejection", 1.into()),
        ("until_ms", 30_400.into()),
    ] {
        assert_eq!(eject[key], expected, "{key}");
    }
    assert_eq!(eject["evidence"]["last"][0]["client"], "192.0.2.7:4000");
    assert_eq!(snapshot["backends"]["web-1"]["effective"], "ejected");
    assert!(
        stderr.starts_with("5 responses in 20.400 s, 4 of them errors; clients saw 3 errors\n"),
        "{stderr}"
    );
    assert!(stderr.contains("other backends would have answered 1 of them"), "{stderr}");
    assert!(stderr.contains("20.000 s"), "web-1 was out from 0.4 s on: {stderr}");
    // The same from a pipe, and again.
    let piped = site.piped(&["-c", "a.toml", "-o", "jsonl", "-"], EVENTS);
    assert_eq!((code, &stdout, &stderr), (piped.0, &piped.1, &piped.2));
}

#[test]
fn it_has_a_form_for_people_and_one_for_programs() {
    let site = Site::new();
    let (code, stdout, _) = site.run(&["-c", "a.toml", "-o", "table", "events.jsonl"]);
    assert_eq!(code, 0);
    assert!(
        stdout.contains("00:00:00.400  EJECT       web/web-1: closed -> open (consecutive_5xx)"),
        "{stdout}"
    );
    let (code, stdout, stderr) = site.run(&["-c", "a.toml", "-o", "json", "events.jsonl"]);
    assert_eq!((code, stderr.as_str(), stdout.lines().count()), (0, "", 1));
    let summary: Value = serde_json::from_str(&stdout).expect("JSON");
    assert_eq!(summary["ended_ms"], 20_400);
    assert_eq!(summary["total"]["client_errors"], 3);
    assert_eq!(summary["backends"][0]["backend"], "web-1");
    assert_eq!(summary["backends"][0]["out_ms"], 20_000);
}

#[test]
fn two_configurations_side_by_side() {
    let site = Site::new();
    site.write("b.toml", &CONFIG.replace("consecutive_5xx = 3", "consecutive_5xx = 2"));
    let (code, stdout, stderr) = site.run(&["--compare", "a.toml", "b.toml", "events.jsonl"]);
    assert_eq!((code, stderr.as_str()), (0, ""), "{stderr}");
    let line = |what: &str| -> String {
        let line =
            stdout.lines().find(|line| line.contains(what)).unwrap_or_else(|| panic!("{what}: {stdout}"));
        line.split_whitespace().collect::<Vec<_>>().join(" ")
    };
    assert_eq!(line("errors that clients saw"), "all errors that clients saw 3 2 -1");
    assert_eq!(line("time out of service"), "time out of service 20.000 s 20.100 s +0.100 s");
    let (code, stdout, _) = site.run(&["--compare", "a.toml", "b.toml", "-o", "json", "events.jsonl"]);
    let comparison: Value = serde_json::from_str(&stdout).expect("JSON");
    assert_eq!((code, &comparison["difference"]["client_errors"]), (0, &(-1).into()));
    assert_eq!(comparison["b"]["config"], "b.toml");
    assert_eq!(comparison["backends"][0]["out_ms"], 100);
    let (code, _, stderr) = site.run(&["--compare", "a.toml", "b.toml", "-o", "jsonl", "events.jsonl"]);
    assert_eq!(code, 2);
    assert!(stderr.contains("help: use `-o table` or `-o json`"), "{stderr}");
    let (code, _, _) = site.run(&["--compare", "a.toml", "events.jsonl"]);
    assert_eq!(code, 2);
}

#[test]
fn a_wrong_line_is_reported_with_line_column_and_remedy() {
    let site = Site::new();
    let good = r#"{"t_ms":5,"backend":"web-1","status":500}"#;
    for (bad, place, help) in [
        (
            r#"{"t_ms":6,"backend":"web-1","statsu":500}"#,
            ":2:36: unknown key `statsu`",
            "did you mean `status`?",
        ),
        (
            r#"{"t_ms":6,"backend":"web-1","status":"x"}"#,
            ":2:41: `status` is the string",
            "write an HTTP status",
        ),
        (r#"{"t_ms":4}"#, ":2: time runs back, from 5 to 4 ms", "put the lines in the order"),
        (
            r#"{"t_ms":6,"backend":"web-9","status":500}"#,
            ":2: service `web` has no backend `web-9`; it has `web-1`, `web-2`",
            "did you mean `web-",
        ),
        ("[]", ":2:", "a line is one JSON object"),
    ] {
        site.write("bad.jsonl", &format!("{good}\n{bad}\n{good}\n"));
        let (code, stdout, stderr) = site.run(&["-c", "a.toml", "bad.jsonl"]);
        assert_eq!(code, 1, "{bad}");
        assert!(stdout.contains("membership"), "what came before is shown");
        assert!(stderr.contains(&format!("error: bad.jsonl{place}")), "{bad}\n{stderr}");
        assert!(stderr.contains(&format!("help: {help}")), "{bad}\n{stderr}");
    }
    let (code, _, stderr) = site.run(&["-c", "a.toml", "none.jsonl"]);
    assert_eq!(code, 2);
    assert!(stderr.starts_with("error: cannot read none.jsonl: No such file"), "{stderr}");
    let (code, _, stderr) = site.run(&["-c", "a.toml", "--service", "wbe", "events.jsonl"]);
    assert_eq!(code, 2);
    assert!(stderr.ends_with("help: did you mean `web`?\n"), "{stderr}");
    site.write("bad.toml", "interfaces = 1");
    let (code, _, _) = site.run(&["-c", "bad.toml", "events.jsonl"]);
    assert_eq!(code, 3);
}

#[test]
fn a_reader_that_leaves_is_no_failure() {
    let site = Site::new();
    // More than a pipe can hold.
    let mut many = String::new();
    for i in 0..4000 {
        many += &format!("{{\"t_ms\":{i},\"ask\":\"snapshot\"}}\n");
    }
    site.write("many.jsonl", &many);
    let mut child = site
        .command(&["-c", "a.toml", "many.jsonl"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the program starts");
    drop(child.stdout.take());
    let output = child.wait_with_output().expect("it exits");
    assert_eq!(output.status.code(), Some(0));
    assert!(output.stderr.is_empty(), "{}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn the_example_in_dist_runs() {
    let dist = Path::new(env!("CARGO_MANIFEST_DIR")).join("../dist/examples");
    let path = |name: &str| dist.join(name).display().to_string();
    let site = Site::new();
    let (code, stdout, stderr) = site.run(&["-c", &path("founding.toml"), &path("founding.jsonl")]);
    assert_eq!(code, 0, "{stderr}");
    let ejections = records(&stdout).into_iter().filter(|record| record["type"] == "eject").count();
    assert!(ejections >= 2, "{stdout}");
    assert!(stderr.contains("web/sick"), "{stderr}");
}
