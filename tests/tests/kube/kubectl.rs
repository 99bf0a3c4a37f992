//! `kubectl` works with the server of the tests, and takes the files of `dist/kubernetes`.

use std::{fs, path::Path, process::Command};

use anyhow::Result;
use lb_tests::{
    api_server::{ApiServer, Kind},
    lab::{note_skip, on_path},
};

use crate::stage::{Pod, service, slice};

/// `false`: there is no `kubectl`, and the test counts as skipped.
fn is_there(test: &str) -> bool {
    let there = on_path("kubectl");
    if !there {
        note_skip("tool kubectl", test, "needs `kubectl`");
    }
    there
}

fn kubectl(folder: &Path, server: &ApiServer, words: &[&str]) -> Result<String> {
    let config = folder.join("kubeconfig");
    fs::write(&config, server.kubeconfig("{}"))?;
    let output =
        Command::new("kubectl").env("KUBECONFIG", config).env("HOME", folder).args(words).output()?;
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    assert!(output.status.success(), "kubectl {words:?}: {}", text(&output.stderr));
    Ok(text(&output.stdout))
}

#[test]
fn kubectl_reads_from_the_server() -> Result<()> {
    if !is_there("kubectl_reads_from_the_server") {
        return Ok(());
    }
    let folder = tempfile::tempdir()?;
    let server = ApiServer::local(&["v1"])?;
    server.put(Kind::Service, service(Some("true")));
    server.put(Kind::EndpointSlice, slice("web-1", &[Pod::ready("a", "10.0.0.1")]));
    let text = kubectl(folder.path(), &server, &["get", "services", "web", "-o", "yaml"])?;
    assert!(text.contains("shunt.dev/discover: \"true\"") && text.contains("kind: Service"), "{text}");
    let text = kubectl(folder.path(), &server, &["get", "endpointslices", "--all-namespaces", "-o", "yaml"])?;
    assert!(text.contains("uid-a") && text.contains("discovery.k8s.io/v1"), "{text}");
    let text = kubectl(folder.path(), &server, &["get", "endpointslices", "-l", "a=b", "-o", "name"])?;
    assert_eq!(text.trim(), "");
    Ok(())
}

#[test]
fn kubectl_takes_the_files_that_we_ship() -> Result<()> {
    if !is_there("kubectl_takes_the_files_that_we_ship") {
        return Ok(());
    }
    let folder = tempfile::tempdir()?;
    let server = ApiServer::local(&["v1"])?;
    let ours = Path::new(env!("CARGO_MANIFEST_DIR")).join("../dist/kubernetes");
    for (file, kinds) in [
        ("rbac.yaml", &["serviceaccount/shunt", "clusterrole", "clusterrolebinding"][..]),
        ("configmap.yaml", &["configmap/shunt"][..]),
        ("daemonset.yaml", &["daemonset.apps/shunt"][..]),
    ] {
        let path = ours.join(file).display().to_string();
        let words = ["apply", "--dry-run=client", "--validate=false", "-f", &path];
        let text = kubectl(folder.path(), &server, &words)?;
        assert!(kinds.iter().all(|kind| text.contains(kind)), "{file}: {text}");
    }
    Ok(())
}

/// The configuration in the ConfigMap is one that `shunt check` takes.
#[test]
fn the_configuration_that_we_ship_is_right() -> Result<()> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../dist/kubernetes/configmap.yaml");
    let text = fs::read_to_string(path)?;
    let (_, toml) = text.split_once("shunt.toml: |\n").expect("it has the file");
    let toml: String =
        toml.lines().map(|line| format!("{}\n", line.strip_prefix("    ").unwrap_or(line))).collect();
    let file = lb_userspace::config::parse("configmap.yaml", &toml);
    let file = file.unwrap_or_else(|wrong| panic!("{}", wrong.render(false)));
    assert_eq!(file.discovery.len(), 1);
    Ok(())
}
