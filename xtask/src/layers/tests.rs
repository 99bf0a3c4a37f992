use super::*;

fn module(path: &str) -> Vec<String> {
    path.split("::").map(str::to_owned).collect()
}

fn in_userspace(path: &str, source: &str) -> Vec<String> {
    userspace(&module(path), source)
}

fn metadata(package: &str, dependency: &str) -> String {
    format!(r#"{{"packages":[{{"name":"{package}","dependencies":[{{"name":"{dependency}"}}]}}]}}"#)
}

#[test]
fn crates_point_one_way() {
    for (package, dependency, fine) in [
        ("lb-core", "lb-common", true),
        ("lb-core", "lb-userspace", false),
        ("lb-common", "lb-core", false),
        ("lb-ebpf", "lb-common", true),
        ("lb-ebpf", "lb-core", false),
        ("lb-userspace", "lb-tests", false),
        ("lb-userspace", "lb-lab", false),
        ("lb-lab", "lb-userspace", true),
        ("lb-demo", "lb-lab", true),
        ("lb-tests", "lb-userspace", true),
        ("lb-userspace", "xtask", false),
        ("xtask", "lb-core", false),
        ("lb-core", "tokio", false),
        ("lb-core", "serde", true),
        ("lb-userspace", "tokio", true),
        ("newcomer", "serde", false),
    ] {
        let broken = crate_graph(&metadata(package, dependency)).expect("metadata is JSON");
        assert_eq!(broken.is_empty(), fine, "{package} on {dependency}: {broken:?}");
    }
}

#[test]
fn edges_do_not_name_each_other() {
    for source in [
        "use crate::control::Api;",
        "use crate::{daemon, control};",
        "use crate::{\n    config::{Error, Source},\n};",
        "fn f() { crate::evidence::start(); }",
        "use super::control;",
        "fn f(x: &super::control::Api) {}",
        "mod tests { use super::super::journal::Journal; }",
        "use lb_userspace::dataplane::Bpf;",
        "type T = Vec<crate::discovery::Peer>;",
    ] {
        assert!(!in_userspace("probe", source).is_empty(), "{source}");
    }
    assert_eq!(in_userspace("probe::http", "use super::super::control;").len(), 1);
}

#[test]
fn edges_may_name_themselves_and_the_core() {
    for source in [
        "use crate::probe::http;",
        "use lb_core::{config::Config, io};",
        "mod tests { use super::*; }",
        "// use crate::control::Api;",
        "/* crate::control /* nested */ crate::control */",
        r##"const TEXT: &str = r#"crate::control "quoted" "#;"##,
        r#"const QUOTE: char = '"'; const A: &'static str = "crate::control";"#,
        "fn control(config: u8) { self.control.config(); }",
    ] {
        assert_eq!(in_userspace("probe", source), Vec::<String>::new(), "{source}");
    }
    assert_eq!(in_userspace("probe::http", "use super::control;"), Vec::<String>::new());
}

#[test]
fn the_daemon_joins_the_edges() {
    let source = "use crate::{config, control, dataplane, evidence, probe};";
    assert_eq!(in_userspace("daemon", source), Vec::<String>::new());
}

#[test]
fn foreign_crates_have_one_home() {
    for (at, source, fine) in [
        ("dataplane::bpf", "use aya::maps::Array;", true),
        ("daemon", "use aya::maps::Array;", false),
        ("daemon", "fn f(_: ::aya::Ebpf) {}", false),
        ("daemon", "use aya_log::EbpfLogger;", false),
        ("daemon", "use aya;", false),
        ("control", "use axum::Router;", true),
        ("cli", "use axum::Router;", false),
        ("probe", "use hyper::Request;", true),
        ("evidence", "use {bytes::Bytes, hyper::Request};", false),
        ("evidence", "let aya = 1; let hyper = aya::<u8>;", false),
        ("evidence", "let hyper = 1; hyper.go();", true),
    ] {
        assert_eq!(in_userspace(at, source).is_empty(), fine, "{at}: {source}");
    }
}

#[test]
fn only_cli_prints() {
    for (at, source, fine) in [
        ("cli::status", "println!(\"{}\", 1);", true),
        ("cli", "eprintln!(\"x\");", true),
        ("daemon", "println!(\"x\");", false),
        ("probe", "fn f() { eprint!(\"x\") }", false),
        ("daemon", "// println!(\"x\")", true),
        ("daemon::tests", "println!(\"x\");", true),
        ("daemon", "tracing::info!(\"println!\");", true),
    ] {
        assert_eq!(in_userspace(at, source).is_empty(), fine, "{at}: {source}");
    }
}

#[test]
fn the_core_knows_no_time_and_does_nothing() {
    for (source, fine) in [
        ("use crate::time::Instant;", true),
        ("use std::time::Duration;", true),
        ("use std::net::SocketAddr;", true),
        ("use std::{collections::BTreeMap, fmt};", true),
        ("use std::time::Instant;", false),
        ("use std::{fmt, time::{Duration, SystemTime}};", false),
        ("use std::time;", false),
        ("use std::time::*;", false),
        ("let x = std::fs::read(p);", false),
        ("use std::fs;", false),
        ("use std::net::{SocketAddr, TcpStream};", false),
        ("use tokio::sync::mpsc;", false),
        ("use aya::Pod;", false),
    ] {
        assert_eq!(core(&module("breaker"), source).is_empty(), fine, "{source}");
    }
}

#[test]
fn lines_are_those_of_the_file() {
    let source = "//! head\n\nconst A: &str = \"two\nlines\";\nuse crate::control;\n";
    let broken = in_userspace("probe", source);
    assert_eq!(broken, [":5: `probe` names `control`; edges meet only in `daemon`"]);
}

#[test]
fn files_are_modules() {
    for (file, expected) in [
        ("lib.rs", ""),
        ("probe.rs", "probe"),
        ("probe/http.rs", "probe::http"),
        ("cli/mod.rs", "cli"),
        ("cli/status/tests.rs", "cli::status::tests"),
    ] {
        assert_eq!(paths::module_of(Path::new(file)).join("::"), expected);
    }
}

#[test]
fn this_workspace_keeps_the_rules() {
    let workspace = crate::place::workspace();
    assert_eq!(check(&workspace).expect("the workspace is readable"), Vec::<String>::new());
}
