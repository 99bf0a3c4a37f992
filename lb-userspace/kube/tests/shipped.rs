//! The files of `dist/kubernetes` hold the types of Kubernetes, and no key that those do not have.

use std::{fmt::Debug, fs, path::Path};

use k8s_openapi::api::{
    apps::v1::DaemonSet,
    core::v1::{ConfigMap, ServiceAccount},
    rbac::v1::{ClusterRole, ClusterRoleBinding},
};
use serde::{Serialize, de::DeserializeOwned};
use serde_json::Value;

fn documents(file: &str) -> Vec<Value> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../dist/kubernetes").join(file);
    let text = fs::read_to_string(path).expect("it is there");
    serde_saphyr::from_multiple(&text).expect("YAML")
}

/// Reads a document as its type and writes it again: a key that gets lost is one that the type does not have.
fn check<T: DeserializeOwned + Serialize + Debug>(document: &Value) {
    let typed: T = serde_json::from_value(document.clone()).expect("of its type");
    let again = serde_json::to_value(&typed).expect("plain data");
    let mut lost = Vec::new();
    missing("", document, &again, &mut lost);
    assert!(lost.is_empty(), "{}: unknown keys {lost:?}", document["kind"]);
}

fn missing(place: &str, whole: &Value, other: &Value, lost: &mut Vec<String>) {
    match (whole, other) {
        (Value::Object(whole), Value::Object(other)) => {
            for (key, value) in whole {
                let place = format!("{place}.{key}");
                match other.get(key) {
                    Some(other) => missing(&place, value, other, lost),
                    None => lost.push(place),
                }
            }
        }
        (Value::Array(whole), Value::Array(other)) => {
            for (value, other) in whole.iter().zip(other) {
                missing(place, value, other, lost);
            }
        }
        (whole, other) if whole == other => {}
        (whole, other) => lost.push(format!("{place}: {whole} and {other}")),
    }
}

#[test]
fn each_document_is_of_its_type() {
    let mut kinds = Vec::new();
    for document in ["rbac.yaml", "configmap.yaml", "daemonset.yaml"].into_iter().flat_map(documents) {
        let kind = document["kind"].as_str().expect("it has a kind").to_owned();
        match kind.as_str() {
            "ServiceAccount" => check::<ServiceAccount>(&document),
            "ClusterRole" => check::<ClusterRole>(&document),
            "ClusterRoleBinding" => check::<ClusterRoleBinding>(&document),
            "ConfigMap" => check::<ConfigMap>(&document),
            "DaemonSet" => check::<DaemonSet>(&document),
            other => panic!("{other} is not checked"),
        }
        kinds.push(kind);
    }
    assert_eq!(kinds, ["ServiceAccount", "ClusterRole", "ClusterRoleBinding", "ConfigMap", "DaemonSet"]);
}

/// Otherwise the test above would show nothing.
#[test]
fn an_unknown_key_is_found() {
    let mut document = documents("daemonset.yaml").remove(0);
    document["spec"]["template"]["spec"]["hostNetwrok"] = Value::Bool(true);
    let typed: DaemonSet = serde_json::from_value(document.clone()).expect("of its type");
    let mut lost = Vec::new();
    missing("", &document, &serde_json::to_value(typed).expect("plain data"), &mut lost);
    assert_eq!(lost, [".spec.template.spec.hostNetwrok"]);
}

/// The daemon and its companion have to be able to do their work, and nothing more.
#[test]
fn the_pod_has_what_it_needs() {
    let set: DaemonSet = serde_json::from_value(documents("daemonset.yaml").remove(0)).expect("of its type");
    let pod = set.spec.template.spec.expect("it has a pod");
    assert_eq!((pod.host_network, pod.service_account_name.as_deref()), (Some(true), Some("shunt")));
    let of = |name: &str| pod.containers.iter().find(|of| of.name == name).cloned().expect(name);
    let added = |name: &str| {
        let context =
            of(name).security_context.and_then(|context| context.capabilities).expect("it names them");
        assert_eq!(context.drop, Some(vec!["ALL".to_owned()]));
        context.add.unwrap_or_default()
    };
    assert_eq!(added("shunt"), ["BPF", "NET_ADMIN", "NET_RAW", "PERFMON", "SYS_ADMIN"]);
    assert_eq!(added("shunt-kube"), [""; 0]);
    let mounts = of("shunt").volume_mounts.unwrap_or_default();
    assert!(mounts.iter().any(|mount| mount.mount_path == "/sys/fs/bpf"));
    let follower = of("shunt-kube").command.unwrap_or_default().join(" ");
    assert_eq!(follower, "shunt-kube --directory /run/shunt/discovery");
}
