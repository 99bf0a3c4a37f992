//! The groups, versions and resources that the server names.

use serde_json::{Value, json};

/// `/api`.
pub(super) fn core() -> Value {
    json!({ "kind": "APIVersions", "versions": ["v1"], "serverAddressByClientCIDRs": [] })
}

/// `/apis`. Groups besides that of EndpointSlices are only named, so that `kubectl` knows their kinds.
pub(super) fn groups(versions: &[&'static str]) -> Value {
    let mut groups = vec![group("apps", &["v1"]), group("rbac.authorization.k8s.io", &["v1"])];
    if !versions.is_empty() {
        groups.push(group("discovery.k8s.io", versions));
    }
    json!({ "kind": "APIGroupList", "apiVersion": "v1", "groups": groups })
}

fn group(name: &str, versions: &[&str]) -> Value {
    let version = |version: &&str| json!({ "groupVersion": format!("{name}/{version}"), "version": version });
    let versions: Vec<Value> = versions.iter().map(version).collect();
    json!({ "name": name, "preferredVersion": versions[0], "versions": versions })
}

/// The resources of a group and version. `None`: there is no such version.
pub(super) fn resources(group_version: &str, slices: &[&'static str]) -> Option<Value> {
    let resource = |name: &str, kind: &str, namespaced: bool| {
        let singular = kind.to_lowercase();
        json!({
            "name": name, "singularName": singular, "namespaced": namespaced, "kind": kind,
            "verbs": ["get", "list", "watch"],
        })
    };
    let resources = match group_version {
        "v1" => vec![
            resource("services", "Service", true),
            resource("namespaces", "Namespace", false),
            resource("serviceaccounts", "ServiceAccount", true),
            resource("configmaps", "ConfigMap", true),
        ],
        "apps/v1" => {
            vec![resource("daemonsets", "DaemonSet", true), resource("deployments", "Deployment", true)]
        }
        "rbac.authorization.k8s.io/v1" => vec![
            resource("clusterroles", "ClusterRole", false),
            resource("clusterrolebindings", "ClusterRoleBinding", false),
        ],
        other => {
            let version = other.strip_prefix("discovery.k8s.io/")?;
            slices.contains(&version).then(|| vec![resource("endpointslices", "EndpointSlice", true)])?
        }
    };
    let list = json!({
        "kind": "APIResourceList", "apiVersion": "v1", "groupVersion": group_version, "resources": resources,
    });
    Some(list)
}
