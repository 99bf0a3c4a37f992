use std::{
    fs::{self, Permissions},
    os::unix::fs::{PermissionsExt as _, symlink},
    sync::Arc,
    time::Duration,
};

use lb_core::{codes::DiscoveryCode, snapshot::Standing};
use tokio::sync::{mpsc, watch};

use super::*;

const ONE: &str = r#"{"schema":1,"backends":[{"name":"pod-a","address":"10.0.0.11:8080"}]}"#;

fn fault(text: &str) -> Fault {
    parse(text.as_bytes()).expect_err(text)
}

/// The document with one backend of these fields.
fn with(fields: &str) -> String {
    format!("{{\"schema\":1,\n\"backends\":[\n{{{fields}}}]}}")
}

#[test]
fn a_whole_document_is_read() {
    let text = r#"{"schema":1,"source":"shunt-kube","generated_at":"2026-12-01T10:00:00Z","backends":[
        {"name":"pod-a","address":"10.0.0.11:8080","weight":7,"state":"draining","id":"uid-1"},
        {"name":"pod-b","address":"[fd00::1]:80","state":"out"},
        {"name":"pod-c","address":"10.0.0.12:8080","id":null}]}"#;
    let document = parse(text.as_bytes()).expect("right");
    assert_eq!(document.source.as_deref(), Some("shunt-kube"));
    assert_eq!(document.generated_at.as_deref(), Some("2026-12-01T10:00:00Z"));
    let seen: Vec<_> = document
        .backends
        .iter()
        .map(|of| (of.name.as_str(), of.address.to_string(), of.weight, of.standing(), of.identity()))
        .collect();
    let expected = [
        ("pod-a", "10.0.0.11:8080".to_owned(), 7, Standing::Draining, Some("uid-1")),
        ("pod-b", "[fd00::1]:80".to_owned(), 100, Standing::Out, None),
        ("pod-c", "10.0.0.12:8080".to_owned(), 100, Standing::Ready, None),
    ];
    assert_eq!(seen, expected);
    assert_eq!(parse(br#"{"schema":1,"backends":[]}"#).expect("right"), Document::default());
}

#[test]
fn every_error_has_its_code_and_its_place() {
    let address = r#""address":"10.0.0.11:80""#;
    for (text, code, says) in [
        ("", DiscoveryCode::Broken, "line 1 column 0"),
        ("[]", DiscoveryCode::Broken, "line 1 column"),
        (&ONE[..40], DiscoveryCode::Broken, "line 1 column 40"),
        ("{}", DiscoveryCode::Broken, "no `schema`"),
        (r#"{"schema":2,"pods":[]}"#, DiscoveryCode::OtherSchema, "schema 2"),
        (r#"{"schema":1}"#, DiscoveryCode::Broken, "missing field `backends`"),
        (r#"{"schema":1,"backends":[],"pods":1}"#, DiscoveryCode::Broken, "unknown field `pods`"),
        (r#"{"schema":1,"schema":1,"backends":[]}"#, DiscoveryCode::Broken, "duplicate field `schema`"),
        (&with(address), DiscoveryCode::Broken, "missing field `name` at line 3"),
        (&with(&format!(r#""name":"a b",{address}"#)), DiscoveryCode::Broken, "`a b` is not a name"),
        (&with(&format!(r#""name":"a b",{address}"#)), DiscoveryCode::Broken, "line 3"),
        (&with(r#""name":"a","address":"10.0.0.1""#), DiscoveryCode::Broken, "not an address with a port"),
        (&with(r#""name":"a","address":"web:80""#), DiscoveryCode::Broken, "not an address with a port"),
        (&with(r#""name":"a","address":"10.0.0.1:0""#), DiscoveryCode::Broken, "port 0"),
        (&with(r#""name":"a","address":"127.0.0.1:80""#), DiscoveryCode::Broken, "loopback"),
        (&with(r#""name":"a","address":"[fe80::1%2]:80""#), DiscoveryCode::Broken, "zone"),
        (&with(&format!(r#""name":"a",{address},"weight":0"#)), DiscoveryCode::Broken, "line 3"),
        (&with(&format!(r#""name":"a",{address},"weight":65536"#)), DiscoveryCode::Broken, "line 3"),
        (&with(&format!(r#""name":"a",{address},"state":"gone"#)), DiscoveryCode::Broken, "line 3"),
        (&with(&format!(r#""name":"a",{address},"id":"""#)), DiscoveryCode::Broken, "1 to 256"),
        (&with(&format!(r#""name":"a",{address},"id":"\u202e""#)), DiscoveryCode::Broken, "no character"),
        (&with(&format!(r#""name":"a",{address},"port":1"#)), DiscoveryCode::Broken, "unknown field `port`"),
    ] {
        let found = fault(text);
        assert_eq!(found.code, code, "{text}: {found}");
        assert!(found.says.contains(says), "{text}: {found}");
    }
}

#[test]
fn a_name_or_an_address_is_there_once() {
    let two = |second: &str| {
        let text = ONE.replace("}]", &format!("}},{second}]"));
        fault(&text).says
    };
    let same_name = two(r#"{"name":"pod-a","address":"10.0.0.12:8080"}"#);
    assert_eq!(same_name, "backends[1]: the name `pod-a` is that of backends[0], too");
    let same_address = two(r#"{"name":"pod-b","address":"10.0.0.11:8080"}"#);
    assert_eq!(same_address, "backends[1]: the address `10.0.0.11:8080` is that of backends[0], too");
}

#[test]
fn a_file_has_a_limit_and_an_owner() {
    let folder = tempfile::tempdir().expect("temp dir");
    let path = folder.path().join("web.json");
    let code = || read(&path).expect_err("unusable").code;
    assert_eq!(code(), DiscoveryCode::Missing);
    fs::create_dir(&path).expect("a folder");
    assert_eq!(code(), DiscoveryCode::Unreadable);
    fs::remove_dir(&path).expect("removed");
    fs::write(&path, ONE).expect("written");
    assert_eq!(read(&path).expect("usable"), ONE.as_bytes());
    fs::set_permissions(&path, Permissions::from_mode(0o666)).expect("ours");
    assert_eq!(code(), DiscoveryCode::Untrusted);
    fs::set_permissions(&path, Permissions::from_mode(0o644)).expect("ours");
    fs::set_permissions(folder.path(), Permissions::from_mode(0o777)).expect("ours");
    assert_eq!(code(), DiscoveryCode::Untrusted);
    fs::set_permissions(folder.path(), Permissions::from_mode(0o755)).expect("ours");
    fs::write(&path, " ".repeat(MAX_BYTES as usize + 1)).expect("written");
    assert_eq!(code(), DiscoveryCode::TooLarge);
    fs::write(&path, " ".repeat(MAX_BYTES as usize)).expect("written");
    assert_eq!(fault(&" ".repeat(MAX_BYTES as usize)).code, DiscoveryCode::Broken);
    assert!(read(&path).is_ok());
    // As a ConfigMap is.
    let link = folder.path().join("link.json");
    symlink("web.json", &link).expect("a link");
    assert!(read(&link).is_ok());
}

#[tokio::test]
async fn a_file_is_followed_by_its_content() {
    let folder = tempfile::tempdir().expect("temp dir");
    let path = folder.path().join("web.json");
    let interval = Duration::from_millis(5);
    let source = Source { service: "web".to_owned(), path: path.clone(), interval };
    let (sources, watched) = watch::channel(vec![source.clone()]);
    let (sender, mut readings) = mpsc::channel(1);
    let task = tokio::spawn(follow(watched, sender));
    let first = readings.recv().await.expect("followed");
    assert_eq!((first.service.as_str(), &first.path), ("web", &path));
    assert_eq!(first.found.as_ref().as_ref().expect_err("not there").code, DiscoveryCode::Missing);

    let new = folder.path().join(".new");
    fs::write(&new, ONE).expect("written");
    fs::rename(&new, &path).expect("renamed");
    let good = loop {
        let reading = readings.recv().await.expect("followed");
        if reading.found.is_ok() {
            break reading;
        }
    };
    let again = readings.recv().await.expect("followed");
    assert!(Arc::ptr_eq(&good.found, &again.found), "the content is the same");
    assert_eq!(source.look().found, good.found);
    fs::write(&path, ONE.replace("pod-a", "pod-b")).expect("written");
    loop {
        let reading = readings.recv().await.expect("followed");
        if let Ok(document) = reading.found.as_ref()
            && document.backends[0].name == "pod-b"
        {
            break;
        }
    }
    drop(sources);
    task.await.expect("it ends with its sources");
}
