//! `shunt-kube --once`, and its exit codes.

use std::{fs, path::Path, process::Command};

use anyhow::Result;
use lb_tests::api_server::{ApiServer, Kind};

use crate::stage::{Pod, WEB, program, service, slice, states};

struct Ended {
    code: Option<i32>,
    stdout: String,
    stderr: String,
}

fn once(folder: &Path, kubeconfig: &str, more: &[&str]) -> Result<Ended> {
    let path = folder.join("kubeconfig");
    fs::write(&path, kubeconfig)?;
    let mut command = Command::new(program());
    command
        .args(["--once", "--kubeconfig"])
        .arg(path)
        .arg("--directory")
        .arg(folder.join("files"))
        .args(more);
    let output = command.output()?;
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    Ok(Ended { code: output.status.code(), stdout: text(&output.stdout), stderr: text(&output.stderr) })
}

#[test]
fn it_prints_a_table_of_the_files() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let server = ApiServer::local(&["v1"])?;
    server.put(Kind::Service, service(None));
    let pods = [Pod::ready("a", "10.0.0.1"), Pod::ready("b", "10.0.0.2").leaves()];
    server.put(Kind::EndpointSlice, slice("web-1", &pods));
    let nothing = once(folder.path(), &server.kubeconfig("{}"), &[])?;
    assert_eq!((nothing.code, nothing.stdout.lines().count()), (Some(0), 1), "{}", nothing.stderr);
    let selected =
        once(folder.path(), &server.kubeconfig("{}"), &["--namespace", "shop", "--selector", "app=web"])?;
    assert_eq!(selected.code, Some(0), "{}", selected.stderr);
    let file = folder.path().join("files").join(WEB);
    let expected =
        ["shop", "web", "http", "v4", "1", "1", "0", &file.display().to_string()].map(str::to_owned);
    let row: Vec<_> = selected.stdout.lines().nth(1).unwrap_or_default().split_whitespace().collect();
    assert_eq!(row, expected, "{}", selected.stdout);
    assert_eq!(states(&file)?[1], ("b".to_owned(), "draining".to_owned()));
    let other = once(folder.path(), &server.kubeconfig("{}"), &["--selector", "app=api"])?;
    assert_eq!(other.stdout.lines().count(), 1);
    Ok(())
}

#[test]
fn each_failure_has_its_code() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let server = ApiServer::local(&["v1"])?;
    server.forbid(true);
    let refused = once(folder.path(), &server.kubeconfig("{}"), &[])?;
    assert_eq!(refused.code, Some(6), "{}", refused.stderr);
    assert!(refused.stderr.contains("rbac.yaml"), "{}", refused.stderr);
    server.forbid(false);
    server.away(true);
    let away = once(folder.path(), &server.kubeconfig("{}"), &[])?;
    assert_eq!(away.code, Some(4), "{}", away.stderr);
    assert_eq!(once(folder.path(), "clusters: 4\n", &[])?.code, Some(3));
    assert_eq!(once(folder.path(), &server.kubeconfig("{}"), &["--no-such"])?.code, Some(2));
    let without = ApiServer::local(&[])?;
    let old = once(folder.path(), &without.kubeconfig("{}"), &[])?;
    assert_eq!(old.code, Some(1));
    assert!(old.stderr.contains("no EndpointSlices"), "{}", old.stderr);
    fs::write(folder.path().join("taken"), "")?;
    let taken = folder.path().join("taken/files");
    let refused = once(folder.path(), &server.kubeconfig("{}"), &["--directory", &taken.to_string_lossy()]);
    assert_eq!(refused?.code, Some(2), "an option that is given twice");
    Ok(())
}

/// As API servers are outside of laboratories.
#[test]
fn the_certificate_of_the_server_is_checked() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let server = ApiServer::local_tls(&["v1"], &folder.path().join("ca.pem"))?;
    server.put(Kind::Service, service(Some("true")));
    server.put(Kind::EndpointSlice, slice("web-1", &[Pod::ready("a", "10.0.0.1")]));
    let fine = once(folder.path(), &server.kubeconfig("{}"), &[])?;
    assert_eq!((fine.code, fine.stdout.lines().count()), (Some(0), 2), "{}", fine.stderr);
    ApiServer::local_tls(&[], &folder.path().join("ca.pem"))?;
    let wrong = once(folder.path(), &server.kubeconfig("{}"), &[])?;
    assert_eq!(wrong.code, Some(4), "{}", wrong.stderr);
    assert!(wrong.stderr.contains("certificate"), "{}", wrong.stderr);
    assert_eq!(wrong.stderr.lines().count(), 2, "an error and its remedy: {}", wrong.stderr);
    Ok(())
}

#[test]
fn its_help_has_the_annotation_and_examples() -> Result<()> {
    let output = Command::new(program()).arg("--help").output()?;
    let text = String::from_utf8_lossy(&output.stdout);
    for word in ["shunt.dev/discover", "--kubeconfig", "--once", "Exit codes", "Examples:"] {
        assert!(text.contains(word), "{text}");
    }
    Ok(())
}
